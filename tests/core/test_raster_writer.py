import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from small_disk import resize, small_disk

from s2sr_qgis.core.errors import Cancelled, OutputError
from s2sr_qgis.core.outputs import atomic
from s2sr_qgis.core.raster.grid import Grid, Window
from s2sr_qgis.core.raster.verify import check_whole_raster
from s2sr_qgis.core.raster.writer import FileOptions, OutputBand, write_raster

GRID = Grid(CRS.from_epsg(32633), 600000.0, 5400000.0, 10.0, 700, 600)
BANDS = [OutputBand("B05", 704.0, 15.0, 1e-4, -0.1), OutputBand("B12", 2193.9, 180.0, 1e-4, -0.1)]


def images(data_type="uint16", grid=GRID):
    rng = np.random.default_rng(0)
    return {band.name: rng.integers(1, 9000, (grid.height, grid.width)).astype(data_type) for band in BANDS}


def write(path, options, data, grid=GRID):
    with write_raster(path, grid, BANDS, options) as writer:
        for row in range(0, grid.height, 240):
            for col in range(0, grid.width, 240):
                window = Window(col, row, 240, 240).clipped(grid.width, grid.height)
                part = np.s_[row : row + window.height, col : col + window.width]
                writer.write(window, {name: image[part] for name, image in data.items()})


@pytest.mark.parametrize("compression", ["deflate", "zstd"])
@pytest.mark.parametrize("kind", ["gtiff", "cog"])
@pytest.mark.parametrize(("data_type", "nodata"), [("uint16", 0), ("float32", float("nan"))])
def test_round_trip(tmp_path, compression, kind, data_type, nodata):
    path, data = tmp_path / "out.tif", images(data_type)
    options = FileOptions(data_type, nodata, kind, compression, 240, tags={"SCENE": "a scene"})
    write(path, options, data)
    with rasterio.open(path) as dataset:
        assert dataset.descriptions == ("B05", "B12")
        assert dataset.dtypes == (data_type, data_type)
        assert dataset.crs == GRID.crs
        assert dataset.transform == GRID.transform
        assert dataset.scales == (1e-4, 1e-4)
        assert dataset.offsets == (-0.1, -0.1)
        np.testing.assert_equal(dataset.nodata, nodata)
        assert dataset.compression.name == compression
        assert dataset.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == ("2" if data_type == "uint16" else "3")
        assert dataset.tags()["SCENE"] == "a scene"
        assert dataset.tags(2)["wavelength"] == "2193.9"
        assert dataset.tags(2)["wavelength_units"] == "Nanometers"
        assert dataset.tags(2, ns="IMAGERY") == {"CENTRAL_WAVELENGTH_UM": "2.1939", "FWHM_UM": "0.1800"}
        assert dataset.block_shapes[0] == ((512, 512) if kind == "cog" else (240, 240))
        assert dataset.overviews(1)
        for number, band in enumerate(BANDS, start=1):
            np.testing.assert_array_equal(dataset.read(number), data[band.name])
    assert os.listdir(tmp_path) == ["out.tif"]


def test_cog_is_laid_out_as_one(tmp_path):
    write(tmp_path / "out.tif", FileOptions(format="cog"), images())
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    header = (tmp_path / "out.tif").read_bytes()[:512]
    assert b"BLOCK_ORDER=ROW_MAJOR" in header


def test_overviews_leave_nodata_out(tmp_path):
    data = images()
    for image in data.values():
        image[:] = 4000
        image[:, 1::2] = 0
    write(tmp_path / "out.tif", FileOptions(), data)
    with rasterio.open(tmp_path / "out.tif", OVERVIEW_LEVEL=0) as dataset:
        assert (dataset.read(1) == 4000).all()


def test_cancelling_a_large_raster_is_quick(tmp_path):
    large = Grid(GRID.crs, GRID.x, GRID.y, 10.0, 10980, 10980)
    start = time.monotonic()
    with pytest.raises(Cancelled), write_raster(tmp_path / "big.tif", large, BANDS) as writer:  # noqa: PT012
        writer.write(Window(0, 0, 700, 600), images())
        raise Cancelled("enough")
    assert time.monotonic() - start < 3
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["gtiff", "cog"])
@pytest.mark.parametrize("error", [Cancelled("stop"), ValueError("broken"), KeyboardInterrupt()])
def test_nothing_is_left_after_a_failure(tmp_path, kind, error):
    (tmp_path / "out.tif").write_text("what was there before")
    with (  # noqa: PT012
        pytest.raises(type(error)),
        write_raster(tmp_path / "out.tif", GRID, BANDS, FileOptions(format=kind)) as writer,
    ):
        writer.write(Window(0, 0, 700, 512), {"B05": images()["B05"][:512]})
        assert len(os.listdir(tmp_path)) == 2
        raise error
    assert os.listdir(tmp_path) == ["out.tif"]
    assert (tmp_path / "out.tif").read_text() == "what was there before"


@pytest.mark.parametrize("kind", ["gtiff", "cog"])
def test_the_user_may_stop_at_the_overviews(tmp_path, kind):
    def check():
        raise Cancelled("stop")

    with (
        pytest.raises(Cancelled),
        write_raster(tmp_path / "out.tif", GRID, BANDS, FileOptions(format=kind), check) as to,
    ):
        to.write(GRID.window, images())
    assert os.listdir(tmp_path) == []


def test_an_output_is_replaced_only_when_complete(tmp_path):
    (tmp_path / "out.tif").write_text("before")
    with atomic(tmp_path / "out.tif") as temporary:
        temporary.write_text("after")
        assert temporary.name == "out.tif"
        assert temporary.parent.parent == tmp_path
        assert temporary.parent.name.startswith(".out.tif-")
        assert (tmp_path / "out.tif").read_text() == "before"
    assert (tmp_path / "out.tif").read_text() == "after"
    assert os.listdir(tmp_path) == ["out.tif"]


def test_atomic_folder(tmp_path):
    with atomic(tmp_path / "data", folder=True) as temporary:
        (temporary / "a").write_text("a")
    assert (tmp_path / "data" / "a").is_file()
    with pytest.raises(OutputError, match="not an empty folder"), atomic(tmp_path / "data", folder=True):
        pass
    with pytest.raises(RuntimeError), atomic(tmp_path / "other", folder=True) as temporary:  # noqa: PT012
        (temporary / "a").write_text("a")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["data"]


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(OutputError, match="no_folder does not exist; create it"):
        write(tmp_path / "no_folder" / "out.tif", FileOptions(), images())


def test_target_that_is_a_folder(tmp_path):
    with pytest.raises(OutputError, match="is a folder; name a file"):
        write(tmp_path, FileOptions(), images())


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root cannot write to")
def test_folder_that_cannot_be_written():
    """/proc passes for writable when root asks, so this is the late failure; the early one needs another user."""
    with pytest.raises(OutputError, match=r"/proc.*(cannot be written to|could not be written)"):
        write("/proc/out.tif", FileOptions(), images())


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written to"):
        write(tmp_path / "out.tif", FileOptions(), images())


SCRIPT = """
import resource, sys
sys.path[:0] = [{tests!r}, {tests!r} + "/.."]
from test_raster_writer import FileOptions, OutputError, images, write
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write({path!r}, FileOptions(format={kind!r}, block=240), images())
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are of Unix")
@pytest.mark.parametrize("kind", ["gtiff", "cog"])
@pytest.mark.parametrize("limit", [4_000, 700_000, 1_650_000])
def test_no_space_while_writing(tmp_path, kind, limit):
    """A limit on file size fails in write(2) as a full disk does: at the header, within the bands, at the overviews."""
    code = SCRIPT.format(tests=str(Path(__file__).parent), limit=limit, path=str(tmp_path / "out.tif"), kind=kind)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "out.tif could not be written" in done.stdout, done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["gtiff", "cog"])
def test_disk_full(tmp_path, kind):
    with small_disk(tmp_path / "disk", 1024) as disk:
        with pytest.raises(OutputError, match=r"The disk is full: .*out\.tif could not be written; free some space"):
            write(disk / "out.tif", FileOptions(format=kind), images())
        assert os.listdir(disk) == []


SMALL = Grid(GRID.crs, GRID.x, GRID.y, 10.0, 240, 230)
"""Without overviews: the last bytes are written when the file is closed."""


@pytest.mark.parametrize("kind", ["gtiff", "cog"])
@pytest.mark.parametrize("block", [240, 64])
def test_every_size_of_disk_ends_in_a_whole_file_or_an_error(tmp_path, kind, block):
    """A failed write while a file is closed raises nothing in GDAL, so that a cut file would get its name."""
    data, whole, said = images(grid=SMALL), 0, set()
    with small_disk(tmp_path / "disk", 4) as disk:
        for kilobytes in range(4, 520, 12):
            resize(disk, kilobytes)
            (disk / "out.tif").unlink(missing_ok=True)
            try:
                write(disk / "out.tif", FileOptions(format=kind, block=block), data, SMALL)
            except OutputError as error:
                said.add(str(error).split(":")[0])
                assert os.listdir(disk) == []
                continue
            whole += 1
            with rasterio.open(disk / "out.tif") as dataset:
                for number, band in enumerate(BANDS, start=1):
                    np.testing.assert_array_equal(dataset.read(number), data[band.name])
    assert 0 < whole < 43
    assert said == {"The disk is full"}


def test_a_block_that_is_spoilt_on_the_disk_is_noticed(tmp_path):
    write(tmp_path / "out.tif", FileOptions(), images())
    check_whole_raster(tmp_path / "out.tif", 1)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        places = [int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=2))]
        places.append(int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=2, ovr=0)))
    content = (tmp_path / "out.tif").read_bytes()
    for place in places:
        (tmp_path / "out.tif").write_bytes(content[: place + 8] + bytes(4096) + content[place + 4104 :])
        with pytest.raises((RasterioError, OSError)):
            check_whole_raster(tmp_path / "out.tif", 1)
