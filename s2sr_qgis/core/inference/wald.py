"""Wald's protocol on a window of a scene: every band degraded, and the bands that a model sharpens as they are."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..raster.degradation import degradation_radius, degrade
from ..raster.grid import Window
from ..scene import Scene
from .card import ModelCard

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]


def factors(card: ModelCard) -> dict[str, int]:
    """How many pixels of the finest input one pixel of each input band is wide."""
    return {band: tensor.coarser(card.finest) for tensor in card.inputs for band in tensor.bands}


def reduction(card: ModelCard) -> int:
    """By how much a scene is degraded: as much as the coarsest band that the model sharpens is coarser."""
    return max(factors(card)[band] for band in card.output_bands)


def blur_reach(card: ModelCard, factor: int, sigma: float) -> int:
    """How far the blur reaches beyond a window of the target grid: whole pixels of the coarsest input."""
    return math.ceil(degradation_radius(factor, sigma) / factor) * max(factors(card).values())


def degraded(
    scene: Scene, card: ModelCard, place: Window, factor: int, sigma: float
) -> tuple[dict[str, Float], dict[str, tuple[Float, Mask]], Mask]:
    """The bands that a model sharpens, all that it takes degraded with where they are known, and which pixels count.

    ``place``: 10 m pixels of the scene, a multiple of ``factor`` times the coarsest band's. Reflectance; the reference
    and the mask, bool, are on the target grid, ``factor`` times coarser than 10 m. A pixel counts where neither it nor
    any pixel degraded into it has nodata or is saturated.
    """
    coarser = factors(card)
    pixels = scene.read(list(dict.fromkeys([*card.input_bands, *card.output_bands])), place)
    usable = {band: ok & ~pixels.saturated[band] for band, ok in pixels.valid.items()}
    mask = np.ones((place.height // factor, place.width // factor), bool)
    low: dict[str, tuple[Float, Mask]] = {}
    for band in card.input_bands:
        image, ok = pixels.data[band], usable[band]
        blocks = ok.reshape(image.shape[0] // factor, factor, image.shape[1] // factor, factor)
        low[band] = degrade(image, factor, sigma, ok), np.asarray(blocks.any(axis=(1, 3)), bool)
        mask &= blocks.all(axis=(1, 3)).repeat(coarser[band], axis=0).repeat(coarser[band], axis=1)
    for band in card.output_bands:
        mask &= usable[band]
    return {band: pixels.data[band] for band in card.output_bands}, low, mask
