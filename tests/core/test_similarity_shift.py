"""The shift between two images, against shifts that were put in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import fourier_shift, gaussian_filter, shift

from s2sr_qgis.core.similarity.measure import Block, Setup, prepare
from s2sr_qgis.core.similarity.shift import SpatialShift


def texture(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 2000 + 900 * np.stack([gaussian_filter(rng.normal(size=shape[1:]), 1.2) for _ in range(shape[0])])


def measured(x: np.ndarray, y: np.ndarray, mask: np.ndarray | None = None, step: int | None = None) -> SpatialShift:
    """In memory, or in blocks with sides of ``step``."""
    x, y, valid = prepare(x, y, mask)
    found = SpatialShift(Setup(*x.shape, data_range=10000))
    step = step or max(x.shape)
    for row in range(0, x.shape[1], step):
        for col in range(0, x.shape[2], step):
            cut = np.s_[:, row : row + step, col : col + step]
            own = tuple(slice(0, n) for n in x[cut].shape[1:])
            found.take(found.observe(Block(x[cut], y[cut], valid[cut], row, col, own)))
    return found


@pytest.mark.parametrize(("dx", "dy"), [(0.4, 0.0), (-0.3, 0.7), (1.6, -2.2)])
def test_a_shift_put_in_is_found(dx, dy):
    x = texture((2, 150, 170))
    y = np.stack([np.fft.ifft2(fourier_shift(np.fft.fft2(band), (-dy, -dx))).real for band in x])
    found = measured(x, y)
    assert found.vector() == pytest.approx((dx, dy), abs=0.05)
    assert found.score().total == pytest.approx(np.hypot(dx, dy), abs=0.05)
    assert found.score().bands is None


@pytest.mark.parametrize(
    "x", [texture((3, 70, 90)), np.full((2, 64, 64), 7.0), np.zeros((1, 40, 40)), texture((1, 5, 9))]
)
def test_identical_images_are_not_shifted(x):
    assert measured(x, x).vector() == (0.0, 0.0)
    mask = np.random.default_rng(1).random(x.shape[1:]) > 0.3
    assert measured(x, np.where(mask, x, 1e9), mask).score().total == 0


def test_equal_ground_in_a_part_does_not_vote_for_no_shift():
    x = texture((1, 200, 200))
    y = shift(x, (0, 0, 1), order=3, mode="nearest")
    x[:, :120], y[:, :120] = 0, 0
    assert measured(x, y).vector() == pytest.approx((-1, 0), abs=0.05)


def test_where_nothing_can_be_said_it_is_not_a_number():
    x = texture((1, 64, 64))
    assert np.isnan(measured(x, np.full_like(x, 3.0)).score().total)
    assert np.isnan(measured(x, texture((1, 64, 64), seed=9)).score().total)
    assert np.isnan(measured(x, x, np.zeros((64, 64), bool)).score().total)


@pytest.mark.parametrize("step", [32, 96, 160])
def test_blocks_give_what_the_whole_gives(step):
    x = texture((2, 161, 227))
    y = shift(x, (0, 0.6, -0.35), order=3, mode="nearest") + np.random.default_rng(2).normal(0, 20, x.shape)
    mask = np.ones(x.shape[1:], bool)
    mask[100:, :40] = False
    assert measured(x, y, mask, step).vector() == measured(x, y, mask).vector()


def test_mirrored_turned_and_repeated_images_have_the_same_shift():
    """To a fiftieth of a pixel, the step of the search; blocks over the seams of a repeated image differ by more."""
    x = texture((1, 128, 128))
    y = shift(x, (0, 0.5, -0.3), order=3, mode="grid-wrap")
    wanted = measured(x, y).score().total
    for turned in (lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: np.rot90(a, axes=(1, 2))):
        assert measured(turned(x), turned(y)).score().total == pytest.approx(wanted, abs=0.03)
    twice = [np.tile(a, (1, 2, 2)) for a in (x, y)]
    assert measured(*twice).score().total == pytest.approx(wanted, abs=0.05)


def test_a_large_image_is_looked_at_in_576_blocks_at_most():
    found = SpatialShift(Setup(1, 10980, 10980, data_range=1))
    assert len(found._rows) == len(found._columns) == 24
    assert found._rows[0][0] == 0
    assert found._rows[-1][1] == 10980
