"""An Earth Engine export in several files, read as one raster."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from ..errors import InputError
from ..jobs import SceneOptions
from .files import FilePool, Header, RasterFile, check_whole
from .scene import Scene

_TYPES = {"uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32", "float32": "Float32",
          "float64": "Float64"}  # fmt: skip


def open_mosaic(folder: Path, parts: list[Path], options: SceneOptions) -> Scene:
    """Open the parts of one export as a stacked raster. Raises `InputError` where they do not fit together."""
    from .stacked import open_raster

    pool = FilePool()
    try:
        headers = {}
        for path in parts:
            check_whole(path, str(path))
            headers[path] = pool.header(RasterFile(str(path), str(path)))
        file = RasterFile(_vrt(folder, headers), f"The mosaic of {len(parts)} files in {folder}")
    finally:
        pool.close()
    return open_raster(folder, file, options, parts[0].name[: -len("-0000000000-0000000000.tif")])


def _vrt(folder: Path, headers: dict[Path, Header]) -> str:
    first = next(iter(headers.values()))
    t = first.transform
    for path, header in headers.items():
        own, wanted = _form(header), _form(first)
        if own != wanted and repr(own) != repr(wanted):  # a nodata of NaN is equal as text alone
            raise InputError(
                f"{path} differs in CRS, bands or nodata from the other files of {folder}; keep one export."
            )
    left = min(header.transform.c for header in headers.values())
    top = max(header.transform.f for header in headers.values())
    places = {}
    for path, header in headers.items():
        col, row = (header.transform.c - left) / t.a, (header.transform.f - top) / t.e
        if max(abs(col - round(col)), abs(row - round(row)), abs(header.transform.a / t.a - 1)) > 0.01:
            raise InputError(
                f"{path} is not on the grid of the other files of {folder}; make one raster of them: "
                f"gdalbuildvrt mosaic.vrt {folder}/*.tif"
            )
        places[path] = round(col), round(row)
    width = max(places[path][0] + header.width for path, header in headers.items())
    height = max(places[path][1] + header.height for path, header in headers.items())
    covered = sum(header.width * header.height for header in headers.values())
    if covered < width * height:
        raise InputError(f"{folder} lacks a part of its export: the files leave gaps; download all parts again.")
    return _xml(headers, places, width, height, left, top)


def _form(header: Header) -> tuple[object, ...]:
    """What all parts of an export have in common."""
    return header.crs, header.dtypes, header.descriptions, header.nodata, header.scales, header.offsets


def _xml(
    headers: dict[Path, Header], places: dict[Path, tuple[int, int]], width: int, height: int, left: float, top: float
) -> str:
    first = next(iter(headers.values()))
    t = first.transform
    lines = [f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}">']
    if first.crs:
        lines.append(f"<SRS>{escape(first.crs.to_wkt())}</SRS>")
    lines.append(f"<GeoTransform>{left!r}, {t.a!r}, 0, {top!r}, 0, {t.e!r}</GeoTransform>")
    for index, dtype in enumerate(first.dtypes):
        if dtype not in _TYPES:
            raise InputError(f"The parts of the export have pixels of type {dtype}, not Sentinel-2's measurements.")
        lines.append(f'<VRTRasterBand dataType="{_TYPES[dtype]}" band="{index + 1}">')
        lines.append(f"<Description>{escape(first.descriptions[index] or '')}</Description>")
        if first.nodata[index] is not None:
            lines.append(f"<NoDataValue>{first.nodata[index]}</NoDataValue>")
        lines.append(f"<Scale>{first.scales[index]!r}</Scale><Offset>{first.offsets[index]!r}</Offset>")
        for path, header in headers.items():
            size = f'xSize="{header.width}" ySize="{header.height}"'
            col, row = places[path]
            name = quoteattr(str(path.absolute()))[1:-1]
            lines.append(
                f'<SimpleSource><SourceFilename relativeToVRT="0">{name}</SourceFilename>'
                f"<SourceBand>{index + 1}</SourceBand>"
                f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{col}" yOff="{row}" {size}/></SimpleSource>'
            )
        lines.append("</VRTRasterBand>")
    lines.append("</VRTDataset>")
    return "".join(lines)
