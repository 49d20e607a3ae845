"""The sample that the project ships: a sound product, cut out of its source without change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from products import L1C_BANDS, real_data

from s2sr_qgis.core.scene import Window, open_scene

SAMPLES = Path(__file__).parents[2] / "samples"


def test_sample_is_a_level_1c_product() -> None:
    with open_scene(SAMPLES) as scene:
        assert (scene.name, scene.level, scene.multiple) == ("S2_MSIL1C_T18SVG_extract", "L1C", 6)
        assert tuple(scene.bands) == L1C_BANDS
        assert (scene.grid.x, scene.grid.y, scene.grid.width, scene.grid.height) == (440580, 4174620, 720, 720)
        assert scene.grid.crs.to_epsg() == 32618
        assert {band.offset for band in scene.bands.values()} == {0}
        assert scene.warnings == []
        pixels = scene.read(list(scene.bands))
    # A few pixels of the cirrus band are so dark that their DN is 0, which is nodata.
    assert {name for name, valid in pixels.valid.items() if not valid.all()} == {"B10"}
    assert pixels.valid["B10"].mean() > 0.999
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 5e6


def test_sample_has_the_pixels_of_its_source() -> None:
    with open_scene(real_data("s2_l1c/virginia_18S")) as source, open_scene(SAMPLES) as sample:
        ours, theirs = sample.read(L1C_BANDS), source.read(L1C_BANDS, Window(480, 480, 720, 720))
    for name in L1C_BANDS:
        assert np.array_equal(ours.data[name], theirs.data[name]), name
