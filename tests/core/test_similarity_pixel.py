"""RMSE, PSNR, SRE, ERGAS, SAM and spectral correlation against hand-computed values, scikit-image and naive forms."""

from __future__ import annotations

import numpy as np
import pytest
from blockwise import assert_same, blockwise, turned
from skimage.metrics import peak_signal_noise_ratio

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.similarity import ergas, psnr, rmse, sam, spectral_correlation, sre
from s2sr_qgis.core.similarity.measures import measure
from s2sr_qgis.core.similarity.pixel import angle_map

NAMES = ["rmse", "psnr", "sre", "sam", "ergas", "spectral_correlation"]


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.uniform(100, 4000, (3, 70, 101)).astype(np.float32)
    return x, (x + rng.normal(0, 120, x.shape)).astype(np.float32)


def both(x: np.ndarray, y: np.ndarray, mask: np.ndarray | None = None, names: list[str] = NAMES) -> dict:
    return measure(x, y, names, data_range=10000, mask=mask, ratio=2)


def test_identical_images_are_perfect(pair):
    x, _ = pair
    mask = np.random.default_rng(0).uniform(size=x.shape) > 0.3
    spoilt = np.where(mask, x, np.nan)
    for image, only in ((x, None), (x, mask), (spoilt, None), (np.full((3, 9, 9), 7.0), None)):
        scores = both(image, image, only)
        assert scores["rmse"].total == 0
        assert scores["psnr"].total == np.inf
        assert scores["sre"].total == np.inf
        assert scores["ergas"].total == 0
        assert scores["sam"].total == 0
        assert scores["spectral_correlation"].total == pytest.approx(1, abs=1e-12)


def test_images_of_zeros_are_equal_too():
    zeros = np.zeros((3, 5, 6))
    scores = both(zeros, zeros)
    assert [scores[name].total for name in NAMES] == [0, np.inf, np.inf, 0, 0, 1]


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
    assert sam(x, y).total == pytest.approx(np.mean(angles))
    assert sam(x, y).bands is None
    assert ergas(x, y, 2).total == pytest.approx(100 / 2 * np.sqrt((2 / 4 + 1 / 4) / 2))
    assert ergas(x, y, 4).total == pytest.approx(100 / 4 * np.sqrt((2 / 4 + 1 / 4) / 2))


def test_hand_computed_up42():
    x = np.array([[[1.0, 3.0]], [[2.0, 2.0]]])
    y = np.array([[[1.0, 1.0]], [[3.0, 1.0]]])
    scores = measure(x, y, ["rmse", "psnr", "sre", "sam"], definition="up42", data_range=10)
    assert scores["rmse"].bands == pytest.approx([np.sqrt(2) / 10, 1 / 10])
    assert scores["rmse"].total == pytest.approx((np.sqrt(2) + 1) / 20)
    assert scores["psnr"].total == pytest.approx(20 * np.log10(10 / np.sqrt(1.5)))
    ratios = [4 / (2 / 2), 4 / (np.sqrt(2) / 2)]
    assert scores["sre"].bands == pytest.approx(10 * np.log10(ratios))
    assert scores["sre"].total == pytest.approx(10 * np.log10(np.mean(ratios)))
    assert scores["sam"].total == pytest.approx(sam(x, y).total)
    assert rmse(x, y, definition="up42", data_range=10).total == scores["rmse"].total


def test_sre_of_the_package_depends_on_the_size_and_that_of_the_paper_does_not(pair):
    x, y = pair
    big = [np.tile(z, (1, 2, 2)) for z in (x, y)]
    assert sre(*big).total == pytest.approx(sre(x, y).total, rel=1e-9)
    assert sre(*big, definition="up42").total - sre(x, y, definition="up42").total == pytest.approx(10 * np.log10(2))


def test_against_scikit_image(pair):
    x, y = (z.astype(np.float64) for z in pair)
    wanted = peak_signal_noise_ratio(x, y, data_range=10000)
    assert psnr(x, y, 10000).total == pytest.approx(wanted, rel=1e-12)
    for band in range(3):
        wanted = peak_signal_noise_ratio(x[band], y[band], data_range=10000)
        assert psnr(x, y, 10000).bands[band] == pytest.approx(wanted, rel=1e-12)


def test_spectral_correlation_is_the_mean_of_the_pixels(pair):
    x, y = (z[:, :15, :15] for z in pair)
    pixels = [np.corrcoef(a, b)[0, 1] for a, b in zip(x.reshape(3, -1).T, y.reshape(3, -1).T, strict=True)]
    assert spectral_correlation(x, y).total == pytest.approx(np.mean(pixels), abs=1e-7)
    assert spectral_correlation(x, 3 * x + 500).total == pytest.approx(1)
    assert spectral_correlation(x, 500 - x).total == pytest.approx(-1)


def test_spectral_correlation_needs_three_bands(pair):
    x, y = pair
    assert np.isnan(spectral_correlation(x[:2], y[:2]).total)
    assert spectral_correlation(x[:2], y[:2]).bands is None


def test_constant_shift_is_the_rmse(pair):
    x, _ = pair
    assert rmse(x, x.astype(np.float64) + 7.5).bands == pytest.approx([7.5] * 3)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.uint32])
def test_integers_are_as_their_values(kind):
    """Nothing overflows, whatever the order of the axes in memory."""
    rng = np.random.default_rng(5)
    most = min(int(np.iinfo(kind).max), 65535)
    x, y = (rng.integers(0, most, (40, 33, 4), endpoint=True, dtype=kind).transpose(2, 0, 1) for _ in range(2))
    mask = rng.uniform(size=x.shape[1:]) > 0.2
    for only in (None, mask):
        whole, floats = both(x, y, only), both(x.astype(np.float64), y.astype(np.float64), only)
        for name in NAMES:
            assert_same(whole[name], floats[name], 1e-12)
    same = both(x, x)
    assert (same["rmse"].total, same["sam"].total) == (0, 0)


def test_large_offsets_cancel_nothing():
    x = np.full((3, 32, 32), 60000, np.uint16)
    y = x.copy()
    y[:, ::2] += 1
    assert rmse(x, y).bands == pytest.approx([np.sqrt(0.5)] * 3, rel=1e-12)
    assert rmse(x, np.full_like(x, 100)).total == 59900


def test_masked_and_not_finite_pixels_do_not_count(pair):
    x, y = pair
    mask = np.ones(x.shape[1:], bool)
    mask[:, 20:] = False
    spoilt, odd = y.copy(), x.copy()
    spoilt[:, :, 20:] = 1e6
    odd[:, 5, 30] = np.nan
    left = np.s_[:, :, :20]
    for definition, names in (("reference", NAMES), ("up42", ["rmse", "psnr", "sre", "sam"])):
        found = measure(odd, spoilt, names, definition=definition, data_range=10000, mask=mask)
        wanted = measure(x[left], y[left], names, definition=definition, data_range=10000)
        for name in names:
            assert_same(found[name], wanted[name], 1e-12)


def test_mask_of_each_band(pair):
    x, y = pair
    mask = np.ones(x.shape, bool)
    mask[1, 10:] = False
    bands = rmse(x, y, mask).bands
    assert bands[0] == pytest.approx(rmse(x[0], y[0]).total)
    assert bands[1] == pytest.approx(rmse(x[1, :10], y[1, :10]).total)
    assert sam(x, y, mask).total == pytest.approx(sam(x[:, :10], y[:, :10]).total)


def test_nothing_valid_is_not_a_number(pair):
    x, y = pair
    none = np.zeros(x.shape[1:], bool)
    assert all(np.isnan(score.total) for score in both(x, y, none).values())


def test_zero_spectra_have_no_angle(pair):
    x, y = (z.copy() for z in pair)
    wanted = sam(x[:, 1:], y[:, 1:]).total
    x[:, 0, :20], y[:, 0, 15:] = 0, 0
    for definition in ("reference", "up42"):
        assert sam(x, y, definition=definition).total == pytest.approx(wanted, rel=1e-12)
    assert np.isnan(sam(np.zeros((3, 4, 4)), np.ones((3, 4, 4))).total)


def test_map_of_the_angle(pair):
    x, y = (z.astype(np.float64) for z in pair)
    x[:, 0, 0] = 0
    valid = np.ones(x.shape, bool)
    valid[2, 1, 1] = False
    angles = angle_map(x, y, valid)
    assert angles.shape == x.shape[1:]
    assert np.argwhere(np.isnan(angles)).tolist() == [[0, 0], [1, 1]]
    assert np.nanmean(angles) == pytest.approx(sam(x, y, valid).total, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_mirrored_turned_and_repeated_images_score_the_same(pair, name):
    x, y = pair
    wanted = both(x, y, names=[name])[name]
    for a, b in zip(turned(x), turned(y), strict=True):
        assert_same(both(a, b, names=[name])[name], wanted)
    assert_same(both(*(np.tile(z, (1, 2, 2)) for z in (x, y)), names=[name])[name], wanted)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (32, 128)])
@pytest.mark.parametrize("definition", ["reference", "up42"])
def test_blocks_give_what_the_whole_gives(pair, size, definition):
    x, y = pair
    mask = np.random.default_rng(1).uniform(size=x.shape) > 0.1
    names = NAMES if definition == "reference" else ["rmse", "psnr", "sre", "sam"]
    for only in (None, mask):
        whole = measure(x, y, names, definition=definition, data_range=10000, mask=only)
        for name in names:
            assert_same(blockwise(name, x, y, size, only, definition=definition), whole[name])


def test_one_band_may_come_without_its_axis(pair):
    x, y = pair
    assert rmse(x[0], y[0]).total == pytest.approx(rmse(x[:1], y[:1]).total)
    assert rmse(x[0], y[0]).bands.shape == (1,)


def test_up42_needs_the_data_range(pair):
    with pytest.raises(InputError, match="give the data range"):
        rmse(*pair, definition="up42")
