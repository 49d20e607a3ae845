"""Writing outputs: beside the target under a hidden name, renamed when complete, nothing left otherwise."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import Resampling

from ..outputs import atomic
from ..processors import available_threads
from ..redaction import redacted
from .grid import Grid, Window
from .verify import check_whole_raster, gdal_errors

_LEVELS = {"deflate": "ZLEVEL", "zstd": "ZSTD_LEVEL"}
_LEVEL = "1"
"""Of compression: an image's noise hardly compresses, so that higher levels cost more time and save little or nothing
(docs/performance.md)."""


@dataclass(frozen=True)
class Clipped:
    """Pixels of a band whose values an integer type cannot hold: ``low`` became 1, ``high`` 65535."""

    low: int = 0
    high: int = 0

    def __add__(self, other: Clipped) -> Clipped:
        return Clipped(self.low + other.low, self.high + other.high)


def clipped_sentences(clipped: Mapping[str, Clipped]) -> list[str]:
    """What to say of clipped pixels by band; nothing where there are none."""
    low = {band: count.low for band, count in clipped.items() if count.low}
    high = {band: count.high for band, count in clipped.items() if count.high}
    found = []
    for counts, what in (
        (low, "are negative as digital numbers and became 1"),
        (high, "are above 65535 and became that"),
    ):
        if counts:
            total, bands = sum(counts.values()), ", ".join(f"{band} {count}" for band, count in counts.items())
            found.append(
                f"{total} pixels {what} in the output ({bands}), as uint16 cannot hold them; write float32 reflectance "
                "(--data-type float32) to keep their values."
            )
    return found


@dataclass(frozen=True)
class OutputBand:
    """A band of a file: its name, centre wavelength and bandwidth in nm; value = pixel × ``scale`` + ``offset``."""

    name: str
    wavelength: float | None = None
    bandwidth: float | None = None
    scale: float = 1.0
    offset: float = 0.0

    def stored(self, image: NDArray[np.float32], valid: NDArray[np.bool_] | None, data_type: str) -> NDArray[Any]:
        """Values to what a uint16 (nodata 0) or float32 (nodata NaN) file stores; a valid pixel never becomes 0.

        ``valid``: None where all pixels are.
        """
        if data_type == "float32":
            return image if valid is None else np.where(valid, image, np.float32(np.nan))
        # 16 bits fit into float32's 24, so that every DN comes out as it went in.
        numbers = image * np.float32(1 / self.scale)
        numbers -= np.float32(self.offset / self.scale)
        np.rint(numbers, out=numbers)
        np.clip(numbers, 1, 65535, out=numbers)
        if valid is not None:
            np.copyto(numbers, 0, where=~valid)
        return numbers.astype(np.uint16)

    def beyond(self, image: NDArray[np.float32], valid: NDArray[np.bool_] | None, data_type: str) -> Clipped:
        """How many valid values a uint16 file cannot hold: below DN 0, and above 65535."""
        if data_type == "float32":
            return Clipped()
        low = image < np.float32(self.offset - 0.5 * self.scale)
        high = image > np.float32(self.offset + 65535.5 * self.scale)
        if valid is not None:
            low, high = low & valid, high & valid
        return Clipped(int(np.count_nonzero(low)), int(np.count_nonzero(high)))


@dataclass(frozen=True)
class FileOptions:
    """How a raster is stored. ``block``: side of its inner tiles, a multiple of 16. ``tags``: of the whole file."""

    data_type: Literal["uint16", "float32"] = "uint16"
    nodata: float = 0.0
    format: Literal["gtiff", "cog"] = "gtiff"
    compression: Literal["deflate", "zstd"] = "deflate"
    block: int = 512
    threads: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


ASSUMPTIONS = "S2SR_ASSUMPTIONS"
"""Tag of an output: what was assumed about its inputs, one sentence after another, separated by `` | ``."""


def assumed(assumptions: Sequence[str]) -> dict[str, str]:
    """The tag of an output for what was assumed about its inputs; none where nothing was."""
    return {ASSUMPTIONS: " | ".join(dict.fromkeys(assumptions))} if assumptions else {}


class RasterWriter:
    """A raster that is being written window by window; made by `write_raster`."""

    def __init__(self, dataset: Any, bands: list[OutputBand], target: Path):
        self._dataset = dataset
        self._index = {band.name: number for number, band in enumerate(bands, start=1)}
        self._target = target

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set more tags of the file. Raises `OutputError`."""
        with gdal_errors(self._target):
            self._dataset.update_tags(**redacted(tags))

    def write(self, window: Window, images: Mapping[str, NDArray[Any]]) -> None:
        """Write bands (height, width), already in the file's data type, by name. Raises `OutputError`."""
        place = rasterio.windows.Window(window.col, window.row, window.width, window.height)
        with gdal_errors(self._target):
            for name, image in images.items():
                self._dataset.write(image, self._index[name], window=place)


@contextmanager
def write_raster(
    target: str | os.PathLike[str],
    grid: Grid,
    bands: list[OutputBand],
    options: FileOptions | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[RasterWriter]:
    """Create a GeoTIFF or COG window by window, with overviews; it appears under its name only when complete.

    ``check`` is called while overviews are built, and may raise to stop. Raises `OutputError` as `atomic` does, and
    when the finished file has a gap.
    """
    options = options or FileOptions()
    with atomic(target) as temporary:
        plain = temporary if options.format == "gtiff" else temporary.parent / "plain.tif"
        path = Path(target).expanduser().absolute()
        with gdal_errors(path):
            dataset = rasterio.open(plain, "w", **_profile(grid, bands, options))
        try:
            with gdal_errors(path):
                _describe(dataset, bands, options)
            yield RasterWriter(dataset, bands, path)
        except BaseException:
            with suppress(Exception):  # what failed first is what to tell
                dataset.close()
            raise
        with gdal_errors(path):
            dataset.close()

        def complete() -> None:
            with gdal_errors(path):
                _finish(plain, temporary, options)
                check_whole_raster(temporary, options.threads or available_threads())

        _interruptible(complete, check)


def _profile(grid: Grid, bands: list[OutputBand], options: FileOptions) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "width": grid.width,
        "height": grid.height,
        "count": len(bands),
        "dtype": options.data_type,
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": options.nodata,
        "tiled": True,
        "blockxsize": options.block,
        "blockysize": options.block,
        "interleave": "band",
        "photometric": "MINISBLACK",
        "ALPHA": "NO",
        "compress": options.compression,
        "predictor": _predictor(options),
        _LEVELS[options.compression]: _LEVEL,
        "num_threads": str(options.threads or available_threads()),
        "BIGTIFF": "IF_SAFER",
    }


def _predictor(options: FileOptions) -> int:
    return 3 if options.data_type == "float32" else 2


def _describe(dataset: Any, bands: list[OutputBand], options: FileOptions) -> None:
    dataset.update_tags(**redacted(options.tags))
    dataset.descriptions = tuple(band.name for band in bands)
    if any(band.scale != 1 or band.offset != 0 for band in bands):
        dataset.scales = tuple(band.scale for band in bands)
        dataset.offsets = tuple(band.offset for band in bands)
    for number, band in enumerate(bands, start=1):
        if band.wavelength is not None:
            # GDAL's own names, then those that EnMAP-Box and ENVI readers look for.
            dataset.update_tags(number, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=f"{band.wavelength / 1000:.4f}")
            dataset.update_tags(number, wavelength=f"{band.wavelength:g}", wavelength_units="Nanometers")
        if band.bandwidth is not None:
            dataset.update_tags(number, ns="IMAGERY", FWHM_UM=f"{band.bandwidth / 1000:.4f}")
            dataset.update_tags(number, fwhm=f"{band.bandwidth:g}")


def _finish(plain: Path, final: Path, options: FileOptions) -> None:
    """Add overviews, or turn the plain file into a COG, which has its own."""
    threads = str(options.threads or available_threads())
    if options.format == "cog":
        rasterio.shutil.copy(
            plain,
            final,
            driver="COG",
            COMPRESS=options.compression.upper(),
            LEVEL=_LEVEL,
            PREDICTOR="YES",
            BIGTIFF="IF_SAFER",
            OVERVIEW_RESAMPLING="AVERAGE",
            NUM_THREADS=threads,
        )
        return
    with rasterio.open(plain) as dataset:
        side = max(dataset.shape)
    factors = [2**level for level in range(1, 16) if side / 2 ** (level - 1) > 256]
    if factors:
        level = {f"{_LEVELS[options.compression]}_OVERVIEW": _LEVEL}
        with rasterio.Env(GDAL_NUM_THREADS=threads, **level), rasterio.open(plain, "r+") as dataset:
            dataset.build_overviews(factors, Resampling.average)


def _interruptible(work: Callable[[], None], check: Callable[[], None]) -> None:
    """Do what GDAL cannot be stopped in, on a thread that dies with the process; ``check`` may raise meanwhile."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
        check()
    if failed:
        raise failed[0]
