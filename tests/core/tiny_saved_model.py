"""The SavedModels of `tiny_cross_model` and `tiny_model`, with the cropped outputs of OTBTF's own Python API.

Run as a program in a Python with TensorFlow, which must stay out of a process that runs OTBTF.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

CROPS = (16, 32, 64, 96, 128)
ROOT = Path(__file__).parents[2]


def python_with_tensorflow() -> str | None:
    """A Python that has TensorFlow; none: there is none on this machine."""
    for python in (os.environ.get("S2SR_PYTHON"), sys.executable, str(ROOT / ".venv" / "bin" / "python")):
        if python and Path(python).is_file():
            found = "import importlib.util as u, sys; sys.exit(u.find_spec('tensorflow') is None)"
            # PYTHONPATH holds Orfeo ToolBox's bindings, for another Python.
            if not subprocess.run([python, "-c", found], env={**os.environ, "PYTHONPATH": ""}, check=False).returncode:
                return python
    return None


def add_saved_model(folder: Path, python: str) -> Path:
    """Write ``saved_model`` into a tiny model's folder, with the weights of its ONNX file."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(folder / "model.onnx").graph
    weights = folder.parent / f"{folder.name}.npz"
    np.savez(weights, **{tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer})
    names = [value.name for value in graph.input]
    command = [python, __file__, str(weights), str(folder / "saved_model"), *names]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "2"}, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    weights.unlink()
    return folder / "saved_model"


def _write(weights: dict[str, np.ndarray], target: str, names: list[str]) -> None:
    import tensorflow as tf

    first, second = (weights[name].transpose(2, 3, 1, 0) for name in ("first", "second"))  # height, width, in, out
    ratio = int(weights["scales"][-1])
    channels = {"input_lr": 4, "input_10m": 4, "input_20m": 6}

    def resized(image, factor):
        size = tf.shape(image)[1:3] * factor
        return tf.image.resize(image, size, "bilinear")

    def network(*tensors):
        fine, coarse = tensors[0], tensors[-1]
        features = tf.nn.relu(tf.nn.conv2d(fine, first, 1, "SAME"))
        detail = tf.nn.conv2d(features, second, 1, "SAME")
        if len(tensors) == 1:  # cross-sensor: a pixel shuffle
            detail = tf.nn.depth_to_space(detail, ratio)
        output = resized(coarse, ratio) + detail
        cropped = {f"sharpened_crop{crop}": output[:, crop:-crop, crop:-crop] for crop in CROPS}
        return {"sharpened": output, **cropped}

    signature = [tf.TensorSpec((None, None, None, channels[name]), tf.float32, name=name) for name in names]
    module = tf.Module()
    module.network = tf.function(network, input_signature=signature)
    tf.saved_model.save(module, target, signatures=module.network.get_concrete_function())


if __name__ == "__main__":
    with np.load(sys.argv[1]) as arrays:
        _write(dict(arrays), sys.argv[2], sys.argv[3:])
