"""Writing outputs: beside the target under a hidden name, renamed when complete, nothing left otherwise."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import uuid
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

from ..errors import OutputError, S2SRError
from ..processors import available_threads
from ..redaction import redacted
from .grid import Grid, Window
from .side_files import put_in_place

_SIDECARS = ("", ".aux.xml", ".ovr", ".ovr.tmp", ".msk", ".msk.ovr.tmp")
_NAME_MAX = 255
"""Bytes of a file's name that file systems allow."""

_LONGEST_SIDECAR = max(map(len, _SIDECARS))
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MEBIBYTE = 2**20
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
        with _gdal_errors(self._target):
            self._dataset.update_tags(**redacted(tags))

    def write(self, window: Window, images: Mapping[str, NDArray[Any]]) -> None:
        """Write bands (height, width), already in the file's data type, by name. Raises `OutputError`."""
        place = rasterio.windows.Window(window.col, window.row, window.width, window.height)
        with _gdal_errors(self._target):
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
        plain = temporary if options.format == "gtiff" else temporary.with_name(f"{temporary.stem}-plain.tif")
        path = Path(target).expanduser().absolute()
        try:
            with _gdal_errors(path):
                dataset = rasterio.open(plain, "w", **_profile(grid, bands, options))
            try:
                with _gdal_errors(path):
                    _describe(dataset, bands, options)
                yield RasterWriter(dataset, bands, path)
            except BaseException:
                with suppress(Exception):  # what failed first is what to tell
                    dataset.close()
                raise
            with _gdal_errors(path):
                dataset.close()
                _interruptible(lambda: _finish(plain, temporary, options), check)
                _check_complete(temporary)
        finally:
            if plain != temporary:
                discard(plain)


@contextmanager
def atomic(target: str | os.PathLike[str], folder: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``target``; renamed to it when the block succeeds, removed when it does not.

    The temporary name is hidden and keeps the target's suffix. With ``folder``, it is an empty folder to fill, and the
    target must be absent or an empty folder. Raises `OutputError` for a folder that is absent or cannot be written, a
    target that is in the way, and a full disk; every other exception of the block passes unchanged.
    """
    path = Path(target).expanduser().absolute()
    check_target(path, folder)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        if folder:
            temporary.mkdir()
        yield temporary
        if folder and path.is_dir():
            path.rmdir()
        put_in_place(temporary, path)
    except OSError as error:
        if not concerns(error, temporary):
            raise
        raise OutputError(output_sentence(error, path)) from error
    finally:
        discard(temporary)


def check_target(path: Path, folder: bool = False) -> None:
    """Raise `OutputError` when an output cannot be created at ``path``."""
    longest = len(os.fsencode(f".{path.stem}-12345678.part-plain{path.suffix}")) + _LONGEST_SIDECAR
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            longest = _NAME_MAX + 1
    if longest > _NAME_MAX:
        raise OutputError(f"The name {path.name[:40]}… is too long for an output; choose a shorter one.")
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist; create it or choose another output.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"The folder {path.parent} cannot be written to; choose another output.")
    if not folder and path.is_dir():
        raise OutputError(f"{path} is a folder; name a file to write.")
    if folder and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} exists and is not an empty folder; delete it or choose another output.")


def concerns(error: OSError, temporary: Path) -> bool:
    """Whether an OS error is about writing this output, rather than about reading something else."""
    if error.errno in (*_FULL, errno.EROFS):
        return True
    return any(str(name).startswith(str(temporary)) for name in (error.filename, error.filename2) if name)


def output_sentence(error: OSError, path: Path) -> str:
    """What an OS error means for the output at ``path``, in one sentence."""
    if error.errno in _FULL:
        return f"The disk is full: {path} could not be written; free some space or choose another output."
    return f"{path} could not be written: {error.strerror or error}; choose another output."


def discard(temporary: Path) -> None:
    """Remove a temporary output, file or folder, with what GDAL puts beside it."""
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
        return
    for suffix in _SIDECARS:
        temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)


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


def _check_complete(path: Path) -> None:
    """Raise an OSError when a block is missing or cut: GDAL does not always tell that a write failed."""
    size = path.stat().st_size
    with rasterio.open(path) as dataset:
        for level in range(-1, len(dataset.overviews(1))):
            with rasterio.open(path, **({} if level < 0 else {"OVERVIEW_LEVEL": level})) as image:
                height, width = image.block_shapes[0]
                columns, rows = -(-image.width // width), -(-image.height // height)
            at = {} if level < 0 else {"ovr": level}
            for band in dataset.indexes:
                for block in np.ndindex(columns, rows):
                    where = "_".join(map(str, block))
                    start = dataset.get_tag_item(f"BLOCK_OFFSET_{where}", "TIFF", bidx=band, **at)
                    length = dataset.get_tag_item(f"BLOCK_SIZE_{where}", "TIFF", bidx=band, **at)
                    if start is None or length is None or int(start) + int(length) > size:
                        raise OSError(errno.EIO, "the file is incomplete")


@contextmanager
def _gdal_errors(target: Path) -> Iterator[None]:
    """Turn whatever GDAL raises while writing ``target`` into an `OutputError`."""
    try:
        yield
    except S2SRError:
        raise
    except Exception as error:  # rasterio lets private classes of GDAL errors through
        full = isinstance(error, OSError) and error.errno in _FULL
        full = full or any(text in str(error) for text in ("No space left", "File too large"))
        if full or shutil.disk_usage(target.parent).free < _MEBIBYTE:
            raise OutputError(output_sentence(OSError(errno.ENOSPC, ""), target)) from error
        reason = (str(error).strip() or "unknown error").splitlines()[0]
        raise OutputError(
            f"{target} could not be written completely ({reason}); check the space there or choose another output."
        ) from error
