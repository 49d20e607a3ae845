"""How a model's ONNX file holds its kernels: in 8 or 16 bits, widened when it is loaded, a quarter or half the size."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from ..networks.base import CONVOLUTIONS
from ..networks.quantized import LARGEST_WEIGHT

Array = npt.NDArray[Any]

LARGE = 1024
"""Constants with fewer values are stored as they are."""

NEAR = 1e-2
"""How near to whole numbers of steps a kernel is that 8-bit training has rounded."""


def round_kernels(model: keras.Model) -> None:
    """Round the kernels to what files can store: those that 8-bit training has rounded to whole numbers of steps, one
    step for each output channel, the others to float16 (11 significant bits)."""
    for layer in model.layers:
        if isinstance(layer, CONVOLUTIONS):
            trained, *bias = layer.get_weights()
            kernel = _as_half(trained)
            if isinstance(layer, keras.layers.Conv2D) and trained.size >= LARGE:
                whole, steps = _in_steps(trained, (0, 1, 2))
                if np.abs(trained / steps - whole).max() < NEAR:
                    kernel = whole * steps
            layer.set_weights([values.astype(np.float32) for values in (kernel, *map(_as_half, bias))])


def pack_kernels(model: Any) -> None:
    """Store an ONNX model's rounded kernels as bytes and steps, or as float16, widened behind that."""
    import onnx

    graph = model.graph

    def store(values: Array, name: str) -> str:
        graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        return name

    for tensor in list(graph.initializer):
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < LARGE:
            continue
        whole, steps = _in_steps(values, tuple(range(1, values.ndim)))
        half = _as_half(values)
        # Only what was rounded before: the file must hold the very network that the parity check has seen.
        if values.ndim == 4 and np.array_equal(whole * steps, values):
            numbers = f"{tensor.name}_whole"
            source, factors = store(whole.astype(np.int8), f"{tensor.name}_int8"), store(steps, f"{tensor.name}_steps")
            graph.node.insert(0, onnx.helper.make_node("Mul", [numbers, factors], [tensor.name]))
        elif np.array_equal(half.astype(np.float32), values):
            numbers, source = tensor.name, store(half, f"{tensor.name}_float16")
        else:
            continue
        graph.node.insert(0, onnx.helper.make_node("Cast", [source], [numbers], to=onnx.TensorProto.FLOAT))
        graph.initializer.remove(tensor)
    onnx.checker.check_model(model)


def constants(graph: Any) -> dict[str, Array]:
    """What an ONNX graph stores, by its name, by that of the cast behind it, and of the product behind that."""
    import onnx

    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
        elif node.op_type == "Mul" and all(name in found for name in node.input):
            found[node.output[0]] = np.multiply(*(found[name] for name in node.input), dtype=np.float32)
    return found


def by_channel(node: Any) -> bool:
    """Whether an ONNX convolution filters each channel alone."""
    return any(item.name == "group" and item.i > 1 for item in node.attribute)


def _in_steps(values: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Values in whole steps, float32, and the steps: the largest value along the axes is `LARGEST_WEIGHT` of them.

    A step has 16 significant bits, so that as many of them are an exact float32, and the same step is found again.
    """
    largest = np.maximum(np.abs(values).max(axis=axes, keepdims=True), np.float32(1e-12))
    mantissa, exponent = np.frexp(largest / LARGEST_WEIGHT)
    steps = np.ldexp(np.rint(mantissa * 2**16) / 2**16, exponent).astype(np.float32)
    whole = np.clip(np.rint(values / steps), -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.float32)
    return whole, steps


def _as_half(values: Array) -> Array:
    fits = values.size >= LARGE and np.abs(values).max() <= np.finfo(np.float16).max
    return values.astype(np.float16) if fits else values
