"""ISSM: the information-theoretic statistic similarity measure, from edges, joint entropy and SSIM.

Aljanabi et al. 2019, doi:10.1080/22797254.2019.1628617, with A = 0.3, B = 0.5, C = 0.7. R is the correlation of the
two images' edges by Canny (see `canny`), H the entropy of their joint histogram in bits, S their SSIM.

``reference``, of each band, brought to 0 to 255 by the data range:

    ISSM = (R H (A + B) + e) / (A R H + B H + C (1 - S) + e)

The histogram has 256 x 256 bins and is normalised to probabilities; e = 0.01, as in the authors' sister measure (Shnain
et al. 2017, doi:10.3390/app7080786). Implementations have C S where C (1 - S) stands here. So written, identical images
would score less than 1, and any others the higher the less alike SSIM finds them. What S lacks to 1 is our reading:
identical images get exactly 1, and the score falls with S. The paper's own text was not at hand to settle it.
Where neither image has an edge R is 1, where one has none it is 0. The total is the bands' mean.

``up42``, as image-similarity-measures 0.3.6: (R H (A + B) + e) / (A R H + B H + C S + e) with e = 2.718..., all bands
together: edges of the values / 16 cut to integers, of the band with the largest gradient (values above 4095, which wrap
around in the package, are 255 here); H of the 10 x 10 histogram of counts between each image's least and largest value;
S for values to 4095; 0 where an image has no edge. Identical images do not score 1, and no band has its own score.

Both: a pixel whose edge depends on one that does not count (two pixels around) has no edge and does not count for R.
Canny's thinning prefers one side where two neighbours are equal, so the score of mirrored or turned images differs a
little, and where a repeated image has new edges and windows over its seams.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter

from ..errors import InputError
from .canny import REACH, Bytes, candidates, hysteresis
from .measure import Block, Float, Mask, Measure, Score, Setup, averaged
from .window import Ssim

LEVELS, UP42_BINS = 256, 10
EDGE, ENTROPY, STRUCTURE = 0.3, 0.5, 0.7
REFERENCE_E = 0.01

MOST_MEMORY = 4e9
"""Bytes that an image may take in the definition up42, whose histogram needs all values at once."""

_UP42_BYTES, _UP42_RANGE, _UP42_SCALE = 64, 4095.0, 0.0625


@dataclass(frozen=True)
class _Part:
    """``edges``: bits (low and high threshold, image, layer, rows, bytes). ``values``: as `Issm` gathers them."""

    row: int
    col: int
    edges: Bytes
    counts: NDArray[np.int64]
    values: Any
    windows: Float


@dataclass
class Issm:
    """The measure at work; a layer is a band, or for up42 all of them together.

    Edges are kept as bits, 4 of each pixel and band, and joined when all are there. Raises `InputError` for an image
    that is too small for SSIM, and in the definition up42 for one whose values would need more than `MOST_MEMORY`.
    """

    setup: Setup
    halo: int = field(init=False)

    def __post_init__(self) -> None:
        setup = self.setup
        self._up42 = setup.definition == "up42"
        self._ssim = Ssim(replace(setup, data_range=_UP42_RANGE) if self._up42 else setup)
        self.halo = max(REACH, self._ssim.halo)
        layers = 1 if self._up42 else setup.bands
        pixels = (setup.bands, setup.height, setup.width)
        needed = math.prod(pixels) * _UP42_BYTES
        if self._up42 and needed > MOST_MEMORY:
            raise InputError(
                f"ISSM by the definition up42 needs all values at once: {setup.width} x {setup.height} pixels of "
                f"{setup.bands} bands would take {needed / 1e9:.1f} GB of memory, more than the "
                f"{MOST_MEMORY / 1e9:.0f} GB that it may; "
                "use the definition reference, compare a part or leave ISSM out."
            )
        self._edges = np.zeros((2, 2, layers, setup.height, -(-setup.width // 8)), np.uint8)
        self._counts = np.zeros(layers, np.int64)
        self._histogram = np.zeros((0 if self._up42 else layers, LEVELS, LEVELS), np.int64)
        self._kept = np.zeros((2, *pixels) if self._up42 else 0)
        self._valid = np.zeros(pixels if self._up42 else 0, bool)

    def observe(self, block: Block) -> _Part:
        """See `Accumulator`."""
        own = (slice(None), *block.own)
        images = [self._eight_bit(values) for values in (block.x, block.y)]
        valid: Mask = np.logical_and.reduce(block.valid)[np.newaxis] if self._up42 else block.valid
        usable: Mask = valid
        if not valid.all():
            usable = minimum_filter(valid, (1, 2 * REACH + 1, 2 * REACH + 1), mode="nearest")
        layers = [slice(None)] if self._up42 else [slice(band, band + 1) for band in range(len(block.x))]
        edges = np.stack([np.stack([candidates(image[layer]) for layer in layers], axis=1) for image in images], axis=1)
        edges &= usable
        return _Part(
            row=block.row + block.own[0].start,
            col=block.col + block.own[1].start,
            edges=np.packbits(edges[..., block.own[0], block.own[1]], axis=-1),
            counts=usable[own].sum(axis=(1, 2)),
            values=(
                (np.stack([block.x[own], block.y[own]]), block.valid[own])
                if self._up42
                else _joint(images[0][own], images[1][own], block.valid[own])
            ),
            windows=self._ssim.observe(block),
        )

    def take(self, part: _Part) -> None:
        """See `Accumulator`."""
        rows, first = slice(part.row, part.row + part.edges.shape[-2]), part.col // 8
        self._edges[..., rows, first : first + part.edges.shape[-1]] = part.edges
        self._counts += part.counts
        self._ssim.take(part.windows)
        if self._up42:
            values, valid = part.values
            place = np.s_[..., rows, part.col : part.col + valid.shape[-1]]
            self._kept[place], self._valid[place] = values, valid
        else:
            self._histogram += part.values

    def score(self) -> Score:
        """See `Accumulator`."""
        similarity = self._ssim.score()
        if self._up42:
            return Score(None, self._up42_score(similarity.total))
        scores = []
        for band, histogram in enumerate(self._histogram):
            edge, entropy = _correlation(*self._joined(band)), _entropy(histogram / max(histogram.sum(), 1))
            structure = similarity.total if similarity.bands is None else float(similarity.bands[band])
            below = entropy * (EDGE * edge + ENTROPY) + STRUCTURE * (1 - structure) + REFERENCE_E
            scores.append((edge * entropy * (EDGE + ENTROPY) + REFERENCE_E) / below)
        return averaged(scores)

    def _up42_score(self, structure: float) -> float:
        counts = self._joined(0)
        if not counts[0]:
            return math.nan
        if not (counts[1] and counts[2]):
            return 0.0
        x, y = (values[self._valid] for values in self._kept)
        edge, entropy = _correlation(*counts), _entropy(np.histogram2d(x, y, UP42_BINS)[0])
        below = EDGE * edge * entropy + ENTROPY * entropy + STRUCTURE * structure + math.e
        return (edge * entropy * (EDGE + ENTROPY) + math.e) / below

    def _joined(self, layer: int) -> tuple[int, int, int, int]:
        """Pixels that count, with an edge in the reference, in the image, and in both."""
        weak, strong = self._edges[:, :, layer]
        x, y = (hysteresis(weak[image], strong[image], self.setup.width) for image in (0, 1))
        in_x, in_y, in_both = (int(np.unpackbits(edges).sum()) for edges in (x, y, x & y))
        return int(self._counts[layer]), in_x, in_y, in_both

    def _eight_bit(self, values: Float) -> Bytes:
        if self._up42:
            return np.clip(values * _UP42_SCALE, 0, LEVELS - 1).astype(np.uint8)
        return np.rint(np.clip(values * ((LEVELS - 1) / self.setup.data_range), 0, LEVELS - 1)).astype(np.uint8)


def _joint(x: Bytes, y: Bytes, valid: Mask) -> NDArray[np.int64]:
    """How often each pair of values occurs in each band, (bands, LEVELS, LEVELS)."""
    pairs = x.astype(np.intp) * LEVELS + y
    counts = [np.bincount(band[counted], minlength=LEVELS**2) for band, counted in zip(pairs, valid, strict=True)]
    return np.stack(counts).reshape(-1, LEVELS, LEVELS)


def _entropy(shares: Float) -> float:
    some = shares[shares > 0]
    return -float((some * np.log2(some)).sum())


def _correlation(pixels: int, x: int, y: int, both: int) -> float:
    """Of two maps of edges: 1 where neither has any, 0 where one has none, NaN without pixels."""
    if not pixels:
        return math.nan
    product = x * (pixels - x) * y * (pixels - y)
    if not product:
        return float(x == y)
    return (both * pixels - x * y) / math.sqrt(product)


MEASURES = (
    Measure(
        name="issm",
        title="ISSM",
        unit="",
        perfect=1.0,
        definitions={
            "reference": "(R H (A + B) + e) / (A R H + B H + C (1 - S) + e) of each band scaled to 0-255: R "
            "correlation of Canny edges, H joint entropy of 256 x 256 bins, S SSIM, A = 0.3, B = 0.5, C = 0.7, "
            "e = 0.01; mean of the bands. After Aljanabi et al. 2019, doi:10.1080/22797254.2019.1628617, with 1 - S in "
            "place of S, so that identical images score 1.",
            "up42": "(R H (A + B) + e) / (A R H + B H + C S + e) of all bands together as image-similarity-measures "
            "0.3.6: Canny of the values / 16, counts in 10 x 10 bins, SSIM to 4095, e = 2.718...; 0 where an image has "
            "no edge, and not 1 for identical images.",
        },
        create=Issm,
    ),
)
