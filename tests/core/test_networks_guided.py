"""Detail by local regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.train
keras = pytest.importorskip("keras")

from s2sr_qgis.core.networks import build_network, element_spec  # noqa: E402
from s2sr_qgis.core.networks.coarsenet import SHARPER, Symmetric  # noqa: E402
from s2sr_qgis.core.networks.guided import consistent, guided_detail  # noqa: E402
from s2sr_qgis.core.networks.layers import BilinearUpsampling, FromPlanes, ToPlanes, bilinear, halved, places  # noqa: E402
from s2sr_qgis.core.raster.degradation import degrade  # noqa: E402
from s2sr_qgis.core.raster.resample import upsample  # noqa: E402


def bands(size: int, count: int, seed: int) -> np.ndarray:
    """Smooth random reflectance, (count, size, size)."""
    rng = np.random.default_rng(seed)
    rough = rng.uniform(0.05, 0.4, (count, size // 4, size // 4)).astype(np.float32)
    return upsample(rough, 4, "bilinear")


def detail(
    fine: np.ndarray, low: np.ndarray, factor: int, guides: list[list[int]], own_ridge: bool = False, **how: Any
) -> np.ndarray:
    """(g, H, W), (c, h, w) → (c, H, W)."""
    planes = places(ToPlanes(factor)(keras.ops.convert_to_tensor(fine.transpose(1, 2, 0)[None])), factor)
    means = sum(planes[1:], planes[0]) / len(planes)
    found = guided_detail(
        planes,
        means,
        keras.ops.convert_to_tensor(low[None]),
        guides,
        own_ridge=own_ridge,
        **how,
    )
    return np.asarray(FromPlanes(factor)(keras.ops.concatenate(found, axis=1)))[0].transpose(2, 0, 1)


def test_a_band_that_is_a_mixture_of_its_guides_is_restored() -> None:
    fine = bands(96, 4, 1)
    truth = np.stack([0.8 * fine[0] - 0.3 * fine[1] + 0.1, 1.7 * fine[3] - 0.02])
    low = degrade(truth, 6, 0.0)
    found = upsample(low, 6, "bilinear") + detail(fine, low, 6, [[0, 1], [3]])
    # The ridge keeps a thousandth back.
    before = np.abs(upsample(low, 6, "bilinear") - truth).mean()
    assert np.abs(found - truth).mean() < 0.02 * before


def test_any_number_of_guides() -> None:
    fine = bands(96, 5, 5)
    weights = np.array([0.5, -0.2, 0.3, 0.9, -0.4], np.float32)
    truth = np.tensordot(weights, fine, 1)[np.newaxis]
    low = degrade(truth, 6, 0.0)
    smooth = upsample(low, 6, "bilinear")
    before = np.abs(smooth - truth).mean()
    all_five = np.abs(smooth + detail(fine, low, 6, [[0, 1, 2, 3, 4]]) - truth).mean()
    three = np.abs(smooth + detail(fine, low, 6, [[0, 1, 2]]) - truth).mean()
    assert all_five < 0.03 * before < 0.3 * before < three


@pytest.mark.parametrize("own_ridge", [False, True])
def test_slopes_are_those_of_a_ridge_regression(own_ridge: bool) -> None:
    fine, low = bands(48, 3, 6), bands(8, 1, 7)
    found = detail(fine, low, 6, [[0, 1, 2]], own_ridge)  # the square covers the whole image in its middle pixels
    coarse = fine.reshape(3, 8, 6, 8, 6).mean(axis=(2, 4))
    rows = slice(0, 8)  # pixel (3, 3) sees rows and columns -2 … 8 of the coarse grid: all of them
    x = coarse[:, rows, rows].reshape(3, -1).astype(np.float64)
    y = low[0, rows, rows].ravel().astype(np.float64)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    square = x @ x.T / y.size
    share = np.diag(square) if own_ridge else np.trace(square) / 3
    square += np.diag(1e-8 + 1e-3 * share * np.ones(3))
    slopes = np.linalg.solve(square, x @ y / y.size)
    expected = np.tensordot(slopes, fine - upsample(coarse, 6, "bilinear"), 1)
    # Halfway between pixels (3, 3) and (4, 4) both slopes are those of the whole image.
    np.testing.assert_allclose(found[0, 22:26, 22:26], expected[22:26, 22:26], atol=2e-4)


def test_slopes_are_local() -> None:
    fine = bands(192, 1, 2)
    gain = np.where(np.arange(192) < 96, 0.5, 2.0).astype(np.float32)
    low = degrade(fine * gain, 6, 0.0)
    found = detail(fine, low, 6, [[0]])
    wanted = fine * gain - upsample(low, 6, "bilinear")
    for columns in (slice(0, 48), slice(144, 192)):
        np.testing.assert_allclose(found[..., columns], wanted[..., columns], atol=2e-3)


def test_slopes_hold_in_a_whole_pixel_or_are_upsampled_too() -> None:
    fine = bands(96, 1, 11)
    low = degrade(fine * np.linspace(0.5, 1.5, 96, dtype=np.float32), 6, 0.0)
    rough = fine - upsample(degrade(fine, 6, 0.0), 6, "bilinear")
    held = detail(fine, low, 6, [[0]])
    slopes = (held * rough).reshape(1, 16, 6, 16, 6).sum((2, 4)) / (rough**2).reshape(1, 16, 6, 16, 6).sum((2, 4))
    assert np.ptp(slopes) > 0.4
    np.testing.assert_allclose(held, slopes.repeat(6, 1).repeat(6, 2) * rough, atol=1e-6)
    smooth = detail(fine, low, 6, [[0]], smooth=True)
    np.testing.assert_allclose(smooth, upsample(slopes, 6, "bilinear") * rough, atol=1e-5)


def test_flat_ground_has_no_detail() -> None:
    fine = np.full((1, 48, 48), 0.2, np.float32)
    fine += np.random.default_rng(0).normal(0, 1e-5, fine.shape).astype(np.float32)
    low = degrade(fine, 6, 0.0) + 0.1
    assert np.abs(detail(fine, low, 6, [[0]])).max() < 2e-4


def started(guides: list[list[int]], images: list[np.ndarray], **options: object) -> np.ndarray:
    """What the network for the 60 m bands gives before its trunk adds anything, reflectance (2, H, W)."""
    spec = element_spec({"input_10m": 4, "input_20m": 6, "input_60m": 2}, {"target": 2})
    network = build_network("coarsenet", spec, {"blocks": 1, "features": 8, "guides": guides, **options})
    layer = network.model.get_layer("last")
    layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    if "guide_kernel" in options:
        layer = network.model.get_layer("guide_filter")
        kernel = layer.get_weights()[0]
        assert kernel.sum() == 2
        layer.set_weights([kernel * KERNEL])
    inputs = {
        name: (image * 1e4).transpose(1, 2, 0)[None]
        for name, image in zip(("input_10m", "input_20m", "input_60m"), images, strict=True)
    }
    output = np.asarray(network.model.predict_on_batch(inputs)["sharpened"])
    return output[0].transpose(2, 0, 1) * 1e-4


def corrected(image: np.ndarray, low: np.ndarray, factor: int) -> np.ndarray:
    """What the means of an image (c, H, W) lack, added."""
    return image + upsample(low - degrade(image, factor, 0.0), factor, "bilinear")


def on_20m(planes: Any) -> Any:
    """Planes of the 60 m grid, upsampled."""
    images = keras.ops.transpose(planes, (0, 2, 3, 1))
    return keras.ops.transpose(BilinearUpsampling(3)(images), (0, 3, 1, 2))


KERNEL = 0.5
"""What the filter of the detail is set to in its middle."""


@pytest.mark.parametrize("guides", [[[0, 1], [3]], [[0, 1, 4], [3, 7, 8]]])
@pytest.mark.parametrize("options", [{}, {"guide_kernel": 3}, {"consistent": True}])
def test_the_untrained_network_starts_from_it(guides: list[list[int]], options: dict[str, object]) -> None:
    fine, middle = bands(96, 4, 3), bands(48, 6, 4)
    low = degrade(np.stack([0.9 * fine[0], 0.2 * fine[3] + upsample(middle[4], 2, "bilinear")]), 6, 0.0)
    output = started(guides, [fine, middle, low], **options)
    sharp = corrected(
        upsample(middle, 2, "bilinear") + detail(fine, middle, 2, [[0, 1, 2, 3]] * 6, **SHARPER), middle, 2
    )
    # Where the 20 m bands are known, the guides are they, not what they have been sharpened to.
    known = np.concatenate([degrade(fine, 6, 0.0), degrade(middle, 3, 0.0)])
    every = np.concatenate([fine, sharp])
    planes = places(ToPlanes(2)(keras.ops.convert_to_tensor(every.transpose(1, 2, 0)[None])), 2)
    means, coarse = (keras.ops.convert_to_tensor(image[None]) for image in (known, low))
    found = guided_detail(planes, means, coarse, guides, spread=on_20m, own_ridge=True)
    added = np.asarray(FromPlanes(2)(keras.ops.concatenate(found, axis=1)))[0].transpose(2, 0, 1)
    expected = upsample(low, 6, "bilinear") + (KERNEL if "guide_kernel" in options else 1) * added
    if "consistent" in options:
        expected = corrected(expected, low, 6)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_a_band_that_follows_a_20_m_band_is_restored() -> None:
    """Although that is itself only as sharp as the 10 m bands make it."""
    fine = bands(96, 4, 8)
    middle = np.stack([degrade(weight * fine[1] + fine[2], 2, 0.0) for weight in np.linspace(0.2, 1.2, 6)])
    truth = np.stack([fine[0], 0.7 * (0.8 * fine[1] + fine[2]) + 0.02])  # 0.7 times the fourth 20 m band
    low = degrade(truth, 6, 0.0)
    output = started([[0], [7]], [fine, middle, low])
    before = np.abs(upsample(low, 6, "bilinear") - truth)[1].mean()
    assert np.abs(output - truth)[1].mean() < 0.03 * before


def test_back_projection_brings_the_means_nearer_to_the_band() -> None:
    fine, low = bands(96, 2, 9), bands(16, 2, 10)
    planes = places(ToPlanes(6)(keras.ops.convert_to_tensor(fine.transpose(1, 2, 0)[None])), 6)
    found = consistent(
        planes,
        keras.ops.convert_to_tensor(low[None]),
        lambda image: sum(image[1:], image[0]) / len(image),
        lambda image: bilinear(image, 6),
    )
    image = np.asarray(FromPlanes(6)(keras.ops.concatenate(found, axis=1)))[0].transpose(2, 0, 1)
    np.testing.assert_allclose(image, corrected(fine, low, 6), atol=1e-6)
    lacking = [np.abs(degrade(each, 6, 0.0) - low).mean() for each in (fine, image)]
    assert lacking[1] < 0.4 * lacking[0]


def test_20_m_bands_are_seen_as_the_training_pairs_were_made() -> None:
    fine, edge = bands(64, 3, 11), 2
    planes = places(ToPlanes(2)(keras.ops.convert_to_tensor(fine.transpose(1, 2, 0)[None])), 2)
    inside = np.s_[:, edge:-edge, edge:-edge]
    found, expected = np.asarray(halved(planes))[0], degrade(fine, 2)
    np.testing.assert_allclose(found[inside], expected[inside], rtol=2e-3)
    assert np.abs(degrade(fine, 2, 0.0) - expected)[inside].max() > 20 * np.abs(found - expected)[inside].max()


def test_the_network_for_the_20_m_bands_ends_with_back_projection() -> None:
    fine, middle = bands(64, 4, 12), bands(32, 6, 13)
    spec = element_spec({"input_10m": 4, "input_20m": 6}, {"target": 6})
    options = {"blocks": 1, "features": 8, "guides": [[0, 1, 2, 3]] * 6}
    plain, ending = (build_network("coarsenet", spec, options | {"consistent": end}).model for end in (False, True))
    ending.set_weights(plain.get_weights())
    inputs = {
        "input_10m": (fine * 1e4).transpose(1, 2, 0)[None],
        "input_20m": (middle * 1e4).transpose(1, 2, 0)[None],
    }
    before, after = (
        np.asarray(model.predict_on_batch(inputs)["sharpened"])[0].transpose(2, 0, 1) * 1e-4
        for model in (plain, ending)
    )
    inside = np.s_[:, 2:-2, 2:-2]
    expected = before + upsample(middle - degrade(before, 2), 2, "bilinear")
    np.testing.assert_allclose(after[:, 4:-4, 4:-4], expected[:, 4:-4, 4:-4], atol=1e-4)
    lacking = [np.abs(degrade(image, 2) - middle)[inside].mean() for image in (before, after)]
    assert lacking[1] < 0.4 * lacking[0]


def test_the_filter_stays_the_same_in_all_directions() -> None:
    kernel = np.random.default_rng(0).normal(size=(5, 5, 2, 1)).astype(np.float32)
    once = np.asarray(Symmetric()(kernel))
    for other in (once[::-1], once[:, ::-1], once.swapaxes(0, 1)):
        np.testing.assert_allclose(other, once, atol=1e-6)
    np.testing.assert_allclose(once.sum(axis=(0, 1)), kernel.sum(axis=(0, 1)), atol=1e-5)
    np.testing.assert_allclose(np.asarray(Symmetric()(once)), once, atol=1e-6)
