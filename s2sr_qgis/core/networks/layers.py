"""Layers that Keras does not have, written with `keras.ops` so that every backend runs them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class _ByFactor(keras.layers.Layer):
    """A layer whose one parameter is by how much it changes the size."""

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("s2sr")
class SpaceToDepth(_ByFactor):
    """(n, h·f, w·f, c) → (n, h, w, f·f·c): each block of f × f pixels becomes one pixel of more channels."""

    def call(self, inputs: Any) -> Any:
        n, h, w, c = ops.shape(inputs)
        f = self.factor
        blocks = ops.reshape(inputs, (n, h // f, f, w // f, f, c))
        return ops.reshape(ops.transpose(blocks, (0, 1, 3, 2, 4, 5)), (n, h // f, w // f, f * f * c))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, h, w, c = input_shape
        f = self.factor
        return n, h and h // f, w and w // f, f * f * c


@keras.saving.register_keras_serializable("s2sr")
class DepthToSpace(_ByFactor):
    """(n, h, w, f·f·c) → (n, h·f, w·f, c): the inverse of `SpaceToDepth`."""

    def call(self, inputs: Any) -> Any:
        n, h, w, c = ops.shape(inputs)
        f = self.factor
        blocks = ops.reshape(inputs, (n, h, w, f, f, c // (f * f)))
        return ops.reshape(ops.transpose(blocks, (0, 1, 3, 2, 4, 5)), (n, h * f, w * f, c // (f * f)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, h, w, c = input_shape
        f = self.factor
        return n, h and h * f, w and w * f, c // (f * f)


@keras.saving.register_keras_serializable("s2sr")
class BilinearUpsampling(_ByFactor):
    """(n, h, w, c) → (n, h·f, w·f, c), bilinear, half-pixel centres, edges replicated.

    Written as weighted sums of shifted copies: neither `UpSampling2D` nor `ops.image.resize` can be exported with a
    free height and width.
    """

    def call(self, inputs: Any) -> Any:
        n, h, w, c = ops.shape(inputs)
        rows = ops.reshape(self._phases(inputs, 1), (n, h * self.factor, w, c))
        return ops.reshape(self._phases(rows, 2), (n, h * self.factor, w * self.factor, c))

    def _phases(self, tensor: Any, axis: int) -> Any:
        """The ``factor`` positions between pixels along an axis, as a new axis behind it."""

        def part(start: int | None, stop: int | None) -> Any:
            return tensor[(slice(None),) * axis + (slice(start, stop),)]

        before = ops.concatenate([part(None, 1), part(None, -1)], axis=axis)
        after = ops.concatenate([part(1, None), part(-1, None)], axis=axis)
        offsets = [(phase + 0.5) / self.factor - 0.5 for phase in range(self.factor)]
        return ops.stack(
            [(1 - abs(d)) * tensor + abs(d) * (before if d < 0 else after) for d in offsets], axis=axis + 1
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, h, w, c = input_shape
        return n, h and h * self.factor, w and w * self.factor, c


@keras.saving.register_keras_serializable("s2sr")
class LocalMean(keras.layers.Layer):
    """(n, h, w, c) → (n, h, w, c): mean over a square of (2·radius + 1)² pixels, of those that lie inside the image."""

    def __init__(self, radius: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.radius = radius

    def call(self, inputs: Any) -> Any:
        # Rows, then columns: 2·(2r + 1) additions a pixel instead of (2r + 1)². Padding by zeros and dividing by the
        # padded mask is the same in every backend, which "same" pooling is not. Each pooling is padded along its own
        # axis alone, because ONNX Runtime fuses the two and refuses a padding wider than the window.
        size, r = 2 * self.radius + 1, self.radius
        mask = ops.ones_like(inputs[:1, :, :, :1])

        def box(tensor: Any) -> Any:
            rows = ops.pad(tensor, ((0, 0), (r, r), (0, 0), (0, 0)))
            rows = ops.average_pool(rows, (size, 1), strides=1, padding="valid", data_format="channels_last")
            columns = ops.pad(rows, ((0, 0), (0, 0), (r, r), (0, 0)))
            return ops.average_pool(columns, (1, size), strides=1, padding="valid", data_format="channels_last")

        return box(inputs) / box(mask)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "radius": self.radius}
