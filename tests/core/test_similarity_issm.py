"""ISSM by hand and what both definitions must keep; OpenCV's Canny and the package's ISSM: in tests/similarity."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.similarity.canny import candidates, hysteresis
from s2sr_qgis.core.similarity.issm import Issm
from s2sr_qgis.core.similarity.measure import Block, Definition, Score, Setup, prepare
from s2sr_qgis.core.similarity.window import Ssim

DEFINITIONS: tuple[Definition, ...] = ("reference", "up42")


def scene(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """12-bit values with edges, and the same a little different."""
    rng = np.random.default_rng(seed)
    x = np.stack([gaussian_filter(rng.normal(size=shape[1:]), 2) for _ in range(shape[0])])
    x = np.rint(2047 + 1900 * x / np.abs(x).max())
    return x, np.clip(np.rint(x + rng.normal(0, 50, shape)), 0, 4095)


def accumulated(
    x: np.ndarray,
    y: np.ndarray,
    definition: Definition = "reference",
    mask: np.ndarray | None = None,
    step: int | None = None,
    kind: type = Issm,
) -> Score:
    """In memory, or in blocks with sides of ``step`` and their halo."""
    x, y, valid = prepare(x, y, mask)
    found = kind(Setup(*x.shape, data_range=4095, definition=definition))
    step = step or max(x.shape)
    for row in range(0, x.shape[1], step):
        for col in range(0, x.shape[2], step):
            top, left = max(row - found.halo, 0), max(col - found.halo, 0)
            cut = np.s_[:, top : row + step + found.halo, left : col + step + found.halo]
            own = (
                slice(row - top, min(row + step, x.shape[1]) - top),
                slice(col - left, min(col + step, x.shape[2]) - left),
            )
            found.take(found.observe(Block(x[cut], y[cut], valid[cut], top, left, own)))
    return found.score()


def edges(image: np.ndarray) -> np.ndarray:
    weak, strong = candidates(image.astype(np.uint8))
    width = image.shape[2]
    bits = hysteresis(np.packbits(weak, axis=1), np.packbits(strong, axis=1), width)
    return np.unpackbits(bits, axis=1, count=width).view(bool)


def test_edges_of_a_step_and_of_nothing():
    step = np.zeros((1, 12, 20))
    step[:, :, 9:] = 60
    found = edges(step)
    assert found[:, 8].all()  # of two equal neighbours the first
    assert found.sum() == 12
    assert not edges(step / 3).any()  # 4 x 20 is below both thresholds


def test_weak_edges_stay_where_they_hang_on_strong_ones():
    image = np.zeros((1, 30, 20))
    image[:, :, 9:] = 40  # 160: between the thresholds
    assert candidates(image.astype(np.uint8))[0][:, 8].all()
    assert not edges(image).any()
    image[:, :, 9:] = np.maximum(40, 60 - np.arange(30))[:, np.newaxis]
    assert edges(image)[:, 8:10].any(axis=1).all()  # thinned to one of the two columns


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_hysteresis_follows_an_edge_through_all_strips(monkeypatch, rows):
    """A snake that goes down, up and down again, strong at its end only."""
    weak = np.zeros((24, 24), bool)
    weak[1:23, [2, 6, 10]] = True
    weak[22, 2:7], weak[1, 6:11] = True, True
    weak[1:23, 16] = True
    strong = np.zeros_like(weak)
    strong[22, 10] = True
    monkeypatch.setattr("s2sr_qgis.core.similarity.canny.STRIP", rows)
    found = np.unpackbits(hysteresis(np.packbits(weak, axis=1), np.packbits(strong, axis=1), 24), axis=1).view(bool)
    weak[:, 16] = False
    assert (found == weak).all()


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_by_hand(definition):
    x, y = scene((1, 60, 70))
    reference = definition == "reference"
    eight = [np.rint(a * 255 / 4095) if reference else np.floor(a / 16) for a in (x, y)]
    correlation = np.corrcoef(*(edges(a).ravel() for a in eight))[0, 1]
    if reference:
        counts = np.histogram2d(*(a.ravel() for a in eight), bins=256, range=[[-0.5, 255.5]] * 2)[0] / x.size
    else:
        counts = np.histogram2d(x.ravel(), y.ravel())[0]
    entropy = -sum(p * math.log2(p) for p in counts.ravel() if p)
    ssim = accumulated(x, y, definition, kind=Ssim).total
    structure, e = (1 - ssim, 0.01) if reference else (ssim, math.e)
    wanted = (correlation * entropy * 0.8 + e) / (0.3 * correlation * entropy + 0.5 * entropy + 0.7 * structure + e)
    assert 0.1 < correlation < 0.99
    assert accumulated(x, y, definition).total == pytest.approx(wanted, rel=1e-12)


def test_identical_images_score_exactly_one():
    x, _ = scene((2, 61, 80))
    assert accumulated(x, x).bands == pytest.approx([1.0, 1.0], abs=0)
    mask = np.random.default_rng(1).random(x.shape[1:]) > 0.001
    assert accumulated(x, np.where(mask, x, np.nan), mask=mask).total == 1
    flat = np.full((1, 30, 30), 0.1)
    assert accumulated(flat, flat).total == 1


def test_images_without_edges_and_with_edges_in_one_of_them():
    x, _ = scene((1, 60, 70))
    flat = np.full_like(x, 2000)
    assert 0 < accumulated(x, flat).total < 0.01
    assert accumulated(x, flat, "up42").total == 0
    assert accumulated(flat, flat, "up42").total == 0
    assert 0 < accumulated(flat, flat + 1000).total < 1


def test_worse_images_score_less():
    x, y = scene((1, 100, 90))
    noise = np.random.default_rng(4).uniform(0, 4095, x.shape)
    scores = [accumulated(x, other).total for other in (x, y, 0.7 * y + 0.3 * noise, noise)]
    assert scores == sorted(scores, reverse=True)
    assert scores[3] < 0.2


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("step", [32, 96])
def test_blocks_give_what_the_whole_gives(definition, step):
    x, y = scene((3, 97, 131))
    mask = np.ones(x.shape, bool)
    mask[1, 20:50, 30:90] = False
    wanted, found = accumulated(x, y, definition, mask), accumulated(x, y, definition, mask, step)
    assert found.total == pytest.approx(wanted.total, rel=1e-9)
    if definition == "reference":
        assert found.bands == pytest.approx(wanted.bands, rel=1e-9)
    else:
        assert found.bands is None


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_what_does_not_count_has_no_say(definition):
    x, y = scene((2, 90, 100))
    mask = np.ones(x.shape[1:], bool)
    mask[30:50, 60:80] = False
    spoilt, other = x.copy(), y.copy()
    spoilt[:, ~mask], other[:, ~mask] = 1e7, np.nan
    wanted = accumulated(x, y, definition, mask).total
    assert accumulated(spoilt, other, definition, mask).total == wanted
    assert wanted == pytest.approx(accumulated(x, y, definition).total, abs=0.02)
    assert np.isnan(accumulated(x, y, definition, np.zeros_like(mask)).total)


def test_mirrored_turned_and_repeated_images():
    """Where two neighbours' gradients are equal Canny keeps the first; a repeated image has edges over its seams."""
    x, y = scene((1, 120, 120))
    wanted = accumulated(x, y).total
    for turned in (lambda a: a[:, ::-1], lambda a: a[:, :, ::-1], lambda a: np.rot90(a, axes=(1, 2))):
        assert accumulated(turned(x), turned(y)).total == pytest.approx(wanted, abs=0.02)
    assert accumulated(*(np.tile(a, (1, 2, 2)) for a in (x, y))).total == pytest.approx(wanted, abs=0.02)


def test_sizes_that_cannot_be_measured():
    with pytest.raises(InputError, match="SSIM needs images of at least 11 x 11"):
        Issm(Setup(1, 10, 200, data_range=1))
    with pytest.raises(InputError, match=r"10980 x 10980 pixels of 6 bands would take 46.3 GB"):
        Issm(Setup(6, 10980, 10980, data_range=10000, definition="up42"))
    kept = Issm(Setup(6, 10980, 10980, data_range=10000))
    assert kept._edges.nbytes + kept._histogram.nbytes < 400e6
