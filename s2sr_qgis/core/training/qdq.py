"""Writes 8-bit convolutions into an ONNX graph, as pairs of QuantizeLinear and DequantizeLinear.

ONNX Runtime fuses a convolution between such pairs into one of whole numbers (QLinearConv), and an addition likewise.
It has no fast convolution of wider numbers, so what enters and what leaves the network, which 8 bits are too few for,
takes two bytes:

- in: the value in whole steps, and what that leaves over in steps of a 255th; both are convolved, the results added;
- out: the result in fine steps, and in steps `OUT_WIDER` times as wide, which count where the fine ones end: one
  convolution with twice the channels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..networks.quantized import LARGEST_WEIGHT, LEVELS, SIGNED_ZERO, Ranges
from .half import drop_unused

Array = npt.NDArray[Any]

IN_WIDER = 3.0
"""How far beyond what the training showed an input may go: two bytes reach far enough for both."""

OUT_FINER = 0.2
"""The fine steps of what leaves, in parts of those that reach as far as the training showed: most values are small."""

OUT_WIDER = 16.0

SIGMAS = 6.0
"""Range of the convolved remainders, in standard deviations of what even ones sum up to."""


class Rewriter:
    """Rewrites a graph; ``ranges`` by the names of its convolutions, ``sums``: residual sums are rounded too."""

    def __init__(self, graph: Any, ranges: dict[str, Ranges], sums: bool) -> None:
        import onnx

        self.onnx, self.helper, self.arrays = onnx, onnx.helper, onnx.numpy_helper
        self.graph, self.ranges, self.sums, self.old = graph, ranges, sums, list(graph.node)
        self.new: list[Any] = []
        self.scales: dict[tuple[str, int], float] = {}
        self.made: dict[tuple[str, int], str] = {}

    def run(self) -> None:
        """Rewrite the graph."""
        given = self._plan()
        for node in self.old:
            own, tensor = self.ranges.get(node.name), node.output[0]
            if own is not None:
                self._convolution(node, own)
                continue
            self.new.append(node)
            if tensor in given:
                node.output[0] = f"{tensor}_exact"
                self._pair(node.output[0], tensor, self.scales[tensor, given[tensor]], given[tensor])
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(self.new)
        drop_unused(self.graph)

    def _plan(self) -> dict[str, int]:
        """Zero points of tensors that are rounded where others than convolutions make them; all tensors' scales."""
        users: dict[str, list[Any]] = {}
        for node in self.old:
            for name in node.input:
                users.setdefault(name, []).append(node)
        given: dict[str, int] = {}

        def rounded(tensor: str, zero: int, scale: Array) -> None:
            # Where what a convolution gives is what the next one takes, the finer scale serves both: rounding twice
            # would only add noise, and take time.
            if scale.size == 1:
                self.scales[tensor, zero] = min(float(scale[0]), self.scales.get((tensor, zero), math.inf))

        for node in self.old:
            if own := self.ranges.get(node.name):
                tensor, takers = node.output[0], users.get(node.output[0], [])
                if own.output_zero == 0 and len(takers) == 1 and takers[0].op_type == "Relu":
                    # ONNX Runtime drops the ReLU, which clipping at 0 does as well.
                    tensor = takers[0].output[0]
                    given[tensor] = 0
                self.made[tensor, own.output_zero] = tensor
                rounded(tensor, own.output_zero, own.output_scale)
                rounded(node.input[0], own.input_zero, own.input_scale)
        if self.sums:
            sums = [node for node in self.old if node.op_type == "Add"]
            for node in reversed(sums):
                self._scale_sum(node, users.get(node.output[0], []))
            added = {node.output[0] for node in sums}
            given |= {tensor: zero for tensor, zero in self.scales if tensor in added}
        self.made |= {(tensor, zero): tensor for tensor, zero in given.items()}
        return given

    def _scale_sum(self, node: Any, takers: list[Any]) -> None:
        """Give a sum that only enters another one, which no convolution has a range for, the widest scale near it.

        It would stay in float, and with it the whole sum: the most memory of all that the network takes.
        """
        target, key = node.output[0], SIGNED_ZERO
        if (target, key) in self.scales or len(takers) != 1 or takers[0].op_type != "Add":
            return
        near = [self.scales.get((name, key)) for name in (*node.input, takers[0].output[0])]
        if None not in near:
            self.scales[target, key] = max(scale for scale in near if scale is not None)

    def _convolution(self, node: Any, own: Ranges) -> None:
        """One convolution with the roundings before and behind it."""
        source, target = node.input[0], node.output[0]
        kernel, bias = own.kernel.transpose(3, 2, 0, 1), self._bias(node, own)
        if own.input_scale.size > 1:
            self._two_byte_input(node, own, source, target, kernel, bias)
            return
        scale = self.scales[source, own.input_zero]
        if (source, own.input_zero) not in self.made:
            self.made[source, own.input_zero] = f"{source}_rounded{own.input_zero}"
            self._pair(source, self.made[source, own.input_zero], scale, own.input_zero)
        source = self.made[source, own.input_zero]
        per_step = own.kernel_scales.astype(np.float64) / float(own.input_scale[0])
        if own.output_scale.size > 1:
            # A scale for each channel: the convolution gives whole steps, a product behind it makes them reflectance.
            self._two_byte_output(node, own, target, source, scale, kernel, per_step, bias)
            return
        self._convolve(node, f"{target}_exact", source, scale, kernel, per_step, bias)
        if (target, own.output_zero) in self.scales:
            self._pair(f"{target}_exact", target, self.scales[target, own.output_zero], own.output_zero)
        else:  # a ReLU comes first
            self.new[-1].output[0] = target

    def _two_byte_input(self, node: Any, own: Ranges, source: str, target: str, kernel: Array, bias: Array) -> None:
        wide = own.input_scale.astype(np.float64) * IN_WIDER
        per_step = own.kernel_scales.astype(np.float64) * IN_WIDER
        steps, high, low = (f"{node.name}_{part}" for part in ("steps", "high", "low"))
        self._product(source, 1 / wide, steps)
        self._pair(steps, high, 1.0, SIGNED_ZERO)
        self._add("Sub", [steps, high], f"{low}_exact")
        self._pair(f"{low}_exact", low, 1 / LEVELS, SIGNED_ZERO)
        self._convolve(node, f"{target}_high_exact", high, 1.0, kernel, per_step, bias)
        scale = self.scales[target, own.output_zero]
        self._pair(f"{target}_high_exact", f"{target}_high", scale, own.output_zero)
        self._convolve(node, f"{target}_low_exact", low, 1 / LEVELS, kernel, per_step, np.zeros_like(bias))
        # Remainders are spread evenly over one step, and independent of each other.
        deviation = np.sqrt(np.square(kernel, dtype=np.float64).sum(axis=(1, 2, 3)) / 12) * per_step
        self._pair(
            f"{target}_low_exact", f"{target}_low", SIGMAS * float(deviation.max()) / LARGEST_WEIGHT, SIGNED_ZERO
        )
        total = f"{target}_exact" if self.sums else target
        self._add("Add", [f"{target}_high", f"{target}_low"], total)
        if self.sums:
            self._pair(total, target, scale, own.output_zero)
        else:
            del self.made[target, own.output_zero]

    def _two_byte_output(
        self,
        node: Any,
        own: Ranges,
        target: str,
        source: str,
        scale: float,
        kernel: Array,
        per_step: Array,
        bias: Array,
    ) -> None:
        # One convolution with twice the channels: ONNX Runtime is several times as fast where they are a multiple of
        # 16, and the wide steps are but another scale of the same kernel.
        unit = own.output_scale.astype(np.float64) * OUT_FINER
        units = np.concatenate([unit, unit * OUT_WIDER])
        both, fine, wide = (f"{target}_{part}" for part in ("both", "fine", "wide"))
        self._convolve(
            node,
            f"{both}_exact",
            source,
            scale,
            np.tile(kernel, (2, 1, 1, 1)),
            *(np.tile(v, 2) / units for v in (per_step, bias)),
        )
        self._pair(f"{both}_exact", both, 1.0, own.output_zero)
        middle = unit.size
        self._part(both, 0, middle, fine)
        self._part(both, middle, 2 * middle, f"{wide}_steps")
        self._add("Mul", [f"{wide}_steps", self._store(f"{wide}_step", np.float32(OUT_WIDER))], wide)
        ends = (-own.output_zero, LEVELS - own.output_zero)
        ends_names = [
            self._store(f"{target}_{name}", np.float32(end)) for name, end in zip(("low", "high"), ends, strict=True)
        ]
        self._add("Clip", [wide, *ends_names], f"{target}_within")
        self._add("Sub", [wide, f"{target}_within"], f"{target}_beyond")
        self._add("Add", [fine, f"{target}_beyond"], f"{target}_steps")
        self._product(f"{target}_steps", own.output_scale * OUT_FINER, target)

    def _part(self, source: str, start: int, stop: int, target: str) -> None:
        """Some of the channels."""
        ends = [
            self._store(f"{target}_{name}", np.array([value], np.int64))
            for name, value in (("from", start), ("to", stop), ("axis", 1))
        ]
        self._add("Slice", [source, *ends], target)

    def _convolve(
        self, node: Any, target: str, source: str, scale: float, kernel: Array, per_step: Array, bias: Array
    ) -> None:
        """A copy of the node on rounded values: ``source`` in steps of ``scale``, the kernel in steps of its own."""
        copy = self.onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        whole = np.clip(np.rint(bias / (scale * per_step)), -(2**31), 2**31 - 1).astype(np.int32)
        name = copy.name = f"{target}_convolution"
        weights = [
            self._constant(f"{name}_kernel", kernel, per_step),
            self._constant(f"{name}_bias", whole, scale * per_step),
        ]
        copy.input.extend([source, *weights])
        copy.output[0] = target
        self.new.append(copy)

    def _bias(self, node: Any, own: Ranges) -> Array:
        if len(node.input) < 3:
            return np.zeros(own.kernel.shape[-1])
        stored = next(tensor for tensor in self.graph.initializer if tensor.name == node.input[2])
        return np.asarray(self.arrays.to_array(stored), np.float64)

    def _product(self, source: str, factors: Array, target: str) -> None:
        factor = self._store(f"{target}_factor", factors.reshape(1, -1, 1, 1).astype(np.float32))
        self._add("Mul", [source, factor], target)

    def _pair(self, source: str, target: str, scale: float, zero: int) -> None:
        steps = [self._store(f"{target}_scale", np.float32(scale)), self._store(f"{target}_zero", np.uint8(zero))]
        self._add("QuantizeLinear", [source, *steps], f"{target}_stored")
        self._add("DequantizeLinear", [f"{target}_stored", *steps], target)

    def _constant(self, name: str, stored: Array, scales: Array) -> str:
        names = [self._store(f"{name}_stored", stored), self._store(f"{name}_scale", scales.astype(np.float32))]
        names.append(self._store(f"{name}_zero", np.zeros(scales.shape, stored.dtype)))
        self._add("DequantizeLinear", names, name, axis=0)
        return name

    def _add(self, operation: str, inputs: list[str], target: str, **attributes: Any) -> None:
        self.new.append(self.helper.make_node(operation, inputs, [target], **attributes))

    def _store(self, name: str, values: Any) -> str:
        # Single numbers stay without dimension: QLinearAdd takes no others.
        self.graph.initializer.append(self.arrays.from_array(np.asarray(values, order="C"), name))
        return name
