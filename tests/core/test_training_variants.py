"""8-bit and 16-bit variants: what is in the files, and whether they give what float32 gives."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from products import make_safe
from tiny_training import Recorder, train

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import InputError, ModelError
from s2sr_qgis.core.inference.card import read_card
from s2sr_qgis.core.inference.model import load_model

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")
onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def calibrated(run20, tmp_path_factory) -> tuple[Path, Recorder]:
    folder, said = tmp_path_factory.mktemp("models") / "calibrated", Recorder()
    jobs.run(jobs.ExportJob(run=run20, output=folder, saved_model=False, quantize=True), said)
    return folder, said


@pytest.fixture(scope="module")
def trained_run(run20, dataset20, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "q20"
    train(dataset20, folder, quantized=True, initial_weights=run20 / "best.weights.h5", epochs=1, learning_rate=1e-4)
    return folder


@pytest.fixture(scope="module")
def trained(trained_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "trained"
    jobs.run(jobs.ExportJob(run=trained_run, output=folder, saved_model=False, quantize=True))
    return folder


def bands(folder: Path, side: int = 120, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    pattern = 0.15 + 0.05 * np.sin(np.arange(side) / 5) + rng.normal(0, 0.02, (side, side))
    model = load_model(folder, device="cpu", precision="float32")
    return {
        band: pattern.reshape(side // (f := model.factor(band)), f, side // f, f).mean(axis=(1, 3)).astype(np.float32)
        for band in model.card.input_bands
    }


def difference(folder: Path, precision: str) -> tuple[float, float]:
    """Root mean square, in reflectance, of what a variant changes, and of the detail that the network adds."""
    seen = bands(folder)
    one, other = (load_model(folder, "cpu", precision=p).predict(seen) for p in ("float32", precision))
    changed = np.stack([other[band] - one[band] for band in one])
    added = np.stack([one[band] - seen[band].repeat(2, 0).repeat(2, 1) for band in one])
    return float(np.sqrt(np.mean(changed**2))), float(np.sqrt(np.mean(added**2)))


def operations(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("kind", ["calibrated", "trained"])
def test_an_eight_bit_variant_is_near_float32(kind, request) -> None:
    folder = request.getfixturevalue(kind)
    folder = folder[0] if kind == "calibrated" else folder
    changed, added = difference(folder, "int8")
    assert 0 < changed < 0.05 * added
    card = read_card(folder)
    figures = {file.precision: file.metrics for file in card.files}
    assert list(figures) == ["float32", "float16", "int8"]
    assert figures["int8"]["split"] == "test"
    assert figures["int8"]["rmse"] == pytest.approx(figures["int8"]["rmse_float32"], rel=0.05)
    loss = 100 * (figures["int8"]["rmse"] / figures["int8"]["rmse_float32"] - 1)
    assert figures["int8"]["loss_percent"] == pytest.approx(loss, abs=0.02)
    if kind == "trained":
        assert figures["int8"]["rounding_parity"] < 3
        # What was trained with rounded kernels is scored with them in float32 too.
        assert figures["int8"]["rmse_float32"] == pytest.approx(card.metrics["test_split"]["rmse_mean"], rel=0.05)
    else:
        assert figures["int8"]["rmse_float32"] == pytest.approx(card.metrics["test_split"]["rmse_mean"], rel=1e-3)


@pytest.mark.parametrize("kind", ["calibrated", "trained"])
def test_convolutions_of_whole_numbers(kind, request) -> None:
    """All of them: the first twice, for two bytes, the last with twice the channels; the trunk's sums as well."""
    folder = request.getfixturevalue(kind)
    folder = folder[0] if kind == "calibrated" else folder
    graph = onnx.load(folder / "model.int8.onnx").graph
    makers = {node.output[0]: node for node in graph.node}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found: Counter[str] = Counter()
    for node in graph.node:
        pairs = [makers.get(name) for name in node.input]
        if node.op_type == "Conv" and all(pair and pair.op_type == "DequantizeLinear" for pair in pairs):
            found.update(layer for layer in ("first", "block0_a", "block0_b", "last") if f"/{layer}" in node.name)
            kinds = [stored[pair.input[0]].data_type for pair in pairs[1:]]
            assert kinds == [onnx.TensorProto.INT8, onnx.TensorProto.INT32]
            assert makers[pairs[0].input[0]].op_type == "QuantizeLinear"
            assert stored[pairs[1].input[1]].dims[0] > 1  # a scale for each output channel
    assert found == {"first": 2, "block0_a": 1, "block0_b": 1, "last": 1}
    kernels = [tensor for tensor in graph.initializer if len(tensor.dims) == 4 and np.prod(tensor.dims) > 64]
    assert len(kernels) == 5  # the float kernels of whole-number convolutions are gone
    rounded = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    sums = [
        node.output[0] in rounded
        for node in graph.node
        if node.op_type == "Add" and all(makers[name].op_type == "DequantizeLinear" for name in node.input)
    ]
    # Of the two bytes, of the block, of the skip around the trunk; those of what leaves are in float.
    assert sums == [True, True, True]


def test_sixteen_bits_are_the_trunk_alone(calibrated) -> None:
    folder = calibrated[0]
    changed, added = difference(folder, "float16")
    assert changed < 2e-3 * added
    assert read_card(folder).files[1].metrics["parity"] < 1e-3
    plain, half = operations(folder / "model.onnx"), operations(folder / "model.float16.onnx")
    # One cast to 16 bits before the first convolution, one back behind the last; kernels need no cast any more.
    kernels = sum(t.data_type == onnx.TensorProto.FLOAT16 for t in onnx.load(folder / "model.onnx").graph.initializer)
    assert half["Cast"] == plain["Cast"] - kernels + 2
    assert {**half, "Cast": 0} == {**plain, "Cast": 0}


def test_the_filter_of_the_guides_stays_in_float(tmp_path) -> None:
    from s2sr_qgis.core.networks import build_network, element_spec
    from s2sr_qgis.core.training.export import write_onnx
    from s2sr_qgis.core.training.half import write_float16

    spec = element_spec({"input_10m": 4, "input_20m": 6}, {"target": 6})
    options = {"blocks": 1, "features": 8, "guides": [[0, 1]] * 6, "guide_kernel": 3}
    write_onnx(build_network("coarsenet", spec, options).model, tmp_path / "plain.onnx")
    write_float16(tmp_path / "plain.onnx", tmp_path / "half.onnx")
    graph = onnx.load(tmp_path / "half.onnx").graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kernels = {
        any(item.name == "group" and item.i > 1 for item in node.attribute): types.get(node.input[1])
        for node in graph.node
        if node.op_type == "Conv"
    }
    assert kernels == {True: onnx.TensorProto.FLOAT, False: onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_tiled_equals_untiled(calibrated, precision) -> None:
    folder = calibrated[0]
    model = load_model(folder, device="cpu", precision=precision)
    seen = bands(folder, side=240, seed=1)
    whole, tiled = model.predict(seen, tile_size=1000), model.predict(seen, tile_size=60)
    for band, image in whole.items():
        np.testing.assert_allclose(tiled[band], image, atol=1e-4)


def test_evaluation_and_super_resolution_take_the_variant_that_is_asked_for(calibrated, tmp_path) -> None:
    scene = make_safe(tmp_path, size=240, seed=9)
    folder = calibrated[0]
    found = {
        precision: jobs.run(jobs.EvaluateJob(model=str(folder), scene=str(scene), precision=precision, device="cpu"))
        for precision in ("float32", "int8")
    }
    assert [result["precision"] for result in found.values()] == ["float32", "int8"]
    assert found["int8"]["rmse"] == pytest.approx(found["float32"]["rmse"], rel=0.05)
    assert found["int8"]["rmse"] != found["float32"]["rmse"]
    job = jobs.SuperResolveJob(scene=str(scene), output=tmp_path / "o.tif", models=[str(folder)], precision="int8")
    jobs.run(job)
    assert (tmp_path / "o.tif").is_file()


def test_a_loss_beyond_the_bound_is_said(run20, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("s2sr_qgis.core.training.quantize.PERCENTILE", 60.0)
    said = Recorder()
    jobs.run(jobs.ExportJob(run=run20, output=tmp_path / "m", saved_model=False, quantize=True), said)
    assert any(level == "warning" and "loses" in text and "only on request" in text for level, text in said.lines)
    assert read_card(tmp_path / "m").files[2].loss > 1
    assert load_model(tmp_path / "m", device="cpu").precision == "float32"


def test_without_datasets_nothing_can_be_calibrated(run20, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run20, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "datasets": [str(tmp_path / "gone")]}))
    with pytest.raises(InputError, match="None of the run's datasets is where its configuration says"):
        jobs.run(jobs.ExportJob(run=run, output=tmp_path / "m", saved_model=False, quantize=True))
    assert not (tmp_path / "m").exists()


def test_a_file_that_is_not_the_trained_network_is_not_written(trained_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("s2sr_qgis.core.training.variants.ROUNDING", 0.0)
    with pytest.raises(ModelError, match=r"differs from the trained network by \d+ %"):
        jobs.run(jobs.ExportJob(run=trained_run, output=tmp_path / "m", saved_model=False, quantize=True))
    assert list(tmp_path.iterdir()) == []
