"""Layers that Keras does not have, written with `keras.ops` so that every backend runs them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("s2sr")
class SpaceToDepth(keras.layers.Layer):
    """(n, h·f, w·f, c) → (n, h, w, f·f·c): each block of f × f pixels becomes one pixel of more channels."""

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        n, h, w, c = ops.shape(inputs)
        f = self.factor
        blocks = ops.reshape(inputs, (n, h // f, f, w // f, f, c))
        return ops.reshape(ops.transpose(blocks, (0, 1, 3, 2, 4, 5)), (n, h // f, w // f, f * f * c))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, h, w, c = input_shape
        f = self.factor
        return n, h and h // f, w and w // f, f * f * c

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("s2sr")
class DepthToSpace(keras.layers.Layer):
    """(n, h, w, f·f·c) → (n, h·f, w·f, c): the inverse of `SpaceToDepth`."""

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        n, h, w, c = ops.shape(inputs)
        f = self.factor
        blocks = ops.reshape(inputs, (n, h, w, f, f, c // (f * f)))
        return ops.reshape(ops.transpose(blocks, (0, 1, 3, 2, 4, 5)), (n, h * f, w * f, c // (f * f)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, h, w, c = input_shape
        f = self.factor
        return n, h and h * f, w and w * f, c // (f * f)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("s2sr")
class BilinearUpsampling(keras.layers.Layer):
    """(n, h, w, c) → (n, h·f, w·f, c), bilinear, half-pixel centres, edges replicated.

    Keras' own `UpSampling2D` cannot be exported with a free height and width.
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        _, h, w, _ = ops.shape(inputs)
        return ops.image.resize(
            inputs, (h * self.factor, w * self.factor), interpolation="bilinear", data_format="channels_last"
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, h, w, c = input_shape
        return n, h and h * self.factor, w and w * self.factor, c

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable("s2sr")
class LocalMean(keras.layers.Layer):
    """(n, h, w, c) → (n, h, w, c): mean over a square of (2·radius + 1)² pixels, of those that lie inside the image."""

    def __init__(self, radius: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.radius = radius

    def call(self, inputs: Any) -> Any:
        # Rows, then columns: 2·(2r + 1) additions a pixel instead of (2r + 1)². Padding by zeros and dividing by the
        # padded mask is the same in every backend, which "same" pooling is not.
        size, r = 2 * self.radius + 1, self.radius
        mask = ops.ones_like(inputs[:1, :, :, :1])

        def box(tensor: Any) -> Any:
            padded = ops.pad(tensor, ((0, 0), (r, r), (r, r), (0, 0)))
            rows = ops.average_pool(padded, (size, 1), strides=1, padding="valid", data_format="channels_last")
            return ops.average_pool(rows, (1, size), strides=1, padding="valid", data_format="channels_last")

        return box(inputs) / box(mask)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "radius": self.radius}
