"""The OTB engine: real Orfeo ToolBox through pyotb, pipelines in memory. The only module that imports pyotb."""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import InputError, MissingPackageError, OutputError
from ..variables import restore_foreign
from .grid import Grid, Window
from .image import FileImage, Image
from .superimpose import Interpolation, as_type, output_nodata

HOW_TO_GET = (
    "use the engine 'native', or install Orfeo ToolBox 8 or 9 (https://www.orfeo-toolbox.org/download), source its "
    "otbenv.profile and pip install 's2sr[otb]' in a Python with NumPy < 2; on Debian 12, tools/setup_otb.sh of the "
    "source tree does that"
)
HOW_TO_GET_OTBTF = "run in the docker image mdl4eo/otbtf (https://github.com/remicres/otbtf)"
INTERPOLATORS: Mapping[Interpolation, str] = {"bicubic": "bco", "linear": "linear", "nearest": "nn"}
_SOURCE = (
    '<SimpleSource><SourceFilename relativeToVRT="0">{name}</SourceFilename><SourceBand>{band}</SourceBand>'
    "</SimpleSource>"
)
_GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32"}


def otb_available() -> bool:
    """Whether this Python can run OTB's applications."""
    try:
        applications()
    except MissingPackageError:
        return False
    return True


def otbtf_available() -> bool:
    """Whether OTBTF's applications are there too."""
    return otb_available() and "TensorflowModelServe" in applications()


def applications() -> tuple[str, ...]:
    """Names of OTB's applications. Raises `MissingPackageError` where there is no OTB, saying how to get it."""
    return tuple(_pyotb().get_available_applications())


def require_application(name: str) -> None:
    """Raise `MissingPackageError` where OTB, or this application of OTBTF, is not there, saying how to get it."""
    if name not in applications():
        raise MissingPackageError(f"This Orfeo ToolBox has no application {name}; {HOW_TO_GET_OTBTF}.")


def run_application(
    name: str, parameters: Mapping[str, Any], sources: int | None = None, threads: int | None = None
) -> Any:
    """Run an application with its parameters by OTB's names and return pyotb's ``App``; outputs named are written.

    ``sources``: how many inputs OTBTF's applications have, which they read from the environment before they are made.
    ``threads``: of TensorFlow; None: all cores.
    Raises `MissingPackageError` where it is absent, `InputError` with OTB's own words where it fails.
    """
    pyotb = _pyotb()
    require_application(name)
    given = {"OTB_TF_NSOURCES": sources, "TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": threads}
    with _environment({key: str(value) for key, value in given.items() if value is not None}):
        try:
            return pyotb.App(name, dict(parameters), quiet=True)
        except (RuntimeError, KeyError, TypeError) as error:
            raise InputError(f"Orfeo ToolBox's {name} failed: {_reason(error)}.") from error


def otb_superimpose(
    moving: Image, grid: Grid, *, interpolation: Interpolation, fill: float, dtype: DTypeLike
) -> OtbImage:
    """What `superimpose` gives with the engine "otb"."""
    source, reference = _Input(moving), _Virtual(grid, [("", 0)], "Byte", None)
    parameters = {
        "inr": reference.name,  # of which OTB looks at the grid alone
        "inm": source.value,
        "mode": "default",  # else images of Pleiades in sensor geometry are treated otherwise
        "interpolator": INTERPOLATORS[interpolation],
        "fv": fill,
    }
    nodata = output_nodata(moving.nodata, fill, "otbtf", np.dtype(dtype))
    return OtbImage(
        run_application("Superimpose", parameters), grid, moving.bands, nodata, dtype, fill, [source, reference]
    )


def otb_pansharpen(pan: Image, xs: Image, *, method: str, dtype: DTypeLike) -> OtbImage:
    """What `pansharpen` gives with the engine "otb"; an ``xs`` that OTB superimposed stays in its pipeline."""
    sources = _Input(pan), _Input(xs)
    app = run_application("Pansharpening", {"inp": sources[0].value, "inxs": sources[1].value, "method": method})
    return OtbImage(app, pan.grid, xs.bands, xs.nodata, dtype, xs.nodata or 0.0, sources)


def otbtf_patches_selection(image: Image, mask: Image | None, parameters: Mapping[str, Any]) -> None:
    """Run OTBTF's PatchesSelection. ``parameters`` by its names, the vector files to write (outtrain …) among them."""
    sources = {"in": _Input(image)} | ({} if mask is None else {"mask": _Input(mask)})
    run_application("PatchesSelection", {name: source.value for name, source in sources.items()} | dict(parameters))


def otbtf_patches_extraction(
    stacks: Sequence[Sequence[Image]], parameters: Mapping[str, Any], images: Sequence[Path], labels: Path
) -> None:
    """Run OTBTF's PatchesExtraction on sources of stacked images; float32 patches to ``images``, int32 to ``labels``.

    ``parameters``: all but the sources' images and the outputs, by OTBTF's names. Raises `OutputError` where nothing is
    written.
    """
    sources = {f"source{n}.il": [_Input(image) for image in stack] for n, stack in enumerate(stacks, start=1)}
    given = {name: [source.value for source in stack] for name, stack in sources.items()} | dict(parameters)
    app = run_application("PatchesExtraction", given, len(stacks))
    outputs = {f"source{n}.out": str(path) for n, path in enumerate(images, start=1)} | {"outlabels": str(labels)}
    types = dict.fromkeys(outputs, "float") | {"outlabels": "int32"}
    write(app, outputs, types)


def write(application: Any, files: Mapping[str, str], pixel_types: Mapping[str, str]) -> None:
    """Write outputs of an application to files (OTB's extended names), both by parameter. Raises `OutputError`."""
    try:
        written = application.write(dict(files), pixel_type=dict(pixel_types))
    except RuntimeError as error:
        raise OutputError(f"Orfeo ToolBox's {application.name} wrote no output: {_reason(error)}.") from error
    if not written:
        raise OutputError(f"Orfeo ToolBox's {application.name} wrote no output to {', '.join(files.values())}.")


class OtbImage:
    """The output of an OTB application as an `Image`: OTB computes the windows that are read."""

    def __init__(
        self,
        app: Any,
        grid: Grid,
        bands: Sequence[str],
        nodata: float | None,
        dtype: DTypeLike,
        fill: float,
        keep: Sequence[object],
    ) -> None:
        self.app = app
        self.grid = grid
        self.bands = bands
        self.nodata = nodata
        self.dtype = np.dtype(dtype)
        self._fill = fill
        self._keep = keep  # OTB holds no reference to the applications and pixels that it reads from
        if app.shape != (grid.height, grid.width, len(bands)):
            raise InputError(
                f"Orfeo ToolBox's {app.name} made an image of {app.shape} rows, columns and bands instead of "
                f"{(grid.height, grid.width, len(bands))}; use the engine 'native'."
            )

    def read(self, window: Window | None = None) -> NDArray[Any]:
        """See `Image.read`."""
        w = window or self.grid.window
        try:
            part = self.app[w.row : w.row + w.height, w.col : w.col + w.width, :]
            pixels = part.to_numpy(preserve_dtype=False, copy=True)
        except RuntimeError as error:
            raise InputError(f"Orfeo ToolBox's {self.app.name} failed: {_reason(error)}.") from error
        return as_type(np.moveaxis(pixels, 2, 0), self.dtype, "otbtf", self._fill)


class _Input:
    """An image as OTB takes it: the application that makes it, or a virtual raster of a file or of pixels in memory.

    Pixels that neither a file nor an application has are computed as a whole and stay in memory.
    """

    def __init__(self, image: Image) -> None:
        self.value: Any
        self._image = image
        if isinstance(image, OtbImage):
            self.value = image.app
            return
        kind = _GDAL_TYPES.get(image.dtype.name, "Float32")
        if isinstance(image, FileImage) and not image.masked:
            bands = [(str(image.path.absolute()), number) for number in image.numbers]
        else:
            self._pixels = np.ascontiguousarray(image.read(), None if image.dtype.name in _GDAL_TYPES else np.float32)
            count, height, width = self._pixels.shape
            memory = (
                f"MEM:::DATAPOINTER={self._pixels.ctypes.data},PIXELS={width},LINES={height},BANDS={count},"
                f"DATATYPE={kind}"
            )
            bands = [(memory, number) for number in range(1, count + 1)]
        self._virtual = _Virtual(image.grid, bands, kind, image.nodata)
        self.value = self._virtual.name


class _Virtual:
    """A GDAL virtual raster: a few lines of text that name bands of other rasters, on a grid; gone with this object.

    GDAL would take the text itself for a name, but OTB looks for files beside it, under names too long then.
    """

    def __init__(self, grid: Grid, sources: Sequence[tuple[str, int]], kind: str, nodata: float | None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="s2sr-otb-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / "image.vrt"
        bands = "".join(
            f'<VRTRasterBand dataType="{kind}" band="{number}">'
            + (f"<NoDataValue>{nodata!r}</NoDataValue>" if nodata is not None else "")
            + (_SOURCE.format(name=escape(name), band=band) if name else "")
            + "</VRTRasterBand>"
            for number, (name, band) in enumerate(sources, start=1)
        )
        reference = f"<SRS>{escape(grid.crs.to_wkt())}</SRS>" if grid.crs else ""
        t = grid.transform
        transform = ", ".join(map(repr, (t.c, t.a, t.b, t.f, t.d, t.e)))
        path.write_text(
            f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">{reference}'
            f"<GeoTransform>{transform}</GeoTransform>{bands}</VRTDataset>",
            encoding="utf-8",
        )
        self.name = str(path)


def _pyotb() -> ModuleType:
    # pyotb loads whatever library it finds on the disk and ends the process where there is none: look first.
    if not os.environ.get("OTB_ROOT") and importlib.util.find_spec("otbApplication") is None:
        raise MissingPackageError(f"Orfeo ToolBox is not there for this Python; {HOW_TO_GET}.")
    restore_foreign()
    os.environ.setdefault("PYOTB_LOGGER_LEVEL", "ERROR")
    os.environ.setdefault("OTB_LOGGER_LEVEL", "CRITICAL")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # of OTBTF's TensorFlow: errors alone
    os.environ.setdefault("GDAL_MEM_ENABLE_OPEN", "YES")  # GDAL 3.10 and later opens pixels in memory only when told
    try:
        import pyotb
    except (ImportError, SystemError, SystemExit, OSError) as error:
        raise MissingPackageError(f"Orfeo ToolBox or pyotb cannot be loaded ({error}); {HOW_TO_GET}.") from error
    module: ModuleType = pyotb
    return module


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _reason(error: BaseException) -> str:
    """OTB's own reason for an error, in one line.

    OTBTF writes TensorFlow's reason before a report on its tensors, ITK its own after the place in its source code;
    elsewhere the reason is the last line.
    """
    text = str(error)
    for before in (r"Tensorflow error message:\s*", r"itk::ERROR:\s*(?:\w+\(0x\w+\): )?"):
        found = re.search(rf".*{before}(\S.*)", text, re.DOTALL)
        if found:
            return found[1].splitlines()[0].strip().rstrip(".")[:300]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else "for a reason that it does not name"
    if last.count(")") > last.count("("):  # pyotb closes a bracket that is on another line, or none
        last = last.removesuffix(")")
    return last.rstrip(".")[:300]
