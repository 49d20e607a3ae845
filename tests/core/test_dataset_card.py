"""Reading datasets: lazy access, and damage told in one sentence."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from rasterio.transform import Affine

from s2sr_qgis.core.dataset.card import DatasetCard, SourceCard, layout, read_dataset, write_card
from s2sr_qgis.core.dataset.patches import PatchWriter
from s2sr_qgis.core.errors import DatasetError
from s2sr_qgis.core.progress import Progress


def make_dataset(folder: Path, counts: dict[str, int] | None = None, task: str = "20m", size: int = 12) -> Path:
    folder.mkdir()
    counts = counts or {"train": 9, "valid": 2, "test": 1}
    tensors = layout(task, size)
    rng = np.random.default_rng(0)
    with PatchWriter(folder, tensors) as writer:
        for split, count in counts.items():
            for _ in range(count):
                writer.add(split, {t.name: rng.integers(-50, 9000, (len(t.bands), t.size, t.size)) for t in tensors})
        writer.finish(10.0, Progress())
    card = DatasetCard(
        task=task,
        factor=2 if task == "20m" else 6,
        tensors=tensors,
        counts=counts,
        patch_size=size,
        step=size,
        scales=1,
        sigma={"B05": 0.5},
        split="blocks",
        block_size=8,
        seed=0,
        sources=[SourceCard(name="made")],
    )
    write_card(card, folder)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_dataset(tmp_path / "d")


def test_card_survives_the_disk(folder):
    dataset = read_dataset(folder, "20m")
    write_card(dataset.card, folder)
    assert read_dataset(folder).card == dataset.card
    assert [t.name for t in dataset.card.inputs] == ["input_10m", "input_20m"]


def test_60m_layout(tmp_path):
    dataset = read_dataset(make_dataset(tmp_path / "d", task="60m", size=12), "60m")
    shapes = {name: array.shape for name, array in dataset.arrays("train").items()}
    assert shapes == {
        "input_10m": (9, 12, 12, 4),
        "input_20m": (9, 6, 6, 6),
        "input_60m": (9, 2, 2, 2),
        "target": (9, 12, 12, 2),
    }


def test_arrays_are_indexed_like_arrays(folder):
    array = read_dataset(folder).arrays("train")["input_10m"]
    whole = np.asarray(array)
    assert whole.shape == array.shape == (9, 12, 12, 4)
    assert whole.dtype == np.float32
    rng = np.random.default_rng(0)
    assert whole[0] == pytest.approx(rng.integers(-50, 9000, (4, 12, 12)).transpose(1, 2, 0))
    for index in (0, 8, -1, np.int64(3), slice(2, 5), slice(None, None, 3), slice(5, 1), [4, 0, 4], np.array([7, 1])):
        np.testing.assert_array_equal(array[index], whole[index])
    assert array[[]].shape == (0, 12, 12, 4)
    for outside in (9, -10, [0, 9]):
        with pytest.raises(IndexError):
            array[outside]
    assert len(array) == 9


def test_arrays_may_be_read_by_threads_and_pickled(folder):
    array = read_dataset(folder).arrays("train")["target"]
    whole = np.asarray(array)
    with ThreadPoolExecutor(4) as pool:
        for index, patch in enumerate(pool.map(lambda i: array[i % 9], range(90))):
            np.testing.assert_array_equal(patch, whole[index % 9])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(array))[3], whole[3])


def test_a_split_without_patches_has_empty_arrays(tmp_path):
    dataset = read_dataset(make_dataset(tmp_path / "d", {"train": 1, "valid": 0, "test": 0}))
    assert np.asarray(dataset.arrays("valid")["target"]).shape == (0, 12, 12, 6)


def test_another_task_is_refused(folder):
    with pytest.raises(DatasetError, match="of the 20m task, but the 60m task is asked for"):
        read_dataset(folder, "60m")


def test_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match=r"no dataset folder: it has no dataset\.yaml"):
        read_dataset(tmp_path)


def test_missing_file(folder):
    (folder / "valid_target.tif").unlink()
    with pytest.raises(DatasetError, match=r"lacks valid_target\.tif"):
        read_dataset(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.97])
def test_truncated_file(folder, share):
    path = folder / "train_input_10m.tif"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DatasetError, match=r"train_input_10m\.tif is damaged"):
        read_dataset(folder)


def test_damage_in_the_middle_is_told_when_it_is_read(folder):
    path = folder / "train_input_10m.tif"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 600] = b"\xff" * 600
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be read"):
        np.asarray(read_dataset(folder).arrays("train")["input_10m"])


def test_values_that_are_not_finite_are_found_before_training(folder):
    import rasterio

    path = folder / "valid_input_20m.tif"
    with rasterio.open(path, "r+") as file:
        image = file.read(2)
        image[3, 3] = np.nan
        file.write(image, 2)
    dataset = read_dataset(folder)
    with pytest.raises(DatasetError, match=r"valid_input_20m.tif: patch 0 has values that are not finite .*nodata"):
        dataset.check_values()


def test_not_a_raster(folder):
    (folder / "test_target.tif").write_text("no raster")
    with pytest.raises(DatasetError, match=r"test_target\.tif is damaged and cannot be opened"):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["counts"].update(train=10), "holds 12 x 108 pixels.*says 10 patches of 12 x 12"),
        (lambda c: c["tensors"][0].update(size=6), "holds 12 x 108 pixels"),
        (lambda c: c["tensors"][0]["bands"].reverse(), "B02 B03 B04 B08, the card says .* B08 B04 B03 B02"),
        (lambda c: c["tensors"][0]["bands"].pop(), "says 9 patches of 12 x 12 pixels of B02 B03 B04;"),
        (lambda c: c.pop("task"), "no valid card: task"),
        (lambda c: c.update(factor="two"), "no valid card: factor"),
    ],
)
def test_card_and_files_must_agree(folder, change, words):
    import yaml

    path = folder / "dataset.yaml"
    card = yaml.safe_load(path.read_text())
    change(card)
    path.write_text(yaml.safe_dump(card))
    with pytest.raises(DatasetError, match=words):
        read_dataset(folder)


def test_unreadable_card(folder):
    (folder / "dataset.yaml").write_text("task: [")
    with pytest.raises(DatasetError, match="not readable YAML"):
        read_dataset(folder)


def test_patch_images_have_spacing_but_no_place(folder):
    import rasterio

    with rasterio.open(folder / "train_target.tif") as file:
        assert file.transform == Affine(10, 0, 0, 0, -10, 0)
        assert file.crs is None
