"""The 8-bit variant of an ONNX file: its convolutions between pairs of QuantizeLinear and DequantizeLinear.

ONNX Runtime fuses each such convolution into one of whole numbers (QLinearConv): activations 8 bits unsigned with one
scale, kernels 8 bits signed with a scale for each output channel, biases 32 bits; residual sums likewise. Everything
else, the statistics, the local regression and the final sum, stays in float. The ranges are those that a training with
quantisation in the loop has learnt, or are taken from what the convolutions see on real patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from ..networks.quantized import LARGEST_WEIGHT, LEVELS, SIGNED_ZERO, Ranges, Steps
from .qdq import Rewriter
from .stored import constants

Array = npt.NDArray[Any]
Rule = Literal["minmax", "percentile", "mse"]
"""How calibration finds a range: up to the largest value, up to a quantile, or with the least mean squared error of
rounding and clipping."""

PERCENTILE = 0.1
"""Percent of the values that the rule `percentile` lets be clipped."""

SHARES = np.linspace(1.0, 0.1, 46)
"""Parts of the largest range that the rule `mse` tries."""

SAMPLE = 2**14
"""Pixels that a range is found from."""

BATCH = 8


def write_int8(
    model: keras.Model, source: Path, target: Path, ranges: Mapping[str, Ranges], *, sums: bool = True
) -> int:
    """Write the 8-bit variant of an ONNX file.

    ``source``: the network in float, as `export.write_onnx` has written ``model``. ``ranges``: by the layers' names;
    layers that are not named stay in float. ``sums``: round the residual sums too; the network is a third faster then
    for a few thousandths of its accuracy. Returns how many convolutions are 8-bit.
    """
    import onnx

    graph = onnx.load(source)
    nodes = convolutions(graph, model)
    rewriter = Rewriter(graph.graph, {nodes[name]: value for name, value in ranges.items() if name in nodes}, sums)
    rewriter.run()
    onnx.checker.check_model(graph)
    onnx.save(graph, target)
    return len(rewriter.ranges)


def convolutions(graph: Any, model: keras.Model) -> dict[str, str]:
    """The ONNX node's name of each convolution of the Keras network, by the layer's name.

    Converters rename and reorder, so the kernel tells which is which; a convolution that another operation has been
    folded into is in the ONNX file alone and left out.
    """
    stored = constants(graph.graph)
    waiting = [
        (node, stored[node.input[1]]) for node in graph.graph.node if node.op_type == "Conv" and node.input[1] in stored
    ]
    found: dict[str, str] = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.transpose(layer.get_weights()[0], (3, 2, 0, 1))
            for place, (node, values) in enumerate(waiting):
                if values.shape == kernel.shape and np.array_equal(values, kernel):
                    found[layer.name] = node.name
                    del waiting[place]
                    break
    return found


def calibrated(
    model: keras.Model, patches: dict[str, Array], rule: Rule = "percentile", *, ends: bool = True, each: bool = True
) -> dict[str, Ranges]:
    """Ranges of a plain network's convolutions on real patches, by the layers' names.

    ``patches``: inputs by name, (n, h, w, c), DN. ``ends``: the first and the last convolution too. ``each``: there
    two bytes and a scale for each channel where values enter and leave; one byte costs more accuracy there than
    everywhere else together.
    """
    layers = [layer for layer in model.layers if type(layer) is keras.layers.Conv2D]
    first, last = layers[0], layers[-1]
    layers = layers if ends else layers[1:-1]
    tensors = {id(tensor): tensor for layer in layers for tensor in (layer.input, _behind(layer))}
    seen = dict(zip(tensors, _sampled(model, list(tensors.values()), patches), strict=True))
    found = {}
    for layer in layers:
        sides = (layer.input, each and layer is first), (_behind(layer), each and layer is last)
        entering, leaving = (_steps(seen[id(tensor)], rule, own) for tensor, own in sides)
        found[layer.name] = Ranges.of(np.asarray(layer.get_weights()[0], np.float32), entering, leaving)
    return found


def _sampled(model: keras.Model, tensors: list[Any], patches: dict[str, Array]) -> list[Array]:
    """Pixels of inner tensors, evenly drawn from all patches: (pixels, channels)."""
    probe = keras.Model(model.inputs, tensors)
    count, rng = len(next(iter(patches.values()))), np.random.default_rng(0)
    share = max(SAMPLE // -(-count // BATCH), 1)
    seen: list[list[Array]] = [[] for _ in tensors]
    for start in range(0, count, BATCH):
        part = {name: np.asarray(array[start : start + BATCH]) for name, array in patches.items()}
        for values, taken in zip(probe.predict_on_batch(part), seen, strict=True):
            pixels = np.asarray(values, np.float32).reshape(-1, values.shape[-1])
            taken.append(pixels[rng.permutation(len(pixels))[:share]])
    return [np.concatenate(taken) for taken in seen]


def _behind(layer: Any) -> Any:
    """What a convolution gives; where only a ReLU takes it, what that gives."""
    users = [node.operation for node in layer._outbound_nodes]
    return users[0].output if len(users) == 1 and isinstance(users[0], keras.layers.ReLU) else layer.output


def _steps(values: Array, rule: Rule, each: bool) -> Steps:
    """Scale, of all channels or of each, and zero point of an activation from a sample of its pixels."""
    positive = values.min() >= 0
    sizes = np.abs(values) if each else np.abs(values).reshape(-1, 1)
    levels = LEVELS if positive else LARGEST_WEIGHT
    reach = np.percentile(sizes, 100 - PERCENTILE if rule == "percentile" else 100, axis=0)
    scale = np.maximum(reach, 1e-6) / levels
    if rule == "mse":
        errors = [np.mean(np.square(_rounded(sizes, share * scale, levels) - sizes), axis=0) for share in SHARES]
        scale = scale * SHARES[np.argmin(errors, axis=0)]
    return np.asarray(scale, np.float32), 0 if positive else SIGNED_ZERO


def _rounded(sizes: Array, scale: Array, levels: int) -> Array:
    return np.minimum(np.rint(sizes / scale), levels) * scale
