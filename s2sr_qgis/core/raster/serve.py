"""A trained network served by OTBTF's TensorflowModelServe: its parameters, its run, its georeference put right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rasterio

from ..errors import InputError, OutputError
from .grid import Grid
from .image import FileImage
from .otb import require_application, run_application, write
from .writer import atomic

APPLICATION = "TensorflowModelServe"
CROPS = (16, 32, 64, 96, 128, 160, 192)
"""Outputs ``NAME_crop16`` … that every SavedModel has beside ``NAME``, in output pixels: those of `otbtf.ModelBase`
and two for networks of a large radius."""
FIELD = 256
"""Side of a tile, in output pixels, that is aimed at: OTBTF was fastest there (input tiles up to 360 pixels)."""
PIXEL_TYPES = {"uint16": "uint16", "float32": "float"}
STORAGE = ("gdal:co:COMPRESS=DEFLATE", "gdal:co:TILED=YES", "gdal:co:BIGTIFF=IF_SAFER")


@dataclass(frozen=True)
class Source:
    """An input tensor: its name in the SavedModel, its pixel size in metres, the files whose bands it stacks."""

    tensor: str
    resolution: float
    files: Sequence[str | Path]


@dataclass(frozen=True)
class ServeJob:
    """A run of TensorflowModelServe. ``crop``: what is lost on each side; ``field``: a tile's side; output pixels."""

    parameters: dict[str, Any]
    sources: int
    resolution: float
    crop: int
    field: int

    def grid(self, first: Grid) -> Grid:
        """Where the output really lies, ``first`` being the grid of source 1.

        OTBTF shifts it by half the difference of the pixel sizes, and drops what does not fill a tile at the right and
        lower edge. Raises `InputError` for an image smaller than a tile.
        """
        factor = round(first.spacing / self.resolution)
        width, height = ((n * factor - 2 * self.crop) // self.field * self.field for n in (first.width, first.height))
        if not (width > 0 and height > 0):
            raise InputError(
                f"The image has {first.width} x {first.height} pixels, but OTBTF needs "
                f"{(self.field + 2 * self.crop) // factor} on each side; choose a smaller tile or the engine 'native'."
            )
        x = first.x + self.crop * first.spacing / factor
        y = first.y - self.crop * first.pixel_height / factor
        return Grid(first.crs, x, y, first.spacing / factor, width, height)


def narrowest_crop(radius: int, unit: int) -> int:
    """The narrowest crop that holds a network's radius, both in output pixels; a multiple of ``unit`` pixels.

    Where none of `CROPS` does, it is a multiple of about 32 pixels; the export adds that output to the SavedModel.
    """
    step = unit * max(32 // unit, 1)
    found = next((crop for crop in CROPS if crop >= radius and crop % unit == 0), None)
    return found or math.ceil(radius / step) * step


def serve_job(
    model: str | Path,
    sources: Sequence[Source],
    output: str,
    resolution: float,
    radius: int,
    *,
    multiple: int = 1,
    field: int = FIELD,
) -> ServeJob:
    """The parameters of TensorflowModelServe for a SavedModel with the outputs ``output`` and ``output_crop16`` ….

    ``resolution``: pixel size of the output in metres. ``radius``, ``multiple``: the model card's, in pixels of the
    finest source. The least crop that is as wide as the radius is taken, so that no seam is seen, and the sides of
    tiles are such that every source's tile has whole pixels. ``field``: about how large a tile shall be, in output
    pixels. Sources go finest first: in another order OTBTF reads the fine one a pixel off.

    Raises `InputError` for sources whose pixel sizes are no multiples of the output's.
    """
    ordered = sorted(sources, key=lambda source: source.resolution)
    if not ordered:
        raise InputError("A model needs at least one source image; name its inputs.")
    ratios = [round(source.resolution / resolution) for source in ordered]
    for source, ratio in zip(ordered, ratios, strict=True):
        if ratio < 1 or not math.isclose(ratio * resolution, source.resolution, rel_tol=1e-6):
            raise InputError(
                f"The pixels of '{source.tensor}' ({source.resolution:g} m) are no multiple of the output's "
                f"({resolution:g} m); superimpose it on a grid that is."
            )
    unit = math.lcm(multiple * ratios[0], *ratios)
    crop = narrowest_crop(radius * ratios[0], unit)
    side = max(field // unit, 1) * unit
    parameters: dict[str, Any] = {}
    for number, (source, ratio) in enumerate(zip(ordered, ratios, strict=True), start=1):
        receptive = (side + 2 * crop) // ratio
        parameters |= {
            f"source{number}.il": [str(path) for path in source.files],
            f"source{number}.rfieldx": receptive,
            f"source{number}.rfieldy": receptive,
            f"source{number}.placeholder": source.tensor,
        }
    parameters |= {
        "model.dir": str(model),
        "model.fullyconv": True,
        "output.names": [f"{output}_crop{crop}"],
        "output.efieldx": side,
        "output.efieldy": side,
        "output.spcscale": 1 / ratios[0],
        # The writer asks for tiles of this side instead; OTB's own strips would compute most tiles twice.
        "optim.disabletiling": True,
    }
    return ServeJob(parameters, len(ordered), resolution, crop, side)


def serve(
    job: ServeJob,
    target: str | Path,
    data_type: Literal["uint16", "float32"] = "uint16",
    tags: Mapping[str, str] | None = None,
) -> Grid:
    """Run a job with OTBTF and write a GeoTIFF with the right georeference and ``tags``; returns where its pixels lie.

    The file appears complete or not at all. OTBTF truncates integers. Raises `MissingPackageError` where OTBTF is not,
    `InputError` for a first source that cannot be read or is too small, `OutputError` for what cannot be written.
    """
    require_application(APPLICATION)
    with FileImage(job.parameters["source1.il"][0]) as first:
        grid = job.grid(first.grid)
    with atomic(target) as temporary:
        application = run_application(APPLICATION, job.parameters, job.sources)
        options = "&".join((*STORAGE, "streaming:type=tiled", "streaming:sizemode=height"))
        name = f"{temporary}?&{options}&streaming:sizevalue={job.field}"
        write(application, {"out": name}, {"out": PIXEL_TYPES[data_type]})
        put_right(temporary, grid, tags)
    return grid


def put_right(path: Path, grid: Grid, tags: Mapping[str, str] | None = None) -> None:
    """Give OTBTF's output the georeference that its pixels have, and tags.

    Raises `OutputError` where it has other pixels.
    """
    with rasterio.open(path, "r+") as image:
        if (image.width, image.height) != (grid.width, grid.height):
            raise OutputError(
                f"OTBTF made {image.width} x {image.height} pixels where {grid.width} x {grid.height} were expected; "
                "use the engine 'native'."
            )
        image.transform = grid.transform
        image.crs = grid.crs
        image.update_tags(**(tags or {}))
