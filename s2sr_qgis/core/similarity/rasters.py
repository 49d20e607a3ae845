"""Two raster files as one pair to compare: the same grid, the same bands, the same unit, and where both have values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..errors import InputError
from ..jobs import SimilarityJob
from ..progress import Progress
from ..raster.grid import Grid, Window
from ..raster.image import FileImage, Image
from ..raster.superimpose import superimpose, valid_pixels
from ..raster.units import scaled_already
from ..scene.bands import BANDS, band_in
from .bands import paired
from .measure import Float, Mask

QUANTIFICATION = 10000.0
"""Digital numbers that mean reflectance 1 in a Sentinel-2 product."""

TOLERANCE = 0.01
"""Pixels by which two grids may differ anywhere and still be the same."""

CACHE = 64 * 2**20, 384 * 2**20
"""Least and most bytes that GDAL may keep of what it has read; its own bound is a share of the machine's memory."""

BELT = 1024
"""Rows of both files that the cache is to hold: what a row of blocks reads."""


class Raster(FileImage):
    """A file to compare, with what tells its bands, unit and range; it may be read from several threads.

    ``nodata`` stands in where the file has none. Attributes: ``names``, the Sentinel-2 band that each description
    names, or the description; ``scale``, ``offset`` of each band; ``bits``, what the tag NBITS says.
    """

    def __init__(self, path: str | Path, nodata: float | None = None) -> None:
        super().__init__(Path(path).expanduser(), anywhere=True)
        file, self._lock = self._file, Lock()
        if self.tag is None and nodata is not None:
            self.tag, self.nodata = nodata, math.nan if self.masked else nodata
        dtypes = [file.dtypes[number - 1] for number in self.numbers]
        if len(set(dtypes)) > 1 or self.stored.kind == "c":
            kinds = ", ".join(dict.fromkeys(dtypes))
            self.close()
            raise InputError(f"{path} cannot be compared: its bands are of type {kinds}; one real type is needed.")
        texts = [file.descriptions[number - 1] for number in self.numbers]
        self.names = [band_in(text) or (text or "").strip() for text in texts]
        self.scale, self.offset = (
            np.array([each[n - 1] for n in self.numbers]) for each in (file.scales, file.offsets)
        )
        if self.stored.kind == "f" and self.tells_scale:
            self._drop_tags()
        self.bits = {int(b) for n in self.numbers if (b := file.tags(n, ns="IMAGE_STRUCTURE").get("NBITS"))}
        self.strips = any(width >= file.width > BELT for _, width in file.block_shapes)

    def choose(self, places: Sequence[int]) -> None:
        """Keep these bands, by their place from 0 on, in this order."""
        self.numbers = [self.numbers[place] for place in places]
        self.names = [self.names[place] for place in places]
        self.bands = [name or str(number) for name, number in zip(self.names, self.numbers, strict=True)]
        self.scale, self.offset = self.scale[list(places)], self.offset[list(places)]

    def read(self, window: Window | None = None) -> NDArray[Any]:
        """See `Image.read`."""
        with self._lock:
            return super().read(window)

    def _drop_tags(self) -> None:
        """Leave scale and offset out where the pixels are scaled already, as tools do that keep the tags."""
        values = self.sample()
        scaled = values * self.scale[:, None, None] + self.offset[:, None, None]
        known = np.isfinite(values) & (values != 0)
        unit = scaled_already(values[known], scaled[known])
        if unit:
            self.scale, self.offset = np.full(len(self.scale), 1 / unit.value), np.zeros(len(self.offset))
            self.warnings.append(
                f"The pixels of {self.path.name} are {unit.words} already, though scale and offset tags are in the "
                "file: the tags are not applied a second time."
            )

    @property
    def tells_scale(self) -> bool:
        """Whether the file has scale or offset tags."""
        return bool(np.any(self.scale != 1) or np.any(self.offset != 0))

    @property
    def tells_unit(self) -> bool:
        """Whether the file says what its values mean: by scale and offset, or by being of a real type."""
        return self.stored.kind == "f" or self.tells_scale


@dataclass(frozen=True)
class Pair:
    """Two images that can be compared pixel by pixel.

    Attributes:
        reference, image: with the same bands on the same grid.
        mask: an image of one band there, or None.
        bands: their names.
        gains: factor and summand of each band, (2, bands, 1, 1) of each image: value = factor x pixel + summand.
        unit, short_unit: of the values, in words, and ``DN`` or ``values``.
        data_range, range_from: largest minus smallest value that the images can have in that unit, and who says so.
        strips: whether a file is stored row by row.
        resampled: how the image came to the reference's grid; empty where it lies there.
        warnings: what the user was told.
    """

    reference: Raster
    image: Image
    mask: Image | None
    bands: list[str]
    gains: tuple[Float, Float]
    unit: str
    short_unit: str
    data_range: float
    range_from: str
    strips: bool
    resampled: str
    warnings: tuple[str, ...]

    @property
    def grid(self) -> Grid:
        """Which pixels there are."""
        return self.reference.grid

    def read(self, window: Window) -> tuple[Float, Float, Mask]:
        """Both images (bands, h, w) with 0 where they do not count, and where they do."""
        values, valid = [], np.ones((len(self.bands), *window.shape), bool)
        for image, (factor, summand) in zip((self.reference, self.image), self.gains, strict=True):
            pixels = image.read(window)
            valid &= valid_pixels(pixels, image.nodata)
            numbers = pixels.astype(np.float64)
            values.append(numbers if (factor == 1).all() and not summand.any() else factor * numbers + summand)
        if self.mask is not None:
            pixels = self.mask.read(window)
            valid &= valid_pixels(pixels, self.mask.nodata) & (pixels != 0)
        if not valid.all():
            for numbers in values:
                numbers[~valid] = 0.0
        return values[0], values[1], valid


@contextmanager
def open_pair(job: SimilarityJob, progress: Progress) -> Iterator[Pair]:
    """Open the two rasters of a job, and its mask. Raises `InputError` where they cannot be compared."""
    with ExitStack() as stack:
        reference = stack.enter_context(Raster(job.reference, job.nodata))
        image = stack.enter_context(Raster(job.image, job.nodata))
        mask = stack.enter_context(Raster(job.mask)) if job.mask else None
        warnings: list[str] = []
        bands = paired(reference, image, job.bands, warnings.append)
        reference.choose([place for place, _ in bands])
        image.choose([place for _, place in bands])
        if mask is not None:
            mask.choose([0])
            if not same_grid(mask.grid, reference.grid):
                raise InputError(
                    f"The mask lies on another grid than the reference: {mask.path.name} is {described(mask.grid)}; "
                    f"{reference.path.name} is {described(reference.grid)}. Warp the mask to the reference's grid."
                )
        gains, unit = units(reference, image)
        data_range, source = default_range(reference) if job.data_range is None else (job.data_range, "the option")
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_cache(reference, image)))
        aligned = _aligned(reference, image, job)
        warnings += [text for raster in (reference, image, mask) if raster for text in raster.warnings]
        for text in warnings:
            progress.log(text, "warning")
        rmse = unit if job.definition == "reference" else "data ranges"
        progress.log(f"Unit of RMSE: {rmse}; data range {data_range:g}, from {source}.")
        resampled = "" if aligned is image else f"{job.resample}, from {described(image.grid)}"
        strips = reference.strips or image.strips
        yield Pair(
            reference, aligned, mask, reference.bands, gains, unit,
            "values" if reference.stored.kind == "f" else "DN", data_range, source, strips, resampled, tuple(warnings),
        )  # fmt: skip


def same_grid(a: Grid, b: Grid) -> bool:
    """Whether two grids have the same CRS and pixels, but for rounding."""
    if (a.width, a.height) != (b.width, b.height) or bool(a.crs) != bool(b.crs) or (a.crs and a.crs != b.crs):
        return False
    pixels = (b.spacing, b.pixel_height, b.spacing, b.pixel_height)
    return all(abs(p - q) <= TOLERANCE * u for p, q, u in zip(a.bounds, b.bounds, pixels, strict=True))


def described(grid: Grid) -> str:
    """A grid for a sentence: CRS, corner, pixel, size."""
    crs = grid.crs.to_string() if grid.crs else "no CRS"
    crs = crs if len(crs) < 40 else str(grid.crs.to_dict().get("proj", "a CRS of its own"))
    return (
        f"{crs}, corner {grid.x:.10g} {grid.y:.10g}, pixels of {grid.spacing:.8g} x {grid.pixel_height:.8g}, "
        f"{grid.width} x {grid.height} pixels"
    )


def units(reference: Raster, image: Raster) -> tuple[tuple[Float, Float], str]:
    """What brings both rasters to one unit, see `Pair.gains`, and the unit in words.

    Where both tell their scale and offset, the unit is the reference's pixel value without its offset: digital numbers
    stay digital numbers, and a reflectance that is compared with them becomes some. Else the values are as stored.
    """
    ones, zeros = np.ones(len(reference.scale)), np.zeros(len(reference.scale))
    both = reference.tells_unit and image.tells_unit and bool((reference.scale != 0).all())
    x, y = np.stack([ones, zeros]), np.stack([ones, zeros])
    if both:
        x[1] = reference.offset / reference.scale
        y = np.stack([image.scale / reference.scale, image.offset / reference.scale])
        # The quotient of two tags that mean the same must not be 1 but for rounding.
        y[0] = np.where(np.isclose(y[0], 1, rtol=1e-9), 1.0, y[0])
    unit = "values as stored"
    scales = set(reference.scale.tolist())
    if len(scales) == 1 and (scale := scales.pop()) not in (0, 1):
        unit = f"digital numbers of the reference ({1 / scale:g} of them are 1)"
    elif both and reference.stored.kind == "f":
        unit = "values of the reference" if (y != x).any() else unit
    return (x[..., None, None], y[..., None, None]), unit


def default_range(raster: Raster) -> tuple[float, str]:
    """Largest minus smallest value that an image can have, from what its file says, and who says so."""
    kind = raster.stored
    if raster.bits and kind.kind in "iu":
        return float(2 ** max(raster.bits) - 1), f"the tag NBITS ({max(raster.bits)} bits)"
    if kind == np.uint8:
        return 255.0, "the type uint8"
    scale = float(np.abs(raster.scale).min())
    if scale not in (0.0, 1.0):
        return 1.0 / scale, f"the bands' scale ({scale:g})"
    if kind.kind == "f":
        return 1.0, f"the type {kind} (reflectance)"
    if all(name in BANDS for name in raster.names):
        return QUANTIFICATION, "the names of Sentinel-2's bands"
    limits = np.iinfo(kind)
    return float(int(limits.max) - int(limits.min)), f"the type {kind}"


def _aligned(reference: Raster, image: Raster, job: SimilarityJob) -> Image:
    """The image on the reference's grid."""
    if same_grid(reference.grid, image.grid):
        return image
    if job.resample != "none":
        return superimpose(image, reference.grid, interpolation=job.resample, dtype=np.float64)
    raise InputError(
        f"The images lie on different grids: {reference.path.name} is {described(reference.grid)}; {image.path.name} "
        f"is {described(image.grid)}. Choose a resampling (--resample nearest, linear or bicubic) to bring the image "
        "to the reference's grid."
    )


def _cache(*rasters: Raster) -> int:
    """Bytes for the strips or tiles of a row of blocks, so that each is decompressed once."""
    belt = sum(r.grid.width * min(r.grid.height, BELT) * len(r.numbers) * r.dtype.itemsize for r in rasters)
    return int(min(max(1.2 * belt, CACHE[0]), CACHE[1]))
