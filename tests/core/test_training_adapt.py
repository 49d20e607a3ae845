"""Models adapted to a scene: never worse on the block held out, complete or not there, and used in one go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from tiny_model import scene_numbers, tiny_cross_model, tiny_model, write_scene
from tiny_training import Recorder

from s2sr_qgis.core import jobs
from s2sr_qgis.core.dataset.card import layout
from s2sr_qgis.core.dataset.ground import BUFFER, COUNTS, EDGE, LEAST, PATCH, Ground, read_ground
from s2sr_qgis.core.errors import Cancelled, InputError, ModelError, OutputError
from s2sr_qgis.core.inference.card import read_card
from s2sr_qgis.core.inference.model import bundled_models, load_model
from s2sr_qgis.core.inference.wald import degraded
from s2sr_qgis.core.progress import Part, Progress
from s2sr_qgis.core.raster.grid import Window
from s2sr_qgis.core.raster.tiles import crop
from s2sr_qgis.core.scene import open_scene

pytestmark = pytest.mark.train

L1C = jobs.SceneOptions(processing_level="L1C")
SIZE = 300
"""Of the scene in 10 m pixels: enough ground for a model of the 20 m bands, too little for one of the 60 m bands."""


def network_folder(folder: Path, network: str, task: str, options: dict[str, Any]) -> Path:
    """A model folder of an untrained network, its biases not zero, as those of trained ones are not."""
    pytest.importorskip("tensorflow")
    from s2sr_qgis.core.training.export import describe, write_model
    from s2sr_qgis.core.training.run_card import RunCard

    run = RunCard(network=network, network_options=options, task=task, scaling=1e-4, tensors=layout(task, 6),
                  sources=[], backend="", precision="float32")  # fmt: skip
    built = run.build()
    rng = np.random.default_rng(0)
    for layer in built.model.layers:
        if len(weights := layer.get_weights()) == 2:
            layer.set_weights([weights[0], rng.normal(0, 0.01, weights[1].shape)])
    card = describe(built, run, name=folder.name, title="Tiny")
    write_model(built, card, folder, saved_model=False, patches=None, progress=Progress())
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return network_folder(tmp_path_factory.mktemp("models") / "tiny20", "dsen2", "20m", {"blocks": 1, "features": 8})


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scenes") / "S", scene_numbers(SIZE))


@pytest.fixture
def short(monkeypatch) -> dict[str, Any]:
    """Forty steps that a tiny network learns from."""
    from s2sr_qgis.core.training.adapt import OPTIONS

    for name, value in {"epochs": 2, "learning_rate": 5e-3}.items():
        monkeypatch.setitem(OPTIONS, name, value)
    return OPTIONS


def task(model: Path, scene: Path, output: Path, **options: Any) -> jobs.AdaptJob:
    return jobs.AdaptJob(model=str(model), scene=str(scene), output=output, scene_options=L1C, **options)


def ground_of(model: Path, scene: Path, seed: int = 0) -> Ground:
    return read_ground(str(scene), L1C, read_card(model), roi=None, allow_other_level=False, seed=seed,
                       progress=Progress())  # fmt: skip


def held_out_rmse(folder: Path, model: Path, scene: Path) -> float:
    """RMSE, DN, of a model folder on the deciding block, by inference: nothing of the training room."""
    ground = ground_of(model, scene)
    with open_scene(scene, L1C) as opened:
        truth, low, usable = degraded(opened, ground.card, opened.grid.window, 2, 0.5)
    found = load_model(folder, device="cpu").predict({band: image for band, (image, _) in low.items()})
    inside = np.zeros(usable.shape, bool)
    for block in ground.blocks:
        if block.split == "test":
            inside[block.window.row :, block.window.col :][: block.window.height, : block.window.width] = True
    inside &= usable
    errors = [1e4 * (found[band] - image)[inside] for band, image in truth.items()]
    return float(np.mean([np.sqrt(np.square(error, dtype=np.float64).mean()) for error in errors]))


def test_adapting_gains_on_ground_that_it_has_not_seen(model, scene, short, tmp_path) -> None:
    progress, output = Recorder(), tmp_path / "adapted"
    found = jobs.run(task(model, scene, output, name="mine"), progress)
    assert found["adapted"]
    assert found["rmse_after"] < 0.98 * found["rmse_before"]
    assert found["rmse_before"] == pytest.approx(held_out_rmse(model, model, scene), rel=1e-3)
    assert found["rmse_after"] == pytest.approx(held_out_rmse(output, model, scene), rel=1e-3)
    assert found["gain"] == pytest.approx(1 - found["rmse_after"] / found["rmse_before"], abs=1e-3)
    assert np.mean([band["after"] for band in found["bands"].values()]) == pytest.approx(found["rmse_after"], abs=0.01)

    old, card = read_card(model), read_card(output)
    assert (card.name, card.network, card.radius) == ("mine", old.network, old.radius)
    assert card.title == f"Tiny, adapted to {found['scene']}"
    told = card.training["adapted"]
    assert told["model"] == old.name
    assert {name: told[name] for name in ("scene", "steps", "patches", "bands")} == {
        name: found[name] for name in ("scene", "steps", "patches", "bands")
    }
    assert told["level"] == "L1C"
    assert told["steps"] == 40
    assert [file.precision for file in card.files] == ["float32"]
    assert {path.name for path in output.iterdir()} == {"model.onnx", "card.yaml"}
    assert [path.name for path in tmp_path.iterdir()] == ["adapted"]
    assert progress.artifacts == {"model": str(output)}
    assert any("RMSE" in line for _, line in progress.lines)


def test_what_gains_nothing_is_kept_as_it_was(model, scene, short, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(short, "learning_rate", 10.0)  # ruins any network
    monkeypatch.setitem(short, "warmup_steps", 0)
    output = tmp_path / "kept"
    found = jobs.run(task(model, scene, output), Progress())
    assert not found["adapted"]
    assert found["gain"] == 0
    assert found["rmse_after"] == found["rmse_before"] == pytest.approx(held_out_rmse(output, model, scene), rel=1e-3)
    assert (output / "model.onnx").read_bytes() == (model / "model.onnx").read_bytes()
    card = read_card(output)
    assert "kept as it was" in card.title
    assert card.training["adapted"]["adapted"] is False
    load_model(output, device="cpu")


def test_a_gain_where_one_chooses_is_no_gain_where_one_decides(model, scene, short, monkeypatch, tmp_path) -> None:
    """What looks better on the first block must still be better on the second."""
    from s2sr_qgis.core.training import adapt

    honest = adapt.Tuning._rmse

    def flattered(self: Any, views: Any) -> Any:
        rmse = honest(self, views)
        changed = not all(np.array_equal(a, b) for a, b in zip(self.model.get_weights(), self.start, strict=True))
        return rmse * (0.5 if views is getattr(self, "choosing", None) else 100.0) if changed else rmse

    monkeypatch.setattr(adapt.Tuning, "_rmse", flattered)
    found = jobs.run(task(model, scene, tmp_path / "kept"), Progress())
    assert not found["adapted"]
    assert (tmp_path / "kept" / "model.onnx").read_bytes() == (model / "model.onnx").read_bytes()


@pytest.mark.parametrize("after", [1, 8])
def test_stopping_leaves_nothing(model, scene, short, tmp_path, after) -> None:
    with pytest.raises(Cancelled, match=r"no (model|output) was written"):
        jobs.run(task(model, scene, tmp_path / "m"), Recorder(stop_after=after))
    assert not list(tmp_path.iterdir())


def test_ground_is_held_out_with_a_buffer(model, tmp_path) -> None:
    """Bands whose value is their place tell where each patch comes from."""
    numbers = scene_numbers(480)
    rows, cols = np.mgrid[0:240, 0:240]
    numbers["B05"], numbers["B06"] = (1000 + 10 * axis.astype(np.uint16) for axis in (rows, cols))
    numbers["B12"][200:210, 20:30] = 65535
    ground = ground_of(model, write_scene(tmp_path / "S", numbers), seed=3)
    assert {block.split for block in ground.blocks} == {"train", "valid", "test"}
    patches = ground.patches(500, np.random.default_rng(0))
    assert len({len(array) for array in patches.values()}) == 1
    assert patches["input_20m"].shape[1:] == (PATCH // 2, PATCH // 2, 6)
    counts = patches[COUNTS][..., 0] > 0
    assert counts.mean(axis=(1, 2)).min() >= LEAST
    places = np.rint(patches["target"][..., :2] / 10 - 100).astype(int)[counts]
    assert len(np.unique(places, axis=0)) > 5000
    held = [block.window.grown(BUFFER) for block in ground.blocks if block.split != "train"]
    told = np.zeros((240, 240), bool)
    told[tuple(places.T)] = True
    for other in [*held, Window(20, 200, 10, 10)]:
        near = other.clipped(240, 240)
        assert not told[near.row : near.row + near.height, near.col : near.col + near.width].any()
    blind = patches["input_20m"].repeat(2, axis=1).repeat(2, axis=2)[~counts]
    assert (patches["target"][~counts] == blind).all()
    for split in ("valid", "test"):
        views = ground.views(split, 64, 20, 10**9, np.random.default_rng(0))
        pixels = sum(
            int(crop(block.piece.usable, block.piece.here, block.window).sum())
            for block in ground.blocks
            if block.split == split
        )
        assert sum(int(view.usable.sum()) for view in views) == pixels > 0
        assert min(view.target[0].min() for view in views) >= 1000 + 10 * EDGE
        for view in views:  # what is compared is where the input says that it is
            low = view.inputs["input_20m"][0, :, :, 0].repeat(2, axis=0).repeat(2, axis=1)[view.core]
            assert np.abs(low - view.target[0])[:, 1:-1].max() <= 5.01 + 1e-3


def test_ground_is_the_same_again_with_the_same_seed(model, scene) -> None:
    windows = [[(b.window, b.split) for b in ground_of(model, scene, seed).blocks] for seed in (1, 1, 2)]
    assert windows[0] == windows[1] != windows[2]


def test_bad_inputs_are_one_sentence(model, scene, tmp_path) -> None:
    cross = tiny_cross_model(tmp_path / "cross")
    unknown = tiny_model(tmp_path / "unknown")
    small = write_scene(tmp_path / "small", scene_numbers(72))
    numbers = scene_numbers(240)
    del numbers["B11"]
    lacking = write_scene(tmp_path / "lacking", numbers)
    (tmp_path / "there").mkdir()
    for job, error, words in (
        (task(cross, scene, tmp_path / "o"), ModelError, "finer sensor"),
        (task(unknown, scene, tmp_path / "o"), ModelError, "cannot be trained further"),
        (task(model, small, tmp_path / "o"), InputError, "too small"),
        (task(model, lacking, tmp_path / "o"), ModelError, "B11 missing"),
        (task(model, scene, tmp_path / "there"), OutputError, "already exists"),
        (task(model, scene, tmp_path / "no" / "o"), OutputError, "does not exist"),
        (task(model, scene, tmp_path / "o", roi="0,0,1,1"), InputError, "outside"),
    ):
        with pytest.raises(error, match=words) as caught:
            jobs.run(job, Progress())
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")
    assert not (tmp_path / "o").exists()


def test_a_network_comes_out_of_its_folder_as_it_was(tmp_path) -> None:
    from s2sr_qgis.core.training.rebuild import rebuild

    options = {"blocks": 1, "features": 4, "context": 2, "guides": [[0], [3, 7]], "guide_kernel": 3}
    folder = network_folder(tmp_path / "d", "coarsenet", "60m", options)
    card = read_card(folder)
    network = rebuild(folder, card)
    assert network.model.count_params() == card.parameters
    told = dict(card.training["network_options"])
    for changed, words in (
        ({"blocks": 3}, "convolutions"),
        ({"wings": 2}, "cannot be trained further"),
        ({"context": 4}, "differs from its ONNX file"),  # the same shapes, another network
    ):
        card.training["network_options"] = {**told, **changed}
        with pytest.raises(ModelError, match=words):
            rebuild(folder, card)


@pytest.mark.slow
@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_can_be_adapted(name) -> None:
    pytest.importorskip("tensorflow")
    from s2sr_qgis.core.training.rebuild import rebuild

    folder = bundled_models()[name]
    assert rebuild(folder, read_card(folder)).model.count_params() == read_card(folder).parameters


def test_adapting_and_sharpening_in_one_go(model, scene, short, tmp_path) -> None:
    """The model that fits no ground is used as it is; tags and result say what was done."""
    six = network_folder(tmp_path / "net60", "dsen2", "60m", {"blocks": 1, "features": 4})
    options = {
        "scene": str(scene),
        "models": [str(model), str(six)],
        "scene_options": L1C,
        "bands": ["B02", "B05", "B09"],
    }
    progress, tiff = Recorder(), tmp_path / "a.tif"
    plain = tmp_path / "plain.tif"
    jobs.run(jobs.SuperResolveJob(output=plain, **options))
    found = jobs.run(jobs.SuperResolveJob(output=tiff, adapt=1, **options), progress)
    told = found["adapted"][model.name]
    assert told["adapted"]
    assert told["rmse_after"] < told["rmse_before"]
    assert found["adapted"]["net60"] == {"adapted": False}
    assert any(level == "warning" and "too small" in text and "used as it is" in text for level, text in progress.lines)
    assert progress.artifacts == {"output": str(tiff)}
    with rasterio.open(tiff) as ours, rasterio.open(plain) as before:
        name = f"{model.name} adapted, RMSE {told['rmse_before']:.1f} to {told['rmse_after']:.1f} DN"
        assert ours.tags()["MODELS"] == f"{name}, net60"
        assert ours.descriptions == ("B02", "B05", "B09")
        same = [bool((ours.read(band) == before.read(band)).all()) for band in (1, 2, 3)]
    assert same == [True, False, True]


def test_a_cross_sensor_model_cannot_be_adapted_on_the_way(scene, tmp_path) -> None:
    cross = tiny_cross_model(tmp_path / "cross")
    with pytest.raises(ModelError, match="finer sensor"):
        jobs.run(jobs.SuperResolveJob(scene=str(scene), output=tmp_path / "a.tif", models=[str(cross)], adapt=1))


def test_only_float32_can_be_adapted(scene, tmp_path) -> None:
    pytest.importorskip("tensorflow")
    with pytest.raises(InputError, match="float32 file alone, not int8"):
        jobs.run(jobs.SuperResolveJob(scene=str(scene), output=tmp_path / "a.tif", precision="int8", adapt=1))


def test_the_best_state_is_kept_and_overfitting_ends_early() -> None:
    pytest.importorskip("tensorflow")
    from s2sr_qgis.core.training.adapt import PATIENCE, Best

    class Optimizer:
        def finalize_variable_values(self, variables: list[Any]) -> None:
            variables[0] += 100  # the running mean

    class Network:
        stop_training = False
        optimizer = Optimizer()

        def __init__(self) -> None:
            self.trainable_variables = [0]

        def get_weights(self) -> list[int]:
            return list(self.trainable_variables)

        def set_weights(self, weights: list[int]) -> None:
            self.trainable_variables[:] = weights

    scores = iter([50.0, 49.0, 48.0, *range(60, 90)])
    best = Best(lambda: float(next(scores)))
    best.set_model(Network())
    looks = 0
    while not best.model.stop_training:
        looks += 1
        best.model.set_weights([looks])
        best.on_epoch_end(looks)
        assert best.model.get_weights() == [looks], "the training goes on from its own weights"
    assert (best.first, best.weights) == (50.0, [102])
    assert looks == 2 + PATIENCE


WITHOUT = """
import sys
sys.modules["keras"] = None
sys.path.insert(0, sys.argv[1])
from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import MissingPackageError
for job in (jobs.AdaptJob(model="sharpen_20m", scene="S", output="o"),
            jobs.SuperResolveJob(scene="S", output="o.tif", adapt=1)):
    try:
        jobs.run(job)
    except MissingPackageError as error:
        print(error)
"""


def test_without_the_training_packages_one_sentence_says_so() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(root)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("keras" in line and "s2sr[train]" in line for line in lines)


def test_a_part_of_a_job_moves_the_bar_within_its_share() -> None:
    seen: list[tuple[float, str]] = []

    class Bar(Recorder):
        def progress(self, percent: float, text: str = "") -> None:
            seen.append((percent, text))

    whole = Bar(stop_after=0)
    part = Part(Part(whole, 50, 100), 0, 50)
    part.progress(50, "half of the first half of the second half")
    assert seen == [(62.5, "half of the first half of the second half")]
    part.log("a")
    part.metric(loss=1.0)
    assert (whole.lines, whole.metrics) == ([("info", "a")], [{"loss": 1.0}])
    with pytest.raises(Cancelled):
        part.check()
