"""A trained network served by OTBTF's TensorflowModelServe: its parameters, its run, its georeference put right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .grid import Grid, Window
from .image import FileImage
from .otb import OtbImage, require_application, run_application
from .tiles import snapped

APPLICATION = "TensorflowModelServe"
CROPS = (16, 32, 64, 96, 128, 160, 192)
"""Outputs ``NAME_crop16`` … that every SavedModel has beside ``NAME``, in output pixels: those of `otbtf.ModelBase`
and two for networks of a large radius."""
FIELD = 256
"""Side of a tile, in output pixels, that is aimed at: OTBTF was fastest there (input tiles up to 360 pixels)."""


@dataclass(frozen=True)
class Source:
    """An input tensor: its name in the SavedModel, its pixel size in metres, the files whose bands it stacks."""

    tensor: str
    resolution: float
    files: Sequence[str | Path]


@dataclass(frozen=True)
class ServeJob:
    """A run of TensorflowModelServe. ``crop``: what is lost on each side; ``field``: a tile's side; output pixels.

    ``multiple``: what the corners of source 1 must be multiples of, for tiles in the network's own phase; its pixels.
    """

    parameters: dict[str, Any]
    sources: int
    resolution: float
    crop: int
    field: int
    multiple: int = 1

    def needed(self, area: Window, ratio: int) -> Window:
        """What source 1 must show so that the output covers ``area``; its pixels are ``ratio`` output pixels wide.

        Beside the crop on every side: as much at the right and lower edge as fills the last tiles, and one pixel in the
        network's phase, since OTBTF rounds the number of tiles down.
        """
        own, crop, side = snapped(area, self.multiple), self.crop // ratio, self.field // ratio
        width, height = (-(-n // side) * side + 2 * crop + self.multiple for n in (own.width, own.height))
        return Window(own.col - crop, own.row - crop, width, height)

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
        # Whole tiles are read instead; OTB's own strips would compute most tiles twice.
        "optim.disabletiling": True,
    }
    return ServeJob(parameters, len(ordered), resolution, crop, side, multiple)


def serve(job: ServeJob, bands: Sequence[str], threads: int | None = None) -> OtbImage:
    """What OTBTF makes of a job's sources, float32, on the grid where its pixels lie; computed when it is read.

    Windows of whole tiles are cheapest. ``bands``: names of the output's channels. ``threads``: None: all cores.
    Raises `MissingPackageError` where OTBTF is not, `InputError` for a first source that cannot be read or is too
    small, and with OTBTF's own words where it cannot run the model.
    """
    require_application(APPLICATION)
    with FileImage(job.parameters["source1.il"][0]) as first:
        grid = job.grid(first.grid)
    application = run_application(APPLICATION, job.parameters, job.sources, threads)
    return OtbImage(application, grid, bands, None, np.float32, 0.0, [])
