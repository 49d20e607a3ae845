"""Does a super-resolved image still show what its source shows? Degraded by the sensor, it must be the source again."""

from __future__ import annotations

import math
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import rasterio
from scipy.optimize import brentq

from ..errors import InputError
from ..jobs import SimilarityJob
from ..progress import Progress
from ..raster.degradation import degradation_radius, degrade
from ..raster.grid import Window
from ..raster.image import GDAL_CACHE
from ..raster.tiles import crop
from ..scene.mtf import MTF_AT_NYQUIST
from . import opensr
from .bands import place_of
from .comparison import Comparison, Result, block, blocks, chosen, in_threads
from .measure import Float, Mask, Setup
from .nested import Nesting, RasterSource, Source, mask_of, moved, nesting, open_source, whole
from .rasters import QUANTIFICATION, Raster, described

UNIT = "digital numbers (reflectance x 10000)"

SHOWN = ("B04", "B03", "B02")
"""Bands that the spatial consistency is measured on, where they are there."""

MOST_INVALID = 0.01
"""Share of a window without value above which no shift is looked for in it."""


def consistency(job: SimilarityJob, progress: Progress) -> dict[str, Any]:
    """Degrade ``job.image`` to each band's own grid of the source, ``job.reference``, and compare the two.

    Degrading is what the sensor's MTF does from the image's pixels to the source's: a Gaussian by each band's MTF at
    the Nyquist frequency (see `kernel_sigma`), then the mean over each pixel of the source. A band that the image has
    at the source's own spacing is compared as it is. Pixels that are nodata or saturated in the source, or have nodata
    in any of the image's pixels that make them, do not count. Values are reflectance x 10000.

    Returns what `compare.compare` does for two rasters: ``measures`` with the total of each and its ``bands``, the
    totals by name, and so on; bands of different resolution are different images, so each total is the mean over
    groups of equal resolution, weighted by their number of bands; a group that the image has at its source's own
    spacing is not part of it, unless there is no other. ``opensr``: the three consistencies of `opensr.Quantities`
    in the same way, with the published reduction. ``groups``: all of it for each group, with ``bands``, ``factor``,
    ``spacing``, ``pixels``. ``report``: where one is asked for.
    Raises `InputError`, `OutputError`, `Cancelled`.
    """
    if job.source:
        raise InputError(
            "With --consistency the first raster is the source already; leave out --source, or leave out --consistency "
            "and name the reference first."
        )
    if job.map:
        raise InputError("There is no map of a consistency: its bands lie on several grids; leave out the map.")
    chosen(job.measures, job.definition)
    data_range = job.data_range or QUANTIFICATION
    range_from = "the option" if job.data_range else "reflectance 1"
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE))
        source = stack.enter_context(open_source(job.reference, job.nodata))
        raster = stack.enter_context(Raster(job.image, job.nodata))
        mask = stack.enter_context(Raster(job.mask)) if job.mask else None
        image = RasterSource(raster)
        assumptions = [*source.warnings, *raster.warnings, *(mask.warnings if mask else ())]
        for warning in assumptions:
            progress.log(warning, "warning")
        groups = _groups(source, image, mask, job, progress)
        progress.log(f"Unit of RMSE: {UNIT}; data range {data_range:g}, from {range_from}.")
        done = []
        for number, group in enumerate(groups):
            share = (95 * number / len(groups), 95 * (number + 1) / len(groups))
            done.append(_compared(group, job, data_range, progress, share))
    outputs = {
        "reference": job.reference,
        "image": job.image,
        "definition": job.definition,
        "data_range": data_range,
        "data_range_from": range_from,
        "unit": UNIT,
        "bands": [band for group in groups for band in group.names],
        "pixels": sum(result.pixels for result, _ in done),
        "assumptions": assumptions,
        **_merged(groups, done),
    }
    if job.report:
        from .trust_report import write_consistency

        write_consistency(job, [result for result, _ in done], outputs, progress)
        outputs["report"] = str(job.report)
        progress.artifact("report", str(job.report))
    return outputs


@cache
def kernel_sigma(band: str, factor: int) -> float:
    """Sigma, in pixels of the image, of the Gaussian before the mean of ``factor`` x ``factor`` pixels.

    The image stands for what the sensor would record with pixels f times smaller, and is blurred by its MTF there
    already; with a Gaussian MTF, what is left up to the source's Nyquist frequency is MTF^(1 - 1 / f²). The mean lets
    1 / (f sin(pi / 2f)) of it through, the Gaussian, as it is sampled, the rest.
    """
    rest: float = MTF_AT_NYQUIST[band] ** (1 - 1 / factor**2) * factor * math.sin(math.pi / (2 * factor))
    taps = np.arange(-8 * factor, 8 * factor + 1)
    stripes = np.cos(math.pi * taps / factor)

    def too_much(sigma: float) -> float:
        weights = np.exp(-0.5 * np.square(taps / sigma))
        return float((weights * stripes).sum() / weights.sum()) - rest

    sigma: Any = brentq(too_much, 0.1, 2 * factor)
    return float(sigma)


@dataclass(frozen=True)
class Group:
    """Bands that the source has on one grid. Windows are in its pixels, from the corner of what both images cover."""

    names: list[str]
    source: Source
    image: RasterSource
    nest: Nesting
    mask: tuple[Raster, Nesting] | None

    @property
    def factor(self) -> int:
        """How many of the image's pixels one of the source's is wide."""
        return self.nest.factor

    def low(self, window: Window, names: list[str]) -> tuple[Float, Mask]:
        """Reflectance of the source and where it counts, (bands, h, w)."""
        values, valid = self.source.read(names, moved(window, self.nest.coarse))
        if self.mask:
            raster, nest = self.mask
            fine = moved(window.finer(nest.factor), nest.fine)
            valid &= whole(mask_of(raster, fine), nest.factor)
        return values, valid

    def high(self, window: Window, names: list[str]) -> tuple[Float, Mask]:
        """Reflectance of the image's pixels of that ground and where it is known, (bands, H, W)."""
        return self.image.read(names, moved(window.finer(self.factor), self.nest.fine))

    def pair(self, window: Window) -> tuple[Float, Float, Mask]:
        """The source, the degraded image, both reflectance x 10000 and 0 where they do not count, and where they do."""
        f, size = self.factor, self.nest.coarse
        x, valid = self.low(window, self.names)
        sigmas = [kernel_sigma(band, f) for band in self.names]
        reach = math.ceil(max(degradation_radius(f, sigma) for sigma in sigmas) / f) if f > 1 else 0
        around = window.grown(reach).clipped(size.width, size.height)
        y, known = self.high(around, self.names)
        if f > 1:
            coarse = [
                degrade(band.astype(np.float32), f, sigma, ok) for band, ok, sigma in zip(y, known, sigmas, strict=True)
            ]
            y = crop(np.stack(coarse).astype(np.float64), around, window)
            known = crop(whole(known, f), around, window)
        valid = np.asarray(valid & known, np.bool_)
        return np.where(valid, x * QUANTIFICATION, 0.0), np.where(valid, y * QUANTIFICATION, 0.0), valid

    def published(self, window: Window, names: list[str]) -> tuple[Float, Float, Mask]:
        """Source and image reduced as opensr-test does it, reflectance, and where every band counts, (h, w).

        The window is in what is left inside opensr-test's border.
        """
        cut = opensr.border(self.factor)
        inner = replace(self, nest=self.nest.inner(cut), mask=None)
        around = window.grown(1).clipped(inner.nest.coarse.width, inner.nest.coarse.height)
        low, valid = self.low(Window(window.col + cut, window.row + cut, window.width, window.height), names)
        high, known = inner.high(around, names)
        reduced = crop(opensr.resized(high, *around.shape), around, window)
        seen = crop(opensr.resized(known.astype(np.float64), *around.shape), around, window) > 1 - 1e-9
        return low, reduced, np.asarray((valid & seen).all(axis=0), np.bool_)


def _compared(
    group: Group, job: SimilarityJob, data_range: float, progress: Progress, share: tuple[float, float]
) -> tuple[Result, dict[str, float]]:
    size, middle = group.nest.coarse, (share[0] + share[1]) / 2
    setup = Setup(len(group.names), size.height, size.width, data_range, job.definition, job.ratio)
    comparison = Comparison(job.measures, group.names, setup, job.report is not None)

    def work(window: Window, check: Any) -> Any:
        return comparison.observe(block(window, comparison.halo, setup, group.pair), check)

    parts = blocks(size.height, size.width, len(group.names) * group.factor**2)
    with closing(in_threads(parts, work, progress, job.threads, (share[0], middle))) as done:
        for _, part in done:
            comparison.take(part)
    return comparison.result(), published_consistency(group, progress, job.threads, (middle, share[1]))


def published_consistency(
    group: Group, progress: Progress, threads: int | None = None, share: tuple[float, float] = (0.0, 100.0)
) -> dict[str, float]:
    """The reflectance, spectral and spatial consistency of a group by `opensr`; NaN where its border leaves nothing."""
    cut = opensr.border(group.factor)
    height, width = group.nest.coarse.height - 2 * cut, group.nest.coarse.width - 2 * cut
    if height < 1 or width < 1:
        return {"reflectance": math.nan, "spectral": math.nan, "spatial": math.nan}
    shown = list(SHOWN) if set(SHOWN) <= set(group.names) else group.names[:3]

    def work(window: Window, check: Any) -> Float:
        check()
        low, reduced, valid = group.published(window, group.names)
        angles = opensr.spectral_angle(low, reduced)[valid]
        angles = angles[np.isfinite(angles)]
        l1 = opensr.absolute_difference(low, reduced)[valid]
        return np.array([l1.sum(), l1.size, angles.sum(), angles.size])

    sums = np.zeros(4)
    parts = blocks(height, width, len(group.names) * group.factor**2)
    with closing(in_threads(parts, work, progress, threads, share)) as done:
        for _, part in done:
            sums += part
    shifts = []
    for window in opensr.shift_windows(height, width):
        progress.check()
        low, reduced, valid = group.published(window, shown)
        shifts += found_shift(opensr.shown(low), opensr.shown(reduced), valid)
    return {
        "reflectance": float(sums[0] / sums[1]) if sums[1] else math.nan,
        "spectral": float(sums[2] / sums[3]) if sums[3] else math.nan,
        "spatial": opensr.length(*opensr.median_shift(shifts)),
    }


def found_shift(reference: Float, image: Float, valid: Mask) -> list[tuple[float, float]]:
    """The shift of a window of two images (h, w), or nothing where too much of it has no value."""
    if np.count_nonzero(~valid) > MOST_INVALID * valid.size:
        return []
    x, y = (np.where(valid, band, band[valid].mean()) for band in (reference, image))
    shift = opensr.shift_between(x, y)
    return [shift] if math.isfinite(shift[0]) else []


def _groups(
    source: Source, image: RasterSource, mask: Raster | None, job: SimilarityJob, progress: Progress
) -> list[Group]:
    """The bands to compare, by the source's grids, the finest first. Raises `InputError`."""
    names = [image.bands[place_of(band, image.raster)] for band in job.bands] or image.bands
    unknown = [name for name in names if name not in MTF_AT_NYQUIST]
    if unknown and (job.bands or len(unknown) == len(names)):
        raise InputError(
            f"The band {unknown[0]} of {image.name} is none whose MTF is known; give the bands Sentinel-2's names as "
            f"descriptions, of {', '.join(MTF_AT_NYQUIST)}."
        )
    missing = [name for name in names if name not in source.bands]
    if missing and (job.bands or len(missing) == len(names)):
        raise InputError(f"The source {source.name} has no band {missing[0]}; it has {', '.join(source.bands)}.")
    left = list(dict.fromkeys([*unknown, *missing]))
    if left:
        progress.log(f"Left out, since the source has no such band: {', '.join(left)}.", "warning")
    by_spacing: dict[float, list[str]] = {}
    for name in names:
        if name not in left:
            by_spacing.setdefault(source.grid(name).spacing, []).append(name)
    groups = []
    for _, members in sorted(by_spacing.items()):
        grid = source.grid(members[0])
        nest = nesting(grid, image.grid(members[0]), source.name, image.name)
        groups.append(Group(members, source, image, nest, (mask, _mask_nesting(mask, grid, nest)) if mask else None))
    return groups


def _mask_nesting(mask: Raster, grid: Any, nest: Nesting) -> Nesting:
    """How the mask lies in what both images cover. Raises `InputError`."""
    ground = grid.crop(nest.coarse)
    try:
        found = nesting(ground, mask.grid, "the ground compared", mask.path.name)
    except InputError as error:
        raise InputError(
            f"The mask must lie on the image's grid or the source's: {mask.path.name} is {described(mask.grid)}; the "
            f"ground compared is {described(ground)}."
        ) from error
    if (found.coarse.width, found.coarse.height) != (ground.width, ground.height):
        raise InputError(
            f"The mask does not cover the ground compared: {mask.path.name} is {described(mask.grid)}; the ground "
            f"is {described(ground)}."
        )
    return found


def _merged(groups: list[Group], done: list[tuple[Result, dict[str, float]]]) -> dict[str, Any]:
    """Figures of each group, and of the whole."""
    from .compare import figures

    each = []
    for group, (result, published) in zip(groups, done, strict=True):
        each.append(
            {
                "bands": group.names,
                "factor": group.factor,
                "spacing": group.source.grid(group.names[0]).spacing,
                "pixels": result.pixels,
                "measures": figures(result, UNIT)["measures"],
                "opensr": published,
            }
        )
    judged = [group for group in each if group["factor"] > 1] or each
    weights = [len(group["bands"]) for group in judged]
    measures: dict[str, Any] = {}
    for name in each[0]["measures"]:
        parts = [group["measures"][name] for group in each]
        bands: dict[str, float] = {}
        for part in parts:
            bands.update(part["bands"] or {})
        total = _mean([group["measures"][name]["total"] for group in judged], weights)
        measures[name] = {**parts[0], "total": total, "bands": bands or None}
        notes = [part["note"] for part in parts if "note" in part]
        if notes:
            measures[name]["note"] = notes[0]
    opensr_figures = {name: _mean([group["opensr"][name] for group in judged], weights) for name in each[0]["opensr"]}
    totals = {name: entry["total"] for name, entry in measures.items()}
    return {"measures": measures, **totals, "opensr": opensr_figures, "groups": each}


def _mean(values: list[float], weights: list[int]) -> float:
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
    return sum(value * weight for value, weight in known) / sum(w for _, w in known) if known else math.nan
