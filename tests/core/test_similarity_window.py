"""SSIM, UIQ and Q2n against scikit-image and naive forms, and their maps."""

from __future__ import annotations

import numpy as np
import pytest
from blockwise import assert_same, blockwise, turned
from skimage.metrics import structural_similarity

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.similarity import q2n, sam, ssim, uiq
from s2sr_qgis.core.similarity.measure import Setup
from s2sr_qgis.core.similarity.measures import catalogue, measure
from s2sr_qgis.core.similarity.window import local_map

NAMES = ["ssim", "uiq", "q2n"]
GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.uniform(100, 4000, (2, 75, 101)).astype(np.float32)
    return x, (x + rng.normal(0, 1200, x.shape)).astype(np.float32)


def naive_uiq(x: np.ndarray, y: np.ndarray, definition: str = "reference") -> float:
    values = []
    for row in range(x.shape[0] - 7):
        for col in range(x.shape[1] - 7):
            a, b = x[row : row + 8, col : col + 8].astype(float), y[row : row + 8, col : col + 8].astype(float)
            variances, means = a.var() + b.var(), a.mean() ** 2 + b.mean() ** 2
            if definition == "up42":
                fraction = 4 * ((a - a.mean()) * (b - b.mean())).mean() * a.mean() * b.mean()
                values.append(fraction / (variances * means) if variances * means else 0.0)
            elif variances == 0:
                values.append(2 * a.mean() * b.mean() / means if means else 1.0)
            else:
                values.append(4 * ((a - a.mean()) * (b - b.mean())).mean() * a.mean() * b.mean() / (variances * means))
    return float(np.mean(values))


def quaternion(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton's product of (4, n)."""
    return np.stack(
        [
            a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
            a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
            a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
            a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
        ]
    )


def naive_q4(x: np.ndarray, y: np.ndarray) -> float:
    """Alparone et al. 2004, pixel by pixel, of spectra (4, n)."""
    conjugate = np.array([[1.0], [-1.0], [-1.0], [-1.0]])
    mean_x, mean_y = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    covariance = quaternion(x, y * conjugate).mean(axis=1) - quaternion(mean_x, mean_y * conjugate)[:, 0]
    spread = sum((z**2).sum(axis=0).mean() - (m**2).sum() for z, m in ((x, mean_x), (y, mean_y)))
    length_x, length_y = np.linalg.norm(mean_x), np.linalg.norm(mean_y)
    return 2 * np.linalg.norm(covariance) / spread * 2 * length_x * length_y / (length_x**2 + length_y**2)


@pytest.mark.parametrize("name", NAMES)
def test_identical_images_are_perfect(pair, name):
    x, _ = pair
    mask = np.random.default_rng(0).uniform(size=x.shape) > 0.001
    for definition in catalogue()[name].definitions:
        for image, only in ((x, None), (x, mask), (np.where(mask, x, np.nan), None), (x - 2000, None)):
            score = measure(image, image, [name], definition=definition, data_range=10000, mask=only)[name]
            assert score.total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, 60000.0, -0.3])
@pytest.mark.parametrize("name", NAMES)
def test_identical_flat_images_are_perfect(name, value):
    flat = np.full((3, 40, 45), value, np.float32)
    mask = np.ones(flat.shape[1:], bool)
    mask[20:, :7] = False
    for only in (None, mask):
        assert measure(flat, flat, [name], data_range=1, mask=only)[name].total == pytest.approx(1, abs=1e-12)


def test_ssim_is_that_of_scikit_image(pair):
    x, y = (z.astype(np.float64) for z in pair)
    for band in range(2):
        wanted = structural_similarity(x[band], y[band], data_range=4095, **GAUSSIAN)
        assert ssim(x, y, 4095).bands[band] == pytest.approx(wanted, abs=1e-12)
    wanted = structural_similarity(x, y, data_range=4095, channel_axis=0)
    assert ssim(x, y, 4095, definition="up42").total == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("offset", "data_range"), [(10000, 10000), (60000, 65535)])
def test_small_differences_of_large_values(offset, data_range):
    """Variances of one beside squares of ten thousand millions."""
    rng = np.random.default_rng(7)
    x, y = (offset + rng.integers(-1, 2, (1, 40, 43)) for _ in range(2))
    assert uiq(x, y).total == pytest.approx(naive_uiq(x[0], y[0]), abs=1e-9)
    wanted = structural_similarity(x[0] * 1.0, y[0] * 1.0, data_range=data_range, **GAUSSIAN)
    assert ssim(x, y, data_range).total == pytest.approx(wanted, abs=1e-9)
    # By deviations from the level alone, where nothing is lost.
    a, b = (z[:, :32, :32] - offset for z in (x, y))
    contrast = 2 * abs(((a - a.mean()) * (b - b.mean())).mean()) / (a.var() + b.var())
    means = offset + a.mean(), offset + b.mean()
    wanted = contrast * 2 * means[0] * means[1] / (means[0] ** 2 + means[1] ** 2)
    assert q2n(x[:, :32, :32], y[:, :32, :32]).total == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("definition", ["reference", "up42"])
def test_uiq_is_that_of_the_sliding_window(pair, definition):
    x, y = (z[:, :30, :37] for z in pair)
    wanted = [naive_uiq(a, b, definition) for a, b in zip(x, y, strict=True)]
    score = uiq(x, y, definition=definition)
    assert score.bands == pytest.approx(wanted, abs=1e-10)
    assert score.total == pytest.approx(np.mean(wanted), abs=1e-10)


def test_uiq_of_flat_windows():
    flat = np.full((1, 20, 20), 0.1, np.float32)
    assert uiq(flat, 2 * flat).total == pytest.approx(2 * 2 / 5)
    assert uiq(flat, flat, definition="up42").total == 0
    half = flat.copy()
    half[:, :, 10:] = np.random.default_rng(0).uniform(0.1, 0.9, (1, 20, 10))
    assert uiq(half, half).total == pytest.approx(1)
    assert uiq(half, half, definition="up42").total == pytest.approx(1 - 3 / 13)  # 3 of 13 columns of windows are flat
    assert uiq(half, 1.5 * half).total == pytest.approx(naive_uiq(half[0], 1.5 * half[0]), abs=1e-7)
    # What float32 makes of a flat area is still flat, and a difference of one in 16-bit integers is not.
    rough = flat * (1 + 1e-7 * np.random.default_rng(0).uniform(-1, 1, flat.shape))
    assert uiq(flat, rough).total == pytest.approx(1, abs=1e-6)
    pit = np.full((1, 8, 8), 65535, np.uint16)
    other = pit.copy()
    pit[0, 3, 3] -= 1
    other[0, 5, 5] -= 1
    assert uiq(pit, other).total == pytest.approx(-1 / 63, rel=1e-9)


def test_uiq_of_windows_of_mean_zero():
    x = np.tile(np.array([[1.0, -1.0], [-1.0, 1.0]]), (4, 4))[np.newaxis]
    assert uiq(x, 2 * x).total == pytest.approx(2 * 2 / 5)
    assert uiq(x, 2 * x, definition="up42").total == 0


def test_total_of_the_package_is_over_all_windows(pair):
    x, y = pair
    mask = np.ones(x.shape, bool)
    mask[1, :, 40:] = False
    bands = uiq(x, y, mask).bands
    windows = np.array([(75 - 7) * (101 - 7), (75 - 7) * (40 - 7)])
    assert uiq(x, y, mask).total == pytest.approx(bands.mean())
    assert uiq(x, y, mask, definition="up42").total == pytest.approx((bands * windows).sum() / windows.sum())


def test_q2n_of_four_bands_is_that_of_quaternions():
    rng = np.random.default_rng(2)
    x = rng.uniform(100, 4000, (4, 64, 96))
    y = x + rng.normal(0, 700, x.shape)
    blocks = [np.s_[:, r : r + 32, c : c + 32] for r in (0, 32) for c in (0, 32, 64)]
    wanted = [naive_q4(x[b].reshape(4, -1), y[b].reshape(4, -1)) for b in blocks]
    assert q2n(x, y).total == pytest.approx(np.mean(wanted), rel=1e-12)
    # Three bands are four of which one is empty.
    x[3] = y[3] = 0
    assert q2n(x[:3], y[:3]).total == pytest.approx(q2n(x, y).total, rel=1e-12)


def test_q2n_of_one_band_is_the_quality_of_blocks(pair):
    x, y = (z[0, :64, :96].astype(np.float64) for z in pair)
    wanted = []
    for row in (0, 32):
        for col in (0, 32, 64):
            a, b = x[row : row + 32, col : col + 32], y[row : row + 32, col : col + 32]
            covariance = ((a - a.mean()) * (b - b.mean())).mean()
            wanted.append(
                4 * covariance * a.mean() * b.mean() / ((a.var() + b.var()) * (a.mean() ** 2 + b.mean() ** 2))
            )
    assert q2n(x, y).total == pytest.approx(np.mean(wanted), rel=1e-12)
    assert q2n(x, 8000 - x).total > 0  # the absolute value of a correlation of -1


def test_q2n_of_what_remains_weighs_by_pixels(pair):
    x, y = pair
    mask = np.random.default_rng(4).uniform(size=x.shape[1:]) > 0.3
    total, count = 0.0, 0
    for row in (0, 32, 64):
        for col in (0, 32, 64, 96):
            here = mask[row : row + 32, col : col + 32]
            a, b = (np.zeros((4, here.sum())) for _ in range(2))
            a[:2], b[:2] = (z[:, row : row + 32, col : col + 32][:, here] for z in (x, y))
            total += naive_q4(a, b) * here.sum()
            count += here.sum()
    assert q2n(x, y, mask).total == pytest.approx(total / count, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_masked_and_not_finite_pixels_do_not_count(pair, name):
    x, y = pair
    mask = np.ones(x.shape[1:], bool)
    mask[:, 64:] = False
    spoilt, odd = y.copy(), x.copy()
    spoilt[:, :, 64:] = 1e6
    odd[:, 5, 90] = np.nan
    left = np.s_[:, :, :64]
    for definition in catalogue()[name].definitions:
        found = measure(odd, spoilt, [name], definition=definition, data_range=10000, mask=mask)[name]
        assert_same(found, measure(x[left], y[left], [name], definition=definition, data_range=10000)[name], 1e-12)


def test_only_windows_that_count_as_a_whole_count(pair):
    x, y = pair
    valid = np.ones(x.shape, bool)
    valid[0, 30, 40] = valid[0, 70, 3] = False
    _, values = structural_similarity(x[0].astype(float), y[0].astype(float), data_range=10000, full=True, **GAUSSIAN)
    near = np.zeros(values.shape, bool)
    near[5:-5, 5:-5] = True
    near[25:36, 35:46] = near[65:, :9] = False
    assert ssim(x, y, 10000, valid).bands[0] == pytest.approx(values[near].mean(), abs=1e-12)
    assert ssim(x, y, 10000, valid).bands[1] == pytest.approx(ssim(x, y, 10000).bands[1], abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_valid_is_not_a_number(pair, name):
    x, y = pair
    holes = np.ones(x.shape[1:], bool)
    holes[::5, ::5] = False
    for definition in catalogue()[name].definitions:
        none = np.zeros(x.shape[1:], bool)
        assert np.isnan(measure(x, y, [name], definition=definition, data_range=1, mask=none)[name].total)
        if name != "q2n":  # no window is free of holes
            assert np.isnan(measure(x, y, [name], definition=definition, data_range=1, mask=holes)[name].total)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (32, 128)])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_give_what_the_whole_gives(pair, name, size):
    x, y = pair
    mask = np.random.default_rng(1).uniform(size=x.shape) > 0.003
    for definition in catalogue()[name].definitions:
        for only in (None, mask):
            whole = measure(x, y, [name], definition=definition, data_range=10000, mask=only)[name]
            assert_same(blockwise(name, x, y, size, only, definition=definition), whole)


@pytest.mark.parametrize("offset", [10000, 60000])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_nearly_flat_images(name, offset):
    """Float noise of one on a high level, with nodata beside it: the same to nine digits whatever the block."""
    rng = np.random.default_rng(8)
    x, y = (offset + rng.uniform(-1, 1, (1, 70, 75)) for _ in range(2))
    x[:, 20:25] = y[:, 20:25] = np.nan
    whole = measure(x, y, [name], data_range=65535)[name]
    assert_same(blockwise(name, x, y, (32, 32), data_range=65535.0), whole)


def test_pieces_do_not_show():
    """More rows and columns than a piece has."""
    rng = np.random.default_rng(9)
    x = rng.uniform(0, 1, (1, 80, 1100))
    y = x + rng.normal(0, 0.1, x.shape)
    assert ssim(x, y, 1).total == pytest.approx(structural_similarity(x[0], y[0], data_range=1, **GAUSSIAN), abs=1e-12)
    left, right = uiq(x[:, :, :607], y[:, :, :607]).total, uiq(x[:, :, 600:], y[:, :, 600:]).total
    assert uiq(x, y).total == pytest.approx((600 * left + 493 * right) / 1093, abs=1e-12)


@pytest.mark.parametrize("name", ["ssim", "uiq"])
def test_mirrored_and_turned_images_score_the_same(pair, name):
    x, y = pair
    for definition in ("reference", "up42"):
        wanted = measure(x, y, [name], definition=definition, data_range=10000)[name]
        for a, b in zip(turned(x), turned(y), strict=True):
            assert_same(measure(a, b, [name], definition=definition, data_range=10000)[name], wanted)


def test_q2n_of_mirrored_turned_and_repeated_whole_blocks_is_the_same(pair):
    x, y = (z[:, :64, :96] for z in pair)
    wanted = q2n(x, y)
    for a, b in zip(turned(x), turned(y), strict=True):
        assert_same(q2n(a, b), wanted)
    assert_same(q2n(*(np.tile(z, (1, 2, 2)) for z in (x, y))), wanted)


def test_q2n_of_a_mirrored_image_with_remains_differs_by_its_edge(pair):
    """Blocks start at the upper left, so that mirrored images are cut elsewhere."""
    x, y = pair
    wanted = q2n(x, y).total
    for a, b in zip(turned(x), turned(y), strict=True):
        assert q2n(a, b).total == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("name", ["ssim", "uiq"])
def test_repeated_images_differ_by_the_windows_over_the_seam_alone(pair, name):
    x, y = pair
    side = {"ssim": 11, "uiq": 8}[name]
    big = [np.tile(z, (1, 2, 2)) for z in (x, y)]
    mask = np.ones(big[0].shape[1:], bool)
    one, two = (measure(*images, [name], data_range=10000)[name].total for images in ((x, y), big))
    height, width = x.shape[1:]
    inside = (height - side + 1) * (width - side + 1)
    seam = (2 * height - side + 1) * (2 * width - side + 1) - 4 * inside
    assert abs(two - one) <= 2 * seam / (seam + 4 * inside)
    # Without the seam: a line that does not count, beside which the copies are whole.
    apart = [np.insert(np.insert(z, height, 0, axis=1), width, 0, axis=2) for z in big]
    mask = np.insert(np.insert(mask, height, False, axis=0), width, False, axis=1)
    assert measure(*apart, [name], data_range=10000, mask=mask)[name].total == pytest.approx(one, rel=1e-12)


def test_map_of_uiq_is_the_quality_around_each_pixel(pair):
    x, y = (z[:1] for z in pair)
    setup = Setup(1, *x.shape[1:], data_range=10000)
    found = local_map("uiq", x.astype(float), y.astype(float), np.ones(x.shape, bool), setup)
    assert found.shape == x.shape[1:]
    assert np.isfinite(found[4:-3, 4:-3]).all()
    assert np.isnan(found).sum() == x[0].size - found[4:-3, 4:-3].size
    assert found[10, 20] == pytest.approx(naive_uiq(x[0, 6:14, 16:24], y[0, 6:14, 16:24]), abs=1e-10)
    assert np.nanmean(found) == pytest.approx(uiq(x, y).total)


@pytest.mark.parametrize("definition", ["reference", "up42"])
def test_map_of_ssim_is_that_of_scikit_image(pair, definition):
    x, y = (z.astype(np.float64) for z in pair)
    valid = np.ones(x.shape, bool)
    valid[0, 30, 40] = False
    setup = Setup(2, *x.shape[1:], data_range=10000, definition=definition)
    found = local_map("ssim", x, y, valid, setup)
    options, reach = (GAUSSIAN, 5) if definition == "reference" else ({}, 3)
    maps = [structural_similarity(a, b, data_range=10000, full=True, **options)[1] for a, b in zip(x, y, strict=True)]
    assert found[20, 20] == pytest.approx((maps[0] + maps[1])[20, 20] / 2, abs=1e-10)
    assert found[30, 40 + reach] == pytest.approx(maps[1][30, 40 + reach], abs=1e-10)  # only band 1 has a window there
    assert np.isnan(found[:reach]).all()


def test_map_of_sam_and_of_nothing(pair):
    x, y = (z.astype(np.float64) for z in pair)
    setup = Setup(2, *x.shape[1:], data_range=10000)
    found = local_map("sam", x, y, np.ones(x.shape, bool), setup)
    assert found.mean() == pytest.approx(sam(x, y).total)
    assert np.isnan(local_map("uiq", x, y, np.zeros(x.shape, bool), setup)).all()
    with pytest.raises(InputError, match="choose of uiq, ssim, sam"):
        local_map("rmse", x, y, np.ones(x.shape, bool), setup)


@pytest.mark.parametrize("name", ["ssim", "uiq"])
def test_map_of_a_block_is_that_of_the_image(pair, name):
    x, y = (z.astype(np.float64) for z in pair)
    valid = np.random.default_rng(1).uniform(size=x.shape) > 0.003
    setup = Setup(2, *x.shape[1:], data_range=10000)
    whole, halo = local_map(name, x, y, valid, setup), catalogue()[name].create(setup).halo
    block = np.s_[:, 32 - halo : 64 + halo, 64 - halo :]
    part = local_map(name, x[block], y[block], valid[block], setup)
    np.testing.assert_array_equal(part[halo : halo + 32, halo:], whole[32:64, 64:])
    low = np.s_[:, :6, :]  # lower than a window
    assert np.isnan(local_map(name, x[low], y[low], valid[low], setup)).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: uiq(x[:, :7], x[:, :7]), "UIQ needs images of at least 8 x 8 pixels; these have 7 x 101"),
        (lambda x: ssim(x[:, :10], x[:, :10], 1.0), "SSIM needs images of at least 11 x 11"),
        (lambda x: ssim(x[:, :6], x[:, :6], 1.0, definition="up42"), "SSIM needs images of at least 7 x 7"),
    ],
)
def test_too_small_an_image_is_a_sentence(pair, call, words):
    with pytest.raises(InputError, match=words):
        call(pair[0])
