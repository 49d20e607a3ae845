"""Quantisation in the loop: a network trained with the rounding that an 8-bit convolution will do.

The scales are learnt with the weights (learned step size quantisation, Esser et al. 2020,
doi:10.48550/arXiv.1902.08153): rounding passes gradients through unchanged, clipping does not. Numbers are those of
ONNX's QLinearConv: activations 8 bits unsigned, kernels 8 bits signed with a scale for each output channel, both
symmetric, so that the exporter can write exactly what was trained.

An activation has one scale, but for the network's two ends. What enters and what leaves needs more than 8 bits: with 8
the error grows by 3 to 4 %. The exporter gives it two bytes, so here it is not rounded at all; its scales, one for each
channel, are taken once from what the training shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from ..errors import InputError

LEVELS = 255
"""Of an activation: 0 to 255, around a zero point."""

SIGNED_ZERO = 128
LARGEST_WEIGHT = 127

START = 12.0
"""First range of an activation, in root mean squares of what the first batch shows."""


Steps = tuple[npt.NDArray[np.float32], int]
"""Scale, (1,) or one for each channel, and zero point of an activation."""


@dataclass(frozen=True)
class Ranges:
    """What the exporter needs of one convolution: real = (stored − zero point) · scale.

    ``input_scale``, ``output_scale``: one number, (1,), or at the network's ends one for each channel. ``kernel``:
    (3, 3, in, out), signed 8 bits; times ``kernel_scales``, one for each output channel, it is what whole steps are
    multiplied by.
    """

    input_scale: npt.NDArray[np.float32]
    input_zero: int
    output_scale: npt.NDArray[np.float32]
    output_zero: int
    kernel_scales: npt.NDArray[np.float32]
    kernel: npt.NDArray[np.int8]

    @classmethod
    def of(cls, kernel: npt.NDArray[np.float32], entering: Steps, leaving: Steps) -> Ranges:
        """Round a kernel, (3, 3, in, out), for what enters and what leaves."""
        kernel = kernel * entering[0][:, np.newaxis]
        scales = np.maximum(np.abs(kernel).max(axis=(0, 1, 2)), np.float32(1e-12)) / np.float32(LARGEST_WEIGHT)
        whole = np.clip(np.rint(kernel / scales), -LARGEST_WEIGHT, LARGEST_WEIGHT).astype(np.int8)
        return cls(*entering, *leaving, scales, whole)

    def float_kernel(self) -> npt.NDArray[np.float32]:
        """The rounded kernel, for values that are not in steps."""
        return np.asarray(self.kernel * self.kernel_scales / self.input_scale[:, np.newaxis])


@keras.saving.register_keras_serializable("s2sr")
class QuantizedConv2D(keras.layers.Conv2D):
    """A convolution that rounds its input, its kernel and its output to 8 bits.

    Args:
        positive: whether input and output are never negative (they come out of, go into a ReLU).
        ends: whether input and output are the network's own, with a scale for each channel and finer than 8 bits.
    """

    def __init__(
        self,
        *args: Any,
        positive: tuple[bool, bool] = (False, False),
        ends: tuple[bool, bool] = (False, False),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.positive, self.ends = tuple(positive), tuple(ends)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        # Logarithms: a step of the optimiser then changes each scale by a share of itself. 0: not yet seen.
        zeros = keras.initializers.Zeros()
        sizes = (input_shape[-1] if self.ends[0] else 1, self.filters if self.ends[1] else 1)
        self.input_scale, self.output_scale = (
            self.add_weight(shape=(size,), initializer=zeros, name=name, dtype="float32", trainable=not end)
            for name, size, end in zip(("input_scale", "output_scale"), sizes, self.ends, strict=True)
        )

    def call(self, inputs: Any) -> Any:
        scale = ops.exp(ops.cast(self.input_scale, "float32"))
        steps = ops.cast(inputs, "float32") / scale
        if not self.ends[0]:
            steps = _rounded(steps, self.positive[0])
        outputs = ops.conv(
            ops.cast(steps, self.compute_dtype),
            ops.cast(self._rounded_kernel(scale), self.compute_dtype),
            strides=list(self.strides),
            padding=self.padding,
            data_format=self.data_format,
        )
        outputs = ops.add(outputs, ops.cast(self.bias, self.compute_dtype))
        if self.ends[1]:
            return outputs
        scale = ops.exp(ops.cast(self.output_scale, "float32"))
        steps = _rounded(ops.cast(outputs, "float32") / scale, self.positive[1])
        return ops.cast(steps * scale, self.compute_dtype)

    def calibrate(self, inputs: npt.NDArray[np.float32], outputs: npt.NDArray[np.float32]) -> None:
        """Set the scales from what a plain network's layer takes and gives, (n, h, w, channels)."""
        for scale, values, positive in (
            (self.input_scale, inputs, self.positive[0]),
            (self.output_scale, outputs, self.positive[1]),
        ):
            values = np.maximum(values, 0) if positive else np.abs(values)
            values = values.reshape(-1, values.shape[-1]) if scale.shape[0] > 1 else values.reshape(-1, 1)
            reach = np.minimum(values.max(axis=0), START * np.sqrt(np.mean(np.square(values), axis=0)))
            scale.assign(np.log(np.maximum(reach, 1e-6) / (LEVELS if positive else LARGEST_WEIGHT)))

    def ranges(self) -> Ranges:
        """The numbers of the trained layer."""
        entering, leaving = (
            (np.exp(_number(scale)), 0 if positive else SIGNED_ZERO)
            for scale, positive in zip((self.input_scale, self.output_scale), self.positive, strict=True)
        )
        return Ranges.of(_number(self.kernel), entering, leaving)

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        for scale in (self.input_scale, self.output_scale):
            store[scale.name] = np.asarray(ops.convert_to_numpy(scale))

    def load_own_variables(self, store: Any) -> None:
        for variable, key in zip((self.kernel, self.bias), ("0", "1"), strict=True):
            variable.assign(store[key])
        for scale in (self.input_scale, self.output_scale):
            scale.assign(store[scale.name])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "positive": self.positive, "ends": self.ends}

    def _kernel_scales(self, kernel: Any) -> Any:
        largest = ops.max(ops.abs(kernel), axis=(0, 1, 2), keepdims=True)
        return ops.stop_gradient(ops.maximum(largest, 1e-12) / LARGEST_WEIGHT)

    def _rounded_kernel(self, input_scale: Any) -> Any:
        """The kernel for inputs that are whole numbers of steps."""
        kernel = ops.cast(self.kernel, "float32") * ops.expand_dims(input_scale, -1)
        scales = self._kernel_scales(kernel)
        return kernel + ops.stop_gradient(ops.round(kernel / scales) * scales - kernel)


def _rounded(steps: Any, positive: bool) -> Any:
    """Whole numbers of steps, less the zero point."""
    zero = 0 if positive else SIGNED_ZERO
    return ops.clip(steps + ops.stop_gradient(ops.round(steps) - steps), -zero, LEVELS - zero)


def quantized(model: keras.Model) -> keras.Model:
    """A copy of a network whose convolutions are `QuantizedConv2D` of the same names, with the same weights.

    Its scales are still unset: `calibrate`, or load a trained run's weights. Raises `InputError` for a network whose
    convolutions have activations of their own: a ReLU has to be a layer, for its rounding to be seen.
    """
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    if any(layer.activation is not keras.activations.linear for layer in layers):
        raise InputError(
            f"The network {model.name} cannot be trained with 8 bits in the loop; take coarsenet or crossnet."
        )
    names = [layer.name for layer in layers]
    positive = {name: (_fed_by_relu(model.get_layer(name)), _feeds_relu(model.get_layer(name))) for name in names}

    def clone(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Conv2D):
            ends = (layer.name == names[0], layer.name == names[-1])
            config = {**layer.get_config(), "positive": positive[layer.name], "ends": ends}
            return QuantizedConv2D.from_config(config)
        return layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    for layer in _weighted(copy):
        own = model.get_layer(layer.name)
        if isinstance(layer, QuantizedConv2D):
            layer.kernel.assign(own.kernel)
            layer.bias.assign(own.bias)
        else:
            layer.set_weights(own.get_weights())
    return copy


def calibrate(copy: keras.Model, model: keras.Model, inputs: dict[str, npt.NDArray[np.float32]]) -> None:
    """Set the first scales of `quantized`'s copy from what the plain network's layers see on some patches."""
    layers = _convolutions(copy)
    own = [model.get_layer(layer.name) for layer in layers]
    probe = keras.Model(model.inputs, [tensor for layer in own for tensor in (layer.input, layer.output)])
    seen = [np.asarray(ops.convert_to_numpy(value), np.float32) for value in probe.predict_on_batch(inputs)]
    for index, layer in enumerate(layers):
        layer.calibrate(seen[2 * index], seen[2 * index + 1])


def take_back(model: keras.Model, copy: keras.Model, *, rounded: bool) -> None:
    """Give a plain network the weights of its `quantized` copy, or its biases and the kernels as it rounds them."""
    for layer in _weighted(copy):
        own = model.get_layer(layer.name)
        if isinstance(layer, QuantizedConv2D):
            own.kernel.assign(layer.ranges().float_kernel() if rounded else layer.kernel)
            own.bias.assign(layer.bias)
        else:
            own.set_weights(layer.get_weights())


def ranges(model: keras.Model) -> dict[str, Ranges]:
    """What the exporter needs of each convolution of a trained `quantized` network, by layer name."""
    return {layer.name: layer.ranges() for layer in _convolutions(model)}


def _weighted(model: keras.Model) -> list[Any]:
    return [layer for layer in model.layers if layer.weights]


def _convolutions(model: keras.Model) -> list[QuantizedConv2D]:
    return [layer for layer in model.layers if isinstance(layer, QuantizedConv2D)]


def _number(tensor: Any) -> npt.NDArray[np.float32]:
    return np.asarray(ops.convert_to_numpy(tensor), np.float32)


def _feeds_relu(layer: Any) -> bool:
    return all(isinstance(node.operation, keras.layers.ReLU) for node in layer._outbound_nodes)


def _fed_by_relu(layer: Any) -> bool:
    return isinstance(layer.input._keras_history.operation, keras.layers.ReLU)
