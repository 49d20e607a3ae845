"""Bands that are stored finer than Sentinel-2 records them: repeated pixels, or something that somebody computed."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..raster.grid import Window
from .align import Alignment
from .bands import BANDS
from .files import FilePool
from .product import Found

_SIDE = 120
"""Pixels of a side, at 10 m, that are looked at in the middle of the scene."""

_REPEATED = 0.9
"""Fraction of a band's own pixels that are all of one value where a coarse band was repeated."""


def check_own_output(found: dict[str, Found]) -> None:
    """Raise `InputError` for a result of s2sr: its bands are at 10 m already."""
    for band in found.values():
        tags = band.header.tags
        if tags.get("TIFFTAG_SOFTWARE") == "s2sr" and tags.get("MODELS"):
            raise InputError(
                f"{band.file.label} is a result of s2sr ({tags['MODELS']}): its bands are sharpened already; open the "
                "Sentinel-2 product that it was made from."
            )


def check_resampled(found: dict[str, Found], alignment: Alignment, pool: FilePool) -> list[str]:
    """A warning where bands stored finer than their own pixels are not these pixels repeated.

    Raises `InputError` where their CRS is in degrees: no Sentinel-2 pixel can be recovered there.
    """
    grid, unit = alignment.grid, alignment.multiple
    computed: list[str] = []
    for name, place in alignment.places.items():
        factor, stored = BANDS[name].resolution // place.stored_resolution, place.stored_resolution // 10
        if factor == 1:
            continue
        left, top = (max(side - _SIDE, 0) // 2 // unit * unit // stored for side in (grid.width, grid.height))
        width, height = (min(side, _SIDE) // unit * unit // stored for side in (grid.width, grid.height))
        window = Window(place.col + left, place.row + top, width, height)
        pixels = pool.read(found[name].file, found[name].index, window)
        pixels = pixels[: height // factor * factor, : width // factor * factor]
        blocks = pixels.reshape(len(pixels) // factor, factor, -1, factor)
        with np.errstate(invalid="ignore"):
            same = (blocks == blocks[:, :1, :, :1]).all(axis=(1, 3))
        known = np.isfinite(blocks).all(axis=(1, 3))
        if known.any() and same[known].mean() < _REPEATED:
            computed.append(name)
    if not computed:
        return []
    if grid.crs is not None and grid.crs.is_geographic:
        raise InputError(
            f"{', '.join(computed)} are on a grid in degrees ({grid.crs.to_string()}), where their own pixels cannot "
            "be found; export the bands in the tile's UTM zone, at 10 m."
        )
    return [
        f"{', '.join(computed)} are stored finer than Sentinel-2 records them and are not repeated pixels: they were "
        "interpolated, or sharpened already. They are averaged to their own resolution and sharpened from there, which "
        "is less exact than from the product itself."
    ]
