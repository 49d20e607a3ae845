"""Layers that Keras does not have, written with `keras.ops` so that every backend runs them.

Planes: tensors (n, c, h, w), whose channels are whole images; an image f times finer is a list of f² of them, one for
each of the places within a coarse pixel, row by row. Arithmetic between bands is on contiguous memory there, which is
several times as fast as on NHWC tensors of few channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

OUTSIDE = 0.5 / (2 + math.exp(2.0))
"""Share of the neighbours on each side of a pair of pixels in their mean behind a Gaussian of sigma 0.5."""


class _ByFactor(keras.layers.Layer):
    """A layer whose one parameter is by how much it changes the size."""

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("s2sr")
class ToPlanes(_ByFactor):
    """(n, h·f, w·f, c) → (n, f²·c, h, w): the f² places' planes one behind the other, see `places`."""

    def call(self, inputs: Any) -> Any:
        n, h, w, c = ops.shape(inputs)
        f = self.factor
        # Within rows, then the rows as a whole: half the time of one transpose of six axes in ONNX Runtime.
        rows = ops.transpose(ops.reshape(inputs, (n, h // f, f, w // f, f * c)), (0, 1, 2, 4, 3))
        return ops.reshape(ops.transpose(rows, (0, 2, 3, 1, 4)), (n, f * f * c, h // f, w // f))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, h, w, c = input_shape
        f = self.factor
        return n, f * f * c, h and h // f, w and w // f


@keras.saving.register_keras_serializable("s2sr")
class FromPlanes(_ByFactor):
    """(n, f²·c, h, w) → (n, h·f, w·f, c): the inverse of `ToPlanes`."""

    def call(self, inputs: Any) -> Any:
        n, c, h, w = ops.shape(inputs)
        f = self.factor
        rows = ops.transpose(ops.reshape(inputs, (n, f, c // f, h, w)), (0, 3, 1, 2, 4))
        return ops.reshape(ops.transpose(rows, (0, 1, 2, 4, 3)), (n, h * f, w * f, c // (f * f)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, c, h, w = input_shape
        f = self.factor
        return n, h and h * f, w and w * f, c // (f * f)


@keras.saving.register_keras_serializable("s2sr")
class ToCoarserGrid(_ByFactor):
    """An image's planes as those of a grid 3 times coarser: (n, f²·c, 3·h, 3·w) → (n, (3·f)²·c, h, w)."""

    def call(self, inputs: Any) -> Any:
        n, c, h, w = ops.shape(inputs)
        f = self.factor
        parts = ops.reshape(inputs, (n, f, f, c // (f * f), h // 3, 3, w // 3, 3))
        return ops.reshape(ops.transpose(parts, (0, 5, 1, 7, 2, 3, 4, 6)), (n, 9 * c, h // 3, w // 3))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, c, h, w = input_shape
        return n, 9 * c, h and h // 3, w and w // 3


@keras.saving.register_keras_serializable("s2sr")
class ToFinerGrid(_ByFactor):
    """(n, (3·f)²·c, h, w) → (n, f²·c, 3·h, 3·w): the inverse of `ToCoarserGrid`."""

    def call(self, inputs: Any) -> Any:
        n, c, h, w = ops.shape(inputs)
        f = self.factor
        parts = ops.reshape(inputs, (n, 3, f, 3, f, c // (9 * f * f), h, w))
        return ops.reshape(ops.transpose(parts, (0, 2, 4, 5, 6, 1, 7, 3)), (n, c // 9, 3 * h, 3 * w))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, c, h, w = input_shape
        return n, c // 9, h and 3 * h, w and 3 * w


def places(planes: Any, factor: int) -> list[Any]:
    """(n, f²·c, h, w) → the planes (n, c, h, w) of each of the f² places in a coarse pixel."""
    count = planes.shape[1] // factor**2
    return [planes[:, place * count : (place + 1) * count] for place in range(factor**2)]


def bilinear(planes: Any, factor: int) -> list[Any]:
    """Planes (n, c, h, w) upsampled: one of each place. Half-pixel centres, edges replicated.

    Written as weighted sums of shifted copies: neither `UpSampling2D` nor `ops.image.resize` can be exported with a
    free height and width.
    """
    return [place for rows in _shifted(planes, factor, 2) for place in _shifted(rows, factor, 3)]


def _shifted(planes: Any, factor: int, axis: int) -> list[Any]:
    """The image at each of the ``factor`` places between pixels along an axis."""

    offsets = [(place + 0.5) / factor - 0.5 for place in range(factor)]
    if factor == 1:
        return [planes]
    before, after = _before(planes, axis) - planes, _after(planes, axis) - planes
    return [planes + abs(d) * (before if d < 0 else after) if d else planes for d in offsets]


def _before(planes: Any, axis: int) -> Any:
    """Each pixel's neighbour before it along an axis; the first has itself."""
    return ops.concatenate([_part(planes, axis, None, 1), _part(planes, axis, None, -1)], axis=axis)


def _after(planes: Any, axis: int) -> Any:
    """Each pixel's neighbour behind it along an axis; the last has itself."""
    return ops.concatenate([_part(planes, axis, 1, None), _part(planes, axis, -1, None)], axis=axis)


def _part(planes: Any, axis: int, start: int | None, stop: int | None) -> Any:
    return planes[(slice(None),) * axis + (slice(start, stop),)]


def halved(inside: Sequence[Any]) -> Any:
    """An image, planes (n, c, h, w) of each of the four places in a pixel, as Wald's protocol degrades it by 2.

    A Gaussian of sigma 0.5, here cut at one pixel (the next ones would have 0.03 %), then the mean of the four.
    """
    rows = ops.concatenate([inside[0], inside[1]], axis=1), ops.concatenate([inside[2], inside[3]], axis=1)
    both = _halved(*rows, axis=2)
    middle = both.shape[1] // 2
    return _halved(both[:, :middle], both[:, middle:], axis=3)


def _halved(first: Any, second: Any, axis: int) -> Any:
    """Blurred means of pixels' pairs along an axis, from the first and the second ones."""
    outside = _before(second, axis) + _after(first, axis)
    return (0.5 - OUTSIDE) * (first + second) + OUTSIDE * outside


@keras.saving.register_keras_serializable("s2sr")
class BilinearUpsampling(_ByFactor):
    """(n, h, w, c) → (n, h·f, w·f, c): `bilinear` of an image."""

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(factor, **kwargs)
        self.together = FromPlanes(factor, dtype=self.dtype_policy)

    def call(self, inputs: Any) -> Any:
        return self.together(ops.concatenate(bilinear(ops.transpose(inputs, (0, 3, 1, 2)), self.factor), axis=1))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, h, w, c = input_shape
        return n, h and h * self.factor, w and w * self.factor, c


@keras.saving.register_keras_serializable("s2sr")
class LocalMean(keras.layers.Layer):
    """(…, h, w) → (…, h, w): mean over a square of (2·radius + 1)² pixels, of those that lie inside the image."""

    def __init__(self, radius: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.radius = radius

    def call(self, inputs: Any) -> Any:
        # Rows, then columns: 2·(2r + 1) additions a pixel instead of (2r + 1)². Every backend leaves out what it pads.
        size = 2 * self.radius + 1
        shape = ops.shape(inputs)
        means = ops.reshape(inputs, (-1, *shape[-2:], 1))
        for window in ((size, 1), (1, size)):
            means = ops.average_pool(means, window, strides=1, padding="same", data_format="channels_last")
        return ops.reshape(means, shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "radius": self.radius}
