"""The catalogue: all measures at once, in memory and in blocks, and as functions."""

from __future__ import annotations

import numpy as np
import pytest
from blockwise import assert_same, blockwise, turned

import s2sr_qgis.core.similarity as room
from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.similarity import catalogue, measure, rmse

EIGHT = ["rmse", "psnr", "ssim", "fsim", "issm", "sre", "sam", "uiq"]
ALL = [*EIGHT, "ergas", "q2n", "spectral_correlation", "spatial_shift"]


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Something with edges, 75 x 101, 12-bit, three bands."""
    rng = np.random.default_rng(3)
    rows, cols = np.mgrid[:75, :101]
    scene = 1500 + 900 * np.sign(np.sin(rows / 5) * np.sin(cols / 7)) + rng.normal(0, 60, (3, 75, 101))
    scene *= np.array([1.0, 1.2, 0.7])[:, None, None]
    return scene.astype(np.uint16), (scene + rng.normal(0, 150, scene.shape)).clip(0).astype(np.uint16)


def test_the_catalogue_is_complete_and_in_order():
    entries = catalogue()
    assert list(entries) == ALL
    assert [name for name, entry in entries.items() if "up42" in entry.definitions] == EIGHT
    for name, entry in entries.items():
        assert entry.name == name
        assert "reference" in entry.definitions
        assert all(text.endswith(".") and len(text) > 20 for text in entry.definitions.values())


def test_every_reference_definition_is_cited():
    for name, entry in catalogue().items():
        text = entry.definitions["reference"]
        assert name == "rmse" or any(f" {year}" in text for year in range(1980, 2030)), name


@pytest.mark.parametrize("definition", ["reference", "up42"])
def test_identical_images_get_the_score_that_the_catalogue_promises(pair, definition):
    x, _ = pair
    names = [name for name, entry in catalogue().items() if definition in entry.definitions]
    scores = measure(x, x, definition=definition, data_range=4095)
    assert list(scores) == names
    for name in names:
        if (name, definition) != ("issm", "up42"):  # the package's does not know perfection
            assert scores[name].total == pytest.approx(catalogue()[name].perfect, abs=1e-9), name


def test_flat_identical_images_are_perfect():
    mask = np.ones((64, 64), bool)
    mask[5:9, :30] = False
    for value in (0, 1234):
        flat = np.full((3, 64, 64), value, np.uint16)
        for only in (None, mask):
            for name, score in measure(flat, flat, data_range=4095, mask=only).items():
                assert score.total == pytest.approx(catalogue()[name].perfect, abs=1e-9), (name, value)


@pytest.mark.parametrize("definition", ["reference", "up42"])
def test_functions_give_what_measure_gives(pair, definition):
    x, y = pair
    mask = np.random.default_rng(0).uniform(size=x.shape[1:]) > 0.002
    scores = measure(x, y, definition=definition, data_range=4095, mask=mask)
    for name, score in scores.items():
        options = {"definition": definition} if name in EIGHT else {}
        if name in ("psnr", "ssim", "fsim", "issm") or (name, definition) == ("rmse", "up42"):
            options["data_range"] = 4095
        assert_same(getattr(room, name)(x, y, mask=mask, **options), score, 1e-12)


@pytest.mark.parametrize("definition", ["reference", "up42"])
@pytest.mark.parametrize("masked", [False, True])
def test_blocks_give_what_the_whole_gives(pair, definition, masked):
    x, y = pair
    mask = np.random.default_rng(1).uniform(size=x.shape) > 0.002 if masked else None
    for name, score in measure(x, y, definition=definition, data_range=4095, mask=mask).items():
        assert_same(blockwise(name, x, y, (32, 64), mask, data_range=4095.0, definition=definition), score)


def test_what_does_not_count_may_be_anything(pair):
    """Not finite, or masked and absurd: the same figures, in every measure of both definitions."""
    x, y = (z.astype(np.float64) for z in pair)
    mask = np.ones(x.shape[1:], bool)
    mask[20:30, 70:90] = False
    odd, spoilt = np.where(mask, x, np.nan), np.where(mask, y, -1e9)
    for definition in ("reference", "up42"):
        wanted = measure(x, y, definition=definition, data_range=4095, mask=mask)
        for name, score in measure(odd, spoilt, definition=definition, data_range=4095, mask=mask).items():
            assert np.isfinite(score.total), name
            assert_same(score, wanted[name], 1e-12)


def test_mirrored_and_turned_images_of_whole_blocks_score_the_same():
    rng = np.random.default_rng(6)
    x = rng.uniform(100, 4000, (3, 64, 96))
    y = x + rng.normal(0, 300, x.shape)
    names = [name for name in ALL if name not in ("fsim", "issm", "spatial_shift")]  # theirs: in their own tests
    wanted = measure(x, y, names, data_range=4095)
    for a, b in zip(turned(x), turned(y), strict=True):
        for name, score in measure(a, b, names, data_range=4095).items():
            assert_same(score, wanted[name])


def test_the_order_of_names_is_the_catalogues(pair):
    assert list(measure(*pair, ["uiq", "rmse"], data_range=1)) == ["rmse", "uiq"]


def test_modules_do_not_hide_the_functions():
    import s2sr_qgis.core.similarity.fsim
    import s2sr_qgis.core.similarity.issm  # noqa: F401

    assert all(callable(getattr(room, name)) for name in ALL)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: rmse(x, x[:, :-1]), "3 x 75 x 101, the other 3 x 74 x 101"),
        (lambda x: rmse(x, x, np.ones((4, 4), bool)), "mask is 4 x 4"),
        (lambda x: rmse(x[0, 0], x[0, 0]), "cannot be compared"),
        (lambda x: measure(x, x, ["rsme"], data_range=1), "no measure 'rsme'"),
        (
            lambda x: measure(x, x, ["q2n"], definition="up42", data_range=1),
            "has no definition 'up42'.* are rmse, psnr",
        ),
        (lambda x: measure(x, x, ["psnr"], data_range=0), "data range is 0"),
        (lambda x: measure(x, x, ["psnr"], data_range=float("nan")), "data range is nan"),
        (lambda x: room.ergas(x, x, -2), "ratio is -2"),
    ],
)
def test_bad_input_is_a_sentence(pair, call, words):
    with pytest.raises(InputError, match=words):
        call(pair[0])
