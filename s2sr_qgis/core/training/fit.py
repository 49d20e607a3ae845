"""Fitting a network to arrays: optimiser, schedule, running mean of weights, checkpoints, logs."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ..errors import Cancelled, TrainingError
from ..networks.base import OUTPUT
from ..outputs import atomic, reserve, write_text
from ..progress import Progress
from .batches import Batches

if TYPE_CHECKING:
    from ..jobs import TrainJob

BEST = "best.weights.h5"
LAST = "last.weights.h5"
STATE = "state.json"

WARMUP_SHARE = 0.1
"""Of the planned training, by steps or by time: the longest warm-up of the learning rate."""


class _RunningMean:
    """Mixed into an optimiser: its running mean of weights forgets the initial ones within a few steps.

    The decay rises with the steps to the one that was asked for; with a fixed decay of 0.999, 41 % of the initial
    weights remain after 900 steps.
    """

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        if not self.use_ema:  # type: ignore[attr-defined]
            return
        n = keras.ops.cast(self.iterations, "float32")  # type: ignore[attr-defined]
        decay = keras.ops.minimum(self.ema_momentum, n / (9 + n))  # type: ignore[attr-defined]
        for variable, mean in zip(trainable_variables, self._model_variables_moving_average, strict=True):  # type: ignore[attr-defined]
            if mean is not None:
                mean.assign(decay * mean + (1 - decay) * variable)


class MeanAdamW(_RunningMean, keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW with that mean."""


class MeanNadam(_RunningMean, keras.optimizers.Nadam):  # type: ignore[misc]
    """Nadam with that mean."""


class Schedule(keras.callbacks.Callback):
    """Linear warm-up over at most a tenth of the training, then cosine decay to zero.

    Over the epochs or over `max_minutes`, whichever ends first.
    """

    def __init__(self, job: TrainJob, steps: int, done: int = 0, seconds: float = 0.0) -> None:
        super().__init__()
        self.job, self.total, self.step, self.seconds = job, max(steps * job.epochs, 1), done, seconds
        self.begin = time.monotonic()

    def elapsed(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.seconds + time.monotonic() - self.begin

    def fraction(self) -> float:
        """How much of the training is done, 0 to 1."""
        by_time = self.elapsed() / (60 * self.job.max_minutes) if self.job.max_minutes else 0.0
        return min(max(self.step / self.total, by_time), 1.0)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        warm = 1.0
        if self.job.warmup_steps:
            planned = (self.step + 1) / min(self.job.warmup_steps, max(WARMUP_SHARE * self.total, 1))
            warm = min(max(planned, self.fraction() / WARMUP_SHARE), 1.0)
        if self.job.schedule == "cosine":
            self.model.optimizer.learning_rate = (
                self.job.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * self.fraction()))
            )
        elif warm < 1:
            self.model.optimizer.learning_rate = self.job.learning_rate * warm

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.step += 1
        if self.fraction() >= 1:
            self.model.stop_training = True


class Guard(keras.callbacks.Callback):
    """Stops on a loss or a weight that is not a number, and when the user cancels; called before the checkpoints."""

    def __init__(self, progress: Progress, folder: Path) -> None:
        super().__init__()
        self.progress, self.folder = progress, folder

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.progress.cancelled():
            raise Cancelled(f"Cancelled by the user; resume the training in {self.folder} with --resume.")
        if logs and not np.isfinite(float(logs["loss"])):
            self._fail("loss is")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # The last step of an epoch can spoil the weights after its loss was still a number.
        if not all(np.isfinite(weight).all() for weight in self.model.get_weights()):
            self._fail("weights are")

    def _fail(self, what: str) -> None:
        best = self.folder / BEST
        kept = f"the last good checkpoint is {best}" if best.is_file() else "there is no checkpoint yet"
        raise TrainingError(
            f"The {what} no longer a number; lower the learning rate, or look for wrong values in the dataset ({kept})."
        )


class MeanScore(keras.callbacks.Callback):
    """Scores the running mean of weights beside the raw ones, and the untrained start; called before the logs.

    In the logs, ``val_rmse`` and ``val_loss`` become those of the better ones.
    """

    def __init__(self, valid: Any, first_epoch: int) -> None:
        super().__init__()
        self.valid, self.first_epoch = valid, first_epoch
        self.start: tuple[float, list[Any]] | None = None
        """Validation RMSE and weights of the untrained network."""

    def on_train_begin(self, logs: Any = None) -> None:
        if self.valid is not None and not self.first_epoch:
            rmse = float(self.model.evaluate(self.valid, verbose=0, return_dict=True)["rmse"])
            if np.isfinite(rmse):
                self.start = rmse, self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.valid is None or logs is None:
            return
        if not _optimizer(self.model).use_ema:
            return
        with _mean_weights(self.model):
            mean = self.model.evaluate(self.valid, verbose=0, return_dict=True)
        logs["val_rmse_raw"], logs["val_rmse_mean"] = logs["val_rmse"], float(mean["rmse"])
        if logs["val_rmse_mean"] <= logs["val_rmse_raw"]:
            logs["val_rmse"], logs["val_loss"] = logs["val_rmse_mean"], float(mean["loss"])


class Checkpoints(keras.callbacks.Callback):
    """Writes the best weights (raw or their mean) and, for a resume, the last ones with the optimiser's state."""

    def __init__(
        self, folder: Path, schedule: Schedule, state: dict[str, Any], patience: int, scores: MeanScore
    ) -> None:
        super().__init__()
        self.folder, self.schedule, self.patience, self.scores = folder, schedule, patience, scores
        self.best, self.best_epoch, self.weights = state["best_rmse"], state["best_epoch"], state["weights"]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = logs or {}
        # Without a validation split there is nothing to choose by: the last weights are the best known.
        validated = "val_rmse" in logs
        rmse = float(logs["val_rmse" if validated else "rmse"])
        if self.scores.start:
            # Only now, when the first epoch went well: a training that fails in it leaves no checkpoint.
            self.best, start = self.scores.start
            self.weights, self.scores.start = "start", None
            trained = self.model.get_weights()
            self.model.set_weights(start)
            self._save_best()
            self.model.set_weights(trained)
        if not validated or rmse < self.best:
            self.best, self.best_epoch = rmse, epoch
            self.weights = "raw"
            if _optimizer(self.model).use_ema and logs.get("val_rmse_mean", rmse) <= rmse:
                self.weights = "mean"
                with _mean_weights(self.model):
                    self._save_best()
            else:
                self._save_best()
        elif self.patience and epoch - max(self.best_epoch, 0) >= self.patience:
            self.model.stop_training = True
        save_weights(self.model, self.folder / LAST)
        state = {
            "epoch": epoch + 1,
            "step": self.schedule.step,
            "seconds": self.schedule.elapsed(),
            "best_rmse": self.best,
            "best_epoch": self.best_epoch,
            "weights": self.weights,
        }
        write_text(self.folder / STATE, json.dumps(state))

    def _save_best(self) -> None:
        # A plain model of the same layers: its weights file holds no optimiser state.
        save_weights(keras.Model(self.model.inputs, self.model.outputs), self.folder / BEST)


def _optimizer(model: keras.Model) -> Any:
    """The optimiser itself, under loss scaling too."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


@contextmanager
def _mean_weights(model: keras.Model) -> Iterator[None]:
    """Let a model have the running mean of its weights for a block."""
    raw = model.get_weights()
    _optimizer(model).finalize_variable_values(model.trainable_variables)
    yield
    model.set_weights(raw)


class Report(keras.callbacks.Callback):
    """Tells the progress object how it goes."""

    def __init__(self, progress: Progress, schedule: Schedule, batch_size: int, steps: int) -> None:
        super().__init__()
        self.progress, self.schedule, self.batch_size, self.steps = progress, schedule, batch_size, steps
        self.shown = self.epoch_begin = 0.0
        self.epoch = 0
        self.valid: dict[str, float] = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch, self.epoch_begin = epoch, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if now - self.shown < 1:
            return
        self.shown = now
        done, elapsed = self.schedule.fraction(), self.schedule.elapsed()
        left = elapsed / done - elapsed if done else 0.0
        rate = (batch + 1) * self.batch_size / max(now - self.epoch_begin, 1e-9)
        loss = float((logs or {}).get("loss", math.nan))
        self.progress.progress(100 * done, f"epoch {self.epoch + 1}, batch {batch + 1} of {self.steps}")
        self.progress.metric(epoch=self.epoch + 1, loss=loss, samples_per_s=rate, seconds_left=left, **self.valid)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = logs or {}
        self.valid = {"valid_rmse": float(logs["val_rmse"])} if "val_rmse" in logs else {}
        self.progress.metric(epoch=epoch + 1, loss=float(logs.get("loss", math.nan)), **self.valid)


def compile_model(model: keras.Model, job: TrainJob) -> None:
    """Loss, optimiser and metric of a training job."""
    common: dict[str, Any] = {
        "learning_rate": job.learning_rate,
        "global_clipnorm": job.clip_norm,
        "use_ema": job.ema > 0,
        **({"ema_momentum": job.ema} if job.ema else {}),
    }
    if job.optimizer == "adamw":
        optimizer = MeanAdamW(weight_decay=job.weight_decay, **common)
        optimizer.exclude_from_weight_decay(var_names=["bias", "_scale"])
    else:
        optimizer = MeanNadam(**common)
    loss = keras.losses.MeanAbsoluteError() if job.loss == "l1" else keras.losses.MeanSquaredError()
    model.compile(optimizer, loss={OUTPUT: loss}, metrics={OUTPUT: [keras.metrics.RootMeanSquaredError("rmse")]})


def fit(
    model: keras.Model,
    train: Batches,
    valid: Any,
    job: TrainJob,
    progress: Progress,
    extra: list[keras.callbacks.Callback] | None = None,
) -> dict[str, Any]:
    """Fit a compiled model; checkpoints and logs go to ``job.output``. Returns the state at the end.

    Raises `TrainingError` when the loss stops being a number, `Cancelled` when the user asked to stop.
    """
    folder = job.output
    state: dict[str, Any] = {"epoch": 0, "step": 0, "seconds": 0.0, "best_rmse": math.inf, "best_epoch": -1}
    state["weights"] = "raw"
    if job.resume and (folder / STATE).is_file():
        state.update(_resume(model, folder))
        train.start_at(state["epoch"])
    steps = len(train)
    schedule = Schedule(job, steps, state["step"], state["seconds"])
    scores = MeanScore(valid, state["epoch"])
    checkpoints = Checkpoints(folder, schedule, state, job.early_stopping, scores)
    callbacks: list[keras.callbacks.Callback] = [schedule, Guard(progress, folder), scores]
    if job.schedule == "plateau":
        callbacks.append(keras.callbacks.ReduceLROnPlateau("val_rmse" if valid is not None else "rmse", 0.5, 5))
    callbacks += [
        Log(folder / "log.csv", job.resume),
        Report(progress, schedule, job.batch_size, steps),
        *(extra or []),
        checkpoints,
    ]
    model.fit(
        train,
        validation_data=valid,
        epochs=job.epochs,
        initial_epoch=state["epoch"],
        shuffle=False,  # the batches are: by seed and epoch alone, so that a resume goes on as it would have
        callbacks=callbacks,
        verbose=0,
    )
    final: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return final


def _resume(model: keras.Model, folder: Path) -> dict[str, Any]:
    """Load the last weights and the optimiser's state into the model. Raises `TrainingError`."""
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        model.optimizer.build(model.trainable_variables)
        model.load_weights(folder / LAST)
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"The last checkpoint in {folder} is damaged or of another network; resume with the run's own options "
            "(--config), or train into another folder."
        ) from error
    return state


class Log(keras.callbacks.Callback):
    """The figures of every epoch as a CSV file that is always whole; a resumed training goes on with its rows."""

    def __init__(self, path: Path, resume: bool) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if resume and path.is_file():
            with path.open(encoding="utf-8", newline="") as stream:
                self.rows = list(csv.DictReader(stream))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # A run that was killed after the row and before the checkpoint does this epoch again.
        self.rows = [row for row in self.rows if int(float(row["epoch"])) < epoch]
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        values = {**(logs or {}), "learning_rate": rate}
        self.rows.append({"epoch": epoch, **{name: float(value) for name, value in sorted(values.items())}})
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic(self.path) as temporary:
            temporary.write_bytes(text.getvalue().encode())


def save_weights(model: keras.Model, path: Path) -> None:
    """Write a model's weights, with its optimiser's state where it has one. Raises `OutputError`."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    with atomic(path) as temporary:
        # HDF5 may take the process down with it where the disk gets full.
        reserve(temporary, sum(math.prod(variable.shape) for variable in variables) * 5 + 2**20)
        model.save_weights(temporary)
