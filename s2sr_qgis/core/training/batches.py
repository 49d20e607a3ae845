"""Batches for training: patches of one or several datasets, shuffled, turned, and with other brightness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from ..dataset.card import TARGET
from ..networks.base import OUTPUT

if TYPE_CHECKING:
    from ..jobs import TrainJob

Arrays = dict[str, npt.NDArray[np.float32]]
"""Tensors by name, each (patches, height, width, channels), DN without offset; the target is ``target``."""

SMALLEST_DETAIL = 2.0
"""Floor (DN) of a patch's mean absolute detail, so that flat water does not outweigh everything else."""

OPTICS = np.array([-0.03, 0.147, 0.766, 0.147, -0.03], np.float32)
"""Along each axis, what the optics of a coarse band leave of detail that a fine one shows, in pixels of the target:
amplitudes of 0.83 at a quarter of a cycle a pixel, 0.41 at half of one, as `benchmarks/optics.py` finds."""

CHUNK = 256
"""Patches looked at at once where they are read from files."""


def detail(arrays: Arrays, low: str) -> npt.NDArray[np.float32]:
    """Mean absolute difference (DN) of each patch's target from its low-resolution input, shape (patches,).

    It measures how much there is to restore; a loss divided by it weighs flat and rugged ground alike.
    """
    parts = []
    for start in range(0, len(arrays[TARGET]), CHUNK):
        target, source = arrays[TARGET][start : start + CHUNK], arrays[low][start : start + CHUNK]
        n, h, w, c = source.shape
        factor = target.shape[1] // h
        blocks = target.reshape(n, h, factor, w, factor, c)
        parts.append(np.abs(blocks - source[:, :, None, :, None, :]).mean(axis=(1, 2, 3, 4, 5)))
    return np.concatenate(parts).astype(np.float32)


class PlainBatches(keras.utils.PyDataset):
    """Batches ``(inputs, target)`` in their order, as they are: for the validation split."""

    def __init__(self, sets: list[Arrays], batch_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sets = sets
        self.order = [
            (index, slice(start, start + batch_size))
            for index, arrays in enumerate(sets)
            for start in range(0, len(arrays[TARGET]), batch_size)
        ]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[Arrays, Arrays]:
        which, patches = self.order[index]
        batch = {name: np.asarray(array[patches]) for name, array in self.sets[which].items()}
        return batch, {OUTPUT: batch.pop(TARGET)}


class Batches(keras.utils.PyDataset):
    """Shuffled, augmented batches ``(inputs, target, weight)`` of the training split.

    Args:
        sets: arrays of each dataset, of one patch size; a batch is always of one set.
        low: name of the low-resolution input that the target belongs to.
        batch_size: patches a batch.
        dihedral: turn and mirror patches into one of their eight orientations.
        gain: sigma of the log-normal gain common to all bands of a patch.
        band_gain: sigma of the log-normal gain of each band. A target band has its input's gain.
        relations: sigma of the shares of each fine band that are added to the target's bands, see `related`.
        balance: weigh a patch by one over its mean absolute detail (see `detail`).
        seed: of the shuffling and augmentation; the same seed gives the same batches.
        steps: batches an epoch; none: as many as there are.
    """

    def __init__(
        self,
        sets: list[Arrays],
        low: str,
        batch_size: int,
        *,
        dihedral: bool,
        gain: float,
        band_gain: float,
        balance: bool,
        seed: int,
        relations: float = 0.0,
        steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sets, self.low, self.batch_size = sets, low, batch_size
        self.dihedral, self.gain, self.band_gain, self.balance = dihedral, gain, band_gain, balance
        self.relations, self.seed, self.epoch = relations, seed, 0
        self.weights = [1 / np.maximum(detail(arrays, low), SMALLEST_DETAIL) for arrays in sets]
        self.steps = steps
        self.order: list[tuple[int, npt.NDArray[np.int64]]] = []
        self._shuffle()

    @classmethod
    def of(cls, job: TrainJob, sets: list[Arrays], low: str) -> Batches:
        """The batches that a training job asks for."""
        return cls(
            sets,
            low,
            job.batch_size,
            dihedral=job.dihedral,
            gain=job.gain,
            band_gain=job.band_gain,
            relations=job.relations,
            balance=job.balance,
            seed=job.seed,
            steps=job.steps_per_epoch,
        )

    def _shuffle(self) -> None:
        # Whole batches of each set, then the batches in random order; as many rounds as the epoch has steps.
        order: list[tuple[int, npt.NDArray[np.int64]]] = []
        round_ = 0
        while True:
            rng = np.random.default_rng((self.seed, self.epoch, round_))
            batches: list[tuple[int, npt.NDArray[np.int64]]] = []
            for index, arrays in enumerate(self.sets):
                patches = rng.permutation(len(arrays[TARGET]))
                size = min(self.batch_size, len(patches))
                batches += [(index, patches[i : i + size]) for i in range(0, len(patches) - size + 1, size)]
            order += [batches[i] for i in rng.permutation(len(batches))]
            round_ += 1
            if self.steps is None or len(order) >= self.steps:
                break
        self.order = order[: self.steps]

    def __len__(self) -> int:
        return len(self.order)

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._shuffle()

    def start_at(self, epoch: int) -> None:
        """Give the batches of this epoch next (0: the first one), for a training that is resumed."""
        self.epoch = epoch
        self._shuffle()

    def __getitem__(self, index: int) -> tuple[Arrays, Arrays, Arrays]:
        which, patches = self.order[index]
        rng = np.random.default_rng((self.seed, self.epoch, index, 1))
        batch = {name: array[patches] for name, array in self.sets[which].items()}
        weight = self.weights[which][patches] if self.balance else np.ones(len(patches), np.float32)
        if self.dihedral:
            batch = turn(batch, int(rng.integers(8)))
        if self.relations:
            batch = related(batch, self.low, self.relations, rng)
            if self.balance:
                weight = 1 / np.maximum(detail(batch, self.low), SMALLEST_DETAIL)
        if self.gain or self.band_gain:
            common = rng.normal(0.0, self.gain, (len(patches), 1, 1, 1))
            weight = weight / np.exp(common[:, 0, 0, 0])
            for name in [key for key in batch if key != TARGET]:
                own = rng.normal(0.0, self.band_gain, (len(patches), 1, 1, batch[name].shape[-1]))
                factor = np.exp(common + own).astype(np.float32)
                batch[name] = batch[name] * factor
                if name == self.low:
                    batch[TARGET] = batch[TARGET] * factor
        target = {OUTPUT: batch.pop(TARGET)}
        return batch, target, {OUTPUT: weight[:, None, None].astype(np.float32)}


def related(batch: Arrays, low: str, sigma: float, rng: np.random.Generator) -> Arrays:
    """Half of the batch with other relations between its bands: random shares of the fine bands go into the target's.

    They are as soft as a coarse band's optics would show them, and their means go to the low-resolution input ``low``,
    so the pair stays true. What a network learns by heart of how coarse bands follow fine ones in the scenes of its
    training is then of no use; it has to look it up in the patch itself; half of the patches stay as they are, because
    real relations are worth knowing too. Nothing changes where no input is as fine as the target.
    """
    target = batch[TARGET]
    alike = [array for name, array in batch.items() if name != TARGET and array.shape[:3] == target.shape[:3]]
    if not alike:
        return batch
    fine = alike[0]
    n, h, w, bands = target.shape
    shares = rng.normal(0.0, sigma, (n, 1, fine.shape[-1], bands)).astype(np.float32)
    shares *= rng.integers(0, 2, (n, 1, 1, 1), dtype=np.int64).astype(np.float32)
    added = (fine.reshape(n, h * w, -1)[:, None] @ shares).reshape(n, h, w, bands)
    for axis in (1, 2):
        added = softened(added, axis)
    factor = h // batch[low].shape[1]
    means = added.reshape(n, h // factor, factor, w // factor, factor, bands).mean(axis=(2, 4))
    return {**batch, TARGET: target + added, low: batch[low] + means}


def softened(images: npt.NDArray[np.float32], axis: int) -> npt.NDArray[np.float32]:
    """Images filtered by `OPTICS` along an axis, edges repeated."""
    reach = len(OPTICS) // 2
    padded = np.pad(images, [(reach, reach) if one == axis else (0, 0) for one in range(images.ndim)], mode="edge")
    parts = (np.take(padded, range(k, k + images.shape[axis]), axis) * tap for k, tap in enumerate(OPTICS))
    return sum(parts, np.zeros_like(images))


def turn(batch: Arrays, orientation: int) -> Arrays:
    """All tensors in one of the eight orientations of the square (0: unchanged), views without a copy."""

    def one(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if orientation & 1:
            array = array[:, ::-1]
        if orientation & 2:
            array = array[:, :, ::-1]
        return array.transpose(0, 2, 1, 3) if orientation & 4 else array

    return {name: one(array) for name, array in batch.items()}
