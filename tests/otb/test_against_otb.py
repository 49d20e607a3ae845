"""The native engine gives what real Orfeo ToolBox gives: the same integers, floats within 1e-6 of their value."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import rasterio
from array_image import ArrayImage, noise, utm
from golden_windows import GOLDEN, INTERPOLATIONS, arguments, runs, windows
from rasterio.crs import CRS
from rasterio.transform import Affine
from rasterio.warp import transform
from tiny_model import RADIUS, TENS, TWENTIES, scene_numbers, tiny_model
from tiny_saved_model import add_saved_model, python_with_tensorflow

from s2sr_qgis.core.errors import InputError, MissingPackageError
from s2sr_qgis.core.raster.grid import Grid, Window
from s2sr_qgis.core.raster.image import FileImage
from s2sr_qgis.core.raster.otb import applications, otbtf_available, run_application
from s2sr_qgis.core.raster.pansharpening import bundle_to_perfect_sensor, pansharpen
from s2sr_qgis.core.raster.serve import Source, serve, serve_job
from s2sr_qgis.core.raster.superimpose import superimpose

pytestmark = pytest.mark.otb

METHODS = ["rcs", "lmvm", "bayes"]
TYPES = ["float32", "uint16", "int16", "uint8"]


def assert_same(native, otb, interpolation=""):
    assert native.dtype == otb.dtype
    if native.dtype.kind != "f" or interpolation == "nearest":
        np.testing.assert_array_equal(native, otb)
    else:
        np.testing.assert_allclose(native, otb, rtol=1e-6, atol=1e-6)


def both(image, grid, **options):
    """Native, by windows, and OTB's, as a whole."""
    native = superimpose(image, grid, compat="otbtf", **options)
    otb = superimpose(image, grid, engine="otb", **options)
    assert (native.grid, list(native.bands), native.nodata) == (otb.grid, list(otb.bands), otb.nodata)
    assert_same(native.read(), otb.read(), options["interpolation"])


@pytest.mark.parametrize("run", runs("sup_"))
def test_superimpose_on_the_golden_inputs(run):
    """Everything, not the kept windows alone; those tell that this OTB is the one that made them."""
    given = arguments(run)
    options = {"interpolation": INTERPOLATIONS[given["interpolator"]], "fill": given.get("fv", 0)}
    with FileImage(GOLDEN / given["inm"]) as moving, FileImage(GOLDEN / given["inr"]) as reference:
        both(moving, reference.grid, dtype=given["dtype"], **options)
        otb = superimpose(moving, reference.grid, engine="otb", dtype=given["dtype"], **options)
        for window, expected in windows(run):
            assert_same(otb.read(window), expected)


@pytest.mark.parametrize("dtype", ["float32", "int16"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("run", runs("b2p_qb_lr4_rcs_f32"))
def test_bundle_on_the_golden_inputs(run, method, dtype):
    """The native engine and the engine "otb" against the application itself, BundleToPerfectSensor."""
    given = arguments(run)
    pan, xs = GOLDEN / given["inp"], GOLDEN / given["inxs"]
    app = run_application("BundleToPerfectSensor", {"inp": str(pan), "inxs": str(xs), "method": method})
    expected = np.moveaxis(app.to_numpy(preserve_dtype=False), 2, 0)
    with FileImage(pan) as pan_image, FileImage(xs) as xs_image:
        for engine in ("native", "otb"):
            image = bundle_to_perfect_sensor(
                pan_image, xs_image, method=method, engine=engine, compat="otbtf", dtype=dtype
            )
            assert_same(image.read(), np.clip(expected, -32768, 32767).astype(dtype))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS.values())
@pytest.mark.parametrize("seed", range(4))
def test_superimpose_of_random_images(interpolation, seed):
    """Grids that share nothing: other spacings, parts outside, nodata inside, every data type."""
    rng = np.random.default_rng(seed)
    pixels = noise(3, 45, 52, seed, low=-20, high=300).astype(TYPES[seed])
    pixels[:, 10:13, 20:25] = 0
    spacing = float(rng.choice([0.6, 2.4, 6.0, 10.0, 19.7]))
    moving = ArrayImage(pixels, utm(52, 45, spacing), nodata=[None, 0, 5, None][seed])
    x, y = 600000 + rng.uniform(-8, 8) * spacing, 4900020 + rng.uniform(-8, 8) * spacing
    grid = utm(97, 83, spacing * float(rng.choice([0.25, 0.5, 0.37, 1.3])), x=x, y=y)
    for dtype in TYPES:
        both(moving, grid, interpolation=interpolation, fill=float(seed), dtype=dtype)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS.values())
def test_exact_ties_go_where_otb_s_go(interpolation):
    """Every centre of the fine grid lies on the border of two coarse pixels, but for OTB's rounding."""
    moving = ArrayImage(noise(2, 40, 40).astype(np.uint16), utm(40, 40, 20.0, x=500010.0))
    both(moving, utm(70, 70, 10.0, x=500015.0, y=4900015.0), interpolation=interpolation, dtype="uint16")


@pytest.mark.parametrize("interpolation", INTERPOLATIONS.values())
@pytest.mark.parametrize("epsg", [4326, 32632, 3857])
def test_superimpose_from_one_crs_to_another(interpolation, epsg):
    utm_grid, crs = utm(60, 50, 10.0), CRS.from_epsg(epsg)
    xs, ys = transform(utm_grid.crs, crs, [600050.0, 600500.0], [4899950.0, 4899600.0])
    grid = Grid(crs, xs[0], ys[0], (xs[1] - xs[0]) / 61, 61, 43, (ys[0] - ys[1]) / 43)
    there = ArrayImage(noise(2, 50, 60).astype(np.float32), utm_grid)
    back = ArrayImage(noise(2, 43, 61).astype(np.uint16), grid)
    both(there, grid, interpolation=interpolation, fill=-1.0)
    both(back, utm_grid, interpolation=interpolation, dtype="uint16")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_pansharpening_of_random_images(method, seed):
    height, width = 57, 64
    xs = noise(4, height, width, seed).astype(np.float32)
    pan = xs.mean(axis=0, keepdims=True) + noise(1, height, width, seed + 10, -90, 90)
    pan = np.rint(pan).astype(np.uint16) if seed else pan.astype(np.float32)
    xs[1, 20:24, 30:33] = pan[0, 40, 40] = 9
    grid, nodata = utm(width, height, 1.5), [None, 9, 9][seed]
    pan_image = ArrayImage(pan, grid, nodata if seed == 2 else None)
    xs_image = ArrayImage(xs, grid, nodata)
    for dtype in TYPES:
        native = pansharpen(pan_image, xs_image, method=method, compat="otbtf", dtype=dtype)
        otb = pansharpen(pan_image, xs_image, method=method, engine="otb", dtype=dtype)
        assert_same(native.read(), otb.read())
    window = Window(5, 40, 30, 17)
    assert_same(native.read(window), otb.read(window))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS.values())
def test_a_bundle_stays_in_otb_s_pipeline(tmp_path, method, interpolation):
    """From files to the last pixel without a file in between; bands by number, nodata by hand."""
    pan, xs = tmp_path / "pan & co.tif", tmp_path / "xs.tif"
    ground = noise(4, 96, 112)
    coarse = ground.reshape(4, 24, 4, 28, 4).mean(axis=(2, 4))
    for path, pixels, spacing in (
        (pan, ground.mean(axis=0, keepdims=True).astype(np.uint16), 1.5),
        (xs, coarse.astype(np.uint16), 6.0),
    ):
        count, height, width = pixels.shape
        at = Affine(spacing, 0, 600000, 0, -spacing, 4900020)
        profile = {"driver": "GTiff", "dtype": "uint16", "crs": "EPSG:32631", "transform": at}
        with rasterio.open(path, "w", count=count, height=height, width=width, **profile) as file:
            file.write(pixels)
    before = sorted(tmp_path.iterdir())
    with FileImage(pan) as pan_image, FileImage(xs, nodata=100, bands=[3, 1]) as xs_image:
        options = {"method": method, "interpolation": interpolation, "dtype": "uint16"}
        native = bundle_to_perfect_sensor(pan_image, xs_image, compat="otbtf", **options)
        otb = bundle_to_perfect_sensor(pan_image, xs_image, engine="otb", **options)
        assert list(otb.bands) == ["3", "1"]
        assert native.nodata == otb.nodata == 100
        for window in (Window(0, 0, 50, 96), Window(50, 0, 62, 96)):
            np.testing.assert_array_equal(native.read(window), otb.read(window))
    assert sorted(tmp_path.iterdir()) == before


def test_what_otb_refuses_is_told():
    with pytest.raises(InputError, match=r"Orfeo ToolBox's Superimpose failed: .*nowhere"):
        run_application("Superimpose", {"inr": "nowhere.tif", "inm": "nowhere.tif"})
    assert "BundleToPerfectSensor" in applications()


@pytest.mark.skipif(otbtf_available(), reason="OTBTF is there")
def test_without_otbtf_it_is_told_where_to_get_it(tmp_path):
    job = serve_job("model", [Source("x", 6.0, ["s2.tif"])], "y", 1.5, 4)
    with pytest.raises(
        MissingPackageError, match="no application TensorflowModelServe; run in the docker image mdl4eo"
    ):
        serve(job, ["y"])
    assert not list(tmp_path.iterdir())


@pytest.mark.otb("TensorflowModelServe")
@pytest.mark.parametrize("run", runs("srv_x2_crop16_ef64"))
def test_serving_gives_what_was_measured(run):
    if run.endswith("_u16"):
        pytest.skip("OTBTF is read as floats alone")
    source = GOLDEN / arguments(run)["source1.il"]
    image = serve(serve_job(GOLDEN / "model_sr_x2", [Source("x", 20.0, [source])], "y", 10.0, 8, field=64), "abc")
    with FileImage(source) as coarse:
        # 16 pixels of 10 m are lost on each side, and no half pixel more.
        assert (image.grid.x, image.grid.y) == (coarse.grid.x + 160, coarse.grid.y - 160)
    for window, expected in windows(run):
        np.testing.assert_allclose(image.read(window), expected, rtol=0, atol=0.01)


@pytest.mark.otb("TensorflowModelServe")
def test_two_sources_of_different_spacing(tmp_path):
    """A sharpening network: 10 m and 20 m in, 10 m out, against ONNX Runtime on the whole image."""
    python = python_with_tensorflow()
    if python is None:
        pytest.skip("no Python with TensorFlow here makes the SavedModel; 'make setup' sets one up")
    model = tiny_model(tmp_path / "model")
    saved = add_saved_model(model, python)
    numbers = scene_numbers(240)
    paths = {}
    for resolution, bands in ((20, TWENTIES), (10, TENS)):
        paths[resolution] = tmp_path / f"{resolution}.tif"
        pixels = np.stack([numbers[band] for band in bands])
        at = Affine(resolution, 0, 600000, 0, -resolution, 4900020)
        profile = {"driver": "GTiff", "dtype": "uint16", "crs": "EPSG:32631", "transform": at}
        count, height, width = pixels.shape
        with rasterio.open(paths[resolution], "w", count=count, height=height, width=width, **profile) as file:
            file.write(pixels)
    # In the wrong order on purpose: the finest goes first.
    sources = [Source("input_20m", 20.0, [paths[20]]), Source("input_10m", 10.0, [paths[10]])]
    image = serve(serve_job(saved, sources, "sharpened", 10.0, RADIUS["20m"], multiple=2, field=64), TWENTIES)
    assert (image.grid.x, image.grid.y, image.grid.spacing) == (600160, 4899860, 10)
    assert (image.grid.width, image.grid.height) == (192, 192)
    feed = {
        f"input_{resolution}m": np.stack([numbers[band] for band in bands], axis=-1)[None].astype(np.float32)
        for resolution, bands in ((10, TENS), (20, TWENTIES))
    }
    whole = onnxruntime.InferenceSession(model / "model.onnx").run(None, feed)[0][0]
    np.testing.assert_allclose(image.read(), whole[16:208, 16:208].transpose(2, 0, 1), rtol=0, atol=0.05)
