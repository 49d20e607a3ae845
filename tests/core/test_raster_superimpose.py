import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from array_image import ArrayImage, noise, utm
from golden_windows import GOLDEN, INTERPOLATIONS, arguments, runs, windows
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.warp import transform

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.raster.grid import Grid, Window
from s2sr_qgis.core.raster.image import FileImage
from s2sr_qgis.core.raster.superimpose import superimpose

KINDS = ["bicubic", "linear", "nearest"]


@pytest.mark.parametrize("run", runs("sup_"))
def test_otbtf_s_numbers(run):
    given = arguments(run)
    with FileImage(GOLDEN / given["inm"]) as moving, FileImage(GOLDEN / given["inr"]) as reference:
        image = superimpose(
            moving,
            reference.grid,
            interpolation=INTERPOLATIONS[given["interpolator"]],
            fill=given.get("fv", 0),
            compat="otbtf",
            dtype=given["dtype"],
        )
        for window, expected in windows(run):
            result = image.read(window)
            assert result.dtype == expected.dtype
            if given["dtype"] != "float32" or given["interpolator"] == "nn":  # the ties of nn are OTB's, too
                np.testing.assert_array_equal(result, expected)
            else:
                np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compat", ["none", "otbtf"])
def test_windows_are_parts_of_the_whole(kind, compat):
    moving = ArrayImage(noise(2, 40, 50), utm(50, 40, 20.0), nodata=77)
    moving.read()[:, 10:14, 20:22] = 77
    image = superimpose(moving, utm(70, 60, 7.0, x=599950.0, y=4900000.0), interpolation=kind, compat=compat)
    whole = image.read()
    moving.windows.clear()
    for window in (Window(0, 0, 70, 1), Window(33, 17, 20, 30), Window(69, 59, 1, 1)):
        expected = whole[:, window.row : window.row + window.height, window.col : window.col + window.width]
        np.testing.assert_array_equal(image.read(window), expected)
    assert all(w.width <= 30 and w.height <= 16 for w in moving.windows), "more is read than the windows need"


@pytest.mark.parametrize("kind", ["bicubic", "linear"])
def test_a_plane_stays_a_plane(kind):
    """Half-pixel centres: both interpolators reproduce a linear function of the coordinates."""
    source, grid = utm(30, 30, 10.0), utm(60, 60, 2.5, x=600075.0, y=4899945.0)
    x = source.x + (np.arange(30) + 0.5) * 10
    y = source.y - (np.arange(30) + 0.5) * 10
    plane = (3 * (x - 600000)[None, :] - 2 * (y - 4900000)[:, None])[None]
    gx = grid.x + (np.arange(60) + 0.5) * 2.5 - 600000
    gy = grid.y - (np.arange(60) + 0.5) * 2.5 - 4900000
    result = superimpose(ArrayImage(plane, source), grid, interpolation=kind).read()
    np.testing.assert_allclose(result[0], 3 * gx[None, :] - 2 * gy[:, None], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_grid_gives_the_same_pixels(kind):
    pixels = noise(3, 20, 30).astype(np.uint16)
    moving = ArrayImage(pixels, utm(30, 20, 10.0))
    image = superimpose(moving, moving.grid, interpolation=kind, dtype="uint16")
    np.testing.assert_array_equal(image.read(), pixels)
    assert list(image.bands) == ["1", "2", "3"]


def test_bicubic_is_keys_kernel():
    pixels = np.zeros((1, 9, 9))
    pixels[0, 4, 4] = 1
    grid = utm(18, 18, 5.0)
    result = superimpose(ArrayImage(pixels, utm(9, 9, 10.0)), grid).read()[0]
    at = np.abs(np.array([-1.75, -1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 1.75]))
    line = np.where(at <= 1, 1.5 * at**3 - 2.5 * at**2 + 1, -0.5 * at**3 + 2.5 * at**2 - 4 * at + 2)
    np.testing.assert_allclose(result[5:13, 5:13], np.outer(line, line), atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_another_crs(kind):
    """Every pixel goes to where its own coordinates are: a plane in UTM, seen in degrees and in the next zone."""
    source = utm(60, 60, 10.0)
    rows, cols = np.mgrid[:60, :60]
    moving = ArrayImage((100.0 + cols + 2.0 * rows)[None], source)
    (west, east), (north, south) = transform(source.crs, CRS.from_epsg(4326), [600200, 600400], [4899800, 4899600])
    degrees = Grid(CRS.from_epsg(4326), west, north, (east - west) / 25, 25, 20, (north - south) / 20)
    (x,), (y,) = transform(source.crs, CRS.from_epsg(32632), [600200], [4899800])
    for grid in (degrees, Grid(CRS.from_epsg(32632), x, y, 8.0, 25, 20)):
        gx = grid.x + (np.arange(25) + 0.5) * grid.spacing
        gy = grid.y - (np.arange(20) + 0.5) * grid.pixel_height
        mx, my = np.meshgrid(gx, gy)
        ux, uy = transform(grid.crs, source.crs, mx.ravel(), my.ravel())
        col = (np.array(ux) - source.x) / 10 - 0.5
        row = (source.y - np.array(uy)) / 10 - 0.5
        if kind == "nearest":
            row, col = np.floor(row + 0.5), np.floor(col + 0.5)
        result = superimpose(moving, grid, interpolation=kind).read()
        np.testing.assert_allclose(result[0].ravel(), 100 + col + 2 * row, rtol=1e-6)


def test_the_compatible_mode_bends_between_every_tenth_pixel():
    """In another CRS OTB is exact at every tenth pixel alone; near enough for its users, and so for ours."""
    source = utm(60, 60, 10.0)
    rows, cols = np.mgrid[:60, :60]
    moving = ArrayImage((100.0 + cols + 2.0 * rows)[None], source)
    (x,), (y,) = transform(source.crs, CRS.from_epsg(32632), [600200], [4899800])
    grid = Grid(CRS.from_epsg(32632), x, y, 8.0, 25, 21)
    exact, bent = (superimpose(moving, grid, compat=compat).read()[0] for compat in ("none", "otbtf"))
    np.testing.assert_allclose(bent[::10, ::10], exact[::10, ::10], rtol=1e-6)
    np.testing.assert_allclose(bent, exact, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_nodata_is_honoured(kind):
    pixels = noise(1, 20, 20)
    bad = pixels.copy()
    bad[0, 8:11, 5:9] = -1
    bad[0, 2, 2] = math.nan
    grid = utm(40, 40, 5.0)
    clean = superimpose(ArrayImage(pixels, utm(20, 20, 10.0)), grid, interpolation=kind).read()[0]
    image = superimpose(ArrayImage(bad, utm(20, 20, 10.0), nodata=-1), grid, interpolation=kind)
    result = image.read()[0]
    expected = np.zeros((40, 40), bool)
    expected[16:22, 10:18] = expected[4:6, 4:6] = True
    np.testing.assert_array_equal(np.isnan(result), expected)
    assert math.isnan(image.nodata)
    away = np.ones((40, 40), bool)
    away[11:27, 5:23] = away[:11, :11] = False
    np.testing.assert_array_equal(result[away], clean[away])
    ring = ~away & ~expected
    assert result[ring].min() > 0, "nodata was blended in"


def test_outside_is_without_a_value():
    moving = ArrayImage(noise(1, 10, 10), utm(10, 10, 10.0))
    grid = utm(16, 16, 10.0, x=599970.0, y=4900050.0)
    result = superimpose(moving, grid, fill=7).read()[0]
    inside = np.zeros((16, 16), bool)
    inside[3:13, 3:13] = True
    np.testing.assert_array_equal(~np.isnan(result), inside)
    whole = superimpose(moving, grid, fill=7, dtype="uint16")
    assert whole.nodata == 7
    np.testing.assert_array_equal(whole.read()[0][~inside], 7)
    np.testing.assert_array_equal(whole.read()[0][inside], np.rint(result[inside]))
    otb = superimpose(moving, grid, fill=7, compat="otbtf", dtype="uint16").read()[0]
    np.testing.assert_array_equal(otb[inside], np.trunc(result[inside]))
    np.testing.assert_array_equal(otb[~inside], 7)
    far = superimpose(moving, utm(4, 4, 10.0, x=700000.0)).read()
    assert np.isnan(far).all()


def test_the_compatible_mode_blends_nodata_and_clamps():
    pixels = np.full((1, 12, 12), 100.0)
    pixels[0, :, 6:] = 0
    moving = ArrayImage(pixels, utm(12, 12, 10.0), nodata=0)
    image = superimpose(moving, utm(24, 24, 5.0), compat="otbtf", dtype="uint8", fill=9)
    assert image.nodata == 0
    line = image.read()[0, 12]
    assert line[10] == 107  # 107.03 before truncation
    assert line[13] == 0  # the undershoot


def test_bad_input_is_told():
    moving = ArrayImage(noise(1, 5, 5), utm(5, 5, 10.0))
    with pytest.raises(InputError, match="interpolation 'cubic' is not known; choose one of bicubic, linear, nearest"):
        superimpose(moving, moving.grid, interpolation="cubic")
    with pytest.raises(InputError, match="engine 'gdal' is not known"):
        superimpose(moving, moving.grid, engine="gdal")
    with pytest.raises(InputError, match="compat 'otb' is not known"):
        superimpose(moving, moving.grid, compat="otb")
    nowhere = Grid(None, 0.0, 0.0, 10.0, 5, 5)
    with pytest.raises(InputError, match="The grid has no coordinate reference system"):
        superimpose(moving, nowhere)
    with pytest.raises(InputError, match="image to be superimposed has no coordinate reference system"):
        superimpose(ArrayImage(noise(1, 5, 5), nowhere), moving.grid)
    image = superimpose(ArrayImage(noise(1, 5, 5), nowhere), nowhere, compat="otbtf")
    assert np.isfinite(image.read()).all()


@pytest.mark.parametrize("model", ["RPCs", "ground control points"])
def test_an_image_in_sensor_geometry_is_refused_with_that_reason(tmp_path: Path, model: str) -> None:
    path = tmp_path / "sensor.tif"
    profile = {"driver": "GTiff", "width": 20, "height": 20, "count": 1, "dtype": "uint16"}
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.ones((1, 20, 20), np.uint16))
        if model == "RPCs":
            ones = [1.0, *[0.0] * 19]
            file.rpcs = RPC(500, 100, 43, 0.1, ones, ones, 10, 10, 1, 0.1, ones, ones, 10, 10, 0.1, 0.1)
        else:
            corners = [(0, 0, 1.0, 44.0), (0, 20, 1.1, 44.0), (20, 0, 1.0, 43.9), (20, 20, 1.1, 43.9)]
            file.gcps = ([GroundControlPoint(r, c, x, y) for r, c, x, y in corners], CRS.from_epsg(4326))
    with pytest.raises(InputError, match=rf"is in sensor geometry \({model}, no CRS\).*orthorectify it first"):
        FileImage(path)
