"""The 16-bit variant of an ONNX file, for devices that are fast at it (CUDA, DirectML).

Only the trunk, from the first convolution to the last, computes in float16; statistics, local regression and the final
sum stay in float32, because they carry the reflectance itself and differences of squares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .stored import by_channel

TRUNK = ("Conv", "ConvTranspose", "Relu", "PRelu", "Add", "Mul", "Transpose", "DepthToSpace")
"""Operations that lose nothing to speak of in 16 bits, and take tensors of numbers alone."""


def write_float16(source: Path, target: Path) -> None:
    """Write the 16-bit variant of an ONNX file in float; inputs and outputs stay float32."""
    import onnx

    model = onnx.load(source)
    graph = model.graph
    inner = _trunk(graph)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    widened = {
        node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast" and node.input[0] in stored
    }
    made = {name for node in inner.values() for name in node.output}
    taken = {name for node in graph.node if node.output[0] not in inner for name in node.input}
    taken |= {value.name for value in graph.output}
    narrow: dict[str, str] = {}
    nodes: list[Any] = []

    def cast(name: str, to: int, result: str) -> None:
        nodes.append(onnx.helper.make_node("Cast", [name], [result], to=to))

    def narrowed(name: str) -> str:
        if name not in narrow:
            narrow[name] = f"{name}_half"
            if name in stored:
                values = onnx.numpy_helper.to_array(stored[name]).astype(np.float16)
                graph.initializer.append(onnx.numpy_helper.from_array(values, narrow[name]))
            elif name in widened:
                narrow[name] = widened[name]  # the file holds the kernels in 16 bits as it is
            elif name not in made:
                cast(name, onnx.TensorProto.FLOAT16, narrow[name])
        return narrow[name]

    for node in list(graph.node):
        if node.output[0] not in inner:
            nodes.append(node)
            continue
        node.input[:] = [narrowed(name) for name in node.input]
        result = node.output[0]
        node.output[0] = narrowed(result)
        nodes.append(node)
        if result in taken:
            cast(node.output[0], onnx.TensorProto.FLOAT, result)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    drop_unused(graph)
    onnx.checker.check_model(model)
    onnx.save(model, target)


def drop_unused(graph: Any) -> None:
    """Leave out what nothing leads to the outputs from: replaced constants, and the casts that widened them."""
    outputs = {value.name for value in graph.output}
    while True:
        used = {name for node in graph.node for name in node.input} | outputs
        unused = [node for node in graph.node if not used & set(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _trunk(graph: Any) -> dict[str, Any]:
    """The convolutions and what lies between them, by the name of their output."""
    # A filter of each channel alone is no part of the trunk: it works on reflectance.
    nodes = [node for node in graph.node if node.op_type in TRUNK and not by_channel(node)]
    behind: set[str] = set()
    for node in nodes:
        if "Conv" in node.op_type or behind & set(node.input):
            behind |= set(node.output)
    before: set[str] = set()
    inner: dict[str, Any] = {}
    for node in reversed(nodes):
        if "Conv" in node.op_type or (before & set(node.output) and behind & set(node.output)):
            before |= set(node.input)
            inner[node.output[0]] = node
    return inner
