"""FSIM: what both definitions must keep; piq's FSIM and the package's: in tests/similarity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.similarity.fsim import Fsim
from s2sr_qgis.core.similarity.measure import Block, Definition, Score, Setup, prepare
from s2sr_qgis.core.similarity.phase_congruency import PhaseCongruency

DEFINITIONS: tuple[Definition, ...] = ("reference", "up42")


def scene(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.stack([gaussian_filter(rng.normal(size=shape[1:]), 1.5) for _ in range(shape[0])])
    x = 1000 + 3000 * (x - x.min()) / np.ptp(x)
    return x, gaussian_filter(x, (0, 0.9, 0.9)) + rng.normal(0, 40, shape)


def measured(
    x: np.ndarray,
    y: np.ndarray,
    definition: Definition = "reference",
    mask: np.ndarray | None = None,
    step: int | None = None,
    data_range: float = 10000,
) -> Score:
    """In memory, or in blocks with sides of ``step``."""
    x, y, valid = prepare(x, y, mask)
    found = Fsim(Setup(*x.shape, data_range=data_range, definition=definition))
    step = step or max(x.shape)
    for row in range(0, x.shape[1], step):
        for col in range(0, x.shape[2], step):
            cut = np.s_[:, row : row + step, col : col + step]
            own = tuple(slice(0, n) for n in x[cut].shape[1:])
            found.take(found.observe(Block(x[cut], y[cut], valid[cut], row, col, own)))
    return found.score()


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("shape", [(2, 61, 80), (1, 400, 390), (1, 1, 1), (1, 9, 300)])
def test_identical_images_score_exactly_one(definition, shape):
    x = scene(shape)[0] if min(shape[1:]) > 1 else np.ones(shape)
    assert measured(x, x, definition).bands == pytest.approx([1.0] * shape[0], abs=0)
    mask = np.random.default_rng(1).random(shape[1:]) > 0.001
    assert measured(x, np.where(mask, x, np.nan), definition, mask).total == 1
    flat = np.full(shape, 0.1)
    assert measured(flat, flat, definition).total == 1


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_worse_images_score_less(definition):
    x, y = scene((1, 120, 130))
    noise = np.random.default_rng(4).normal(0, 300, x.shape)
    scores = [measured(x, other, definition).total for other in (x, y, y + noise, noise)]
    assert scores == sorted(scores, reverse=True)
    assert scores[1] < 0.999
    assert scores[3] < 0.9


def test_a_flat_image_has_no_phase_and_one_without_the_other_is_judged_by_its_gradient():
    x, _ = scene((1, 64, 64))
    flat = np.full((64, 64), 1234.5)
    congruency = PhaseCongruency(64, 64, "reference")
    none, some = congruency.of([flat, x[0]], np.ones((64, 64), bool))
    assert not none.any()
    assert 0 < some.max() <= 1
    assert measured(flat, x[0]).total < 0.9


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_an_edge_is_where_the_phase_is_congruent(definition):
    step = np.zeros((64, 64))
    step[:, 32:] = 100
    found = PhaseCongruency(64, 64, definition).of([step], np.ones(step.shape, bool))[0]
    row = found[32, 8:56]
    assert set(np.argsort(row)[-2:] + 8) == {31, 32}
    assert np.ptp(found, axis=0).max() < 1e-9


def test_the_data_range_says_what_the_values_mean():
    x, y = scene((1, 70, 70))
    assert measured(x / 1e4, y / 1e4, data_range=1).total == pytest.approx(measured(x, y).total, abs=1e-12)
    assert measured(x, y, data_range=4000).total != pytest.approx(measured(x, y).total, abs=1e-3)


def test_a_large_image_is_reduced_by_means():
    x, y = scene((1, 515, 520))
    small = [a[:, :514, :520].reshape(1, 257, 2, 260, 2).mean(axis=(2, 4)) for a in (x, y)]
    assert measured(x, y).total == pytest.approx(measured(*small).total, abs=1e-12)
    assert measured(x, y, "up42").total != pytest.approx(measured(*small, "up42").total, abs=1e-3)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("step", [32, 160])
@pytest.mark.parametrize("shape", [(2, 97, 131), (1, 651, 700)])
def test_blocks_give_what_the_whole_gives(definition, step, shape):
    if definition == "up42" and shape[1] > 600:
        shape = (1, 260, 201)
    x, y = scene(shape)
    mask = np.ones(shape, bool)
    mask[0, 20:50, 30:90] = False
    wanted, found = measured(x, y, definition, mask), measured(x, y, definition, mask, step)
    assert found.bands == pytest.approx(wanted.bands, rel=1e-9)
    assert found.total == pytest.approx(wanted.total, rel=1e-9)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_what_does_not_count_has_no_say(definition):
    x, y = scene((2, 90, 100))
    mask = np.ones(x.shape[1:], bool)
    mask[30:50, 60:80] = False
    spoilt, other = x.copy(), y.copy()
    spoilt[:, ~mask], other[:, ~mask] = 1e7, np.nan
    assert measured(spoilt, other, definition, mask).total == measured(x, y, definition, mask).total
    assert measured(x, y, definition, mask).total == pytest.approx(measured(x, y, definition).total, abs=0.01)
    assert np.isnan(measured(x, y, definition, np.zeros_like(mask)).total)


def test_mirrored_turned_and_repeated_images():
    """An odd side: exact. An even side has one frequency that mirroring cannot turn; seams make new edges."""
    x, y = scene((1, 99, 99))
    wanted = measured(x, y).total
    for turned in (lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: np.rot90(a, axes=(1, 2))):
        assert measured(turned(x), turned(y)).total == pytest.approx(wanted, abs=1e-9)
        even = [a[:, :98, :98] for a in (x, y)]
        assert measured(*(turned(a) for a in even)).total == pytest.approx(measured(*even).total, abs=1e-4)
        assert measured(turned(x), turned(y), "up42").total == pytest.approx(measured(x, y, "up42").total, abs=0.02)
    assert measured(*(np.tile(a, (1, 2, 2)) for a in (x, y))).total == pytest.approx(wanted, abs=0.005)


def test_up42_drops_negative_gradients_and_scales_nothing():
    ramp = np.broadcast_to(np.arange(64.0), (1, 64, 64))
    flat = np.zeros((1, 64, 64))
    assert measured(-ramp, flat, "up42").total > measured(ramp, flat, "up42").total
    x, y = scene((1, 64, 64))
    assert measured(x, y, "up42", data_range=255).total == measured(x, y, "up42").total


def test_an_image_too_large_to_transform_is_refused():
    with pytest.raises(InputError, match=r"10980 x 10980 pixels of 6 bands would take 38.8 GB .* definition reference"):
        Fsim(Setup(6, 10980, 10980, data_range=10000, definition="up42"))
    assert Fsim(Setup(6, 10980, 10980, data_range=10000))._sums.nbytes < 10e6
