"""A teacher's result as a further target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from products import make_band_folder
from tiny_model import TENS, TWENTIES, tiny_model

from s2sr_qgis.core.dataset.card import read_dataset
from s2sr_qgis.core.dataset.distillation import recoloured
from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.inference.model import load_model
from s2sr_qgis.core.jobs import CreateSharpeningDatasetJob, run
from s2sr_qgis.core.scene import open_scene


def make(scene: Path, output: Path, **options):
    shares = {"train": 1, "valid": 0, "test": 0}
    run(CreateSharpeningDatasetJob(scenes=[str(scene)], output=output, patch_size=24, **shares, **options))
    return read_dataset(output)


def test_the_target_is_what_the_teacher_gives_on_the_scene_itself(tmp_path):
    scene, teacher = make_band_folder(tmp_path / "scene", size=120), tiny_model(tmp_path / "teacher")
    plain, taught = make(scene, tmp_path / "plain"), make(scene, tmp_path / "taught", teacher=str(teacher))
    extra = taught.count("train") - plain.count("train")
    assert extra == 25
    assert (plain.card.teacher, taught.card.teacher) == (None, load_model(teacher).card.name)

    with open_scene(scene) as opened:
        pixels = opened.read([*TENS, *TWENTIES])
    whole = load_model(teacher).predict(pixels.data)
    expected = np.stack([whole[band] for band in TWENTIES], axis=-1) * 1e4
    tens = np.stack([pixels.data[band] for band in TENS], axis=-1) * 1e4
    arrays = {name: array[-extra:] for name, array in taught.arrays("train").items()}
    for index in range(extra):
        y, x = 24 * (index // 5), 24 * (index % 5)
        np.testing.assert_allclose(arrays["target"][index], expected[y : y + 24, x : x + 24], atol=0.05)
        np.testing.assert_allclose(arrays["input_10m"][index], tens[y : y + 24, x : x + 24], atol=0.01)


def test_patches_on_invalid_ground_are_left_out(tmp_path):
    whole = make_band_folder(tmp_path / "a", size=120)
    holed = make_band_folder(tmp_path / "b", size=120, nodata_corner=30)
    teacher = str(tiny_model(tmp_path / "teacher"))
    counts = [
        make(scene, tmp_path / f"{scene.name}_{bool(t)}", teacher=t).count("train")
        for scene in (whole, holed)
        for t in (None, teacher)
    ]
    lost = (counts[1] - counts[0]) - (counts[3] - counts[2])
    assert 0 < lost < 25


def test_a_teacher_of_another_task_is_refused(tmp_path):
    scene = make_band_folder(tmp_path / "scene", size=240)
    with pytest.raises(InputError, match=r"teacher .* sharpens B01, B09, but the dataset is for B05"):
        make(scene, tmp_path / "out", teacher=str(tiny_model(tmp_path / "teacher", "60m")))
    assert not (tmp_path / "out").exists()


def test_recoloured_copies_have_the_teachers_answer_to_what_they_show(tmp_path):
    scene, teacher = make_band_folder(tmp_path / "scene", size=120), tiny_model(tmp_path / "teacher")
    taught = make(scene, tmp_path / "taught", teacher=str(teacher))
    varied = make(scene, tmp_path / "varied", teacher=str(teacher), teacher_variants=6)
    assert varied.count("train") - taught.count("train") == 6 * 25
    assert (taught.card.teacher_variants, varied.card.teacher_variants) == (0, 6)

    arrays = {name: array[-6 * 25 :] for name, array in varied.arrays("train").items()}
    whole = {
        name: a.reshape(6, 5, 5, *a.shape[1:]).transpose(0, 1, 3, 2, 4, 5).reshape(6, 5 * a.shape[1], -1, a.shape[3])
        for name, a in arrays.items()
    }
    model = load_model(teacher)
    for variant in range(6):
        tens = dict(zip(TENS, whole["input_10m"][variant].transpose(2, 0, 1) * 1e-4, strict=True))
        twenties = dict(zip(TWENTIES, whole["input_20m"][variant].transpose(2, 0, 1) * 1e-4, strict=True))
        expected = model.predict({**tens, **twenties})
        for index, band in enumerate(TWENTIES):
            np.testing.assert_allclose(whole["target"][variant, ..., index], expected[band] * 1e4, atol=0.1)
    means = whole["input_10m"].mean(axis=(1, 2))
    assert np.ptp(np.log(means), axis=0).min() > 0.1  # each copy has its own colours


def test_a_recoloured_scene_mixes_bands_apart(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.uniform(0.1, 0.3, (64, 64)).astype(np.float32)
    bands = {"B02": image, "B03": image.copy()}
    alone = [recoloured(bands, rng, superimpose=False) for _ in range(20)]
    mixed = [recoloured(bands, rng, superimpose=True) for _ in range(20)]

    def agree(scene):
        return np.corrcoef(scene["B02"].ravel(), scene["B03"].ravel())[0, 1]

    assert min(map(agree, alone)) > 0.9999
    assert min(map(agree, mixed)) < 0.9
    assert all(scene["B02"].dtype == np.float32 for scene in mixed)
