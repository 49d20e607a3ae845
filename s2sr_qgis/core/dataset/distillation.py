"""Pairs at full resolution, with another model's result as the target (knowledge distillation).

A scene has no reference at 10 m for its coarse bands, but a larger model trained on many scenes has an opinion. Its
result on the scene as it is, not degraded, teaches a smaller network what the few scenes at hand do not hold. Hinton,
Vinyals and Dean 2015, arXiv:1503.02531; Beyer et al. 2022, arXiv:2106.05237.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..progress import Progress
from ..raster.grid import Window
from ..scene import Scene
from .card import TARGET, PatchCard, Split
from .clouds import add_clouds
from .splits import Partition

if TYPE_CHECKING:
    from ..inference.model import Model

Pair = dict[str, NDArray[np.float32]]

SIDE = 480
"""Side of a read in 10 m pixels, without the teacher's halo."""


def check_teacher(teacher: Model, tensors: list[PatchCard]) -> None:
    """Raise `InputError` unless the teacher takes and gives the bands of the dataset's task."""
    inputs = {band for tensor in tensors[:-1] for band in tensor.bands}
    if set(teacher.card.input_bands) != inputs or set(teacher.card.output_bands) != set(tensors[-1].bands):
        raise InputError(
            f"The teacher {teacher.card.name} sharpens {', '.join(teacher.card.output_bands)}, but the dataset is for "
            f"{', '.join(tensors[-1].bands)}; name a model of the dataset's task."
        )


def taught_pairs(
    scene: Scene,
    area: Window,
    partition: Partition,
    tensors: list[PatchCard],
    step: int,
    teacher: Model,
    variants: int,
    rng: np.random.Generator,
    progress: Progress,
) -> Iterator[tuple[Split, Pair]]:
    """Patches of the scene itself with the teacher's result, DN without offset, where every pixel can be used.

    ``area`` in 10 m pixels; ``step`` between patches, likewise. The split is that of the ground that the patch and the
    teacher's result on it depend on. ``variants``: how often the scene is there once more in other colours, see
    `recoloured`.
    """
    size, target = tensors[-1].size, tensors[-1]
    halo = -(-teacher.halo // scene.multiple) * scene.multiple
    bands = [band for tensor in tensors[:-1] for band in tensor.bands]
    for top in range(area.row, area.row + area.height, SIDE):
        for left in range(area.col, area.col + area.width, SIDE):
            # Patches may reach into the next read, so that none is lost between two.
            core = Window(left, top, SIDE + size, SIDE + size).clipped(area.col + area.width, area.row + area.height)
            if min(core.width, core.height) < size:
                continue
            around = core.grown(halo).clipped(scene.grid.width, scene.grid.height)
            pixels = scene.read(bands, around)
            good = {band: pixels.valid[band] & ~pixels.saturated[band] for band in bands}
            usable = np.ones(around.shape, bool)
            for tensor in tensors[:-1]:
                factor = tensor.coarser()
                for band in tensor.bands:
                    usable &= good[band].repeat(factor, axis=0).repeat(factor, axis=1)
            places = []
            for y in range(core.row - around.row, core.row - around.row + min(SIDE, core.height - size + 1), step):
                for x in range(core.col - around.col, core.col - around.col + min(SIDE, core.width - size + 1), step):
                    ground = scene.grid.crop(Window(around.col + x, around.row + y, size, size).grown(halo)).bounds
                    split = partition.split_of(ground)
                    if split is not None and usable[y : y + size, x : x + size].all():
                        places.append((y, x, split))
            if not places:
                continue
            plain = {band: np.where(good[band], pixels.data[band], np.float32(np.nan)) for band in bands}
            # Turned by half, a patch lies on other ground: only where all of it has one split.
            one = bool(usable.all()) and partition.split_of(scene.grid.crop(around).bounds) is not None
            for variant in range(variants + 1):
                progress.check()
                seen = recoloured(plain, rng, superimpose=one) if variant else plain
                images: Pair = {
                    t.name: (np.stack([seen[band] for band in t.bands]) / 1e-4).astype(np.float32) for t in tensors[:-1]
                }
                if variant and rng.random() < 0.3:
                    add_clouds(images, tensors[:-1], scene.grid.spacing, rng)
                    seen = {
                        band: image * np.float32(1e-4)
                        for t in tensors[:-1]
                        for band, image in zip(t.bands, images[t.name], strict=True)
                    }
                result = teacher.predict(dict(seen))
                images[TARGET] = np.stack([result[band] for band in target.bands]) / np.float32(1e-4)
                for y, x, split in places:
                    yield split, {t.name: _cut(images[t.name], y, x, size // t.size, t.size) for t in tensors}


def recoloured(bands: Pair, rng: np.random.Generator, *, superimpose: bool) -> Pair:
    """A scene as no satellite saw it: bands brighter or darker and, half the time, mixed with its own turned self.

    Real ground ties the bands together, so that a student may learn to tell a band's detail from the wrong ones, and
    fail on ground that it has not seen. Bands that are mixed in different shares come apart, and the teacher's answer
    tells which of them it goes by; what the truth would be does not matter. A mixture keeps each band's mean.

    ``bands``: reflectance by name; ``superimpose``: allow the mixing.
    """
    mixed = superimpose and rng.random() < 0.5
    common, apart = rng.normal(0, 0.2), rng.random() < 0.5
    share = rng.uniform(0.3, 0.7)
    scene = {}
    for band, image in bands.items():
        own = rng.uniform(0, 1) if apart else share
        scene[band] = np.float32(np.exp(common + rng.normal(0, 0.15))) * image
        if mixed:
            scene[band] += np.float32(own) * (scene[band][::-1, ::-1] - scene[band])
    return scene


def _cut(image: NDArray[np.float32], y: int, x: int, coarser: int, size: int) -> NDArray[np.float32]:
    y, x = y // coarser, x // coarser
    return image[:, y : y + size, x : x + size]
