"""Networks of other tools become model folders; files that may run code or read others are refused."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from products import make_safe
from tiny_training import Recorder

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")

import h5py  # noqa: E402
import keras  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
import tensorflow as tf  # noqa: E402
from foreign_models import onnx_model, plain_model, sharpening_module, tutorial_model, v1_model  # noqa: E402
from keras import layers  # noqa: E402

from s2sr_qgis.core import jobs  # noqa: E402
from s2sr_qgis.core.errors import InputError, ModelError  # noqa: E402
from s2sr_qgis.core.inference.card import read_card  # noqa: E402

FOUR = ["B04", "B03", "B02", "B08"]
CROSS: dict[str, Any] = {
    "bands": FOUR, "output_bands": FOUR, "scaling": 1e-4, "resolution": 10, "processing_level": "L1C",
}  # fmt: skip
SIX = ["B05", "B06", "B07", "B8A", "B11", "B12"]


def imported(source: Path, output: Path, progress: Any = None, **options: Any) -> dict[str, Any]:
    return jobs.run(jobs.ImportModelJob(source=source, output=output, **{**CROSS, **options}), progress)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(200, 4000, shape).astype(np.float32)


def onnx_result(folder: Path, **tensors: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(["sharpened"], tensors)[0]


def test_a_saved_model_of_otbtf_s_python_api(tmp_path) -> None:
    model = tutorial_model()
    tf.saved_model.save(model, str(tmp_path / "served"), {"serving_default": serving(model)})
    with pytest.raises(InputError, match="has the outputs reflectance, sr; name one of them with output_name"):
        imported(tmp_path / "served", tmp_path / "m")
    result = imported(tmp_path / "served", tmp_path / "m", output_name="sr", saved_model=True)
    card = read_card(tmp_path / "m")
    assert (result["scale"], result["radius"], result["multiple"]) == (2, 2, 1)
    assert (card.task, card.scale, card.radius, card.scaling) == ("cross-sensor", 2, 2, 1e-4)
    assert [(t.name, t.bands, t.resolution) for t in card.inputs] == [("input_lr", FOUR, 10)]
    assert [(t.name, t.bands, t.resolution) for t in card.outputs] == [("sharpened", FOUR, 5)]
    assert not result["warnings"]
    assert max(result["parity"].values()) < 1e-5
    image = noise(1, 40, 52, 4)
    expected = np.asarray(model({"input_lr": image})["sr"])
    np.testing.assert_allclose(onnx_result(tmp_path / "m", input_lr=image), expected, atol=0.05)
    # The other output, in reflectance, for those who name it.
    other = imported(tmp_path / "served", tmp_path / "r", output_name="reflectance", output_scaling=1)
    assert not other["warnings"]
    np.testing.assert_allclose(onnx_result(tmp_path / "r", input_lr=image), expected, atol=0.05)


def serving(model: keras.Model) -> Any:
    specs = {t.name: tf.TensorSpec((None, None, None, t.shape[-1]), tf.float32, name=t.name) for t in model.inputs}

    @tf.function(input_signature=[specs])
    def serve(tensors: Any) -> Any:
        return dict(model(tensors))

    return serve.get_concrete_function()


def test_the_formats_give_the_same(tmp_path) -> None:
    model = plain_model()
    model.export(tmp_path / "exported", verbose=False)
    model.save(tmp_path / "net.keras")
    model.save(tmp_path / "net.h5")
    v1_model(tmp_path / "v1")
    onnx_model(tmp_path / "net.onnx")
    image = noise(1, 24, 30, 4)
    expected = np.asarray(model(image))
    for source in ("exported", "net.keras", "net.h5", "v1"):
        result = imported(tmp_path / source, tmp_path / f"m_{source}")
        assert (result["scale"], result["radius"]) == (2, 1), source
        name = read_card(tmp_path / f"m_{source}").inputs[0].name
        np.testing.assert_allclose(onnx_result(tmp_path / f"m_{source}", **{name: image}), expected, atol=0.05)
    result = imported(tmp_path / "net.onnx", tmp_path / "m_onnx")
    assert (result["scale"], result["radius"], result["warnings"]) == (2, 1, [])
    plain = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (expected,) = plain.run(None, {"image": image.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(onnx_result(tmp_path / "m_onnx", image=image), expected.transpose(0, 2, 3, 1), atol=0.01)


def test_a_network_of_several_inputs_sharpens(tmp_path) -> None:
    module = sharpening_module()
    tf.saved_model.save(module, str(tmp_path / "net"), module.serve)
    options = {"resolution": None, "output_bands": SIX}
    bands = [f"b10={FOUR[0]}", *FOUR[1:], f"b20={SIX[0]}", *SIX[1:]]
    with pytest.raises(InputError, match=r"do not fit the network's inputs b\w+ \(\d channels\), b\w+ \(\d channels\)"):
        imported(tmp_path / "net", tmp_path / "m", **options)
    result = imported(tmp_path / "net", tmp_path / "m", bands=bands, **options)
    card = read_card(tmp_path / "m")
    assert (result["task"], result["scale"], result["multiple"], result["radius"]) == ("20m", 1, 2, 1)
    assert [(t.name, t.resolution) for t in card.inputs] == [("b10", 10), ("b20", 20)]
    scene, output = make_safe(tmp_path, size=120, seed=8), tmp_path / "out.tif"
    jobs.run(jobs.SuperResolveJob(scene=str(scene), output=output, models=[str(tmp_path / "m")]))
    with rasterio.open(output) as file:
        assert {"B05", "B12"} <= set(file.descriptions)
    found = jobs.run(jobs.EvaluateJob(model=str(tmp_path / "m"), scene=str(scene)))
    assert list(found["bands"]) == SIX


def test_what_the_file_does_not_say_must_be_passed(tmp_path) -> None:
    plain_model().save(tmp_path / "net.keras")
    with pytest.raises(InputError, match=r"pass also bands \(of the inputs input_lr \(4 channels\)\), output_bands"):
        jobs.run(jobs.ImportModelJob(source=tmp_path / "net.keras", output=tmp_path / "m"))
    with pytest.raises(InputError, match="output is 2 times finer than its input; pass the pixel size"):
        imported(tmp_path / "net.keras", tmp_path / "m", resolution=None)
    with pytest.raises(InputError, match="has no output 'x'; its outputs are sr"):
        imported(tmp_path / "net.keras", tmp_path / "m", output_name="x")
    with pytest.raises(InputError, match="'B99' is no Sentinel-2 band"):
        imported(tmp_path / "net.keras", tmp_path / "m", bands=["B99", *FOUR[1:]])
    with pytest.raises(ModelError, match="output has 4 bands, but 3 are named"):
        imported(tmp_path / "net.keras", tmp_path / "m", output_bands=FOUR[:3])
    assert not (tmp_path / "m").exists()


def test_a_wrong_scaling_or_order_of_bands_is_logged(tmp_path) -> None:
    model = tutorial_model()
    tf.saved_model.save(model, str(tmp_path / "served"), {"serving_default": serving(model)})
    said = Recorder()
    result = imported(tmp_path / "served", tmp_path / "m", said, output_name="reflectance")
    assert "check the scaling of input and output" in result["warnings"][0]
    assert ("warning", result["warnings"][0]) in said.lines
    assert read_card(tmp_path / "m").training["warnings"] == result["warnings"]
    result = imported(tmp_path / "served", tmp_path / "n", output_name="sr", output_bands=["B02", "B03", "B04", "B08"])
    assert "Its output for B02 looks like B04: check the order of the bands" in result["warnings"][0]


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (lambda x: x + keras.ops.mean(x, axis=(1, 2), keepdims=True), "depends on where|depends on pixels more than"),
        (layers.Conv2D(4, 3, padding="valid"), "no whole multiple"),
        (layers.MaxPooling2D(4), "no whole multiple"),
    ],
)
def test_a_network_that_tiles_would_change_is_refused(tmp_path, extra, words) -> None:
    plain_model(extra=extra).save(tmp_path / "net.keras")
    with pytest.raises(ModelError, match=words) as caught:
        imported(tmp_path / "net.keras", tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_a_network_that_halves_its_input_needs_even_sides(tmp_path) -> None:
    def down_and_up(x: Any) -> Any:
        return layers.Add()([x, layers.UpSampling2D(4)(layers.AveragePooling2D(4)(x))])

    plain_model(extra=down_and_up).save(tmp_path / "net.keras")
    result = imported(tmp_path / "net.keras", tmp_path / "m", scaling=1e-4)
    assert (result["multiple"], result["scale"], result["radius"]) == (4, 2, 4)


# What is not opened


def refused(source: Path, tmp_path: Path, words: str, **options: Any) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelError, match=words) as caught:
        imported(source, tmp_path / "refused", **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_lambda_layers_are_refused(tmp_path, suffix) -> None:
    plain_model(extra=layers.Lambda(lambda x: x * 1.0)).save(tmp_path / f"net.{suffix}")
    refused(tmp_path / f"net.{suffix}", tmp_path, "is not opened: it has a Lambda layer, which may run code")


@keras.saving.register_keras_serializable("somebody")
class Own(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_custom_layers_are_refused(tmp_path, suffix) -> None:
    plain_model(extra=Own()).save(tmp_path / f"net.{suffix}")
    refused(tmp_path / f"net.{suffix}", tmp_path, "is not opened: it has '(Own|somebody>Own)'")


def rewritten(path: Path, change: Any, more: dict[str, bytes] | None = None) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts |= {"config.json": json.dumps(config).encode()} | (more or {})
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("activation", {"class_name": "function", "config": "system", "module": "os", "registered_name": "function"}),
        ("kernel_initializer", {"class_name": "Popen", "config": {"args": "touch x"}, "module": "subprocess"}),
        ("kernel_regularizer", {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}),
        ("bias_initializer", {"class_name": "get_file", "config": {"fname": "/etc/passwd"}, "module": "keras.utils"}),
        ("activity_regularizer", {"class_name": "TFSMLayer", "config": {"filepath": "/tmp"}, "module": "keras.layers"}),
    ],
)
def test_a_keras_file_that_names_code_is_refused(tmp_path, name, value) -> None:
    plain_model().save(tmp_path / "net.keras")

    def change(config: Any) -> None:
        (layer,) = [layer for layer in config["config"]["layers"] if layer["class_name"] == "Conv2D"]
        layer["config"][name] = value

    rewritten(tmp_path / "net.keras", change)
    refused(tmp_path / "net.keras", tmp_path, "is not opened")


def test_a_keras_file_with_other_entries_is_refused(tmp_path) -> None:
    plain_model().save(tmp_path / "net.keras")
    rewritten(tmp_path / "net.keras", lambda config: None, {"../../x.pkl": b"\x80\x04."})
    refused(tmp_path / "net.keras", tmp_path, r"does not hold \.\./\.\./x\.pkl")


@pytest.mark.parametrize("kind", ["external link", "external storage", "virtual dataset"])
@pytest.mark.parametrize("source", ["net.h5", "weights.hdf5", "net.keras"])
def test_hdf5_that_reads_other_files_is_refused(tmp_path, source, kind) -> None:
    (tmp_path / "secret.txt").write_bytes(b"root:x:0:0:root:/root:/bin/bash\n" * 8)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(4, np.float32)
    path = tmp_path / source
    if source == "weights.hdf5":
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"conv"]
            file.create_group("conv").attrs["weight_names"] = [b"k", b"b"]
            file["conv"]["k"] = np.zeros((3, 3, 10, 6))
    else:
        plain_model().save(path)
    inner = tmp_path / "model.weights.h5" if source == "net.keras" else path
    if source == "net.keras":
        with zipfile.ZipFile(path) as archive:
            inner.write_bytes(archive.read("model.weights.h5"))
    with h5py.File(inner, "a") as file:
        group = file.require_group("conv")
        if kind == "external link":
            group["b"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        elif kind == "external storage":
            group.create_dataset("b", (6,), "f4", external=[(str(tmp_path / "secret.txt"), 0, 24)])
        else:
            sheet = h5py.VirtualLayout((4,), "f4")
            sheet[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (4,))
            group.create_virtual_dataset("b", sheet)
    if source == "net.keras":
        rewritten(path, lambda config: None, {"model.weights.h5": inner.read_bytes()})
    refused(path, tmp_path, f"is not opened: its entry '/conv/b' .*{kind}.*, from another file")


def test_tensorflow_operations_that_run_code_or_reach_files_are_refused(tmp_path) -> None:
    target = tmp_path / "written.txt"

    def save(name: str, inside: Any) -> None:
        class Net(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec((None, None, None, 4), tf.float32, name="x")])
            def serve(self, x: Any) -> Any:
                return {"y": tf.repeat(tf.repeat(inside(x), 2, axis=1), 2, axis=2)}

        net = Net()
        tf.saved_model.save(net, str(tmp_path / name), net.serve)

    def write(x: Any) -> Any:
        with tf.control_dependencies([tf.io.write_file(str(target), "pwned")]):
            return tf.identity(x)

    bad = {
        "EagerPyFunc": lambda x: tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), x.shape),
        "PyFunc": lambda x: tf.ensure_shape(tf.numpy_function(lambda y: y, [x], tf.float32), x.shape),
        "ReadFile": lambda x: x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32),
        "WriteFile": write,
        "PrintV2": lambda x: (tf.print("x", output_stream=f"file://{target}"), x)[1],
        "MatchingFiles": lambda x: x + tf.cast(tf.size(tf.io.matching_files("/etc/*")), tf.float32),
    }
    for operation, inside in bad.items():
        save(operation, inside)
        refused(tmp_path / operation, tmp_path, f"has the TensorFlow operation '{operation}'")
    assert not target.exists()


def test_a_graph_of_tensorflow_1_that_reads_another_checkpoint_is_refused(tmp_path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    v1_model(tmp_path / "net")
    path = tmp_path / "net" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = saved.meta_graphs[0].graph_def
    (node,) = [node for node in graph.node if node.op == "RestoreV2"]
    other = graph.node.add(name="elsewhere", op="Const")
    other.attr["dtype"].type = tf.string.as_datatype_enum
    other.attr["value"].tensor.CopyFrom(tf.make_tensor_proto("/somewhere/else"))
    node.input[0] = "elsewhere"
    path.write_bytes(saved.SerializeToString())
    refused(tmp_path / "net", tmp_path, "reads weights from a file of another name")


def test_links_out_of_the_folder_are_refused(tmp_path) -> None:
    plain_model().export(tmp_path / "net", verbose=False)
    shutil.move(tmp_path / "net" / "variables", tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", tmp_path / "net" / "variables")
    refused(tmp_path / "net", tmp_path, "is a link that leads out of the model's folder")


def test_onnx_with_other_files_or_custom_operations_is_refused(tmp_path) -> None:
    onnx_model(tmp_path / "custom.onnx", domain="evil.ops")
    refused(tmp_path / "custom.onnx", tmp_path, "its operation 'Shell' of 'evil.ops' is none of ONNX's own")
    onnx_model(tmp_path / "context.onnx", domain="com.microsoft")
    refused(tmp_path / "context.onnx", tmp_path, "its operation 'Shell' of 'com.microsoft'")
    onnx_model(tmp_path / "external.onnx", external=True)
    refused(tmp_path / "external.onnx", tmp_path, "its weights 'kernel' are in another file")
    onnx_model(tmp_path / "fixed.onnx", fixed=64)
    refused(tmp_path / "fixed.onnx", tmp_path, "fixed to 64 x 64 pixels")
    inner = onnx.load(tmp_path / "custom.onnx")
    branch = onnx.helper.make_graph([inner.graph.node[0]], "g", [], [])
    inner.graph.node[0].CopyFrom(onnx.helper.make_node("If", ["image"], ["other"], then_branch=branch))
    onnx.save(inner, tmp_path / "inner.onnx")
    refused(tmp_path / "inner.onnx", tmp_path, "its operation 'Shell'")


@pytest.mark.parametrize("name", ["net.pkl", "net.pt", "net.onnx", "net.keras", "net.h5", "net"])
def test_what_is_no_network_is_refused(tmp_path, name) -> None:
    path = tmp_path / name
    if name == "net":
        path.mkdir()
        refused(path, tmp_path, "is no SavedModel")
        (path / "saved_model.pb").write_bytes(b"\xff" * 50)
        refused(path, tmp_path, r"saved_model\.pb is damaged")
        return
    path.write_bytes(b"\x80\x04\x95nonsense")
    words = "is no ONNX model, or damaged" if name == "net.onnx" else "can run code when they are opened"
    refused(path, tmp_path, words)
    with pytest.raises(InputError, match="There is no"):
        imported(tmp_path / "absent.onnx", tmp_path / "m")
