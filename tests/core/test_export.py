"""From a run to a model folder, from published weights to one, and both at work."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from products import make_safe
from tiny_training import TENSORS, Recorder

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import Cancelled, InputError, ModelError, OutputError, TrainingError
from s2sr_qgis.core.inference.card import read_card, sha256
from s2sr_qgis.core.inference.model import load_model

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")

h5py = pytest.importorskip("h5py")


def reach(folder: Path) -> int:
    """The receptive radius of a model folder's ONNX file: each input perturbed at each phase of the coarsest grid."""
    model = load_model(folder, device="cpu")
    side = 120
    rng = np.random.default_rng(5)
    bands = {
        band: rng.uniform(0.02, 0.5, (side // model.factor(band),) * 2).astype(np.float32)
        for band in model.card.input_bands
    }
    plain = model.infer(bands)
    radius = 0
    for tensor in model.card.inputs:
        factor = tensor.coarser()
        for phase in range(model.multiple // factor):
            pixel = side // 2 // factor + phase
            changed = {**bands, **{band: bands[band].copy() for band in tensor.bands}}
            for band in tensor.bands:
                changed[band][pixel, pixel] += 0.3
            result = model.infer(changed)
            moved = np.any([result[band] != plain[band] for band in plain], axis=0)
            for axis in (0, 1):
                where = np.flatnonzero(moved.any(axis=axis))
                radius = max(radius, pixel * factor - where[0], where[-1] - (pixel + 1) * factor + 1)
    assert radius < side // 2 - model.multiple
    return int(radius)


@pytest.mark.parametrize("task", ["20m", "60m"])
def test_a_model_folder_is_complete(task, request) -> None:
    folder = request.getfixturevalue(f"model{task[:2]}")
    card = read_card(folder)
    names = {"card.yaml", "model.onnx", "model.float16.onnx"} | ({"saved_model"} if task == "20m" else set())
    assert {path.name for path in folder.iterdir()} == names
    assert card.name == folder.name
    assert card.task == task
    assert card.processing_levels == ["L1C"]
    assert [tensor.name for tensor in card.inputs] == TENSORS[task]
    assert card.files[0].sha256 == sha256(folder / "model.onnx")
    assert card.radius == reach(folder)
    assert card.multiple == {"20m": 2, "60m": 6}[task]
    assert max(card.metrics["parity"].values()) < 2e-5
    assert set(card.metrics["parity"]) == {"random", "real"} | ({"saved_model"} if task == "20m" else set())
    assert card.metrics["test_split"]["rmse_mean"] > 0
    assert card.training["sources"][0]["licence"] == "CC0-1.0"
    assert "source" not in card.training["sources"][0]  # a path of the machine that made the dataset


def test_onnx_has_free_sizes(model60) -> None:
    import onnx

    model = onnx.load(model60 / "model.onnx")
    assert model.opset_import[0].version == 17
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.output)}
    assert set(shapes) == {*TENSORS["60m"], "sharpened"}
    for dimensions in shapes.values():
        assert all(dimension.dim_param and not dimension.dim_value for dimension in dimensions[:3])
    one, other = load_model(model60, device="cpu"), {}
    for tensor in one.card.inputs:
        for band in tensor.bands:
            other[band] = np.full((120 // tensor.coarser(), 78 // tensor.coarser()), 0.1, np.float32)
    assert {image.shape for image in one.predict(other).values()} == {(120, 78)}


def test_the_saved_model_keeps_the_contract_of_otbtf(model20, run20) -> None:
    import tensorflow as tf

    served = tf.saved_model.load(str(model20 / "saved_model")).signatures["serving_default"]
    inputs = served.structured_input_signature[1]
    assert set(inputs) == set(TENSORS["20m"])
    assert [tuple(inputs[name].shape) for name in TENSORS["20m"]] == [(None, None, None, 4), (None, None, None, 6)]
    crops = (16, 32, 64, 96, 128, 160, 192)
    assert set(served.structured_outputs) == {"sharpened", *(f"sharpened_crop{crop}" for crop in crops)}
    rng = np.random.default_rng(0)
    tensors = {
        "input_10m": rng.uniform(200, 4000, (1, 280, 96, 4)).astype(np.float32),
        "input_20m": rng.uniform(200, 4000, (1, 140, 48, 6)).astype(np.float32),
    }
    result = {name: value.numpy() for name, value in served(**{k: tf.constant(v) for k, v in tensors.items()}).items()}
    assert result["sharpened"].shape == (1, 280, 96, 6)
    for crop in (16, 32):
        np.testing.assert_array_equal(result[f"sharpened_crop{crop}"], result["sharpened"][:, crop:-crop, crop:-crop])
    card = read_card(model20)
    bands = {b: tensors[t.name][0, :, :, i] * np.float32(1e-4) for t in card.inputs for i, b in enumerate(t.bands)}
    for index, image in enumerate(load_model(model20, device="cpu").infer(bands).values()):
        np.testing.assert_allclose(image, result["sharpened"][0, :, :, index] * 1e-4, atol=2e-5)


def test_super_resolution_with_exported_models(model20, model60, tmp_path) -> None:
    """Both tasks at once; the result does not depend on the tiles."""
    scene = make_safe(tmp_path, size=240, seed=8)
    images = []
    for name, more in (("whole", {"tile_size": 240}), ("tiled", {"tile_size": 60})):
        output = tmp_path / f"{name}.tif"
        jobs.run(
            jobs.SuperResolveJob(
                scene=str(scene), output=output, models=[str(model20), str(model60)], data_type="float32", **more
            )
        )
        with rasterio.open(output) as file:
            assert set(file.descriptions) >= {"B01", "B02", "B05", "B09", "B12"}
            assert file.count == 12
            images.append(file.read())
    assert images[0].shape == (12, 240, 240)
    np.testing.assert_allclose(images[1], images[0], atol=1e-4)


def test_evaluation_of_an_exported_model(model20, tmp_path) -> None:
    scene = make_safe(tmp_path, size=240, seed=9)
    result = jobs.run(jobs.EvaluateJob(model=str(model20), scene=str(scene)))
    assert 0 < result["ratio"] < 1.5
    assert list(result["bands"]) == ["B05", "B06", "B07", "B8A", "B11", "B12"]


def test_a_model_may_be_asked_in_two_orientations(run20, model20, tmp_path) -> None:
    folder = tmp_path / "twice"
    result = jobs.run(jobs.ExportJob(run=run20, output=folder, saved_model=False, orientations=2))
    assert max(result["parity"].values()) < 1e-4
    once, twice = read_card(model20), read_card(folder)
    assert twice.orientations == 2
    assert twice.mflop_per_pixel == pytest.approx(2 * once.mflop_per_pixel, abs=0.002)


def test_a_model_folder_is_never_overwritten(run20, model20, tmp_path) -> None:
    before = sha256(model20 / "card.yaml")
    with pytest.raises(OutputError, match="already exists"):
        jobs.run(jobs.ExportJob(run=run20, output=model20))
    assert sha256(model20 / "card.yaml") == before
    with pytest.raises(OutputError, match="does not exist"):
        jobs.run(jobs.ExportJob(run=run20, output=tmp_path / "no" / "m"))


def test_a_failed_export_leaves_nothing(run20, tmp_path, monkeypatch) -> None:
    from s2sr_qgis.core.training import export

    with pytest.raises(Cancelled):
        jobs.run(jobs.ExportJob(run=run20, output=tmp_path / "m"), Recorder(stop_after=0))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(export, "PARITY", -1.0)
    with pytest.raises(ModelError, match=r"Keras on random patches differ by .*; the model was not written\."):
        jobs.run(jobs.ExportJob(run=run20, output=tmp_path / "m"))
    assert not list(tmp_path.iterdir())


def test_what_is_no_finished_run_is_refused(run20, tmp_path) -> None:
    with pytest.raises(TrainingError, match=r"is no run folder: it has no run\.yaml"):
        jobs.run(jobs.ExportJob(run=tmp_path, output=tmp_path / "m"))
    run = tmp_path / "r"
    shutil.copytree(run20, run)
    (run / "best.weights.h5").write_bytes(b"no weights")
    with pytest.raises(TrainingError, match=r"best\.weights\.h5 are missing or damaged"):
        jobs.run(jobs.ExportJob(run=run, output=tmp_path / "m"))
    (run / "run.yaml").write_text("network: [")
    with pytest.raises(TrainingError, match=r"run\.yaml is damaged"):
        jobs.run(jobs.ExportJob(run=run, output=tmp_path / "m"))
    assert not (tmp_path / "m").exists()


def published(path: Path, task: str = "20m", blocks: int = 1, features: int = 8, whole: bool = False) -> list:
    """A weights file as Keras 2 writes it; returns kernels and biases. ``whole``: a model with its weights."""
    rng = np.random.default_rng(2)
    ends = {"20m": (10, 6), "60m": (12, 2)}[task]
    widths = [ends[0], *[features] * (2 * blocks + 1), ends[1]]
    layers = []
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole else file
        names = ["input_1", "input_2", "concatenate_1", *(f"conv2d_{i + 9}" for i in range(len(widths) - 1)), "add_1"]
        group.attrs["layer_names"] = [name.encode() for name in names]
        for name in sorted(names):  # HDF5 lists groups by name: conv2d_10 before conv2d_9
            layer = group.create_group(name)
            layer.attrs["weight_names"] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            name = f"conv2d_{index + 9}"
            kernel = rng.normal(0, 0.1, (3, 3, before, after)).astype(np.float32)
            bias = rng.normal(0, 0.1, after).astype(np.float32)
            group[name].attrs["weight_names"] = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
            group[name].create_dataset(f"{name}/kernel:0", data=kernel)
            group[name].create_dataset(f"{name}/bias:0", data=bias)
            layers.append((kernel, bias))
    return layers


@pytest.mark.parametrize(("task", "whole"), [("20m", False), ("60m", True)])
def test_published_dsen2_weights(task, whole, tmp_path) -> None:
    layers = published(tmp_path / "w.hdf5", task, whole=whole)
    folder = tmp_path / "m"
    result = jobs.run(jobs.ImportModelJob(source=tmp_path / "w.hdf5", output=folder, licence="GPL-3.0", name="dsen2"))
    card = read_card(folder)
    assert (result["task"], card.task, card.network, card.name) == (task, task, "dsen2", "dsen2")
    assert (card.licence, card.processing_levels) == ("GPL-3.0", ["L1C"])
    assert card.inputs[0].bands == ["B04", "B03", "B02", "B08"]
    assert card.parameters == sum(kernel.size + bias.size for kernel, bias in layers)
    # The authors' network by hand, on ground without detail: far from the edges every pixel has the same value.
    model = load_model(folder, device="cpu")
    values = {band: 0.05 + 0.01 * index for index, band in enumerate(card.input_bands)}
    bands = {band: np.full((48 // model.factor(band),) * 2, value, np.float32) for band, value in values.items()}
    x = np.array([values[band] for band in card.input_bands]) * 10000 / 2000
    steps = [kernel.sum(axis=(0, 1)) for kernel, _ in layers]
    first = np.maximum(x @ steps[0] + layers[0][1], 0)
    inner = np.maximum(first @ steps[1] + layers[1][1], 0) @ steps[2] + layers[2][1]
    wanted = (first + 0.1 * inner) @ steps[3] + layers[3][1] + x[-len(card.output_bands) :]
    found = model.predict(bands)
    for band, value in zip(card.output_bands, wanted, strict=True):
        np.testing.assert_allclose(found[band], value * 2000 / 10000, atol=1e-4)


def test_depth_and_width_are_read_from_the_file(tmp_path) -> None:
    from s2sr_qgis.core.training.published import _architecture, read_convolutions

    for blocks, features in ((6, 128), (3, 16)):
        path = tmp_path / f"{blocks}.hdf5"
        published(path, "60m", blocks, features)
        assert _architecture(read_convolutions(path), path) == ("60m", blocks, features)


def test_what_is_no_published_dsen2_is_refused(tmp_path, run20) -> None:
    published(tmp_path / "w.hdf5")
    (tmp_path / "text.hdf5").write_text("weights")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        file.create_group("conv").attrs["weight_names"] = [b"k", b"b"]
        file["conv"]["k"], file["conv"]["b"] = np.zeros((5, 5, 10, 6)), np.zeros(6)
    for name, more, error, words in (
        ("none.hdf5", {}, InputError, r"There is no .*none\.hdf5"),
        ("text.hdf5", {}, ModelError, "is no file of Keras or ONNX"),
        (run20 / "best.weights.h5", {}, ModelError, "no weights file of Keras 2"),
        ("other.hdf5", {}, ModelError, "does not hold DSen2: it has 1 convolutions with kernels of 5x5x10x6"),
        ("w.hdf5", {"scaling": 1}, InputError, "published DSen2 weights, whose scaling is known; leave it out"),
    ):
        with pytest.raises(error, match=words) as caught:
            jobs.run(jobs.ImportModelJob(source=tmp_path / name, output=tmp_path / "m", **more))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "m").exists()


def test_the_command_line_imports_dsen2(tmp_path) -> None:
    from typer.testing import CliRunner

    from training_cli.main import app

    published(tmp_path / "w.hdf5")
    result = CliRunner().invoke(app, ["import-model", str(tmp_path / "w.hdf5"), "-o", str(tmp_path / "m")])
    assert result.exit_code == 0, result.output
    assert yaml.safe_load((tmp_path / "m" / "card.yaml").read_text())["task"] == "20m"
    assert json.dumps(str(tmp_path / "m"))[1:-1] in result.output.replace("\n", "")
