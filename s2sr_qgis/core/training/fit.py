"""Fitting a network to arrays: optimiser, schedule, running mean of weights, checkpoints, logs."""

from __future__ import annotations

import csv
import io
import json
import math
import time
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


class Schedule(keras.callbacks.Callback):
    """Linear warm-up, then cosine decay to zero over the epochs or over `max_minutes`, whichever ends first."""

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
        warm = min((self.step + 1) / self.job.warmup_steps, 1.0) if self.job.warmup_steps else 1.0
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


class Checkpoints(keras.callbacks.Callback):
    """Writes the best weights (running mean) and, for a resume, the last ones with the optimiser's state."""

    def __init__(self, folder: Path, schedule: Schedule, best: float, patience: int, first_epoch: int) -> None:
        super().__init__()
        self.folder, self.schedule, self.best, self.patience = folder, schedule, best, patience
        self.best_epoch = first_epoch - 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        # Without a validation split there is nothing to choose by: the last weights are the best known.
        validated = "val_rmse" in (logs or {})
        rmse = float((logs or {})["val_rmse" if validated else "rmse"])
        if not validated or rmse < self.best:
            self.best, self.best_epoch = rmse, epoch
            self._save_mean()
        elif self.patience and epoch - self.best_epoch >= self.patience:
            self.model.stop_training = True
        save_weights(self.model, self.folder / LAST)
        state = {
            "epoch": epoch + 1,
            "step": self.schedule.step,
            "seconds": self.schedule.elapsed(),
            "best_rmse": self.best,
            "best_epoch": self.best_epoch,
        }
        write_text(self.folder / STATE, json.dumps(state))

    def _save_mean(self) -> None:
        # A plain model of the same layers: its weights file holds no optimiser state.
        plain = keras.Model(self.model.inputs, self.model.outputs)
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)  # under loss scaling
        if not optimizer.use_ema:
            save_weights(plain, self.folder / BEST)
            return
        raw = self.model.get_weights()
        optimizer.finalize_variable_values(self.model.trainable_variables)
        save_weights(plain, self.folder / BEST)
        self.model.set_weights(raw)


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
        optimizer = keras.optimizers.AdamW(weight_decay=job.weight_decay, **common)
        optimizer.exclude_from_weight_decay(var_names=["bias", "_scale"])
    else:
        optimizer = keras.optimizers.Nadam(**common)
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
    if job.resume and (folder / STATE).is_file():
        state = _resume(model, folder)
        train.start_at(state["epoch"])
    steps = len(train)
    schedule = Schedule(job, steps, state["step"], state["seconds"])
    checkpoints = Checkpoints(folder, schedule, state["best_rmse"], job.early_stopping, state["epoch"])
    if state["best_epoch"] >= 0:
        checkpoints.best_epoch = state["best_epoch"]
    callbacks: list[keras.callbacks.Callback] = [schedule, Guard(progress, folder)]
    if job.ema:
        callbacks.append(keras.callbacks.SwapEMAWeights())
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
        self.rows.append({"epoch": epoch, **{name: float(value) for name, value in sorted((logs or {}).items())}})
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
