"""Kernels in a model's file: bytes where 8-bit training has rounded them, else float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")
onnx = pytest.importorskip("onnx")

import keras  # noqa: E402
import onnxruntime  # noqa: E402

from s2sr_qgis.core.networks import build_network, element_spec  # noqa: E402
from s2sr_qgis.core.networks.quantized import Ranges  # noqa: E402
from s2sr_qgis.core.training.export import write_onnx  # noqa: E402
from s2sr_qgis.core.training.half import write_float16  # noqa: E402
from s2sr_qgis.core.training.stored import constants, round_kernels  # noqa: E402

STEP = np.array([0.013], np.float32), 128


def network() -> keras.Model:
    spec = element_spec({"input_10m": 4, "input_20m": 6}, {"target": 6})
    return build_network("coarsenet", spec, {"blocks": 1, "features": 16}).model


def kernels(model: keras.Model) -> list[np.ndarray]:
    return [layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]


@pytest.mark.parametrize("trained", [False, True])
def test_a_file_holds_the_rounded_kernels(tmp_path: Path, trained: bool) -> None:
    model = network()
    if trained:  # as a training with 8 bits in the loop leaves them; what enters has a scale for each channel
        layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        for layer in layers:
            entering = STEP
            if layer is layers[0]:
                entering = np.linspace(0.01, 0.05, layer.kernel.shape[2], dtype=np.float32), 128
            layer.kernel.assign(Ranges.of(layer.kernel.numpy(), entering, STEP).float_kernel())
    before = kernels(model)
    round_kernels(model)
    for old, new in zip(before, kernels(model), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-7)
    write_onnx(model, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    types = [tensor.data_type for tensor in graph.initializer if np.prod(tensor.dims) >= 1024]
    bytes_, halves = onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16
    assert sorted(types) == sorted([halves, bytes_, bytes_, bytes_] if trained else [halves] * 4)
    stored = [constants(graph)[node.input[1]] for node in graph.node if node.op_type == "Conv"]
    for kernel, found in zip(kernels(model), stored, strict=True):
        np.testing.assert_array_equal(found.transpose(2, 3, 1, 0), kernel)
    rng = np.random.default_rng(0)
    inputs = {
        "input_10m": rng.uniform(200, 4000, (1, 48, 48, 4)).astype(np.float32),
        "input_20m": rng.uniform(200, 4000, (1, 24, 24, 6)).astype(np.float32),
    }
    expected = np.asarray(model.predict_on_batch(inputs)["sharpened"])
    write_float16(tmp_path / "model.onnx", tmp_path / "half.onnx")
    for name, bound in (("model.onnx", 0.02), ("half.onnx", 5)):
        output = onnxruntime.InferenceSession(tmp_path / name).run(None, inputs)[0]
        assert np.abs(output - expected).max() < bound
