"""The finer sensor's side of a pair: GeoTIFF or DIMAP, with or without a panchromatic image, on one fine grid."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio
from defusedxml import ElementTree
from rasterio.errors import RasterioError

from ..errors import InputError
from ..raster.grid import Grid, Window
from ..raster.image import FileImage, Image, Part
from ..raster.pansharpening import bundle_to_perfect_sensor

if TYPE_CHECKING:
    from ..jobs import CreateCrossSensorDatasetJob

ALIGNED = 1e-3
"""Corners and spacings that differ by less than this share of a fine pixel are the same."""

SENTINEL_2 = 10.0


@dataclass(frozen=True)
class Reference:
    """The finer image, lazily made, and the grid of the low-resolution patches over the same ground.

    ``coarse`` pixels are ``ratio`` fine ones wide and share their corner. ``acquired``: None where nothing tells.
    ``warnings``: what was assumed about the files.
    """

    image: Image
    coarse: Grid
    ratio: int
    acquired: datetime | None
    name: str
    warnings: tuple[str, ...] = ()


def open_reference(job: CreateCrossSensorDatasetJob, stack: ExitStack) -> Reference:
    """Open XS and PAN, check that they belong together, and pansharpen (lazily). Raises `InputError`."""
    xs = stack.enter_context(FileImage(job.xs, job.nodata))
    if len(xs.bands) < len(job.bands):
        raise InputError(
            f"{job.xs} has {len(xs.bands)} bands, but {len(job.bands)} are asked for ({', '.join(job.bands)}); name "
            "one Sentinel-2 band for each band of the image."
        )
    if len(xs.bands) > len(job.bands):
        stack.enter_context(xs := FileImage(job.xs, job.nodata, range(1, len(job.bands) + 1)))
    if xs.grid.crs is None or xs.grid.crs.is_geographic:
        raise InputError(f"{job.xs} has no projected CRS, so its pixels have no size in metres; warp it first.")
    acquired, name = _acquired(Path(job.xs)), Path(job.xs).stem
    if job.pan is None:
        ratio = job.ratio or max(round(SENTINEL_2 / xs.grid.spacing), 1)
        return Reference(xs, _coarser(xs.grid, ratio, job.xs), ratio, acquired, name, tuple(xs.warnings))
    pan = stack.enter_context(FileImage(job.pan, job.nodata))
    if len(pan.bands) != 1:
        raise InputError(f"{job.pan} has {len(pan.bands)} bands; a panchromatic image has one.")
    if pan.grid.crs != xs.grid.crs:
        raise InputError(
            f"XS is in {xs.grid.crs.to_string()} and PAN in {pan.grid.crs.to_string() if pan.grid.crs else 'no CRS'}; "
            "warp one onto the other's CRS first."
        )
    ratio = _ratio(xs.grid, pan.grid)
    if job.ratio not in (None, ratio):
        raise InputError(f"XS is {ratio} times coarser than PAN, not {job.ratio} times; leave the ratio out.")
    image = bundle_to_perfect_sensor(
        pan,
        xs,
        method=job.pansharpening,
        interpolation=job.interpolation,
        engine=job.engine,
        compat=job.compat,
    )
    coarse, warnings = _common(xs.grid, pan.grid, ratio, job), (*xs.warnings, *pan.warnings)
    return Reference(image, coarse, ratio, acquired or _acquired(Path(job.pan)), name, warnings)


def cropped(reference: Reference, window: Window) -> Reference:
    """The part of a reference under a window of its coarse grid."""
    fine = Window(*(value * reference.ratio for value in (window.col, window.row, window.width, window.height)))
    if fine == reference.image.grid.window:
        return replace(reference, coarse=reference.coarse.crop(window))
    return replace(reference, coarse=reference.coarse.crop(window), image=Part(reference.image, fine))


def _ratio(xs: Grid, pan: Grid) -> int:
    ratio = xs.spacing / pan.spacing
    if abs(ratio - round(ratio)) > ALIGNED or round(ratio) < 1:
        raise InputError(
            f"XS pixels of {xs.spacing:g} m are {ratio:.3g} times as wide as PAN's of {pan.spacing:g} m; the ratio "
            "must be an integer, so warp one of them first."
        )
    return round(ratio)


def _coarser(grid: Grid, ratio: int, path: str) -> Grid:
    coarse = grid.coarser(ratio)
    if not coarse.width or not coarse.height:
        raise InputError(f"{path} has {grid.width} x {grid.height} pixels, too few for a ratio of {ratio}.")
    return coarse


def _common(xs: Grid, pan: Grid, ratio: int, job: CreateCrossSensorDatasetJob) -> Grid:
    """The coarse grid over the ground that XS and PAN share: PAN's own, made coarser.

    SPOT delivers XS and PAN on grids that need not share a corner; pairs must cover exactly the same ground, so the
    fine grid decides.
    """
    x = (xs.x - pan.x) / (pan.spacing * ratio)
    y = (pan.y - xs.y) / (pan.spacing * ratio)
    left, top = (max(math.ceil(v - ALIGNED), 0) for v in (x, y))
    right = min(math.floor(x + xs.width + ALIGNED), pan.width // ratio)
    bottom = min(math.floor(y + xs.height + ALIGNED), pan.height // ratio)
    if right <= left or bottom <= top:
        raise InputError(
            f"XS and PAN do not overlap: {_extent(xs)} against {_extent(pan)}; name two images of one place."
        )
    return _coarser(pan, ratio, str(job.pan)).crop(Window(left, top, right - left, bottom - top))


def _extent(grid: Grid) -> str:
    return ", ".join(f"{value:.0f}" for value in grid.bounds)


def _acquired(path: Path) -> datetime | None:
    """When an image was taken: DIMAP's IMAGING_DATE, or the TIFF tags of acquisition."""
    if path.suffix.lower() == ".xml":
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError, ValueError):
            return None
        dates = [e.text for e in root.iter("IMAGING_DATE") if e.text]
        return _date(dates[0]) if dates else None
    try:
        with rasterio.open(path) as file:
            tags = {**file.tags(), **file.tags(ns="IMAGERY")}
    except RasterioError:
        return None
    return next((_date(tags[k]) for k in ("ACQUISITIONDATETIME", "ACQUISITION") if tags.get(k)), None)


def _date(text: str) -> datetime | None:
    try:
        time = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace(" ", "T"))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
