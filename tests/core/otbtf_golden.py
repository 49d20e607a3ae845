"""Runs of real OTBTF: their parameters and their input images."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rasterio
from array_image import ArrayImage
from golden_windows import GOLDEN

from s2sr_qgis.core.raster.grid import Grid
from s2sr_qgis.core.raster.image import FileImage, Image

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the shared data 'otbtf_golden' are absent")


def run(name: str) -> dict[str, Any]:
    """The parameters ("args") and environment ("env") of a run."""
    found: dict[str, Any] = json.loads((GOLDEN / "manifest.json").read_text())[name]
    return found


def golden_image(path: str) -> Image:
    """An input of a run. `FileImage` takes no south-up file; a grid of negative pixel height stands for one."""
    if "southup" not in path:
        return FileImage(GOLDEN / path)
    with rasterio.open(GOLDEN / path) as file:
        t = file.transform
        return ArrayImage(file.read(), Grid(file.crs, t.c, t.f, t.a, file.width, file.height, -t.e))
