"""What a measure is: its name, its definitions, and how it takes in an image that comes in blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

Array = NDArray[Any]
Float = NDArray[np.float64]
Mask = NDArray[np.bool_]
Definition = Literal["reference", "up42"]

BLOCK_STEP = 32
"""A block's own part starts at multiples of this many rows and columns of the image."""


class Score(NamedTuple):
    """A measure of each band, or None where it has none, and of the image as a whole."""

    bands: Float | None
    total: float


@dataclass(frozen=True)
class Setup:
    """What a measure knows before the first block.

    Attributes:
        bands: how many.
        height, width: of the whole image in pixels.
        data_range: largest minus smallest value that the images can have.
        definition: the paper's formula, or that of image-similarity-measures 0.3.6 in float64.
        ratio: pixel size before super-resolution over pixel size after; ERGAS alone uses it.
    """

    bands: int
    height: int
    width: int
    data_range: float
    definition: Definition = "reference"
    ratio: float = 1.0


@dataclass(frozen=True)
class Block:
    """A part of both images with as much of its surroundings as the measures' windows reach into.

    Attributes:
        x, y: reference and image, float64 (bands, h, w), 0 where a pixel does not count.
        valid: bool (bands, h, w), where both are known and the user's mask is set.
        row, col: of the arrays' upper-left pixel in the whole image.
        own: rows and columns, within the arrays, that belong to this block alone. A window belongs to the block that
            owns its anchor (its centre; for windows of even side its upper-left pixel).
    """

    x: Float
    y: Float
    valid: Mask
    row: int
    col: int
    own: tuple[slice, slice]


class Accumulator(Protocol):
    """A measure at work on one pair of images."""

    halo: int
    """Pixels around a block's own part that its windows reach into."""

    def observe(self, block: Block) -> Any:
        """What a block contributes. Changes nothing, so blocks may be observed in several threads."""

    def take(self, part: Any) -> None:
        """Add what `observe` gave. Called in one thread, in the blocks' order."""

    def score(self) -> Score:
        """The measure of all that was taken in; NaN where nothing counts."""


@dataclass(frozen=True)
class Measure:
    """One entry of the catalogue.

    Attributes:
        name: as in options and JSON, such as ``ssim``.
        title: as in tables, such as ``SSIM``.
        unit: ``dB``, ``°``, ``px``; empty for a bare number, ``values`` for the image's own.
        perfect: the score of identical images.
        definitions: what the reports say of each definition it has: formula and citation, plain text.
        create: an accumulator for a pair of images.
    """

    name: str
    title: str
    unit: str
    perfect: float
    definitions: Mapping[Definition, str]
    create: Callable[[Setup], Accumulator]


def prepare(reference: Array, image: Array, mask: Mask | None = None) -> tuple[Float, Float, Mask]:
    """Both images as float64 (bands, H, W), 0 where they do not count, and where they do.

    ``reference``, ``image``: (bands, H, W), or (H, W) for one band. ``mask``: bool (H, W) or (bands, H, W), True where
    a pixel counts; pixels that are not finite never count. Raises `InputError` for sizes that differ.
    """
    x, y = stacked(reference, image)
    valid = np.ones(x.shape, bool)
    for z in (x, y):
        if z.dtype.kind == "f":
            valid &= np.isfinite(z)
    # Rows of pixels lie together, whatever the order of the axes was: the measures run along them.
    x, y = (np.asarray(z, np.float64, order="C") for z in (x, y))
    if mask is not None:
        if mask.shape not in (x.shape, x.shape[1:]):
            raise InputError(f"The mask is {size(mask)}, the images are {size(x)}.")
        valid &= mask
    if valid.all():
        return x, y, valid
    return np.where(valid, x, 0.0), np.where(valid, y, 0.0), valid


def stacked(reference: Array, image: Array) -> tuple[Array, Array]:
    """Both images as (bands, H, W), values as they are. Raises `InputError` for sizes that differ."""
    x, y = np.asarray(reference), np.asarray(image)
    if x.shape != y.shape or x.ndim not in (2, 3):
        raise InputError(f"The images cannot be compared: the reference is {size(x)}, the other {size(y)}.")
    return (x, y) if x.ndim == 3 else (x[np.newaxis], y[np.newaxis])


def averaged(bands: Float | list[float]) -> Score:
    """A score whose total is the mean of the bands'."""
    scores = np.asarray(bands, np.float64)
    return Score(scores, float(scores.mean()))


def size(array: Array) -> str:
    """An array's shape for a sentence."""
    return " x ".join(str(n) for n in array.shape)
