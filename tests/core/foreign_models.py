"""Networks as other people write them: plain TensorFlow, Keras, ONNX; none of this project's code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import tensorflow as tf
from keras import layers
from onnx import TensorProto, helper, numpy_helper


def nearest_kernel(bands: int, side: int = 3) -> np.ndarray:
    """A convolution that mostly copies its input."""
    kernel = np.random.default_rng(0).normal(0, 0.01, (side, side, bands, bands)).astype(np.float32)
    kernel[side // 2, side // 2] += np.eye(bands, dtype=np.float32)
    return kernel


def tutorial_model(ratio: int = 2, bands: int = 4) -> keras.Model:
    """As otbtf.ModelBase makes it: normalisation inside, DN and reflectance out, cropped copies of both."""
    low = keras.Input((None, None, bands), name="input_lr")
    x = low * 0.0001
    x = layers.Conv2D(bands, 3, padding="same", name="first")(x)
    x = layers.UpSampling2D(ratio)(x)
    x = layers.Conv2D(bands, 5, padding="same", name="last")(x)
    outputs = {"reflectance": x, "sr": x * 10000.0}
    for name, tensor in list(outputs.items()):
        for crop in (16, 32, 64):
            label = f"{name}_crop{crop}"
            outputs[label] = layers.Activation("linear", name=label)(tensor[:, crop:-crop, crop:-crop, :])
    model = keras.Model({"input_lr": low}, outputs)
    model.get_layer("first").set_weights([nearest_kernel(bands), np.zeros(bands)])
    model.get_layer("last").set_weights([nearest_kernel(bands, 5), np.zeros(bands)])
    return model


def plain_model(ratio: int = 2, bands: int = 4, extra: Any = None) -> keras.Model:
    """DN in, DN out; one output."""
    low = keras.Input((None, None, bands), name="input_lr")
    x = layers.Conv2D(bands, 3, padding="same", name="first")(low)
    if extra:
        x = extra(x)
    model = keras.Model(low, layers.UpSampling2D(ratio, name="sr")(x))
    model.get_layer("first").set_weights([nearest_kernel(bands), np.zeros(bands)])
    return model


def sharpening_module() -> tf.Module:
    """Two inputs, 10 m and 20 m; the 20 m bands at 10 m."""

    class Sharpen(tf.Module):
        def __init__(self) -> None:
            self.kernel = tf.Variable(np.random.default_rng(1).normal(0, 0.01, (3, 3, 10, 6)).astype(np.float32))

        @tf.function(
            input_signature=[
                tf.TensorSpec((None, None, None, 6), tf.float32, name="b20"),
                tf.TensorSpec((None, None, None, 4), tf.float32, name="b10"),
            ]
        )
        def serve(self, b20: Any, b10: Any) -> Any:
            up = tf.repeat(tf.repeat(b20, 2, axis=1), 2, axis=2)
            return {"all_20m": up + tf.nn.conv2d(tf.concat([b10, up], -1), self.kernel, 1, "SAME")}

    return Sharpen()


def v1_model(folder: Path) -> None:
    """As TensorFlow 1 wrote it, with variables that are no resources."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, (None, None, None, 4), name="some_placeholder")
        kernel = tf.compat.v1.get_variable("kernel", initializer=nearest_kernel(4), use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        y = tf.repeat(tf.repeat(tf.nn.conv2d(x, kernel, 1, "SAME"), 2, axis=1), 2, axis=2, name="sr")
        tf.compat.v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})


def onnx_model(path: Path, bands: int = 4, domain: str = "", external: bool = False, fixed: int | None = None) -> None:
    """As PyTorch exports it: NCHW, a convolution and a depth-to-space by 2."""
    kernel = np.zeros((bands * 4, bands, 3, 3), np.float32)
    for band in range(bands):
        kernel[band * 4 : band * 4 + 4, band, 1, 1] = 1.0
    kernel += np.random.default_rng(0).normal(0, 0.01, kernel.shape).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["deep"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["deep"], ["super"], blocksize=2, mode="CRD"),
    ]
    if domain:
        nodes.insert(0, helper.make_node("Shell", ["image"], ["other"], domain=domain))
    side = fixed or "h"
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", bands, side, fixed or "w"])],
        [helper.make_tensor_value_info("super", TensorProto.FLOAT, ["n", bands, "H", "W"])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    imports = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    if external:
        onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    else:
        onnx.save(model, path)
