"""Pairs of ground that is nowhere: two places mixed, under other light, perhaps under clouds.

Few scenes make a network that knows their ground by heart. Degrading is linear, so the mean of two places is a pair as
exact as the places are, and no two mixtures are alike (Zhang et al. 2018, arXiv:1710.09412, for classification). Where
there is a teacher, every band is also mixed in a share of its own: nothing but the teacher then knows the answer, and
the student learns which bands it goes by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..progress import Progress
from ..raster.degradation import degrade
from ..raster.grid import Window
from ..scene import Scene
from .card import TARGET, PatchCard
from .clouds import add_clouds
from .splits import Partition

if TYPE_CHECKING:
    from ..inference.model import Model

Float = NDArray[np.float32]
Pair = dict[str, Float]

TRIES = 50
"""Places looked at before a scene is taken to have no usable training ground."""

CLOUDY, MIXED, APART, SNOWY = 0.3, 0.6, 0.5, 0.3
"""Shares of the pairs under clouds, of those mixed, of the mixed ones in which each band has its own share, and of
those coloured like snow: bright, but dark in the short-wave infrared."""

LIGHT, COLOUR = 0.25, 0.12
"""Sigma of the log-normal gains of a place, and of each of its bands."""

SHORT_WAVE_INFRARED = ("B11", "B12")
SNOW = (0.6, 0.4), (-0.7, 0.5)
"""Mean and sigma of the log-normal gain of snow's bands: visible and near infrared, short-wave infrared."""


@dataclass(frozen=True)
class Place:
    """Where mixtures may come from: a scene, the part of it in 10 m pixels, and whose split its ground is."""

    scene: Scene
    area: Window
    partition: Partition


def mixed_pairs(
    places: Sequence[Place],
    count: int,
    tensors: Sequence[PatchCard],
    factor: int,
    sigmas: Mapping[str, float],
    teacher: Model | None,
    rng: np.random.Generator,
    progress: Progress,
) -> Iterator[Pair]:
    """Training pairs, DN without offset, (bands, size, size) by tensor name; fewer than ``count`` if ground is short.

    Every scene is drawn as often as every other, however large, in any of the eight orientations; what is mixed has the
    same processing level. ``factor`` and ``sigmas`` as for the scenes' own pairs.
    """
    inputs, size = tensors[:-1], tensors[-1].size
    side = size + 2 * factor  # so that the blur of the patch's edge sees real ground
    for _ in range(count):
        progress.check()
        place = places[int(rng.integers(len(places)))]
        first = _look(place, inputs, side, factor, rng)
        if first is None:
            continue
        if rng.random() < SNOWY:
            _colour_as_snow(first, inputs, rng)
        own_shares = False
        if rng.random() < MIXED:
            alike = [other for other in places if other.scene.level == place.scene.level]
            second = _look(alike[int(rng.integers(len(alike)))], inputs, side, factor, rng)
            if second is not None:
                own_shares = teacher is not None and rng.random() < APART
                common = rng.uniform(0.15, 0.85)
                for name, images in first.items():
                    share = rng.uniform(0, 1, (len(images), 1, 1)) if own_shares else common
                    first[name] = (share * images + (1 - share) * second[name]).astype(np.float32)
        if rng.random() < CLOUDY:
            add_clouds(first, list(inputs), 10.0, rng)
        pair = {
            t.name: np.stack(
                [degrade(image, factor, sigmas[band]) for band, image in zip(t.bands, first[t.name], strict=True)]
            )
            for t in inputs
        }
        if own_shares and teacher is not None:
            seen = {
                band: image * np.float32(1e-4)
                for t in inputs
                for band, image in zip(t.bands, pair[t.name], strict=True)
            }
            answer = teacher.predict(seen)
            pair[TARGET] = np.stack([answer[band] for band in tensors[-1].bands]) / np.float32(1e-4)
        else:
            pair[TARGET] = first[inputs[-1].name]
        yield {t.name: _middle(pair[t.name], t.size) for t in tensors}


def _look(place: Place, inputs: Sequence[PatchCard], side: int, factor: int, rng: np.random.Generator) -> Pair | None:
    """A training place of ``side`` target pixels at full resolution, turned, in other light; None if there is none."""
    scene, area = place.scene, place.area
    unit = factor**2  # of the coarsest pixel after degrading, in 10 m pixels
    reach = -(-side * factor // unit) * unit
    rows, columns = ((length - reach) // unit for length in (area.height, area.width))
    if min(rows, columns) < 0:
        return None
    bands = [band for t in inputs for band in t.bands]
    for _ in range(TRIES):
        row, column = (int(rng.integers(most + 1)) * unit for most in (rows, columns))
        window = Window(area.col + column, area.row + row, side * factor, side * factor)
        if place.partition.split_of(scene.grid.crop(window).bounds) != "train":
            continue
        pixels = scene.read(bands, window)
        if not all((pixels.valid[band] & ~pixels.saturated[band]).all() for band in bands):
            continue
        orientation, light = int(rng.integers(8)), rng.normal(0, LIGHT)
        images = {}
        for t in inputs:
            gains = np.exp(light + rng.normal(0, COLOUR, (len(t.bands), 1, 1)))
            stack = np.stack([pixels.data[band] for band in t.bands]) / 1e-4 * gains
            images[t.name] = _turned(stack, orientation).astype(np.float32)
        return images
    return None


def _colour_as_snow(images: Pair, inputs: Sequence[PatchCard], rng: np.random.Generator) -> None:
    bright, dark = (np.exp(rng.normal(*gain)) for gain in SNOW)
    for t in inputs:
        gains = np.array([dark if band in SHORT_WAVE_INFRARED else bright for band in t.bands], np.float32)
        images[t.name] = images[t.name] * gains[:, np.newaxis, np.newaxis]


def _turned(images: NDArray[np.floating], orientation: int) -> NDArray[np.floating]:
    """Images (bands, h, w) in one of the eight orientations of the square."""
    if orientation & 1:
        images = images[:, ::-1]
    if orientation & 2:
        images = images[:, :, ::-1]
    return images.transpose(0, 2, 1) if orientation & 4 else images


def _middle(images: Float, size: int) -> Float:
    start = (images.shape[1] - size) // 2
    return images[:, start : start + size, start : start + size]
