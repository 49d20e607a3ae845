"""Sentinel-2 scenes: what they are and how to read them. Start with `open_scene`."""

from __future__ import annotations

from ..raster.grid import Grid, Window
from .bands import BANDS, SHARPENED_ORDER, BandInfo, band_name, bands_at
from .opening import open_scene
from .scene import Level, Pixels, Scene, SceneBand

__all__ = [
    "BANDS",
    "SHARPENED_ORDER",
    "BandInfo",
    "Grid",
    "Level",
    "Pixels",
    "Scene",
    "SceneBand",
    "Window",
    "band_name",
    "bands_at",
    "open_scene",
]
