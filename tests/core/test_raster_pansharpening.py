import math

import numpy as np
import pytest
from array_image import ArrayImage, noise, utm
from golden_windows import GOLDEN, arguments, runs, windows
from rasterio.crs import CRS
from scipy.ndimage import uniform_filter

from s2sr_qgis.core.errors import Cancelled, InputError
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.grid import Window
from s2sr_qgis.core.raster.image import FileImage
from s2sr_qgis.core.raster.pansharpening import bundle_to_perfect_sensor, pansharpen
from s2sr_qgis.core.raster.superimpose import superimpose

METHODS = ["rcs", "lmvm", "bayes"]


def pair(height=60, width=70, seed=0):
    """A panchromatic image and one of three bands that goes with it, on one grid."""
    xs = noise(3, height, width, seed).astype(np.float32)
    pan = xs.mean(axis=0, keepdims=True) + noise(1, height, width, seed + 1, -40, 40).astype(np.float32)
    return ArrayImage(pan, utm(width, height, 1.5)), ArrayImage(xs, utm(width, height, 1.5))


@pytest.mark.parametrize("run", runs("b2p_"))
def test_otbtf_s_numbers(run):
    given = arguments(run)
    with FileImage(GOLDEN / given["inp"]) as pan, FileImage(GOLDEN / given["inxs"]) as xs:
        image = bundle_to_perfect_sensor(pan, xs, method=given["method"], compat="otbtf", dtype=given["dtype"])
        for window, expected in windows(run):
            result = image.read(window)
            assert result.dtype == expected.dtype
            if given["dtype"] != "float32":
                np.testing.assert_array_equal(result, expected)
            else:
                np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_rcs_and_lmvm_are_their_formulas():
    pan, xs = pair()
    p, x = pan.read().astype(np.float64), xs.read().astype(np.float64)

    def mean(image):
        return uniform_filter(image, (0, 7, 7), mode="nearest")

    np.testing.assert_allclose(pansharpen(pan, xs, method="rcs").read(), x * p / mean(p), rtol=1e-6)
    pan_deviation, xs_deviation = (np.sqrt(mean(i**2) - mean(i) ** 2) for i in (p, x))
    expected = (p - mean(p)) * xs_deviation / pan_deviation + mean(x)
    np.testing.assert_allclose(pansharpen(pan, xs, method="lmvm").read(), expected, rtol=1e-5)


def test_bayes_is_its_formula():
    pan, xs = pair()
    p, x = pan.read().ravel().astype(np.float64), xs.read().reshape(3, -1).T.astype(np.float64)
    design = np.column_stack([np.ones(len(p)), x])
    beta, (residual,), _, _ = np.linalg.lstsq(design, p, rcond=None)
    variance, slope, prior = residual / (len(p) - 4), beta[1:], np.linalg.inv(np.cov(x.T))
    weight, rest = 2 * 0.9999, 2 * float(np.float32(1) - np.float32(0.9999))
    ridge = np.diag([0, 1e-12, 1e-12])  # OTB's, against singular matrices
    posterior = np.linalg.inv(weight * np.outer(slope, slope) / variance + rest * prior + ridge)
    expected = (x @ prior * rest + weight * np.outer(p - beta[0], slope) / variance) @ posterior
    result = pansharpen(pan, xs, method="bayes").read()
    np.testing.assert_allclose(result.reshape(3, -1).T, expected, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("compat", ["none", "otbtf"])
def test_windows_are_parts_of_the_whole(method, compat):
    pan, xs = pair()
    pan.nodata = 5.0
    pan.read()[0, 20:23, 30:32] = 5
    image = pansharpen(pan, xs, method=method, compat=compat)
    whole = image.read()
    for window in (Window(0, 0, 70, 1), Window(33, 17, 20, 30), Window(69, 59, 1, 1)):
        expected = whole[:, window.row : window.row + window.height, window.col : window.col + window.width]
        np.testing.assert_allclose(image.read(window), expected, rtol=1e-6)
    last = Window(69, 59, 1, 1) if method == "bayes" else Window(66, 56, 4, 4)
    assert pan.windows[-1] == xs.windows[-1] == last, "more is read than the window needs"


@pytest.mark.parametrize("method", METHODS)
def test_pixels_without_a_value_have_no_part_in_the_others(method):
    pan, xs = pair()
    clean = pansharpen(pan, xs, method=method).read()
    results = []
    for value in (-9999.0, 60000.0):
        p, x = pan.read().copy(), xs.read().copy()
        p[0, 10, 10] = x[0, 40, 30] = value
        x[1, 5, 60] = math.nan
        grid = pan.grid
        image = pansharpen(ArrayImage(p, grid, value), ArrayImage(x, grid, value), method=method)
        assert math.isnan(image.nodata)
        results.append(image.read())
    one, other = results
    np.testing.assert_allclose(one, other, rtol=1e-6)
    invalid = np.zeros(one.shape, bool)
    invalid[:, 10, 10] = invalid[0, 40, 30] = invalid[1, 5, 60] = True
    if method == "bayes":  # which mixes the bands
        invalid[:, 40, 30] = invalid[:, 5, 60] = True
    np.testing.assert_array_equal(np.isnan(one), invalid)
    np.testing.assert_allclose(one[~invalid], clean[~invalid], rtol=0.2)


def test_integers_are_rounded_or_as_otb_truncated():
    pan, xs = pair()
    x = xs.read().copy()
    x[:, 3, 4] = 0
    xs = ArrayImage(x, xs.grid, 0.0)
    exact = pansharpen(pan, xs).read()
    image = pansharpen(pan, xs, dtype="uint16")
    assert image.nodata == 0
    np.testing.assert_array_equal(image.read(), np.where(np.isnan(exact), 0, np.rint(exact)))
    truncated = pansharpen(pan, xs, dtype="uint16", compat="otbtf").read()
    np.testing.assert_array_equal(truncated, np.where(np.isnan(exact), 0, np.trunc(exact)))


def test_otb_s_own_nodata_in_rcs():
    """Pixels of XS at its nodata value stay; where PAN is at its own, XS' is written; local means do not care."""
    pan, xs = pair()
    p, x = pan.read().copy(), xs.read().copy()
    p[0, 10, 10], x[1, 20, 20] = 3, 8
    image = pansharpen(ArrayImage(p, pan.grid, 3), ArrayImage(x, xs.grid, 8), compat="otbtf")
    assert image.nodata == 8
    result = image.read()
    assert (result[:, 10, 10] == 8).all()
    assert result[1, 20, 20] == 8
    free = pansharpen(ArrayImage(p, pan.grid), ArrayImage(x, xs.grid), compat="otbtf").read()
    same = np.ones(result.shape, bool)
    same[:, 10, 10] = same[1, 20, 20] = False
    np.testing.assert_array_equal(result[same], free[same])


def test_flat_ground_divides_by_nothing():
    grid = utm(12, 12, 1.5)
    flat = ArrayImage(np.zeros((1, 12, 12)), grid)
    xs = ArrayImage(noise(2, 12, 12).astype(np.float32), grid)
    np.testing.assert_array_equal(pansharpen(flat, xs, method="rcs").read(), xs.read())
    assert np.isfinite(pansharpen(flat, xs, method="lmvm").read()).all()
    with pytest.raises(InputError, match="which 'bayes' cannot work with; choose rcs or lmvm"):
        pansharpen(flat, ArrayImage(np.zeros((2, 12, 12)), grid), method="bayes").read()


def test_bundle_is_superimpose_and_pansharpen():
    pan, _ = pair(64, 64)
    xs = ArrayImage(noise(4, 16, 16, seed=3), utm(16, 16, 6.0))
    together = bundle_to_perfect_sensor(pan, xs, method="lmvm", interpolation="linear")
    apart = pansharpen(pan, superimpose(xs, pan.grid, interpolation="linear"), method="lmvm")
    assert list(together.bands) == ["1", "2", "3", "4"]
    np.testing.assert_array_equal(together.read(), apart.read())


def test_bayes_can_be_stopped():
    class Stop(Progress):
        def cancelled(self):
            return True

    pan, xs = pair()
    image = pansharpen(pan, xs, method="bayes", progress=Stop())
    with pytest.raises(Cancelled):
        image.read(Window(0, 0, 5, 5))


def test_bad_input_is_told():
    pan, xs = pair()
    with pytest.raises(InputError, match="method 'brovey' is not known; choose one of rcs, lmvm, bayes"):
        pansharpen(pan, xs, method="brovey")
    with pytest.raises(InputError, match="panchromatic image has 3 bands"):
        pansharpen(xs, xs)
    coarse = ArrayImage(noise(3, 15, 17), utm(17, 15, 6.0))
    with pytest.raises(InputError, match="not on one grid; superimpose the first"):
        pansharpen(pan, coarse)
    far = ArrayImage(noise(3, 15, 17), utm(17, 15, 6.0, x=700000.0))
    with pytest.raises(InputError, match="do not overlap"):
        bundle_to_perfect_sensor(pan, far)
    other = ArrayImage(noise(3, 15, 17), utm(17, 15, 6.0, epsg=32632))
    with pytest.raises(InputError, match=r"differ in coordinate reference system \(EPSG:32632 and EPSG:32631\)"):
        bundle_to_perfect_sensor(pan, other)
    empty = ArrayImage(np.full((3, 60, 70), -1.0), pan.grid, -1)
    assert empty.grid.crs == CRS.from_epsg(32631)
    assert np.isnan(pansharpen(pan, empty).read()).all()
    with pytest.raises(InputError, match="Only 0 pixels have a value in both images"):
        pansharpen(pan, empty, method="bayes").read()
