"""What a job leaves beside its outputs, and outputs that are refused before the work."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from s2sr_qgis.core.errors import InputError, OutputError
from s2sr_qgis.core.outputs import atomic
from s2sr_qgis.core.raster.grid import Grid
from s2sr_qgis.core.raster.targets import check_outputs
from s2sr_qgis.core.raster.writer import FileOptions, OutputBand, write_raster

SIDES = ("o.tif.aux.xml", "o.tif.ovr", "o.tif.msk", "o.tif.ovr.msk", "o.tfw", "o.wld", "o.aux")


def write_small(path, format="gtiff", value=7, fails=False):
    grid = Grid(CRS.from_epsg(32631), 600000, 5400000, 10, 300, 300)
    with write_raster(path, grid, [OutputBand("B02")], FileOptions(format=format)) as writer:
        writer.write(grid.window, {"B02": np.full((300, 300), value, np.uint16)})
        if fails:
            raise InputError("stopped")


@pytest.mark.parametrize("format", ["gtiff", "cog"])
def test_side_files_of_an_older_file_go_with_it_and_not_before(tmp_path, format):
    target = tmp_path / "o.tif"
    write_small(target, format)
    for name in SIDES:
        (tmp_path / name).write_text("old")
    (tmp_path / "o.qml").write_text("the user's style")
    (tmp_path / "other.tif.aux.xml").write_text("of another file")
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="stopped"):
        write_small(target, format, 8, fails=True)
    assert {path.name for path in tmp_path.iterdir()} == before
    write_small(target, format, 9)
    assert {path.name for path in tmp_path.iterdir()} == {"o.tif", "o.qml", "other.tif.aux.xml"}
    with rasterio.open(target) as dataset:
        assert (dataset.read() == 9).all()
        assert dataset.read(1, out_shape=(75, 75)).min() == 9  # from its own overviews


def test_the_world_file_of_another_image_stays(tmp_path):
    for name in ("o.png", "o.wld", "o.pgw"):
        (tmp_path / name).write_text("of the picture")
    write_small(tmp_path / "o.tif")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.pgw", "o.png", "o.tif", "o.wld"]


def test_what_sqlite_left_beside_an_older_geopackage_goes(tmp_path):
    for name in ("o.gpkg", "o.gpkg-wal", "o.gpkg-shm"):
        (tmp_path / name).write_text("old")
    with atomic(tmp_path / "o.gpkg") as temporary:
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["o.gpkg"]


def test_side_files_of_the_new_file_come_with_it(tmp_path):
    (tmp_path / "o.tif.aux.xml").write_text("old")
    with atomic(tmp_path / "o.tif") as temporary:
        temporary.write_text("new")
        temporary.with_name(temporary.name + ".aux.xml").write_text("of the new one")
    assert (tmp_path / "o.tif.aux.xml").read_text() == "of the new one"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "name", ["o.jp2", "o.png", "o.nc", "o.vrt", "o", "o.tif.", "o.tif ", ".tif", "o.tif.gz", "o.zarr"]
)
def test_a_raster_s_name_ends_in_tif(tmp_path, name):
    with pytest.raises(OutputError, match="must end in"):
        check_outputs(rasters=[tmp_path / name])


@pytest.mark.parametrize("name", ["o.tif", "O.TIF", "o.tiff", "a b.tif", "结果.tif", "o.v1.tif"])
def test_names_that_a_raster_may_have(tmp_path, name):
    check_outputs(rasters=[tmp_path / name])
    write_small(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["x" * 300 + ".tif", "x" * 240 + ".tif", "é" * 121 + ".tif"])
def test_a_name_that_is_too_long(tmp_path, name):
    with pytest.raises(OutputError, match="too long"):
        check_outputs(rasters=[tmp_path / name])


def test_the_longest_name(tmp_path):
    name = "x" * 214 + ".tif"
    for format in ("gtiff", "cog"):
        write_small(tmp_path / name, format)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_output_that_is_an_input_by_another_name(tmp_path):
    (tmp_path / "in.tif").write_text("")
    (tmp_path / "link.tif").symlink_to(tmp_path / "in.tif")
    (tmp_path / "hard.tif").hardlink_to(tmp_path / "in.tif")
    for name in ("in.tif", "link.tif", "hard.tif"):
        with pytest.raises(OutputError, match="already an input"):
            check_outputs(rasters=[tmp_path / name], inputs=[str(tmp_path / "in.tif"), None, "https://a/b"])
    with pytest.raises(OutputError, match="already another output"):
        check_outputs([tmp_path / "o.json", tmp_path / "o.json"])
