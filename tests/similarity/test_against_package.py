"""The definition "up42" gives what image-similarity-measures 0.3.6 gives, wherever that does not overflow.

The package adds up in the images' own type, in float32 where they are integers. That rounding (up to 1e-3 dB) is not
followed either: sums are compared on float64 images, within 1e-6, and on the others within the rounding.
"""

from __future__ import annotations

import numpy as np
import pytest
from similarity_pairs import EXAMPLES, example, noise, sentinel2, smooth
from up42_package import NAMES, package, wide_gradients

from s2sr_qgis.core.similarity.measures import measure

NEAR = 1e-6
PACKAGE_RANGE = 4095
"""The data range that the package's ISSM always takes."""


def ours(name, x, y, data_range=PACKAGE_RANGE):
    return measure(x, y, [name], definition="up42", data_range=data_range)[name].total


def reflectance(dtype=np.float64):
    x, y = sentinel2()
    return (x / 1e4).astype(dtype), (y / 1e4).astype(dtype)


def scaled(pair, dtype):
    return tuple(image.astype(dtype) for image in pair)


CASES = {
    "8-bit": (lambda: noise(255, np.uint8), 255),
    "8-bit in float64": (lambda: noise(255), 255),
    "12-bit in uint16": (lambda: noise(4095, np.uint16), 4095),
    "12-bit in float64": (lambda: noise(4095), 4095),
    "12-bit in float32": (lambda: noise(4095, np.float32), 4095),
    "16-bit in float64": (lambda: noise(65535), 65535),
    "Sentinel-2 in uint16": (sentinel2, 4095),
    "Sentinel-2 in float64": (lambda: scaled(sentinel2(), np.float64), 10000),
    "Sentinel-2 in float32": (lambda: scaled(sentinel2(), np.float32), 10000),
    "reflectance in float64": (reflectance, 1.0),
    "reflectance in float32": (lambda: reflectance(np.float32), 1.0),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    make, data_range = CASES[request.param]
    x, y = make()
    return x, y, data_range


@pytest.mark.parametrize("name", ["rmse", "psnr", "ssim", "sre", "sam", "uiq"])
def test_the_same(name, case):
    x, y, data_range = case
    wide = scaled((x, y), np.float64)
    assert ours(name, x, y, data_range) == pytest.approx(package(name, *wide, data_range), rel=0, abs=NEAR)


@pytest.mark.parametrize("name", ["rmse", "psnr", "ssim", "sre", "uiq"])
def test_the_same_in_the_images_own_type(name, case):
    x, y, data_range = case
    assert ours(name, x, y, data_range) == pytest.approx(package(name, x, y, data_range), rel=2e-5, abs=NEAR)


def test_one_band():
    """A band of its own, which the package takes right as (H, W, 1) only."""
    x, y = (image[3:].astype(np.float64) for image in sentinel2(32))
    for name in ("rmse", "psnr", "ssim", "sre", "uiq"):
        assert ours(name, x, y) == pytest.approx(package(name, x, y, PACKAGE_RANGE), rel=0, abs=NEAR), name
        assert ours(name, x[0], y[0]) == ours(name, x, y), name


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_fsim_where_16_bits_hold_the_gradients(dtype):
    x, y = scaled(smooth(), dtype)
    assert ours("fsim", x, y) == pytest.approx(package("fsim", x, y), rel=0, abs=NEAR)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fsim_of_reflectance(dtype):
    x, y = reflectance(dtype)
    assert ours("fsim", x, y) == pytest.approx(package("fsim", x, y), rel=0, abs=NEAR)


def test_fsim_of_an_odd_size():
    x, y = (image[:, :-3, :-8] for image in smooth(offset=700))
    assert ours("fsim", x, y) == pytest.approx(package("fsim", x, y), rel=0, abs=NEAR)


@pytest.mark.parametrize("make", [sentinel2, lambda: noise(4095, np.uint16), lambda: noise(255, np.uint8)])
def test_fsim_but_for_the_overflow(make):
    """The package squares gradients in 16 bits; with its other lines as they are and 64 bits there, it is ours."""
    x, y = make()
    with wide_gradients():
        expected = package("fsim", x, y)
    assert ours("fsim", x, y) == pytest.approx(expected, rel=0, abs=NEAR)
    assert abs(package("fsim", x, y) - expected) > 1e-3


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("make", [sentinel2, lambda: noise(4095)])
def test_issm(make, dtype):
    x, y = scaled(make(), dtype)
    assert ours("issm", x, y) == pytest.approx(package("issm", x, y), rel=0, abs=NEAR)


def test_issm_without_edges():
    """A sixteenth of an 8-bit value, or of reflectance, has no edge that the package's Canny finds."""
    for x, y in (noise(255, np.uint8), reflectance()):
        assert package("issm", x, y) == ours("issm", x, y) == 0


with_examples = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason=f"the package's example images are not in {EXAMPLES}; see S2SR_PACKAGE_EXAMPLES"
)


@with_examples
@pytest.mark.parametrize("place", ["lafayette", "singapore"])
def test_its_example_images(place):
    """Some of their values are beyond 4095; there the package's ISSM wraps around, so it is given 4095."""
    pair = scaled(example(place), np.float64)
    for name in NAMES:
        x, y = (np.minimum(image, PACKAGE_RANGE) if name == "issm" else image for image in pair)
        with wide_gradients():
            expected = package(name, x, y, PACKAGE_RANGE)
        assert ours(name, x, y) == pytest.approx(expected, rel=0, abs=NEAR), name


@with_examples
def test_its_angle_of_its_own_example():
    x, y = example("lafayette")
    assert package("sam", x, y) == pytest.approx(88.86, abs=0.005)
    assert ours("sam", x, y) == pytest.approx(0.62, abs=0.005)
