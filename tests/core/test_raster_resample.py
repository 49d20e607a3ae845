from pathlib import Path

import numpy as np
import pytest
import rasterio

from s2sr_qgis.core.raster.degradation import degradation_radius, degrade
from s2sr_qgis.core.raster.resample import upsample

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "s2_l1c"


def random(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


def test_degrade_without_blur_is_the_block_mean():
    image = random(3, 12, 18)
    expected = image.reshape(3, 2, 6, 3, 6).mean(axis=(2, 4))
    np.testing.assert_allclose(degrade(image, 6, sigma=1e-3), expected, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 6])
def test_degrade_keeps_a_constant_to_the_edge(factor):
    image = np.full((2, 24, 36), 0.3, np.float32)
    result = degrade(image, factor)
    assert result.shape == (2, 24 // factor, 36 // factor)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, 0.3, rtol=1e-6)


def test_degrade_weights_are_the_gaussian_s():
    """One bright pixel: the blurred weights, summed over each block, by hand."""
    image = np.zeros((12, 12), np.float32)
    image[5, 5] = 1
    taps = np.exp(-0.5 * (np.arange(-2, 3) / 0.5) ** 2)
    line = np.zeros(12)
    line[3:8] = taps / taps.sum()
    blocks = line.reshape(6, 2).mean(axis=1)
    np.testing.assert_allclose(degrade(image, 2), np.outer(blocks, blocks), atol=1e-7)
    assert degradation_radius(2) == 2


def test_degrade_leaves_invalid_pixels_out():
    image, valid = random(12, 12), np.ones((12, 12), bool)
    clean = degrade(image, 2)
    valid[4:6, 4:6] = False
    dirty = np.where(valid, image, np.float32(1e6))
    result = degrade(dirty, 2, valid=valid)
    assert result.max() < 1.01
    away = np.ones((6, 6), bool)
    away[1:4, 1:4] = False
    np.testing.assert_allclose(result[away], clean[away], rtol=1e-5)
    assert not degrade(image, 2, valid=np.zeros((12, 12), bool)).any()


def test_degrade_refuses_a_size_that_is_no_multiple():
    with pytest.raises(ValueError, match="13 x 12 pixels cannot be reduced by 2"):
        degrade(random(13, 12), 2)


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("factor", [2, 6])
def test_upsample_has_half_pixel_centres(kernel, factor):
    """A ramp stays a ramp through the same pixel centres; edges are replicated."""
    coarse = np.tile(np.arange(40, dtype=np.float32), (2, 8, 1))
    fine = upsample(coarse, factor, kernel)
    assert fine.shape == (2, 8 * factor, 40 * factor)
    assert fine.dtype == np.float32
    expected = (np.arange(40 * factor) + 0.5) / factor - 0.5
    inside = slice(15 * factor, 25 * factor)
    np.testing.assert_allclose(fine[1, 3, inside], expected[inside], atol=1e-4)
    if kernel == "bilinear":
        np.testing.assert_allclose(fine[0, 0], np.clip(expected, 0, 39), atol=1e-5)


def test_upsample_by_one_is_the_image():
    image = random(5, 7)
    np.testing.assert_array_equal(upsample(image, 1), image)


@pytest.mark.parametrize(("scene", "twenty", "sixty"), [("iceland", 104.0, 109.2), ("usa", 109.2, 54.1)])
@pytest.mark.skipif(not DATA.is_dir(), reason="the data folder ../shared/data is absent")
def test_published_bicubic_figures(scene, twenty, sixty):
    """RMSE of bicubic by Wald's protocol, in DN, mean over the bands: degradation and kernel are the field's."""
    for names, factor, figure in ((["B05", "B06", "B07", "B8A", "B11", "B12"], 2, twenty), (["B01", "B09"], 6, sixty)):
        errors = []
        for name in names:
            with rasterio.open(DATA / scene / f"{name}.tif") as dataset:
                image = dataset.read(1).astype(np.float32)
            height, width = (side // factor * factor for side in image.shape)
            image = image[:height, :width]
            difference = image - upsample(degrade(image, factor), factor, "bicubic")
            errors.append(np.sqrt(np.mean(difference[6:-6, 6:-6] ** 2)))
        assert np.mean(errors) == pytest.approx(figure, abs=0.06)
