"""How a model's ONNX file holds its kernels: as float16, cast to float32 when it is loaded, which is half the size."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from ..networks.base import CONVOLUTIONS

Array = npt.NDArray[Any]

LARGE = 1024
"""Constants with fewer values are stored as they are."""


def round_kernels(model: keras.Model) -> None:
    """Round the kernels to what float16 holds (11 significant bits), so that files can store them as that."""
    for layer in model.layers:
        if isinstance(layer, CONVOLUTIONS):
            layer.set_weights([_as_half(values).astype(np.float32) for values in layer.get_weights()])


def halve(model: Any) -> None:
    """Store an ONNX model's rounded kernels as float16, each with a cast behind it."""
    import onnx

    graph = model.graph
    for tensor in list(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        half = _as_half(values) if values.dtype == np.float32 else values
        # Only what was rounded before: the file must hold the very network that the parity check has seen.
        if half.dtype != np.float16 or not np.array_equal(half.astype(np.float32), values):
            continue
        stored = onnx.numpy_helper.from_array(half, f"{tensor.name}_float16")
        graph.node.insert(0, onnx.helper.make_node("Cast", [stored.name], [tensor.name], to=onnx.TensorProto.FLOAT))
        graph.initializer.remove(tensor)
        graph.initializer.append(stored)
    onnx.checker.check_model(model)


def constants(graph: Any) -> dict[str, Array]:
    """What an ONNX graph stores, by its name and by that of the cast behind it."""
    import onnx

    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    return {**found, **{name: found[source] for name, source in casts.items() if source in found}}


def by_channel(node: Any) -> bool:
    """Whether an ONNX convolution filters each channel alone."""
    return any(item.name == "group" and item.i > 1 for item in node.attribute)


def _as_half(values: Array) -> Array:
    fits = values.size >= LARGE and np.abs(values).max() <= np.finfo(np.float16).max
    return values.astype(np.float16) if fits else values
