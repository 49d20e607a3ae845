"""Scene-adaptive sharpening: a model fine-tuned on the very scene that it is to sharpen, at reduced scale.

By Wald's protocol every scene carries its own training pairs, so a model can be shown the ground, the air and the
season that it will see. Blocks of the scene are held out: by one part the best state is chosen, by the other it is
decided whether the model is taken at all. There it is never worse than before: where nothing is gained, it is kept.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

from ..dataset.card import TARGET
from ..dataset.ground import COUNTS, Ground, View, read_ground
from ..errors import Cancelled, ModelError, TrainingError
from ..inference.card import ModelCard, read_card, write_card
from ..inference.model import find_model
from ..networks.base import OUTPUT
from ..outputs import atomic
from ..progress import Part, Progress
from .batches import Arrays, Batches
from .export import check_folder, require_tensorflow, write_model
from .fit import compile_model, fit
from .parity import sharpened
from .rebuild import rebuild
from .stored import round_kernels

if TYPE_CHECKING:
    from ..jobs import AdaptJob

Weights = list[NDArray[np.float32]]
Figures = NDArray[np.float64]

PATCHES = 2000
"""Most training patches, at random places."""

STEPS = 20
"""Between two looks at the held-out blocks."""

PATIENCE = 10
"""Looks that only got worse, worse than before the training too, after which it ends early: small scenes overfit."""

VIEW = 256
CHOOSE, DECIDE = 60_000, 400_000
"""Side of the parts of held-out blocks that are looked at, in pixels of the target grid, and most pixels to choose and
to decide by."""

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the way from the weights before to the best ones, tried at the end: a mean of two states is often better than
either (Wortsman et al. 2022, doi:10.48550/arXiv.2109.01903)."""

OPTIONS: dict[str, Any] = {
    "loss": "l2",
    "balance": False,
    "learning_rate": 1e-4,
    "warmup_steps": 10,
    "weight_decay": 0.0,
    "ema": 0.95,
    "batch_size": 8,
    "steps_per_epoch": STEPS,
    "epochs": 100_000,
    "gain": 0.1,
    "band_gain": 0.05,
    "images": 0,
}
"""Of the training, where they differ from those of a `TrainJob`; docs/adaptation.md says what else was tried."""


def adapt(job: AdaptJob, progress: Progress) -> dict[str, Any]:
    """Fine-tune a sharpening model on a scene and write it as a model folder, or the model as it was where none gains.

    Returns ``output``, ``model``, ``scene``, ``adapted`` (whether anything was gained), ``rmse_before``, ``rmse_after``
    and ``gain`` (DN, mean over the bands, and share) on the block that decides, ``bands`` with both RMSE of each,
    ``minutes``, ``steps``, ``patches``. Raises `InputError` (a scene that cannot be used or is too small), `ModelError`
    (a model that cannot be trained further), `OutputError`, `MissingPackageError`, `Cancelled`.
    """
    output = job.output.expanduser().absolute()
    check_folder(output)
    folder = find_model(job.model)
    card = read_card(folder)
    if card.task == "cross-sensor":
        raise ModelError(
            f"The model {card.name} gives a finer sensor's grid: its target is not in the scene, so it cannot be "
            "adapted to it; take a sharpening model."
        )
    _bound_threads(require_tensorflow(), job.threads, progress)
    importlib.import_module("tf2onnx")  # what is missing is better said before the training than after it
    keras.utils.set_random_seed(job.seed)
    ground = read_ground(
        job.scene,
        job.scene_options,
        card,
        roi=job.roi,
        allow_other_level=job.allow_other_level,
        seed=job.seed,
        progress=Part(progress, 0, 10),
    )
    network = rebuild(folder, card)
    tuning = Tuning(network.model, ground, job.seed)
    tuning.run(job.max_minutes, Part(progress, 10, 90))
    figures = tuning.figures()
    described = describe(card, ground, job.name or output.name, figures)
    if figures["adapted"]:
        patches = {tensor.name: tuning.patches[tensor.name][:4] for tensor in card.inputs}
        write_model(network, described, output, saved_model=False, patches=patches, progress=Part(progress, 90, 100))
    else:
        keep(folder, described, output)
    what = f"{card.name} on {ground.name}, held-out block of {figures['pixels']} pixels"
    before, after = figures["rmse_before"], figures["rmse_after"]
    progress.log(
        f"{what}: RMSE {before:.1f} DN before, {after:.1f} DN after ({figures['steps']} steps)."
        if figures["adapted"]
        else f"{what}: nothing gained on {before:.1f} DN in {figures['steps']} steps; the model is kept as it was."
    )
    progress.progress(100, "Done")
    progress.artifact("model", str(output))
    return {"output": str(output), "model": card.name, **figures}


class Tuning:
    """The fine-tuning of one model on one scene's ground, and the figures of it.

    ``patches``: the training patches, (n, h, w, channels) by tensor, DN.
    """

    def __init__(self, model: keras.Model, ground: Ground, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.model, self.ground, self.seed = model, ground, seed
        self.patches = ground.patches(PATCHES, rng)
        halo = ground.card.radius
        self.choosing = ground.views("valid", VIEW, halo, CHOOSE, rng)
        self.deciding = ground.views("test", VIEW, halo, DECIDE, rng)
        self.share, self.steps, self.minutes = 0.0, 0, 0.0
        self.start: Weights = model.get_weights()
        self.before = self.after = self._rmse(self.deciding)

    def run(self, minutes: float, progress: Progress) -> None:
        """Fine-tune for so long; the model then has the weights to take, those before where none are better."""
        from ..jobs import TrainJob

        best = Best(lambda: float(self._rmse(self.choosing).mean()))
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="s2sr-adapt-") as folder:
            job = TrainJob(datasets=[Path(folder)], output=Path(folder), max_minutes=minutes, seed=self.seed, **OPTIONS)
            compile_model(self.model, job)
            batches = Counted.of(job, [self.patches], self.ground.card.inputs[-1].name)
            try:
                self.steps = fit(self.model, batches, None, job, progress, [best])["step"]
            except Cancelled:
                raise Cancelled("Cancelled by the user; no model was written.") from None
            except TrainingError:
                progress.log(
                    "The fine-tuning ran into values that are no numbers; the best state so far counts.", "warning"
                )
        self.minutes = (time.monotonic() - begin) / 60
        self._take(best)
        progress.check()

    def figures(self) -> dict[str, Any]:
        """What a card and a user should know of it."""
        bands = self.ground.card.output_bands
        before, after = float(self.before.mean()), float(self.after.mean())
        return {
            "scene": self.ground.name,
            "level": self.ground.level,
            "adapted": self.share > 0,
            "rmse_before": round(before, 3),
            "rmse_after": round(after, 3),
            "gain": round(1 - after / before, 4) if before else 0.0,
            "bands": {
                band: {"before": round(float(old), 3), "after": round(float(new), 3)}
                for band, old, new in zip(bands, self.before, self.after, strict=True)
            },
            "pixels": sum(int(view.usable.sum()) for view in self.deciding),
            "minutes": round(self.minutes, 2),
            "steps": self.steps,
            "patches": len(self.patches[TARGET]),
            "share": self.share,
            "assumptions": list(self.ground.assumptions),
        }

    def _take(self, best: Best) -> None:
        """Give the model the weights that are best on the ground to choose by, if they are better where it counts."""
        share, chosen = 0.0, self.start
        if best.weights is not None:
            rmse = best.first
            for part in SHARES:
                between = [old + part * (new - old) for old, new in zip(self.start, best.weights, strict=True)]
                self.model.set_weights(between)
                round_kernels(self.model)  # as they will be stored
                found = float(self._rmse(self.choosing).mean())
                if found < rmse:
                    rmse, share, chosen = found, part, self.model.get_weights()
        self.model.set_weights(chosen)
        after = self._rmse(self.deciding)
        if share and after.mean() < self.before.mean():
            self.share, self.after = share, after
        else:
            self.model.set_weights(self.start)

    def _rmse(self, views: list[View]) -> Figures:
        """RMSE of each band over the pixels of views that count, in DN."""
        squares, count = np.zeros(len(views[0].target)), 0
        for view in views:
            output = sharpened(self.model, self.ground.card, view.inputs)[0][view.core][view.usable]
            squares += np.square(output - view.target[:, view.usable].T, dtype=np.float64).sum(axis=0)
            count += len(output)
        return np.asarray(np.sqrt(squares / count))


class Counted(Batches):
    """Batches whose loss leaves out the pixels that do not count."""

    def __getitem__(self, index: int) -> tuple[Arrays, Arrays, Arrays]:
        inputs, target, weight = super().__getitem__(index)
        counts = inputs.pop(COUNTS)[..., 0] > 0  # a gain has been put on it, as on everything else
        return inputs, target, {OUTPUT: weight[OUTPUT] * counts}


class Best(keras.callbacks.Callback):
    """Keeps, in memory, the running mean of weights that is best on held-out ground; looks at the end of each epoch.

    ``first``: the RMSE before training. ``weights``: the best looked at, even where those before are better.
    """

    def __init__(self, score: Callable[[], float]) -> None:
        super().__init__()
        self.score, self.first = score, score()
        self.seen: list[float] = []
        self.weights: Weights | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raw = self.model.get_weights()
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        self.seen.append(self.score())
        if self.seen[-1] <= min(self.seen):
            self.weights = self.model.get_weights()
        elif self.seen[-1] > self.first and len(self.seen) - np.argmin(self.seen) > PATIENCE:
            self.model.stop_training = True
        self.model.set_weights(raw)


def describe(card: ModelCard, ground: Ground, name: str, figures: dict[str, Any]) -> ModelCard:
    """The card of an adapted model: figures of the model it comes from do not hold for it and are left out."""
    told = (
        f", adapted to {ground.name}"
        if figures["adapted"]
        else f"; kept as it was, adapting to {ground.name} gained nothing"
    )
    return card.model_copy(
        deep=True,
        update={
            "name": name,
            "title": card.title + told,
            "training": {**card.training, "adapted": {"model": card.name, **figures}},
            **({"metrics": {}} if figures["adapted"] else {}),
        },
    )


def keep(folder: Path, card: ModelCard, output: Path) -> None:
    """Copy a model folder under a new card; it appears complete or not at all."""
    with atomic(output, folder=True) as part:
        for file in card.files:
            shutil.copyfile(folder / file.file, part / file.file)
        write_card(card, part)


def _bound_threads(tensorflow: Any, threads: int | None, progress: Progress) -> None:
    if threads is None:
        return
    try:
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:  # TensorFlow takes it only before its first operation
        progress.log("TensorFlow is already at work in this process; the number of threads stays as it is.", "debug")
