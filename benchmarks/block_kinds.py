"""The kinds of blocks that `blocks.py` compares: the shipped network with other trunks, all at about one cost."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from s2sr_qgis.core.networks.coarsenet import CoarseNet, conv3, near_zero
from s2sr_qgis.core.networks.layers import FromPlanes, ToPlanes


class Separable(CoarseNet):
    """Each convolution of the residual blocks in two: one for each channel alone, then one of 1 × 1 (MobileNet)."""

    def trunk(self, shown: Any, channels: int) -> Any:
        small = near_zero()
        x = first = conv3(self.features, shown, "first")
        for index in range(self.blocks):
            y = conv1(self.features, depthwise(x, f"block{index}_a"), f"block{index}_a_point")
            y = depthwise(keras.layers.ReLU()(y), f"block{index}_b")
            x = keras.layers.Add()([x, conv1(self.features, y, f"block{index}_b_point", small)])
        return conv3(channels, keras.layers.Add()([first, x]), "last", small)


class Distilling(CoarseNet):
    """Information multi-distillation (IMDN, Hui et al. 2019, doi:10.1145/3343031.3351084).

    Each step keeps a third of its channels and works on the others; what all have kept is joined by a 1 × 1
    convolution. ReLU, for 8 bits' sake, and no attention: a mean over the whole image would let the result depend on
    the tiles.
    """

    def trunk(self, shown: Any, channels: int) -> Any:
        small, kept = near_zero(), self.features // 3
        x = first = conv3(self.features, shown, "first")
        for index in range(self.blocks):
            y, parts = x, []
            for step in range(2):
                y = keras.layers.ReLU()(conv3(self.features, y, f"block{index}_{step}"))
                parts.append(y[:, :, :, :kept])
                y = y[:, :, :, kept:]
            parts.append(keras.layers.ReLU()(conv3(kept, y, f"block{index}_2")))
            joined = conv1(self.features, keras.layers.Concatenate()(parts), f"block{index}_joined", small)
            x = keras.layers.Add()([x, joined])
        return conv3(channels, keras.layers.Add()([first, x]), "last", small)


class Reparameterised(CoarseNet):
    """Convolutions that are trained as a sum of 3 × 3, 1 × 1 and, where the widths allow it, identity (RepVGG, ECBSR).

    A chain of them with ReLU behind each, ``blocks`` of them; or, with ``residual``, the usual residual blocks.
    ``folded``: with a single 3 × 3 convolution in place of each sum, see `fold`.
    """

    def __init__(self, spec: Any, residual: bool = False, folded: bool = False, **kwargs: Any) -> None:
        self.residual, self.folded = residual, folded
        super().__init__(spec, **kwargs)

    def _sum(self, features: int, x: Any, name: str, initializer: Any) -> Any:
        wide = conv3(features, x, name, initializer)
        if self.folded:
            return wide
        identity = [x] if x.shape[-1] == features else []
        return keras.layers.Add()([wide, conv1(features, x, f"{name}_point", initializer), *identity])

    def trunk(self, shown: Any, channels: int) -> Any:
        # Two branches share He's variance; a chain of identities needs less beside them, or it grows from link to link.
        half, small = keras.initializers.VarianceScaling(1.0), near_zero()
        usual = half if self.residual else keras.initializers.VarianceScaling(0.05)
        x = first = self._sum(self.features, shown, "first", half)
        for index in range(self.blocks):
            if self.residual:
                y = keras.layers.ReLU()(self._sum(self.hidden, x, f"block{index}_a", usual))
                x = keras.layers.Add()([x, self._sum(self.features, y, f"block{index}_b", small)])
            else:
                x = keras.layers.ReLU()(self._sum(self.features, x, f"block{index}", usual))
        return self._sum(channels, keras.layers.Add()([first, x]), "last", small)


class Strided(CoarseNet):
    """The residual trunk on the 40 m grid: its pixels are four of the 20 m grid."""

    coarseness = 4

    def trunk(self, shown: Any, channels: int) -> Any:
        coarse = super().trunk(ops.transpose(ToPlanes(2)(shown), (0, 2, 3, 1)), 4 * channels)
        return FromPlanes(2)(ops.transpose(coarse, (0, 3, 1, 2)))


GUIDES = {"guides": [[0, 1, 2, 3]] * 6, "guide_radius": 3}
KINDS: dict[str, tuple[type[CoarseNet], dict[str, Any]]] = {
    "residual": (CoarseNet, {"blocks": 6, "features": 96, "hidden": 16}),
    "separable": (Separable, {"blocks": 8, "features": 96}),
    "distillation": (Distilling, {"blocks": 5, "features": 48}),
    "reparameterised": (Reparameterised, {"blocks": 10, "features": 48}),
    "stride 4": (Strided, {"blocks": 6, "features": 96, "hidden": 64}),
    "residual, reparameterised": (Reparameterised, {"blocks": 6, "features": 96, "hidden": 16, "residual": True}),
    "residual, wide inside": (CoarseNet, {"blocks": 5, "features": 48}),
}
"""Sized to about the operations of the first, 0.12 million a pixel: `sharpen_20m_fast` before it lost two blocks."""


def conv1(features: int, tensor: Any, name: str, initializer: Any = "he_normal") -> Any:
    """A 1 × 1 convolution."""
    return keras.layers.Conv2D(features, 1, kernel_initializer=initializer, name=name)(tensor)


def depthwise(tensor: Any, name: str) -> Any:
    """A 3 × 3 convolution of each channel alone."""
    count = tensor.shape[-1]
    layer = keras.layers.Conv2D(count, 3, padding="same", groups=count, kernel_initializer="lecun_normal", name=name)
    # The same numbers; but TensorFlow compiles a Conv2D with groups, which cannot be exported.
    layer.convolution_op = lambda inputs, kernel: ops.depthwise_conv(
        inputs, ops.transpose(kernel, (0, 1, 3, 2)), padding="same"
    )
    return layer(tensor)


def fold(model: keras.Model, folded: keras.Model) -> None:
    """Give a `folded` network the sums of the kernels that the branches of the trained one have."""
    names = {layer.name for layer in model.layers}
    for layer in folded.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = model.get_layer(layer.name).get_weights()
            if f"{layer.name}_point" in names:
                point, other = model.get_layer(f"{layer.name}_point").get_weights()
                kernel[1, 1] += point[0, 0] + (np.eye(len(point[0, 0])) if point.shape[2] == point.shape[3] else 0)
                bias = bias + other
            layer.set_weights([kernel, bias])
