"""The raster files behind a scene: headers, truncation checks, and one open handle per thread and file."""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.windows import Window as RasterioWindow

from ..errors import InputError
from ..progress import current
from ..raster.grid import Window
from ..raster.validity import Validity, fill_of, masked, validity_of
from .signing import FIRST_WORD, expired

_REMOTE: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "6",
    "GDAL_HTTP_TIMEOUT": "120",
    # Less than a kilobyte a second for 20 seconds: the server has stalled.
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    # GDAL remembers a refusal by address; without this, a second try would get the first one's answer.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/",
    "VSI_CACHE": "TRUE",
}
_NETWORK = {
    "timed out": "timed out",
    "timeout": "timed out",
    "too slow": "timed out",
    "could not resolve": "Could not resolve the host's name",
    "couldn't connect": "no connection",
    "could not connect": "no connection",
    "failed to connect": "no connection",
    "connection refused": "no connection",
    "certificate": "the server's certificate is not trusted",
}
"""What curl's words mean."""

_HOPELESS = ("no connection", "timed out", "the server's certificate is not trusted")
"""Failures after GDAL's own retries, which another address does not mend."""

_EODATA = "/vsis3/eodata/"
"""The bucket of Copernicus Data Space, which is not Amazon's."""

_EODATA_SERVER = {"AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu", "AWS_VIRTUAL_HOSTING": "FALSE"}
_REMOTE_DRIVERS = {"GTiff", "COG", "JP2OpenJPEG"}
_PLAIN_DRIVERS = ["GTiff", "JP2OpenJPEG", "ENVI"]


@dataclass(frozen=True)
class RasterFile:
    """One raster: ``path`` as GDAL takes it, ``label`` as the user knows it.

    ``mask``: a raster on the same grid that is 0 where this one has no value. ``plain``: part of a product, so it is
    read as GeoTIFF, JPEG 2000 or ENVI only, never as a format that points at other files (VRT).
    """

    path: str
    label: str
    remote: bool = False
    mask: RasterFile | None = None
    plain: bool = False

    def locate(self) -> str:
        """The path to open now. Readers whose addresses age override this."""
        return self.path

    def renew(self) -> None:
        """Forget whatever made the last address; called before a failed read is tried once more."""


@dataclass(frozen=True)
class Header:
    """What a raster says of itself. ``scales`` and ``offsets`` are GDAL's tags, 1 and 0 where not set.

    ``block``: (rows, columns) that its format decodes at once. ``tags``: of the whole file. ``masked``: a mask, an
    alpha band or a band such as ``dataMask``, which is ``validity_band``, says which pixels have a value.
    """

    crs: CRS | None
    transform: Affine
    width: int
    height: int
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    descriptions: tuple[str | None, ...]
    block: tuple[int, int]
    tags: Mapping[str, str] = field(default_factory=dict)
    masked: bool = False
    validity_band: int | None = None
    inner: tuple[str, ...] = ()
    """GDAL's names of the rasters in a container (netCDF, HDF5, Zarr) that has no bands of its own."""
    wavelengths: tuple[float | None, ...] = ()
    """Centre wavelengths that the bands' tags state, in nm or µm."""


def _reading(file: RasterFile) -> Any:
    if not file.remote:
        return rasterio.Env()
    # Public buckets are read unsigned; who has credentials set (requester pays, private copies) keeps them.
    signed = any(os.environ.get(key) for key in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST"))
    # What the user set of GDAL's network options (proxy, retries, time limits) is meant.
    own = {key for key in _REMOTE if key.startswith("GDAL_HTTP_") and key in os.environ}
    options = {key: value for key, value in _REMOTE.items() if key not in own}
    options |= {} if signed else {"AWS_NO_SIGN_REQUEST": "YES"}
    if file.path.startswith(_EODATA):
        options |= {key: os.environ.get(key, value) for key, value in _EODATA_SERVER.items()}
    return rasterio.Env(**options)


class FilePool:
    """Opens files when they are first read, one handle per thread; `close` closes them all."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[Any] = []
        self._validity: dict[RasterFile, Validity] = {}

    def header(self, file: RasterFile) -> Header:
        """Open a file and read its header. Raises `InputError` naming the file."""
        with _reading(file), warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = self._with_retry(file, lambda d: d)
            placed = dataset.transform != Affine.identity()
            transform: Affine = dataset.transform
            if placed and (transform.b or transform.d):
                raise InputError(
                    f"{file.label} is rotated against the axes of its CRS; warp it to a north-up grid first."
                )
            if placed and (transform.a <= 0 or transform.e >= 0):
                raise InputError(f"{file.label} is not north-up (its first row is the southernmost); warp it first.")
            return Header(
                crs=dataset.crs or None,
                transform=transform if placed else Affine(1, 0, 0, 0, -1, 0),
                width=dataset.width,
                height=dataset.height,
                dtypes=tuple(dataset.dtypes),
                nodata=tuple(dataset.nodatavals),
                scales=tuple(dataset.scales),
                offsets=tuple(dataset.offsets),
                descriptions=tuple(dataset.descriptions),
                block=dataset.block_shapes[0] if dataset.count else (1, 1),
                tags=dataset.tags(),
                masked=file.mask is not None or self._validity_of(file, dataset).stated,
                validity_band=self._validity_of(file, dataset).band,
                inner=() if dataset.count else tuple(dataset.subdatasets),
                wavelengths=tuple(_wavelength(dataset, number) for number in dataset.indexes),
            )

    def read(
        self,
        file: RasterFile,
        index: int | list[int],
        window: Window | None = None,
        shape: tuple[int, int] | None = None,
    ) -> NDArray[Any]:
        """Read a window (file pixels) of one band (from 1), decimated to ``shape`` where given, as stored.

        Pixels that a mask, an alpha band or a ``dataMask`` leaves out are NaN, or 0 in integers. Several bands, (band,
        row, column), are read together: where a file interleaves them, each block once.
        """
        where = RasterioWindow(window.col, window.row, window.width, window.height) if window else None
        with _reading(file):
            data: NDArray[Any] = self._with_retry(file, lambda d: self._pixels(file, d, index, where, shape))
            return data

    def _pixels(
        self, file: RasterFile, dataset: Any, index: int | list[int], window: Any, shape: tuple[int, int] | None
    ) -> NDArray[Any]:
        data: NDArray[Any] = dataset.read(index, window=window, out_shape=shape)
        numbers = index if isinstance(index, list) else [index]
        valid = masked(dataset, numbers, self._validity_of(file, dataset), window, shape)
        if valid is not None:
            valid = valid if isinstance(index, list) else valid[0]
            data[~np.broadcast_to(valid, data.shape)] = fill_of(data.dtype)
        if file.mask:
            data[..., self._dataset(file.mask).read(1, window=window, out_shape=shape) == 0] = fill_of(data.dtype)
        return data

    def _validity_of(self, file: RasterFile, dataset: Any) -> Validity:
        """What says where the file's pixels have values, looked for once."""
        if file not in self._validity:
            # To look for masks, GDAL reads far into a file; a remote product that tags its nodata has none.
            told = file.remote and all(value is not None for value in dataset.nodatavals)
            self._validity[file] = Validity() if told else validity_of(dataset)
        return self._validity[file]

    def _with_retry(self, file: RasterFile, action: Any) -> Any:
        if not file.remote:
            return self._tried(file, action)
        with _slow_word(file):
            return self._tried(file, action)

    def _tried(self, file: RasterFile, action: Any) -> Any:
        try:
            return action(self._dataset(file))
        except RasterioError as error:
            self._drop(file)
            if not file.remote or _reason(error) in _HOPELESS:
                raise InputError(_unreadable(file, error)) from error
        # A remote file's address may have aged out in the middle of a long read: ask for a fresh one, once.
        file.renew()
        try:
            return action(self._dataset(file))
        except RasterioError as error:
            self._drop(file)
            raise InputError(_unreadable(file, error)) from error

    def _dataset(self, file: RasterFile) -> Any:
        handles: dict[RasterFile, tuple[str, Any]] = self._local.__dict__.setdefault("handles", {})
        path = file.locate()
        found = handles.get(file)
        if found and found[0] == path and not found[1].closed:
            return found[1]
        self._drop(file)
        # `rasterio.open` takes one driver only.
        dataset = DatasetReader(path, driver=_PLAIN_DRIVERS) if file.plain else rasterio.open(path)
        if file.remote and dataset.driver not in _REMOTE_DRIVERS:
            # What comes over the network may not be of a format that points at other files.
            dataset.close()
            raise InputError(f"{file.label} is neither GeoTIFF nor JPEG 2000, so it is not read.")
        handles[file] = (path, dataset)
        with self._lock:
            self._open.append(dataset)
        return dataset

    def _drop(self, file: RasterFile) -> None:
        found = self._local.__dict__.get("handles", {}).pop(file, None)
        if found:
            found[1].close()
            with self._lock:
                self._open = [d for d in self._open if d is not found[1]]

    def close(self) -> None:
        """Close every handle of every thread; a later read opens the file again."""
        with self._lock:
            handles, self._open = self._open, []
        for dataset in handles:
            dataset.close()


def _wavelength(dataset: Any, number: int) -> float | None:
    stated = dataset.tags(number).get("wavelength") or dataset.tags(number, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM")
    try:
        return float(stated) if stated else None
    except ValueError:
        return None


@contextmanager
def _slow_word(file: RasterFile) -> Iterator[None]:
    """Log once what is waited for, where a server does not answer within some seconds."""
    progress = current()
    timer = threading.Timer(FIRST_WORD, lambda: progress.log(f"Waiting for {file.label} from {_host(file)} ..."))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _host(file: RasterFile) -> str:
    address = file.path.removeprefix("/vsicurl/")
    return urlsplit(address).hostname or address.removeprefix("/vsis3/").partition("/")[0]


def _unreadable(file: RasterFile, error: Exception) -> str:
    if file.path.startswith(_EODATA) and not os.environ.get("AWS_ACCESS_KEY_ID"):
        return (
            f"{file.label} could not be read: Copernicus Data Space wants a key for its pixels; make one at "
            "https://eodata-s3keysmanager.dataspace.copernicus.eu and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if file.remote:
        reason = _reason(error)
        advice = "check the network and the item's address"
        past = expired(file.path)
        if past and reason in ("HTTP 400", "HTTP 401", "HTTP 403"):
            return f"{file.label} could not be read ({reason}): {past}; get the item again."
        if reason in ("HTTP 401", "HTTP 403"):
            advice = f"{_host(file)} refuses access: it wants a signed address or credentials"
        elif reason == "HTTP 404":
            advice = "it is not there any more; search for the scene again"
        elif reason == "HTTP 429":
            advice = f"{_host(file)} is throttling; try again in some minutes"
        elif reason.startswith("no answer"):
            advice = f"{_host(file)} may have sent a login or error page; open the address in a browser"
        return f"{file.label} could not be read ({reason}); {advice}."
    kind = "no GeoTIFF, JPEG 2000 or ENVI file" if file.plain else "no raster"
    return f"{file.label} cannot be read: it is damaged, truncated or {kind}; fetch it again."


def _reason(error: Exception) -> str:
    # GDAL's text holds the signed address, which is a secret for as long as its token lives.
    text = str(error.__cause__ or error)
    status = re.search(r"(?:HTTP (?:response|error) code\D*|HTTP )(\d{3})\b", text) or re.search(
        r"\b(4\d\d|50[0234])\b", text
    )
    if status:
        return f"HTTP {status.group(1)}"
    for word, meaning in _NETWORK.items():
        if word in text.lower():
            return meaning
    return "no answer that is a raster"


def check_whole(path: Path, label: str) -> None:
    """Raise `InputError` when a file is empty, or a JPEG 2000 file shorter than its code stream says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            check_stream(stream, size, label)
    except OSError as error:
        raise InputError(f"{label} cannot be opened ({error.strerror or error}).") from error


def check_stream(stream: BinaryIO, size: int, label: str) -> None:
    """`check_whole` on an open stream of known size, reading its first kilobytes only (and its end, if it seeks)."""
    if size == 0:
        raise InputError(f"{label} is empty (0 bytes); fetch the product again.")
    if stream.read(12) != b"\x00\x00\x00\x0cjP  \r\n\x87\n":
        return
    position = 12
    while position < size:
        head = stream.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        start = position + 8
        if length == 1:
            length = struct.unpack(">Q", stream.read(8))[0]
            start += 8
        end = position + length if length else size
        if kind == b"jp2c":
            if end <= size and (not _seeks(stream) or _ends_well(stream, end)):
                return
            break
        skipped = end - start
        if skipped < 0 or end > size or len(stream.read(skipped)) < skipped:
            break
        position = end
    raise InputError(
        f"{label} is truncated ({size} bytes, its JPEG 2000 code stream goes on); fetch the product again."
    )


def _seeks(stream: BinaryIO) -> bool:
    return isinstance(stream, io.BufferedReader)


def _ends_well(stream: BinaryIO, end: int) -> bool:
    stream.seek(end - 2)
    return stream.read(2) == b"\xff\xd9"


def sample(pool: FilePool, file: RasterFile, index: int, header: Header, side: int = 256) -> NDArray[np.float32]:
    """A decimated copy of a band, at most ``side`` pixels wide and high, as float32."""
    shape = (min(side, header.height), min(side, header.width))
    return pool.read(file, index, shape=shape).astype(np.float32)
