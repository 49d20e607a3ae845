"""DSen2 and VDSen2, faithful to the paper.

Lanaras, Bioucas-Dias, Galliani, Baltsavias, Schindler (2018): Super-resolution of Sentinel-2 images: learning a
globally applicable deep neural network, ISPRS Journal of Photogrammetry and Remote Sensing 146, 305-319.
Code of the authors: https://github.com/lanha/DSen2.
"""

from __future__ import annotations

from typing import Any

import keras

from .base import OUTPUT, ElementSpec, ModelBase
from .layers import BilinearUpsampling

SCALING = 1 / 2000
"""The paper divides DN by 2000."""


class DSen2(ModelBase):
    """The residual network of the paper, with 6 residual blocks of 128 features (receptive radius 14 pixels).

    All low-resolution bands are upsampled bilinearly to the 10 m grid and stacked on the 10 m bands; the network adds
    detail to the upsampled bands that it sharpens, the coarsest ones given.

    Args:
        spec: shapes of inputs and targets; inputs ``input_10m``, ``input_20m`` and, for the 60 m task, ``input_60m``.
        blocks: number of residual blocks.
        features: channels of the hidden layers.
    """

    def __init__(self, spec: ElementSpec, blocks: int = 6, features: int = 128, **kwargs: Any) -> None:
        self.blocks, self.features = blocks, features
        super().__init__(spec, **kwargs)

    def normalize_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: keras.layers.Rescaling(SCALING, dtype="float32")(tensor) for name, tensor in inputs.items()}

    def get_outputs(self, normalized_inputs: dict[str, Any]) -> dict[str, Any]:
        def conv(features: int, tensor: Any, **kwargs: Any) -> Any:
            return keras.layers.Conv2D(features, 3, padding="same", kernel_initializer="he_uniform", **kwargs)(tensor)

        stack = [normalized_inputs["input_10m"]]
        for name, factor in (("input_20m", 2), ("input_60m", 6)):
            if name in normalized_inputs:
                # In float32 under mixed precision too: these bands are part of the result.
                stack.append(BilinearUpsampling(factor, dtype="float32")(normalized_inputs[name]))
        x = conv(self.features, keras.layers.Concatenate()(stack), activation="relu", name="first")
        for index in range(self.blocks):
            y = conv(self.features, x, activation="relu", name=f"block{index}_a")
            y = conv(self.features, y, name=f"block{index}_b")
            x = keras.layers.Add()([x, keras.layers.Rescaling(0.1)(y)])
        detail = conv(stack[-1].shape[-1], x, name="last")
        total = keras.layers.Add(dtype="float32")([detail, stack[-1]])
        return {OUTPUT: keras.layers.Rescaling(1 / SCALING, name=OUTPUT, dtype="float32")(total)}


class VDSen2(DSen2):
    """The very deep variant of the paper: 32 residual blocks of 256 features (receptive radius 66 pixels)."""

    def __init__(self, spec: ElementSpec, blocks: int = 32, features: int = 256, **kwargs: Any) -> None:
        super().__init__(spec, blocks=blocks, features=features, **kwargs)
