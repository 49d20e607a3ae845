"""Two places mixed into a pair."""

from __future__ import annotations

import numpy as np
import pytest
from products import make_band_folder
from tiny_model import TENS, TWENTIES, tiny_model

from s2sr_qgis.core.dataset import mixtures
from s2sr_qgis.core.dataset.card import layout, read_dataset
from s2sr_qgis.core.dataset.splits import Partition
from s2sr_qgis.core.inference.model import load_model
from s2sr_qgis.core.jobs import CreateSharpeningDatasetJob, run
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.degradation import degrade
from s2sr_qgis.core.raster.grid import Window
from s2sr_qgis.core.scene import open_scene

SIGMAS = dict.fromkeys([*TENS, *TWENTIES], 0.5)
EVERYWHERE = Partition(np.empty(0), np.empty(0), np.zeros((1, 1), np.intp))


@pytest.fixture
def scene(tmp_path):
    with open_scene(make_band_folder(tmp_path / "scene", size=240)) as opened:
        yield opened


def pairs(scene, count=12, teacher=None, partition=EVERYWHERE, area=None):
    places = [mixtures.Place(scene, area or scene.grid.window, partition)]
    rng = np.random.default_rng(3)
    return list(mixtures.mixed_pairs(places, count, layout("20m", 24), 2, SIGMAS, teacher, rng, Progress()))


def test_a_mixture_is_an_exact_pair(scene, monkeypatch):
    monkeypatch.setattr(mixtures, "CLOUDY", 0.0)
    found = pairs(scene)
    assert len(found) == 12
    for pair in found:
        assert pair["input_10m"].shape == (4, 24, 24)
        assert pair["input_20m"].shape == (6, 12, 12)
        # Away from the edge, where the blur sees what was cut off, the input is the target, degraded.
        again = np.stack([degrade(image, 2, 0.5) for image in pair["target"]])
        np.testing.assert_allclose(pair["input_20m"][:, 2:-2, 2:-2], again[:, 2:-2, 2:-2], rtol=1e-4)


def test_no_two_mixtures_are_alike(scene):
    means = [pair["target"].mean() for pair in pairs(scene)]
    assert len(set(means)) == len(means)


def test_some_ground_is_coloured_like_snow(scene, monkeypatch):
    monkeypatch.setattr(mixtures, "CLOUDY", 0.0)
    monkeypatch.setattr(mixtures, "MIXED", 0.0)
    infrared = [TWENTIES.index(band) for band in ("B11", "B12")]
    ratios = {}
    for share in (0.0, 1.0):
        monkeypatch.setattr(mixtures, "SNOWY", share)
        found = pairs(scene)
        ratios[share] = np.mean([p["target"][infrared].mean() / p["input_10m"].mean() for p in found])
    # exp(-0.7 - 0.6) is a quarter.
    assert ratios[1.0] < 0.5 * ratios[0.0]


def test_bands_mixed_apart_have_the_teachers_answer(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(mixtures, "MIXED", 1.0)
    monkeypatch.setattr(mixtures, "APART", 1.0)
    teacher = load_model(tiny_model(tmp_path / "teacher"))
    for pair in pairs(scene, 3, teacher):
        bands = dict(zip(TENS, pair["input_10m"] * 1e-4, strict=True))
        answer = teacher.predict({**bands, **dict(zip(TWENTIES, pair["input_20m"] * 1e-4, strict=True))})
        for index, band in enumerate(TWENTIES):  # inside its receptive radius the teacher saw the same
            np.testing.assert_allclose(pair["target"][index, 4:-4, 4:-4], answer[band][4:-4, 4:-4] * 1e4, atol=0.1)


def test_ground_of_another_split_is_never_mixed(scene):
    xmin, _, _, _ = scene.grid.bounds
    # Only the western half is for training.
    halves = Partition(np.array([xmin + 1200.0]), np.empty(0), np.array([[0, 2]]))
    found = pairs(scene, partition=halves)
    assert found
    assert not pairs(scene, partition=Partition(np.empty(0), np.empty(0), np.full((1, 1), 2, np.intp)))
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        real = scene.read
        patch.setattr(scene, "read", lambda bands, window: seen.append(window) or real(bands, window))
        pairs(scene, partition=halves)
    assert max(window.col + window.width for window in seen) <= 120


def test_too_little_ground_gives_none(scene):
    assert pairs(scene, area=Window(0, 0, 40, 40)) == []


def test_the_job_adds_them_to_the_training_split(tmp_path):
    folder = make_band_folder(tmp_path / "scene", size=240)
    options = {"scenes": [str(folder)], "patch_size": 24, "block_size": 1, "train": 0.8, "valid": 0.1, "test": 0.1}
    counts = []
    for name, mixed in (("plain", 0), ("mixed", 10)):
        run(CreateSharpeningDatasetJob(output=tmp_path / name, mixtures=mixed, **options))
        dataset = read_dataset(tmp_path / name)
        assert dataset.card.mixtures == mixed
        counts.append(dataset.card.counts)
    assert counts[1]["train"] - counts[0]["train"] == 10
    assert [counts[1][split] for split in ("valid", "test")] == [counts[0][split] for split in ("valid", "test")]
