"""The quantities of opensr-test on rasters of any size: low resolution, super-resolved image, reference.

What is of a pixel is done block by block. What needs the whole image is bounded: histograms are counts of reflectances
rounded to 1 / `LEVELS`, the threshold is found in counts of the distances' float32 patterns (exact), shifts in
windows (`opensr.shift_windows`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..jobs import SimilarityJob
from ..progress import Progress
from ..raster.grid import Window
from ..raster.tiles import crop
from . import opensr
from .comparison import blocks, in_threads
from .consistency import SHOWN, found_shift
from .measure import Float, Mask
from .nested import Nesting, RasterSource, Source, moved, nesting, open_source, unit_of
from .rasters import Pair, open_pair

LEVELS = 1e5
"""Steps of reflectance 1 that histograms tell apart: ten times those of Sentinel-2's digital numbers."""

ODD_RATIO = 10.0
"""Times that the means of source and reference may differ before one seems to be in another unit."""

_LOW_BITS = 15
_REACH = math.ceil(opensr.MOST_SHIFT) + 1


def opensr_quantities(job: SimilarityJob, progress: Progress) -> dict[str, Any]:
    """The seven figures of opensr-test for ``job.reference``, ``job.image``, and ``job.source`` that it was made from.

    Reference and image lie on one grid, or are brought there as the job says; the source's pixels must be made of whole
    ones of these. All are taken as reflectance (`nested.unit_of`). A pixel counts where all three have a value.

    Returns the fields of `opensr.Quantities`, ``factor``, ``pixels`` (that count), ``bands``, and ``shift`` (dy, dx
    pixels by which the image was moved onto the reference). Raises `InputError`, `Cancelled`.
    """
    with ExitStack() as stack:
        # The comparison of the two has told the user all of this already.
        pair = stack.enter_context(open_pair(job, Progress()))
        source = stack.enter_context(open_source(job.source or "", job.nodata))
        for warning in source.warnings:
            progress.log(warning, "warning")
        triple = _opened(pair, source, Path(job.image).name)
        work = _Work(triple, progress, job.threads)
        figures = work.figures()
    return {**figures._asdict(), **work.facts, "bands": list(pair.bands), "assumptions": list(source.warnings)}


@dataclass(frozen=True)
class _Triple:
    """The three images inside opensr-test's border. Windows are in the source's pixels, from that corner."""

    pair: Pair
    source: Source
    names: list[str]
    nest: Nesting
    factor: Float
    summand: Float
    """Of each band: the pair's values times the factor, and this added, are reflectance."""

    @property
    def size(self) -> Window:
        return Window(0, 0, self.nest.coarse.width, self.nest.coarse.height)

    def low(self, window: Window) -> tuple[Float, Mask]:
        return self.source.read(self.names, moved(window, self.nest.coarse))

    def high(self, window: Window) -> tuple[Float, Float, Mask]:
        """Reference and image of fine pixels, and where all bands of both count, (H, W)."""
        x, y, valid = self.pair.read(moved(window, self.nest.fine))
        return (
            x * self.factor + self.summand,
            y * self.factor + self.summand,
            np.asarray(valid.all(axis=0), np.bool_),
        )

    def magnified(self, window: Window) -> tuple[Float, Mask]:
        """The source on the fine grid, and where all of what makes a pixel counts, (H, W)."""
        around = window.grown(1).clipped(self.size.width, self.size.height)
        low, valid = self.low(around)
        f, fine = self.nest.factor, around.finer(self.nest.factor)
        image = crop(opensr.resized(low, *fine.shape), fine, window.finer(f))
        known = crop(opensr.resized(valid.astype(np.float64), *fine.shape), fine, window.finer(f))
        return image, np.asarray((known > 1 - 1e-9).all(axis=0), np.bool_)

    def reduced(self, window: Window) -> tuple[Float, Mask]:
        """The image on the coarse grid, and where all of what makes a pixel counts, (h, w)."""
        around = window.grown(1).clipped(self.size.width, self.size.height)
        _, image, valid = self.high(around.finer(self.nest.factor))
        known = opensr.resized(valid.astype(np.float64), *around.shape)
        image = crop(opensr.resized(image, *around.shape), around, window)
        return image, np.asarray(crop(known, around, window) > 1 - 1e-9, np.bool_)


def _opened(pair: Pair, source: Source, name: str) -> _Triple:
    """Bands and grids of the three. Raises `InputError`."""
    names = list(pair.bands)
    missing = [band for band in names if band not in source.bands]
    if missing and isinstance(source, RasterSource) and len(source.bands) == len(names):
        names, missing = list(source.bands), []
    if missing:
        raise InputError(
            f"The source {source.name} has no band {missing[0]}; it has {', '.join(source.bands)}. Choose bands "
            "by name that all three images have."
        )
    grids = {source.grid(band) for band in names}
    if len(grids) > 1:
        raise InputError(
            f"The source {source.name} has the bands {', '.join(names)} at {len(grids)} resolutions; choose bands of "
            "one resolution."
        )
    nest = nesting(grids.pop(), pair.grid, source.name, name)
    cut = opensr.border(nest.factor)
    if min(nest.coarse.width, nest.coarse.height) <= 2 * cut:
        raise InputError(
            f"{name} covers {nest.coarse.width} x {nest.coarse.height} pixels of {source.name}, too few for the "
            f"border of {opensr.BORDER} pixels that opensr-test leaves out."
        )
    factor, summand = unit_of(pair.reference)
    # Where both files tell their offset, the pair's values are without it already.
    summand = np.where(pair.gains[0][1].ravel() == 0, summand, 0.0)
    return _Triple(pair, source, names, nest.inner(cut), factor[:, None, None], summand[:, None, None])


@dataclass
class _Work:
    """The passes over the three images."""

    triple: _Triple
    progress: Progress
    threads: int | None
    facts: dict[str, Any] = field(default_factory=dict)

    def figures(self) -> opensr.Quantities:
        """Three passes: sums and counts; the last digits of the threshold; the correctness."""
        size, t = self.triple.size, self.triple
        windows = blocks(size.height, size.width, 3 * len(t.names) * t.nest.factor**2)
        bands = range(len(t.names))
        counts = [[_Counts(), _Counts()] for _ in bands]
        patterns = np.zeros(1 << (32 - _LOW_BITS), np.int64)
        sums = np.zeros(4)
        for part in self._each(windows, self._first, (0, 40)):
            for mine, its in zip(counts, part[0], strict=True):
                mine[0].add(*its[0])
                mine[1].add(*its[1])
            np.add.at(patterns, part[1][0], part[1][1])
            sums += part[2]
        pixels = int(patterns.sum())
        if not pixels:
            raise InputError(
                f"No pixel can be compared with {t.source.name}: everywhere one of the three images has nodata."
            )
        self._check_unit(counts)
        tables = [opensr.transfer(*image.table(), *reference.table()) for reference, image in counts]
        rank = opensr.kth(pixels)
        below = np.cumsum(patterns)
        top = int(np.searchsorted(below, rank, side="right"))
        rest = np.zeros(1 << _LOW_BITS, np.int64)
        for values in self._each(windows, lambda window: self._second(window, top), (40, 60)):
            rest += np.bincount(values, minlength=len(rest))
        last = int(np.searchsorted(np.cumsum(rest), rank - (below[top] - patterns[top]), side="right"))
        threshold = float(np.array([(top << _LOW_BITS) | last], np.uint32).view(np.float32)[0])
        spatial, shift = self._shifts(tables)
        total = np.zeros(6)
        for part in self._each(windows, lambda w: self._third(w, tables, shift, threshold), (60, 95)):
            total += part
        self.facts = {"factor": t.nest.factor, "pixels": pixels, "shift": list(shift)}
        improvement, omission, hallucination = (_ratio(value, total[3]) for value in total[:3])
        return opensr.Quantities(
            _ratio(sums[0], sums[1]), _ratio(sums[2], sums[3]), spatial, _ratio(total[4], total[5]),
            hallucination, omission, improvement,
        )  # fmt: skip

    def _each(self, windows: list[Window], work: Callable[[Window], Any], share: tuple[float, float]) -> Iterator[Any]:
        def checked(window: Window, check: Callable[[], None]) -> Any:
            check()
            return work(window)

        with closing(in_threads(windows, checked, self.progress, self.threads, share)) as done:
            for _, found in done:
                yield found

    def _first(self, window: Window) -> tuple[list[Any], Any, Float]:
        reference, image, valid, magnified = self._fine(window)
        counts = [
            [_counted(np.rint(band[valid] * LEVELS)) for band in both] for both in zip(reference, image, strict=True)
        ]
        d_ref = opensr.normalised_difference(magnified, reference)[valid]
        patterns = np.unique(_bits(d_ref) >> _LOW_BITS, return_counts=True)
        low, known = self.triple.low(window)
        reduced, seen = self.triple.reduced(window)
        seen &= known.all(axis=0)
        angles = opensr.spectral_angle(low, reduced)[seen]
        angles = angles[np.isfinite(angles)]
        l1 = opensr.absolute_difference(low, reduced)[seen]
        return counts, patterns, np.array([l1.sum(), l1.size, angles.sum(), angles.size])

    def _second(self, window: Window, top: int) -> Any:
        reference, _, valid, magnified = self._fine(window)
        bits = _bits(opensr.normalised_difference(magnified, reference)[valid])
        return bits[bits >> _LOW_BITS == top] & ((1 << _LOW_BITS) - 1)

    def _third(
        self, window: Window, tables: list[tuple[Float, Float]], shift: tuple[float, float], threshold: float
    ) -> Float:
        t, f = self.triple, self.triple.nest.factor
        reference, _, valid, magnified = self._fine(window)
        fine = window.finer(f)
        around = fine.grown(_REACH).clipped(t.size.width * f, t.size.height * f)
        _, image, known = t.high(around)
        harmonised = crop(opensr.shifted(_matched(image, tables), *shift), around, fine)
        seen = crop(opensr.shifted(known[None].astype(np.float64), *shift)[0], around, fine) > 1 - 1e-9
        valid = valid & seen
        distances = opensr.correctness_distances(magnified, harmonised, reference)
        shares = opensr.correctness(*distances, threshold)[:, valid]
        shares = shares[:, np.isfinite(shares).all(axis=0)]
        added = opensr.absolute_difference(magnified, harmonised)[valid]
        return np.array([*shares.sum(axis=1), shares.shape[1], added.sum(), added.size])

    def _fine(self, window: Window) -> tuple[Float, Float, Mask, Float]:
        """Reference, image, where all three count, and the source magnified."""
        reference, image, valid = self.triple.high(window.finer(self.triple.nest.factor))
        magnified, known = self.triple.magnified(window)
        return reference, image, valid & known, magnified

    def _shifts(self, tables: list[tuple[Float, Float]]) -> tuple[float, tuple[float, float]]:
        """The spatial consistency, and how the matched image is to be moved onto the reference."""
        t, f = self.triple, self.triple.nest.factor
        order = [t.names.index(band) for band in SHOWN] if set(SHOWN) <= set(t.names) else slice(None)
        coarse, fine = [], []
        for window in opensr.shift_windows(t.size.height, t.size.width):
            self.progress.check()
            low, known = t.low(window)
            reduced, seen = t.reduced(window)
            coarse += found_shift(opensr.shown(low[order]), opensr.shown(reduced[order]), known.all(axis=0) & seen)
        for window in opensr.shift_windows(t.size.height * f, t.size.width * f):
            self.progress.check()
            reference, image, valid = t.high(window)
            fine += found_shift(reference.mean(axis=0), _matched(image, tables).mean(axis=0), valid)
        return opensr.length(*opensr.median_shift(coarse)), opensr.acceptable(opensr.median_shift(fine))

    def _check_unit(self, counts: list[list[_Counts]]) -> None:
        """Raise `InputError` where source and reference are in different units."""
        t = self.triple
        window = Window(0, 0, min(t.size.width, 256), min(t.size.height, 256))
        low, valid = t.low(window)
        if not valid.any():
            return
        values, numbers = counts[0][0].table()
        mine, its = abs(float(np.average(values, weights=numbers))), abs(float(low[0][valid[0]].mean()))
        if mine and its and max(mine / its, its / mine) > ODD_RATIO:
            self.progress.log(
                f"The reference's mean is {mine:.4g} and the source's {its:.4g} as reflectance: one seems to be in "
                "another unit; tell the bands' scale, with gdal_edit.py -scale.",
                "warning",
            )


class _Counts:
    """How often each rounded reflectance occurs."""

    def __init__(self) -> None:
        self._values: Float = np.zeros(0)
        self._counts: Float = np.zeros(0)

    def add(self, values: Float, counts: Float) -> None:
        """Take in a block's."""
        self._values, place = np.unique(np.concatenate([self._values, values]), return_inverse=True)
        every = np.concatenate([self._counts, counts])
        self._counts = np.asarray(np.bincount(place, every, len(self._values)), np.float64)

    def table(self) -> tuple[Float, Float]:
        """Reflectances, ascending, and their counts."""
        return self._values / LEVELS, self._counts


def _counted(values: Float) -> tuple[Float, Float]:
    found, counts = np.unique(values, return_counts=True)
    return found, counts.astype(np.float64)


def _matched(image: Float, tables: list[tuple[Float, Float]]) -> Float:
    return np.stack([np.interp(band, *table) for band, table in zip(image, tables, strict=True)])


def _bits(values: Float) -> Any:
    """The patterns of float32 numbers from 0 on, which are in the numbers' order."""
    return values.astype(np.float32).view(np.uint32)


def _ratio(total: Any, count: Any) -> float:
    return float(total / count) if count else math.nan
