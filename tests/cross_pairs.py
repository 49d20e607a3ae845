"""A Sentinel-2 scene and a finer image of the same made-up ground, written as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine

BANDS = ("B04", "B03", "B02", "B08")
CRS = "EPSG:32631"
X, Y = 500000.0, 4800000.0
"""Upper-left corner of the scene; the finer image begins 60 m further to the south-east."""


def ground(x: np.ndarray, y: np.ndarray, band: int) -> np.ndarray:
    """Brightness (DN) of a band at places in metres: waves of 45 to 400 m that all bands share, in other shares."""
    rng = np.random.default_rng(5)
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for wave in range(40):
        length, angle, phase = rng.uniform(45, 400), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
        share = 1 + 0.3 * np.sin(wave + band)
        total += share * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / length + phase)
    return 1500 + 300 * band + 60 * total


def sampled(corner: tuple[float, float], spacing: float, size: int, bands: int) -> np.ndarray:
    """The ground at the centres of a grid's pixels, (bands, size, size)."""
    x = corner[0] - X + (np.arange(size)[None, :] + 0.5) * spacing
    y = Y - corner[1] + (np.arange(size)[:, None] + 0.5) * spacing
    return np.stack([ground(x, y, band) for band in range(bands)])


def write(path: Path, pixels: np.ndarray, corner: tuple[float, float], spacing: float, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "crs": CRS, "transform": Affine(spacing, 0, corner[0], 0, -spacing, corner[1])}
    tags = more.pop("tags", {})
    profile.update(width=pixels.shape[2], height=pixels.shape[1], count=len(pixels), dtype=str(pixels.dtype), **more)
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.update_tags(**tags)
    return path


def make_scene(folder: Path, size: int = 90, shift: tuple[float, float] = (0.0, 0.0), **more: Any) -> Path:
    """A folder of 10 m bands; ``shift``: (east, north) metres that its georeference is wrong by."""
    pixels = sampled((X, Y), 10, size, len(BANDS)).round().astype(np.uint16)
    for name, image in zip(BANDS, pixels, strict=True):
        write(folder / f"S2A_MSIL2A_20220701T105031_{name}.tif", image[None], (X + shift[0], Y + shift[1]), 10, **more)
    return folder


def make_reference(folder: Path, size: int = 128, ratio: int = 4, **more: Any) -> tuple[Path, Path]:
    """XS of 6 m and PAN of 1.5 m (for a ratio of 4); PAN is the mean of the bands."""
    corner = X + 60, Y - 60
    xs = sampled(corner, 6, size, len(BANDS)).round().astype(np.uint16)
    pan = sampled(corner, 6 / ratio, size * ratio, len(BANDS)).mean(axis=0, keepdims=True).round().astype(np.uint16)
    tags = {"ACQUISITIONDATETIME": "2022-07-05T10:00:00Z"}
    return (
        write(folder / "xs.tif", xs, corner, 6, tags=tags, **more),
        write(folder / "pan.tif", pan, corner, 6 / ratio, tags=tags, **more),
    )


def wrap_in_dimap(image: Path, day: str = "2022-07-05") -> Path:
    """The DIM_*.XML of a DIMAP 2 product, as SPOT-6/7 images come, around a GeoTIFF beside it."""
    with rasterio.open(image) as file:
        t, width, height, bands = file.transform, file.width, file.height, file.count
    colours = {"RED_CHANNEL": "B2", "GREEN_CHANNEL": "B1", "BLUE_CHANNEL": "B0", "ALPHA_CHANNEL": "B3"}
    shown = "".join(f"<{name}>{band}</{name}>" for name, band in colours.items()) if bands == 4 else ""
    path = image.with_name(f"DIM_SPOT7_{image.stem}.XML")
    path.write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<Dimap_Document>
 <Metadata_Identification><METADATA_FORMAT version="2.0">DIMAP</METADATA_FORMAT></Metadata_Identification>
 <Dataset_Sources><Source_Identification><Strip_Source>
  <MISSION>SPOT</MISSION><MISSION_INDEX>7</MISSION_INDEX><IMAGING_DATE>{day}</IMAGING_DATE>
 </Strip_Source></Source_Identification></Dataset_Sources>
 <Coordinate_Reference_System><Projected_CRS>
  <PROJECTED_CRS_CODE>urn:ogc:def:crs:EPSG::{CRS.split(":")[1]}</PROJECTED_CRS_CODE>
 </Projected_CRS></Coordinate_Reference_System>
 <Geoposition><Geoposition_Insert>
  <ULXMAP>{t.c}</ULXMAP><ULYMAP>{t.f}</ULYMAP><XDIM>{t.a}</XDIM><YDIM>{-t.e}</YDIM>
 </Geoposition_Insert></Geoposition>
 <Raster_Data>
  <Data_Access><DATA_FILE_FORMAT>image/tiff</DATA_FILE_FORMAT><Data_Files>
   <Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH href="{image.name}"/></Data_File>
  </Data_Files></Data_Access>
  <Raster_Dimensions><NROWS>{height}</NROWS><NCOLS>{width}</NCOLS><NBANDS>{bands}</NBANDS><Tile_Set><NTILES>1</NTILES>
   <Regular_Tiling><NTILES_SIZE nrows="{height}" ncols="{width}"/><NTILES_COUNT ntiles_R="1" ntiles_C="1"/>
   </Regular_Tiling></Tile_Set></Raster_Dimensions>
  <Raster_Encoding><DATA_TYPE>INTEGER</DATA_TYPE><NBITS>16</NBITS><SIGN>UNSIGNED</SIGN></Raster_Encoding>
  <Raster_Display><Band_Display_Order>{shown}</Band_Display_Order></Raster_Display>
 </Raster_Data>
</Dimap_Document>
""",
        encoding="utf-8",
    )
    return path
