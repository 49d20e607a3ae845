"""Metrics against hand-computed values, scikit-image, and naive forms."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.similarity import AngleSums, ErrorSums, QualitySums, psnr, rmse, sam, sre, ssim, uiq


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.uniform(100, 4000, (3, 40, 37)).astype(np.float32)
    return x, (x + rng.normal(0, 120, x.shape)).astype(np.float32)


def test_identical_images_are_perfect(pair):
    x, _ = pair
    assert rmse(x, x).total == 0
    assert psnr(x, x, 10000).total == np.inf
    assert sre(x, x).total == np.inf
    assert sam(x, x) == pytest.approx(0, abs=1e-5)
    assert uiq(x, x).total == pytest.approx(1, abs=1e-12)
    assert ssim(x, x, 10000).total == pytest.approx(1, abs=1e-12)


def test_hand_computed():
    x = np.array([[[1.0, 3.0]], [[2.0, 2.0]]])
    y = np.array([[[1.0, 1.0]], [[3.0, 1.0]]])
    score = rmse(x, y)
    assert score.bands == pytest.approx([np.sqrt(2), 1])
    assert score.total == pytest.approx((np.sqrt(2) + 1) / 2)
    assert sre(x, y).bands == pytest.approx([10 * np.log10(4 / 2), 10 * np.log10(4 / 1)])
    assert sre(x, y).total == pytest.approx((10 * np.log10(2) + 10 * np.log10(4)) / 2)
    assert psnr(x, y, 10).total == pytest.approx(10 * np.log10(100 / 1.5))
    angles = [
        np.degrees(np.arccos((1 + 6) / np.sqrt(5 * 10))),
        np.degrees(np.arccos((3 + 2) / np.sqrt(13 * 2))),
    ]
    assert sam(x, y) == pytest.approx(np.mean(angles))


def test_constant_shift_is_the_rmse(pair):
    x, _ = pair
    assert rmse(x, x.astype(np.float64) + 7.5).bands == pytest.approx([7.5] * 3)


def test_integers_do_not_overflow():
    x = np.full((4, 16, 16), 60000, np.uint16)
    y = np.full((4, 16, 16), 100, np.uint16)
    assert rmse(x, y).total == pytest.approx(59900)
    assert rmse(y, x).total == pytest.approx(59900)
    assert sam(x, x) == pytest.approx(0, abs=1e-5)


def test_against_scikit_image(pair):
    x, y = pair
    assert psnr(x, y, 10000).total == pytest.approx(
        peak_signal_noise_ratio(x.astype(float), y.astype(float), data_range=10000)
    )
    for band, score in enumerate(ssim(x, y, 4095).bands):
        wanted = structural_similarity(
            x[band].astype(float),
            y[band].astype(float),
            data_range=4095,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert score == pytest.approx(wanted, abs=1e-12)


def naive_uiq(x: np.ndarray, y: np.ndarray) -> float:
    values = []
    for row in range(x.shape[0] - 7):
        for col in range(x.shape[1] - 7):
            a, b = x[row : row + 8, col : col + 8].astype(float), y[row : row + 8, col : col + 8].astype(float)
            variances, means = a.var() + b.var(), a.mean() ** 2 + b.mean() ** 2
            if variances == 0:
                values.append(2 * a.mean() * b.mean() / means if means else 1.0)
            else:
                values.append(4 * ((a - a.mean()) * (b - b.mean())).mean() * a.mean() * b.mean() / (variances * means))
    return float(np.mean(values))


def test_uiq_is_that_of_the_sliding_window(pair):
    x, y = pair
    assert uiq(x, y).bands == pytest.approx([naive_uiq(a, b) for a, b in zip(x, y, strict=True)], abs=1e-10)


def test_uiq_of_flat_windows():
    flat = np.full((1, 20, 20), 0.1, np.float32)
    assert uiq(flat, flat).total == 1
    assert uiq(np.zeros_like(flat), np.zeros_like(flat)).total == 1
    assert uiq(flat, 2 * flat).total == pytest.approx(2 * 2 / 5)
    half = flat.copy()
    half[:, :, 10:] = np.random.default_rng(0).uniform(0.1, 0.9, (1, 20, 10))
    assert uiq(half, half).total == pytest.approx(1)
    assert uiq(half, 1.5 * half).total == pytest.approx(naive_uiq(half[0], 1.5 * half[0]), abs=1e-7)


def test_masked_and_not_finite_pixels_do_not_count(pair):
    x, y = pair
    mask = np.ones(x.shape[1:], bool)
    mask[:, 20:] = False
    spoilt, odd = y.copy(), x.copy()
    spoilt[:, :, 20:] = 1e6
    odd[:, 5, 30] = np.nan
    left = np.s_[:, :, :20]
    assert rmse(odd, spoilt, mask).bands == pytest.approx(rmse(x[left], y[left]).bands)
    assert psnr(odd, spoilt, 10000, mask).total == pytest.approx(psnr(x[left], y[left], 10000).total)
    assert sre(odd, spoilt, mask).total == pytest.approx(sre(x[left], y[left]).total)
    assert sam(odd, spoilt, mask) == pytest.approx(sam(x[left], y[left]))
    assert uiq(odd, spoilt, mask).bands == pytest.approx(uiq(x[left], y[left]).bands)
    assert ssim(odd, spoilt, 10000, mask).bands == pytest.approx(ssim(x[left], y[left], 10000).bands)


def test_mask_of_each_band(pair):
    x, y = pair
    mask = np.ones(x.shape, bool)
    mask[1, 10:] = False
    bands = rmse(x, y, mask).bands
    assert bands[0] == pytest.approx(rmse(x[0], y[0]).total)
    assert bands[1] == pytest.approx(rmse(x[1, :10], y[1, :10]).total)
    assert sam(x, y, mask) == pytest.approx(sam(x[:, :10], y[:, :10]))


def test_nothing_valid_is_not_a_number(pair):
    x, y = pair
    none = np.zeros(x.shape[1:], bool)
    assert np.isnan(rmse(x, y, none).total)
    assert np.isnan(sre(x, y, none).total)
    assert np.isnan(sam(x, y, none))
    assert np.isnan(uiq(x, y, none).total)
    assert np.isnan(ssim(x, y, 1.0, none).total)


def test_zero_spectra_have_no_angle(pair):
    x, y = pair
    wanted = sam(x[:, 1:], y[:, 1:])
    x, y = x.copy(), y.copy()
    x[:, 0, :20], y[:, 0, 20:] = 0, 0
    assert sam(x, y) == pytest.approx(wanted)


def test_tiling_an_image_changes_nothing(pair):
    x, y = pair
    big = [np.tile(a, (1, 2, 2)) for a in (x, y)]
    assert rmse(*big).total == pytest.approx(rmse(x, y).total)
    assert sre(*big).total == pytest.approx(sre(x, y).total)
    assert sam(*big) == pytest.approx(sam(x, y))


def test_blocks_give_what_the_whole_gives(pair):
    x, y = pair
    errors, angles, quality = ErrorSums(), AngleSums(), QualitySums()
    for rows in (slice(0, 16), slice(16, 40)):
        for cols in (slice(0, 20), slice(20, 37)):
            errors.add(x[:, rows, cols], y[:, rows, cols])
            angles.add(x[:, rows, cols], y[:, rows, cols])
            wide = np.s_[:, rows.start : rows.stop + 7, cols.start : cols.stop + 7]
            quality.add(x[wide], y[wide])
    assert errors.rmse().bands == pytest.approx(rmse(x, y).bands)
    assert errors.psnr(10000).total == pytest.approx(psnr(x, y, 10000).total)
    assert errors.sre().bands == pytest.approx(sre(x, y).bands)
    assert angles.sam() == pytest.approx(sam(x, y))
    assert quality.uiq().bands == pytest.approx(uiq(x, y).bands)


def test_one_band_may_come_without_its_axis(pair):
    x, y = pair
    assert rmse(x[0], y[0]).total == pytest.approx(rmse(x[:1], y[:1]).total)
    assert rmse(x[0], y[0]).bands.shape == (1,)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: rmse(x, x[:, :-1]), "3 x 40 x 37, the other 3 x 39 x 37"),
        (lambda x: rmse(x, x, np.ones((4, 4), bool)), "mask is 4 x 4"),
        (lambda x: uiq(x[:, :7], x[:, :7]), "at least 8 x 8"),
        (lambda x: ssim(x[:, :10], x[:, :10], 1.0), "at least 11 x 11"),
    ],
)
def test_bad_input_is_a_sentence(pair, call, words):
    with pytest.raises(InputError, match=words):
        call(pair[0])
