"""Datasets for sharpening: layout, values, splits without shared ground, bad input."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import Affine

from s2sr_qgis.core.dataset import sharpening
from s2sr_qgis.core.dataset.card import SPLITS, read_dataset
from s2sr_qgis.core.dataset.patches import PatchWriter
from s2sr_qgis.core.errors import Cancelled, InputError, OutputError
from s2sr_qgis.core.jobs import CreateSharpeningDatasetJob, run
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.degradation import degrade
from s2sr_qgis.core.scene import Scene, bands_at
from s2sr_qgis.core.scene.mtf import blur_sigmas

BASE = 1000


class Recorder(Progress):
    def __init__(self, stop_after: int | None = None) -> None:
        self.lines: list[str] = []
        self.percents: list[float] = []
        self.checks = 0
        self.stop_after = stop_after

    def log(self, text: str, level: str = "info") -> None:
        self.lines.append(text)

    def progress(self, percent: float, text: str = "") -> None:
        self.percents.append(percent)

    def cancelled(self) -> bool:
        self.checks += 1
        return self.stop_after is not None and self.checks > self.stop_after


def make_scene(
    folder: Path, side: int, seed: int = 0, west: float = 500000, mark: int = 0, bands60: bool = True
) -> Path:
    """A folder of single bands whose B02 is BASE + column and B03 BASE + row of the 10 m grid, B04 ``mark``."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for resolution in (10, 20, 60) if bands60 else (10, 20):
        n = side * 10 // resolution
        columns, rows = np.meshgrid(np.arange(n), np.arange(n))
        fixed = {"B02": BASE + columns, "B03": BASE + rows, "B04": np.full((n, n), 1 + mark)}
        for band in bands_at(resolution):
            image = fixed.get(band, rng.integers(1, 9000, (n, n))).astype(np.uint16)
            write_band(folder / f"{band}.tif", image, resolution, west)
    return folder


def write_band(path: Path, image: np.ndarray, resolution: int, west: float = 500000) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=image.shape[1],
        height=image.shape[0],
        count=1,
        dtype=image.dtype,
        crs="EPSG:32632",
        transform=Affine(resolution, 0, west, 0, -resolution, 5200000),
    ) as file:
        file.write(image, 1)


def read_band(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def make(scenes: list[Path] | Path, output: Path, progress: Progress | None = None, **options):
    scenes = [scenes] if isinstance(scenes, Path) else scenes
    job = CreateSharpeningDatasetJob(scenes=[str(s) for s in scenes], output=output, **options)
    return run(job, progress)


def places(dataset, split: str) -> list[tuple[int, int, int]]:
    """Of each patch, from the ramps: upper-left corner in 10 m pixels (row, column), 10 m pixels per target pixel."""
    found = []
    for patch in np.asarray(dataset.arrays(split)["input_10m"]):
        x, y = patch[2, :, 0] - BASE, patch[:, 2, 1] - BASE
        unit = round(float(x[3] - x[2]))  # away from the edges, whose replication bends the ramp
        corner = [round(float(line[2]) + 0.5 - 2.5 * unit) for line in (y, x)]
        found.append((corner[0], corner[1], unit))
    return found


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return make_scene(tmp_path_factory.mktemp("scene") / "ramp", 480)


@pytest.mark.parametrize(("task", "size"), [("20m", 16), ("60m", 12)])
def test_layout_is_that_of_otbtf_patch_images(scene, tmp_path, task, size):
    result = make(scene, tmp_path / "d", task=task, patch_size=size, licence="CC0-1.0")
    card = read_dataset(tmp_path / "d", task).card
    assert result == {
        "output": str(tmp_path / "d"),
        "task": task,
        **{f"n_{split}": card.counts[split] for split in SPLITS},
        "assumptions": [],
    }
    sides = {"input_10m": size, "input_20m": size // 2, "target": size}
    if task == "60m":
        sides["input_60m"] = size // 6
    for split in SPLITS:
        for name, side in sides.items():
            with rasterio.open(tmp_path / "d" / f"{split}_{name}.tif") as file:
                assert file.width == side
                assert file.height == side * card.counts[split]
                assert file.height // file.width == result[f"n_{split}"]
                assert list(file.descriptions) == card.tensor(name).bands
                assert set(file.dtypes) == {"float32"}
                assert file.block_shapes[0] == (side, side)
    assert card.tensor("input_10m").bands == ["B02", "B03", "B04", "B08"]
    assert card.tensor("target").bands == (
        ["B01", "B09"] if task == "60m" else ["B05", "B06", "B07", "B8A", "B11", "B12"]
    )
    assert card.sources[0].licence == "CC0-1.0"
    assert card.sources[0].patches == card.counts
    names = {p.name for p in (tmp_path / "d").iterdir()}
    assert names == {"dataset.yaml"} | {f"preview_{s}.png" for s in SPLITS} | {
        f"{s}_{n}.tif" for s in SPLITS for n in sides
    }


@pytest.mark.parametrize(("task", "size"), [("20m", 16), ("60m", 12)])
def test_patches_are_what_the_whole_scene_gives(scene, tmp_path, task, size):
    make(scene, tmp_path / "d", task=task, patch_size=size, scales=2)
    dataset = read_dataset(tmp_path / "d")
    factor = {"20m": 2, "60m": 6}[task]
    bands = {band: read_band(scene / f"{band}.tif").astype(np.float32) for r in (10, 20, 60) for band in bands_at(r)}

    @functools.cache
    def reduced(band: str, scale: int, by: int) -> np.ndarray:
        height, width = (side // (scale * by) * scale * by for side in bands[band].shape)
        image = degrade(bands[band][:height, :width], scale, 0.0)
        return degrade(image, by) if by > 1 else image

    seen = set()
    for split in SPLITS:
        arrays = dataset.arrays(split)
        for index, (row, column, unit) in enumerate(places(dataset, split)):
            seen.add(unit // factor)
            # Where the usable ground ends, the whole scene may go on.
            at_edge = max(row, column) + size * unit > 480 - unit * factor
            inner = np.s_[1:-1, 1:-1] if at_edge else np.s_[:, :]
            for tensor in dataset.card.tensors:
                got = arrays[tensor.name][index]
                y, x = (start // (unit * size // tensor.size) for start in (row, column))
                for channel, band in enumerate(tensor.bands):
                    whole = reduced(band, unit // factor, 1 if tensor.name == "target" else factor)
                    wanted = whole[y : y + tensor.size, x : x + tensor.size]
                    np.testing.assert_allclose(got[..., channel][inner], wanted[inner], atol=0.02)
    assert seen == {1, 2}


@pytest.mark.parametrize(
    ("task", "size", "step", "side"), [("20m", 16, 16, 720), ("20m", 16, 6, 720), ("60m", 12, 12, 2160)]
)
def test_splits_share_no_ground(tmp_path, task, size, step, side):
    scene = make_scene(tmp_path / "scene", side)
    proportions = {"train": 0.5, "valid": 0.25, "test": 0.25}
    make(scene, tmp_path / "d", task=task, patch_size=size, step=step, scales=2, block_size=4, seed=5, **proportions)
    dataset = read_dataset(tmp_path / "d")
    # SciPy's Gaussian of sigma 1 / factor reaches so many pixels of the coarsest band.
    radius = int(4 / dataset.card.factor + 0.5) * (2 if task == "20m" else 6)
    owner = {}
    scales = {}
    for split in SPLITS:
        owner[split] = np.zeros((side, side), bool)
        for row, column, unit in places(dataset, split):
            reach = radius * unit // dataset.card.factor
            length = size * unit
            owner[split][
                max(row - reach, 0) : row + length + reach, max(column - reach, 0) : column + length + reach
            ] = 1
            scales[split, unit // dataset.card.factor] = True
    assert not (owner["train"] & owner["valid"]).any()
    assert not (owner["train"] & owner["test"]).any()
    assert not (owner["valid"] & owner["test"]).any()
    assert all((split, 1) in scales for split in SPLITS)
    assert any(scale == 2 for _, scale in scales)


def test_scenes_that_overlap_share_their_blocks(tmp_path):
    """The same ground at two dates, the second shifted by 13 pixels of 20 m: no ground in two splits."""
    first = make_scene(tmp_path / "first", 480, bands60=False)
    second = make_scene(tmp_path / "second", 480, seed=1, west=500000 + 260, mark=5, bands60=False)
    make([first, second], tmp_path / "d", patch_size=16, block_size=3, train=0.5, valid=0.3, test=0.2)
    dataset = read_dataset(tmp_path / "d")
    owner = {split: np.zeros((480, 600), bool) for split in SPLITS}
    for split in SPLITS:
        marks = np.asarray(dataset.arrays(split)["input_10m"])[:, 5, 5, 2]
        for (row, column, _), mark in zip(places(dataset, split), marks, strict=True):
            left = column + (26 if mark > 3 else 0)
            owner[split][row : row + 32, left : left + 32] = True
    assert all(mask.any() for mask in owner.values())
    assert not (owner["train"] & (owner["valid"] | owner["test"])).any()
    assert not (owner["valid"] & owner["test"]).any()


def test_three_separate_scenes_are_split_by_scene(tmp_path):
    scenes = [make_scene(tmp_path / f"s{i}", 180, i, 300000 + 50000 * i, mark=i, bands60=False) for i in range(4)]
    make(scenes, tmp_path / "d", patch_size=16, train=0.5, valid=0.25, test=0.25)
    dataset = read_dataset(tmp_path / "d")
    assert dataset.card.split == "scenes"
    marks = {s: {round(float(v)) for v in np.asarray(dataset.arrays(s)["input_10m"])[:, 5, 5, 2]} for s in SPLITS}
    assert [len(marks[s]) for s in SPLITS] == [2, 1, 1]
    assert len(marks["train"] | marks["valid"] | marks["test"]) == 4
    assert sum(dataset.card.counts.values()) == 4 * 25  # by scene, no patch lies across a block
    for source in dataset.card.sources:
        assert sorted(source.patches.values()) == [0, 0, 25]


def test_overlapping_scenes_go_to_one_split(tmp_path):
    wests = [300000, 300000, 400000, 500000]
    scenes = [make_scene(tmp_path / f"s{i}", 180, i, west, mark=i, bands60=False) for i, west in enumerate(wests)]
    make(scenes, tmp_path / "d", patch_size=16, train=0.4, valid=0.3, test=0.3, split="scenes")
    card = read_dataset(tmp_path / "d").card
    split_of = [[s for s in SPLITS if source.patches[s]] for source in card.sources]
    assert split_of[0] == split_of[1]
    assert sorted(s for found in split_of[1:] for s in found) == ["test", "train", "valid"]


def test_same_seed_same_bytes(scene, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make(scene, tmp_path / name, patch_size=16, block_size=3, seed=seed)
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert (tmp_path / "a" / "valid_target.tif").read_bytes() != (tmp_path / "c" / "valid_target.tif").read_bytes()


def test_only_train_keeps_every_patch(scene, tmp_path):
    result = make(scene, tmp_path / "d", patch_size=16, train=1, valid=0, test=0)
    assert (result["n_train"], result["n_valid"], result["n_test"]) == (15 * 15, 0, 0)
    dataset = read_dataset(tmp_path / "d")
    assert dataset.arrays("valid")["target"].shape == (0, 16, 16, 6)
    assert np.asarray(dataset.arrays("test")["input_20m"]).shape == (0, 8, 8, 6)
    assert not (tmp_path / "d" / "valid_target.tif").exists()


@pytest.mark.parametrize("value", [0, 65535])
@pytest.mark.parametrize(
    ("band", "row", "column", "lost"),
    [
        ("B08", 40, 40, 1),  # within one patch (32 pixels of 10 m)
        ("B11", 24, 24, 1),
        ("B11", 24, 16, 2),  # 20 m pixel at the left edge of a patch: in the blur of its neighbour
        ("B11", 16, 16, 4),
        ("B09", 2, 2, 0),  # a 60 m band is no part of the 20 m task
    ],
)
def test_nodata_and_saturated_pixels_cost_the_patches_that_see_them(tmp_path, band, row, column, lost, value):
    scene = make_scene(tmp_path / "scene", 240)
    image = read_band(scene / f"{band}.tif")
    image[row, column] = value
    write_band(scene / f"{band}.tif", image, {"B08": 10, "B11": 20, "B09": 60}[band])
    recorder = Recorder()
    result = make(scene, tmp_path / "d", recorder, patch_size=16, train=1, valid=0, test=0)
    assert result["n_train"] == 49 - lost
    assert any(f"{lost} left out" in line for line in recorder.lines)
    for array in read_dataset(tmp_path / "d").arrays("train").values():
        data = np.asarray(array)
        assert np.isfinite(data).all()
        assert data.min() >= 0.9
        assert data.max() < 10000


def test_size_of_reads_is_bounded_and_does_not_change_the_result(scene, tmp_path, monkeypatch):
    make(scene, tmp_path / "whole", patch_size=16, step=8, scales=2)
    sizes = []
    read = Scene.read

    def spy(self, bands, window=None):
        sizes.append(max(window.width, window.height))
        return read(self, bands, window)

    monkeypatch.setattr(Scene, "read", spy)
    monkeypatch.setattr(sharpening, "READ_SIDE", 96)
    make(scene, tmp_path / "tiled", patch_size=16, step=8, scales=2)
    assert max(sizes) <= 96
    whole, tiled = read_dataset(tmp_path / "whole"), read_dataset(tmp_path / "tiled")
    for split in SPLITS:
        order = [sorted(range(d.count(split)), key=places(d, split).__getitem__) for d in (whole, tiled)]
        assert len(order[0]) == len(order[1]) > 0
        for name, array in whole.arrays(split).items():
            np.testing.assert_allclose(array[order[0]], tiled.arrays(split)[name][order[1]], atol=1e-3)


def test_region_of_interest(scene, tmp_path):
    make(scene, tmp_path / "d", patch_size=16, roi="501205,5196400,502405,5198800", train=1, valid=0, test=0)
    corners = [(r, c) for r, c, _ in places(read_dataset(tmp_path / "d"), "train")]
    assert min(c for _, c in corners) == 120
    assert min(r for r, _ in corners) == 120
    assert max(c for _, c in corners) <= 240 - 32
    assert max(r for r, _ in corners) == 120 + 6 * 32


def test_sensor_mtf_sets_each_band_s_blur(scene, tmp_path):
    assert blur_sigmas(["B05"], 2, None, True)["B05"] == pytest.approx(2 * 0.4428, abs=1e-3)
    assert blur_sigmas(["B05"], 6, None, False)["B05"] == pytest.approx(1 / 6)
    make(scene, tmp_path / "d", patch_size=16, sensor_mtf=True, train=1, valid=0, test=0)
    dataset = read_dataset(tmp_path / "d")
    sigmas = dataset.card.sigma
    assert sigmas["B11"] > sigmas["B05"] > 0.5
    image = read_band(scene / "B11.tif").astype(np.float32)
    whole = degrade(image, 2, sigmas["B11"])
    index = places(dataset, "train").index((96, 64, 2))
    got = dataset.arrays("train")["input_20m"][index][..., 4]
    np.testing.assert_allclose(got, whole[24:32, 16:24], atol=0.02)


def test_preview_shows_input_beside_target(scene, tmp_path):
    from skimage.io import imread

    make(scene, tmp_path / "d", patch_size=16, block_size=3)
    picture = imread(tmp_path / "d" / "preview_train.png")
    assert picture.shape == (8 * 164, 2 * 164, 3)
    low, target = picture[:160, :160], picture[:160, 164:324]
    assert (low[::20, ::20] == low[19::20, 19::20]).all()  # 8 x 8 pixels enlarged 20 times
    assert (target[::10, ::10] == target[9::10, 9::10]).all()
    assert not (low == target).all()


def test_small_scene_says_what_it_does(tmp_path):
    scene = make_scene(tmp_path / "scene", 72, bands60=False)
    recorder = Recorder()
    result = make(scene, tmp_path / "d", recorder, patch_size=32)
    assert (result["n_train"], result["n_valid"], result["n_test"]) == (1, 0, 0)
    assert any("blocks for 3 splits" in line for line in recorder.lines)
    assert any("no valid patches" in line for line in recorder.lines)
    assert recorder.percents == sorted(recorder.percents)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch_size": 15}, "multiple of 2 for the 20m task.*15 is not, 16 is"),
        ({"task": "60m", "step": 8}, "step must be a multiple of 6"),
        ({"train": 0.8, "valid": 0.3}, r"must sum to 1; 0.8 \+ 0.3 \+ 0.1 is 1.2"),
        ({"patch_size": 256}, "240 x 240 pixels of the 20m target grid, less than one patch of 256 x 256"),
    ],
)
def test_bad_options_are_a_sentence_and_no_folder(scene, tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        make(scene, tmp_path / "d", **options)
    assert list(tmp_path.iterdir()) == []


def test_missing_bands_are_named(tmp_path):
    scene = make_scene(tmp_path / "scene", 120, bands60=False)
    with pytest.raises(InputError, match=r"takes B02.*B09, but scene has only B02.*: B01, B09 missing"):
        make(scene, tmp_path / "d", task="60m", patch_size=12)
    assert not (tmp_path / "d").exists()


def test_all_nodata_is_a_sentence(tmp_path):
    scene = make_scene(tmp_path / "scene", 120, bands60=False)
    write_band(scene / "B11.tif", np.zeros((60, 60), np.uint16), 20)
    with pytest.raises(InputError, match="No patch of 16 x 16"):
        make(scene, tmp_path / "d", patch_size=16)
    assert [p.name for p in tmp_path.iterdir()] == ["scene"]


def test_output_must_be_free(scene, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not an empty folder"):
        make(scene, tmp_path / "d", patch_size=16)
    with pytest.raises(OutputError, match="does not exist"):
        make(scene, tmp_path / "no" / "d", patch_size=16)
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["mine.txt"]


def test_cancelling_leaves_nothing(scene, tmp_path):
    with pytest.raises(Cancelled):
        make(scene, tmp_path / "d", Recorder(stop_after=2), patch_size=16, step=2)
    assert list(tmp_path.iterdir()) == []


def test_card_is_plain_yaml(scene, tmp_path):
    make(scene, tmp_path / "d", patch_size=16, seed=3)
    card = yaml.safe_load((tmp_path / "d" / "dataset.yaml").read_text())
    assert card["task"] == "20m"
    assert card["factor"] == 2
    assert card["scaling"] == 0.0001
    assert card["seed"] == 3
    assert card["sigma"]["B05"] == 0.5
    assert set(card["counts"]) == set(SPLITS)


def test_full_disk_is_a_sentence_and_leaves_nothing(scene, tmp_path):
    """A limit on the size of files stands for the end of the disk."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from s2sr_qgis.core.errors import OutputError\n"
        "from s2sr_qgis.core.jobs import CreateSharpeningDatasetJob, run\n"
        "try:\n"
        f"    run(CreateSharpeningDatasetJob(scenes=[{str(scene)!r}], output={str(tmp_path / 'd')!r}, patch_size=16))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "The disk is full" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_is_read_again(scene, tmp_path, monkeypatch):
    finish = PatchWriter.finish

    def broken(self, *arguments):
        finish(self, *arguments)
        path = self.folder / "train_target.tif"
        path.write_bytes(path.read_bytes()[:-1000])

    monkeypatch.setattr(PatchWriter, "finish", broken)
    with pytest.raises(OutputError, match="could not be written completely"):
        make(scene, tmp_path / "d", patch_size=16)
    assert list(tmp_path.iterdir()) == []
