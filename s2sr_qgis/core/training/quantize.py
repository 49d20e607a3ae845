"""The 8-bit variant of an ONNX file: its convolutions between pairs of QuantizeLinear and DequantizeLinear.

ONNX Runtime fuses each such convolution into one of whole numbers (QLinearConv): activations 8 bits unsigned with one
scale, kernels 8 bits signed with a scale for each output channel, biases 32 bits. Everything else, the statistics, the
local regression and the residual sums, stays in float. The ranges are those that a training with quantisation in the
loop has learnt, or are taken from what the convolutions see on real patches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from ..networks.quantized import LARGEST_WEIGHT, LEVELS, SIGNED_ZERO, Ranges
from .half import drop_unused

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
    model: keras.Model, source: Path, target: Path, ranges: Mapping[str, Ranges], *, sums: bool = False
) -> int:
    """Write the 8-bit variant of an ONNX file.

    ``source``: the network in float, as `export.write_onnx` has written ``model``. ``ranges``: by the layers' names;
    layers that are not named stay in float. ``sums``: round the residual sums too, not only what convolutions take of
    them; that loses accuracy. Returns how many convolutions are 8-bit.
    """
    import onnx

    graph = onnx.load(source)
    nodes = convolutions(graph, model)
    quantizer = _Quantizer(graph.graph, {nodes[name]: value for name, value in ranges.items() if name in nodes}, sums)
    quantizer.run()
    onnx.checker.check_model(graph)
    onnx.save(graph, target)
    return len(quantizer.ranges)


def convolutions(graph: Any, model: keras.Model) -> dict[str, str]:
    """The ONNX node's name of each convolution of the Keras network, by the layer's name.

    Converters rename and reorder, so the kernel tells which is which; a convolution that another operation has been
    folded into is in the ONNX file alone and left out.
    """
    waiting = [(node, _kernel(graph.graph, node)) for node in graph.graph.node if node.op_type == "Conv"]
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
    model: keras.Model, patches: dict[str, Array], rule: Rule = "percentile", *, ends: bool = False, each: bool = True
) -> dict[str, Ranges]:
    """Ranges of a plain network's convolutions on real patches, by the layers' names.

    ``patches``: inputs by name, (n, h, w, c), DN. ``ends``: the first and the last convolution too, which costs more
    accuracy than all others together; ``each``: these with a scale for each channel of what goes in and comes out.
    """
    layers = [layer for layer in model.layers if type(layer) is keras.layers.Conv2D]
    first, last = layers[0], layers[-1]
    layers = layers if ends else layers[1:-1]
    tensors = {id(tensor): tensor for layer in layers for tensor in (layer.input, _behind(layer))}
    seen = dict(zip(tensors, _sampled(model, list(tensors.values()), patches), strict=True))
    found = {}
    for layer in layers:
        sides = (layer.input, each and layer is first), (_behind(layer), each and layer is last)
        pairs = [_pair(seen[id(tensor)], rule, spread) for tensor, spread in sides]
        kernel = np.asarray(layer.get_weights()[0], np.float32) * pairs[0][0][:, np.newaxis]
        scales = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)), 1e-12).astype(np.float32) / LARGEST_WEIGHT
        found[layer.name] = Ranges(*pairs[0], *pairs[1], scales, np.rint(kernel / scales).astype(np.int8))
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


def _pair(values: Array, rule: Rule, each: bool) -> tuple[npt.NDArray[np.float32], int]:
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


class _Quantizer:
    """Writes ranges into a graph; ``ranges`` by the names of its convolutions."""

    def __init__(self, graph: Any, ranges: dict[str, Ranges], sums: bool) -> None:
        import onnx

        self.helper, self.arrays = onnx.helper, onnx.numpy_helper
        self.graph, self.ranges, self.sums, self.old = graph, ranges, sums, list(graph.node)
        self.new: list[Any] = []
        self.scales: dict[tuple[str, int], float] = {}
        self.made: dict[tuple[str, int], str] = {}

    def run(self) -> None:
        """Rewrite the graph."""
        given = self._plan()
        for node in self.old:
            own = self.ranges.get(node.name)
            if own is not None:
                self._convolution(node, own)
            self.new.append(node)
            tensor = node.output[0]
            if tensor in given:
                node.output[0] = f"{tensor}_exact"
                self._output(node.output[0], tensor, *given[tensor])
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self.new)
        drop_unused(self.graph)

    def _plan(self) -> dict[str, tuple[int, Array]]:
        """Zero point and scale of the tensors that are rounded where they are made."""
        users: dict[str, list[Any]] = {}
        for node in self.old:
            for name in node.input:
                users.setdefault(name, []).append(node)
        given: dict[str, tuple[int, Array]] = {}

        def rounded(tensor: str, zero: int, scale: Array) -> None:
            # Where what a convolution gives is what the next one takes, the finer scale serves both: rounding twice
            # would only add noise, and take time.
            if scale.size == 1:
                self.scales[tensor, zero] = min(float(scale[0]), self.scales.get((tensor, zero), math.inf))

        for node in self.old:
            if own := self.ranges.get(node.name):
                tensor, takers = node.output[0], users.get(node.output[0], [])
                if own.output_zero == 0 and len(takers) == 1 and takers[0].op_type == "Relu":
                    tensor = takers[0].output[0]  # ONNX Runtime drops the ReLU, which clipping at 0 does as well
                given[tensor] = own.output_zero, own.output_scale
                rounded(tensor, own.output_zero, own.output_scale)
                rounded(node.input[0], own.input_zero, own.input_scale)
        if self.sums:
            added = {node.output[0] for node in self.old if node.op_type == "Add"}
            given |= {name: (zero, np.ones(1)) for name, zero in self.scales if name in added}
        self.made = {(tensor, zero): tensor for tensor, (zero, scale) in given.items() if scale.size == 1}
        return given

    def _convolution(self, node: Any, own: Ranges) -> None:
        tensor, zero = node.input[0], own.input_zero
        # A scale for each channel is a product before or behind, and the convolution works in whole steps.
        scale = 1.0 if own.input_scale.size > 1 else self.scales[tensor, zero]
        if own.input_scale.size > 1:
            steps = f"{node.name}_steps"
            self._product(tensor, 1 / own.input_scale, steps)
            self._pair(steps, f"{node.name}_rounded", scale, zero)
            node.input[0] = f"{node.name}_rounded"
        else:
            if (tensor, zero) not in self.made:
                self.made[tensor, zero] = f"{tensor}_rounded{zero}"
                self._pair(tensor, self.made[tensor, zero], scale, zero)
            node.input[0] = self.made[tensor, zero]
        unit = own.output_scale.astype(np.float64) if own.output_scale.size > 1 else 1.0
        per_step = own.kernel_scales / (1.0 if own.input_scale.size > 1 else float(own.input_scale[0])) / unit
        node.input[1] = self._constant(f"{node.name}_kernel", own.kernel.transpose(3, 2, 0, 1), per_step)
        if len(node.input) > 2:
            bias = self.arrays.to_array(next(t for t in self.graph.initializer if t.name == node.input[2]))
            bias = bias.astype(np.float64) / unit
            whole = np.clip(np.rint(bias / (scale * per_step)), -(2**31), 2**31 - 1).astype(np.int32)
            node.input[2] = self._constant(f"{node.name}_bias", whole, scale * per_step)

    def _output(self, source: str, target: str, zero: int, scale: Array) -> None:
        if scale.size > 1:
            self._pair(source, f"{target}_steps", 1.0, zero)
            self._product(f"{target}_steps", scale, target)
        else:
            self._pair(source, target, self.scales[target, zero], zero)

    def _product(self, source: str, factors: Array, target: str) -> None:
        factor = self._store(f"{target}_factor", factors.reshape(1, -1, 1, 1).astype(np.float32))
        self.new.append(self.helper.make_node("Mul", [source, factor], [target]))

    def _pair(self, source: str, target: str, scale: float, zero: int) -> None:
        steps = [self._store(f"{target}_scale", np.float32(scale)), self._store(f"{target}_zero", np.uint8(zero))]
        self.new.append(self.helper.make_node("QuantizeLinear", [source, *steps], [f"{target}_stored"]))
        self.new.append(self.helper.make_node("DequantizeLinear", [f"{target}_stored", *steps], [target]))

    def _constant(self, name: str, stored: Array, scales: Array) -> str:
        names = [self._store(f"{name}_stored", stored), self._store(f"{name}_scale", scales.astype(np.float32))]
        names.append(self._store(f"{name}_zero", np.zeros(scales.shape, stored.dtype)))
        self.new.append(self.helper.make_node("DequantizeLinear", names, [name], axis=0))
        return name

    def _store(self, name: str, values: Any) -> str:
        self.graph.initializer.append(self.arrays.from_array(np.ascontiguousarray(np.asarray(values)), name))
        return name


def _kernel(graph: Any, node: Any) -> Array:
    """A convolution's kernel, float32, as ONNX stores it: (out, in, height, width)."""
    import onnx

    name = node.input[1]
    casts = {other.output[0]: other.input[0] for other in graph.node if other.op_type == "Cast"}
    stored = {tensor.name: tensor for tensor in graph.initializer}.get(casts.get(name, name))
    if stored is None:
        return np.empty(0, np.float32)
    return np.asarray(onnx.numpy_helper.to_array(stored), np.float32)
