"""An image that is read by windows, whatever makes its pixels: a file, or a computation on other images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window as RasterWindow

from ..errors import InputError
from .grid import Grid, Window
from .validity import masked, unmistakable, validity_of

GDAL_CACHE = 256 * 2**20
"""Bytes that GDAL may keep of what it has read; its own bound is a share of the machine's memory."""

_F = TypeVar("_F", bound="FileImage")


class Image(Protocol):
    """Pixels on a grid, read by windows.

    ``nodata`` marks pixels without a value (NaN always does); None: every pixel has one.
    """

    @property
    def grid(self) -> Grid:
        """Which pixels there are."""
        ...

    @property
    def bands(self) -> Sequence[str]:
        """Names of the bands in their order; what the file calls them, or ``1``, ``2`` …"""
        ...

    @property
    def nodata(self) -> float | None:
        """The value of pixels without a value."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of what `read` gives."""
        ...

    def read(self, window: Window | None = None) -> NDArray[Any]:
        """Pixels of a window inside the grid (everything where none is given), (bands, height, width)."""
        ...


class Moved:
    """An image that is said to lie on another grid of the same size."""

    def __init__(self, image: Image, grid: Grid) -> None:
        self._image, self.grid = image, grid
        self.bands, self.nodata, self.dtype = image.bands, image.nodata, image.dtype

    def read(self, window: Window | None = None) -> NDArray[Any]:
        """See `Image.read`."""
        return self._image.read(window)


class Remarked:
    """A float32 image whose pixels without a value hold another number: ``new`` instead of ``old`` (either may be NaN).

    OTB's applications know pixels without a value by a number alone, everything else by NaN.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, image: Image, old: float, new: float) -> None:
        self._image, self._old, self._new = image, old, new
        self.grid, self.bands, self.nodata = image.grid, image.bands, new

    def read(self, window: Window | None = None) -> NDArray[np.float32]:
        """See `Image.read`."""
        pixels = self._image.read(window).astype(np.float32)
        pixels[np.isnan(pixels) if math.isnan(self._old) else pixels == self._old] = self._new
        return pixels


class Part:
    """A window of an image, as an image."""

    def __init__(self, image: Image, window: Window) -> None:
        self._image, self._window = image, window
        self.grid = image.grid.crop(window)
        self.bands, self.nodata, self.dtype = image.bands, image.nodata, image.dtype

    def read(self, window: Window | None = None) -> NDArray[Any]:
        """See `Image.read`."""
        w = window or self.grid.window
        return self._image.read(Window(self._window.col + w.col, self._window.row + w.row, w.width, w.height))


class FileImage:
    """A raster file as an `Image`; a context manager. Raises `InputError` where it cannot be opened or is not north-up.

    ``nodata`` overrides the file's own. ``bands`` picks bands by number, from 1 on, in the order wanted. With
    ``anywhere`` an image without a place on the ground will do: its corner is 0, 0 and its pixels are 1 wide.
    ``warnings`` are sentences on what was assumed about the file. Where a mask, an alpha band or a band such as
    ``dataMask`` says which pixels have values (``masked``), the others are read as NaN; ``stored`` is the file's type.
    """

    def __init__(
        self,
        path: str | Path,
        nodata: float | None = None,
        bands: Sequence[int] | None = None,
        anywhere: bool = False,
    ) -> None:
        self.path = Path(path)
        self.warnings: list[str] = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                self._file = rasterio.open(path)
        except RasterioError as error:
            raise InputError(f"{path} cannot be opened as a raster: {error}.") from error
        file = self._file
        if not file.count:
            self.close()
            raise InputError(f"{path} has no bands of its own (it is a container); name one of the rasters in it.")
        t = file.transform
        if not anywhere and file.crs is None and (file.rpcs or file.gcps[0]):
            model = "RPCs" if file.rpcs else "ground control points"
            self.close()
            raise InputError(
                f"{path} is in sensor geometry ({model}, no CRS): its pixels are not on a map yet; orthorectify it "
                "first, with gdalwarp and a DEM (-rpc for RPCs, -tps for ground control points) or OTB's "
                "OrthoRectification."
            )
        if anywhere and t.is_identity:
            t = Affine.scale(1.0, -1.0)
        if t.b or t.d or t.a <= 0 or t.e >= 0:
            self.close()
            raise InputError(f"{path} is not north-up (its transform is {tuple(t)[:6]}); warp it first, with gdalwarp.")
        validity = validity_of(file)
        self.numbers = list(bands or (n for n in range(1, file.count + 1) if n != validity.band))
        if max(self.numbers) > file.count:
            self.close()
            raise InputError(f"{path} has {file.count} bands, but band {max(self.numbers)} is asked for.")
        square = math.isclose(t.a, -t.e, rel_tol=1e-9)
        self.grid = Grid(file.crs, t.c, t.f, t.a, file.width, file.height, None if square else -t.e)
        self.bands = [file.descriptions[n - 1] or str(n) for n in self.numbers]
        self.nodata = file.nodata if nodata is None else nodata
        self.dtype = self.stored = np.dtype(file.dtypes[self.numbers[0] - 1])
        self._validity = validity
        self._fills = self._untagged() if self.nodata is None and not validity.stated else ()
        self.masked, self.tag = validity.stated or bool(self._fills), self.nodata
        if self.masked:
            # A mask says what no number in the file does, so pixels without a value become NaN.
            self.nodata = math.nan
            self.dtype = np.result_type(self.stored, np.float32)

    def sample(self, side: int = 256) -> NDArray[Any]:
        """A decimated copy as float64, (bands, h, w); NaN where there is no value. Raises `InputError`."""
        shape = (len(self.numbers), min(self._file.height, side), min(self._file.width, side))
        try:
            pixels: NDArray[Any] = self._file.read(self.numbers, out_shape=shape)
            valid = masked(self._file, self.numbers, self._validity, None, shape[1:])
        except RasterioError as error:
            raise InputError(f"{self.path} is damaged and cannot be read: {error}.") from error
        return np.where(self._known(pixels, valid), pixels.astype(np.float64), np.nan)

    def _known(self, pixels: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Where pixels have values: ``valid`` by mask (None: all), and neither nodata nor a number that can only be."""
        good = np.ones(pixels.shape, bool) if valid is None else np.broadcast_to(valid, pixels.shape).copy()
        for number in (*self._fills, *(() if self.tag is None else (self.tag,))):
            good &= pixels != number
        return good

    def _untagged(self) -> tuple[float, ...]:
        """Numbers that can only be nodata, though nothing in the file says so."""
        if self.stored.kind not in "if":
            return ()
        shape = (len(self.numbers), min(self._file.height, 512), min(self._file.width, 512))
        try:
            fills = unmistakable(self._file.read(self.numbers, out_shape=shape), None)
        except RasterioError:
            return ()  # a file that is damaged is found when its pixels are read
        if fills:
            numbers = ", ".join(f"{number:.6g}" for number in fills)
            self.warnings.append(
                f"Pixels of {numbers} in {self.path.name} are taken for nodata, though no tag says so."
            )
        return tuple(fills)

    def read(self, window: Window | None = None) -> NDArray[Any]:
        """See `Image.read`. Raises `InputError` where the file is damaged."""
        w = window or self.grid.window
        place = RasterWindow(w.col, w.row, w.width, w.height)
        try:
            pixels: NDArray[Any] = self._file.read(self.numbers, window=place)
            valid = masked(self._file, self.numbers, self._validity, place) if self.masked else None
        except RasterioError as error:
            raise InputError(f"{self.path} is damaged and cannot be read: {error}.") from error
        if not self.masked:
            return pixels
        good = self._known(pixels, valid)
        pixels = pixels.astype(self.dtype)
        pixels[~good] = np.nan
        return pixels

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self: _F) -> _F:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
