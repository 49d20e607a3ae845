"""Our own fast network: the trunk runs on the 20 m grid, and sees detail instead of reflectance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from .base import OUTPUT, ElementSpec, ModelBase
from .guided import RADIUS, consistent, guided_detail, taken
from .layers import FromPlanes, LocalMean, ToCoarserGrid, ToFinerGrid, ToPlanes, bilinear, halved, places

FLOOR = 4e-4
"""Added (in reflectance) to the local contrast, so that flat water does not become amplified noise."""

SHARPER: dict[str, Any] = {"radius": 2, "ridge": 3e-3, "smooth": True}
"""How the 20 m bands are sharpened that the 60 m bands then follow."""

EXACT: dict[str, Any] = {"dtype": "float32"}
"""For statistics and the final sum under mixed precision too: they carry the reflectance itself."""


@keras.saving.register_keras_serializable("s2sr")
class Symmetric(keras.constraints.Constraint):
    """Kernels (k, k, …) that are the same turned and mirrored, so that they learn no scene's misregistration."""

    def __call__(self, w: Any) -> Any:
        w = (w + ops.flip(w, 0)) / 2
        w = (w + ops.flip(w, 1)) / 2
        return (w + ops.swapaxes(w, 0, 1)) / 2


@keras.saving.register_keras_serializable("s2sr")
class LocalContrast(keras.layers.Layer):
    """(bands, their local mean), both (n, c, h, w) → (n, 1, h, w).

    The root of the bands' mean variance in the same square, plus `FLOOR`.
    """

    def __init__(self, radius: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.box = LocalMean(radius, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        self.box.build(input_shape[0])

    def call(self, inputs: Any) -> Any:
        # Mean of squares less square of the mean, so that the receptive field is one square wide and not two.
        bands, mean = inputs
        squares = self.box(ops.mean(ops.square(bands), axis=1, keepdims=True))
        variance = squares - ops.mean(ops.square(mean), axis=1, keepdims=True)
        return ops.sqrt(ops.maximum(variance, 0.0)) + FLOOR

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (input_shape[0][0], 1, *input_shape[0][2:])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "radius": self.box.radius}


class DetailNet(ModelBase):
    """What our own networks share: a residual trunk on the coarse grid that sees detail instead of reflectance.

    What enters is each band minus its local mean, divided by the local contrast of all bands; what leaves is multiplied
    by that contrast and added to the bilinearly upsampled band. So the network is exactly invariant to the scene's
    brightness, and flat and rugged ground weigh alike.

    Args:
        spec: shapes of inputs and targets.
        blocks: residual blocks (convolution, ReLU, convolution) of the trunk.
        features: channels of the trunk.
        hidden: channels between the two convolutions of a block; as many as ``features`` where not given.
        context: radius in pixels of the coarse grid of the square that local mean and contrast are taken over.
        spectrum: also show the network the local mean of the bands, divided by their brightness.
    """

    def __init__(
        self,
        spec: ElementSpec,
        blocks: int = 8,
        features: int = 64,
        context: int = 8,
        spectrum: bool = True,
        hidden: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.blocks, self.features, self.context, self.spectrum = blocks, features, context, spectrum
        self.hidden = hidden or features
        super().__init__(spec, **kwargs)

    def normalize_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: keras.layers.Rescaling(1e-4, dtype="float32")(tensor) for name, tensor in inputs.items()}

    def statistics(self, bands: Any) -> tuple[Any, Any]:
        """Local mean of each band, local contrast of all: planes (n, c, h, w) → the same, (n, 1, h, w)."""
        mean = LocalMean(self.context, **EXACT)(bands)
        return mean, LocalContrast(self.context, **EXACT)([bands, mean])

    def add_detail(
        self,
        base: list[Any],
        seen: list[Any],
        mean: Any,
        contrast: Any,
        guided: Sequence[Any] = (),
        finish: Callable[[list[Any]], list[Any]] | None = None,
    ) -> dict[str, Any]:
        """The output: upsampled bands, what the guides give to them, and the trunk's detail.

        ``base``, ``guided``: planes of the f² places in a pixel of the trunk. ``seen``: planes that show the trunk the
        bands' detail, in reflectance. ``finish``: what is done with the sum's planes, as many as ``base``.
        """
        # Each band's detail weighs as much as the contrast is large: divided by it, flat ground counts like rugged.
        share = 1.0 / contrast
        shown = [planes * share for planes in seen]
        if self.spectrum:
            brightness = ops.mean(ops.abs(mean), axis=1, keepdims=True) + FLOOR
            shown.append(mean / brightness - 1.0)
        shown += [planes * share for planes in guided]
        image = ops.transpose(ops.concatenate(shown, axis=1), (0, 2, 3, 1))
        last = self.trunk(image, sum(planes.shape[1] for planes in base))
        detail = ops.transpose(ops.cast(last, "float32"), (0, 3, 1, 2)) * contrast
        factor = math.isqrt(len(base))
        start = [one + other for one, other in zip(base, guided, strict=True)] if guided else base
        total = ops.concatenate(start, axis=1) + detail
        if finish:
            total = ops.concatenate(finish(places(total, factor)), axis=1)
        total = FromPlanes(factor, **EXACT)(total)
        return {OUTPUT: keras.layers.Rescaling(1e4, name=OUTPUT, **EXACT)(total)}

    def trunk(self, shown: Any, channels: int) -> Any:
        """All convolutions: what the network sees → so many channels of detail, both (n, h, w, c) of one grid."""
        small = near_zero()
        first = conv3(self.features, shown, "first")
        x = residual_blocks(first, self.blocks, self.features, small, self.hidden)
        return conv3(channels, x, "last", small)


class CoarseNet(DetailNet):
    """Residual network at the 20 m grid, for the 20 m and the 60 m task.

    The 10 m bands enter by space-to-depth, the result leaves by depth-to-space, so that each convolution costs a
    quarter of what it costs DSen2 per 10 m pixel. Inputs ``input_10m``, ``input_20m`` and, for the 60 m task,
    ``input_60m``. Options: those of `DetailNet`, and

    ``guides``: for each band of the target the channels of ``input_10m`` (and, for the 60 m task, behind them those of
    ``input_20m``) whose detail it gets by local regression before the network adds its own (see `guided`). What can be
    measured in the scene then need not be learned. ``guide_radius``: of the squares that it is measured in, in pixels
    of the target's band. ``guide_kernel``: side of a filter of each band that this detail goes through, learnt, the
    same in all directions: the guides are sharper than what the band's own optics would show at their resolution, the
    60 m bands above all. ``consistent``: what the result, seen in the coarse band's pixels, lacks is added at the end:
    its means over 60 m, or over 20 m behind the blur that the training pairs were made with.
    """

    coarseness = 2

    def __init__(
        self,
        spec: ElementSpec,
        guides: list[list[int]] | None = None,
        guide_radius: int = RADIUS,
        guide_kernel: int | None = None,
        consistent: bool = False,
        **kwargs: Any,
    ) -> None:
        self.guides, self.guide_radius, self.guide_kernel = guides, guide_radius, guide_kernel
        self.consistent = consistent
        super().__init__(spec, **kwargs)

    def get_outputs(self, normalized_inputs: dict[str, Any]) -> dict[str, Any]:
        fine = ToPlanes(2, **EXACT)(normalized_inputs["input_10m"])
        middle = ToPlanes(1, **EXACT)(normalized_inputs["input_20m"])
        inside = places(fine, 2)
        fine_mean = _mean(inside)
        coarse = [fine_mean, middle]
        guided: list[Any] = []
        if "input_60m" in normalized_inputs:
            low = ToPlanes(1, **EXACT)(normalized_inputs["input_60m"])
            coarse.append(_on_20m(low))
            base, target, down, up = _in_20m(low), low, _seen_at_60m, _in_20m
            if self.guides:
                guided = self._guided_60m(self.guides, inside, fine_mean, middle, low)
        else:
            base, target, down, up = _in_10m(middle), middle, halved, _in_10m
            if self.guides:
                guided = guided_detail(inside, fine_mean, middle, self.guides, self.guide_radius)
        if guided and self.guide_kernel:
            guided = _filtered(guided, self.guide_kernel)
        bands = ops.concatenate(coarse, axis=1)
        mean, contrast = self.statistics(bands)
        seen = [bands - mean, *(place - fine_mean for place in inside)]
        finish = partial(consistent, low=target, down=down, up=up) if self.consistent else None
        return self.add_detail(base, seen, mean, contrast, guided, finish)

    def _guided_60m(
        self, guides: list[list[int]], inside: list[Any], fine_mean: Any, middle: Any, low: Any
    ) -> list[Any]:
        """Detail of the 60 m bands from the 10 m bands, and from 20 m bands that got theirs from the 10 m bands."""
        fine = fine_mean.shape[1]
        used = sorted({channel - fine for each in guides for channel in each if channel >= fine})
        places_10m, on_20m = inside, fine_mean
        if used:
            # As they are, smoother at 10 m than in their own pixels, they would lead the regression astray.
            bands = taken(middle, used)
            every = [list(range(fine))] * len(used)
            detail = guided_detail(inside, fine_mean, bands, every, **SHARPER)
            sharp = [base + added for base, added in zip(_in_10m(bands), detail, strict=True)]
            sharp = consistent(sharp, bands, _mean, _in_10m)
            places_10m = [ops.concatenate([*pair], axis=1) for pair in zip(inside, sharp, strict=True)]
            on_20m = ops.concatenate([fine_mean, bands], axis=1)
        order = [*range(fine), *(fine + channel for channel in used)]
        own = [[order.index(channel) for channel in each] for each in guides]
        coarse = _to_60m(on_20m)
        return guided_detail(places_10m, coarse, low, own, self.guide_radius, spread=_on_20m, own_ridge=True)


def _in_10m(planes: Any) -> list[Any]:
    """Planes of the 20 m grid, upsampled to the four places in its pixels."""
    return bilinear(planes, 2)


def _on_20m(planes: Any) -> Any:
    """Planes of the 60 m grid, upsampled to the 20 m grid."""
    return ToFinerGrid(1, **EXACT)(ops.concatenate(bilinear(planes, 3), axis=1))


def _in_20m(planes: Any) -> list[Any]:
    """Planes of the 60 m grid, upsampled to the four places in the pixels of the 20 m grid.

    In two steps, which give the very same as one of six, since the first meets each pixel's centre, where the slopes of
    bilinear interpolation change.
    """
    return bilinear(_on_20m(planes), 2)


def _mean(inside: Sequence[Any]) -> Any:
    """The mean of the planes of all places in a pixel."""
    return sum(inside[1:], inside[0]) / len(inside)


def _to_60m(planes: Any) -> Any:
    """Planes of the 20 m grid, averaged over the pixels of the 60 m grid."""
    return _mean(places(ToCoarserGrid(1, **EXACT)(planes), 3))


def _seen_at_60m(inside: Sequence[Any]) -> Any:
    """Planes of the four places in the pixels of the 20 m grid, averaged over the pixels of the 60 m grid."""
    return _to_60m(_mean(inside))


def _filtered(guided: list[Any], side: int) -> list[Any]:
    """Planes of the four places through a learnt filter of the 10 m pixels, one for each band."""
    bands = guided[0].shape[1]
    image = FromPlanes(2, **EXACT)(ops.concatenate(guided, axis=1))
    start = keras.initializers.Constant(_unit(side, bands))
    blurred = keras.layers.DepthwiseConv2D(
        side,
        padding="same",
        use_bias=False,
        depthwise_initializer=start,
        depthwise_constraint=Symmetric(),
        name="guide_filter",
        **EXACT,
    )(image)
    return places(ToPlanes(2, **EXACT)(blurred), 2)


def _unit(side: int, bands: int) -> Any:
    kernel = np.zeros((side, side, bands, 1), np.float32)
    kernel[side // 2, side // 2] = 1.0
    return kernel


def conv3(features: int, tensor: Any, name: str, initializer: Any = "he_normal") -> Any:
    """A 3 × 3 convolution."""
    return keras.layers.Conv2D(features, 3, padding="same", kernel_initializer=initializer, name=name)(tensor)


def near_zero() -> Any:
    """The initial kernels of layers whose output is added: the untrained trunk is an identity, so deep ones train."""
    return keras.initializers.VarianceScaling(1e-2, "fan_in", "truncated_normal")


def residual_blocks(first: Any, blocks: int, features: int, initializer: Any, hidden: int | None = None) -> Any:
    """Residual blocks (convolution, ReLU, convolution) and a skip around them all; ``initializer`` of their ends.

    ``hidden``: channels between a block's two convolutions; ``features`` where not given.
    """
    x = first
    for index in range(blocks):
        y = keras.layers.ReLU()(conv3(hidden or features, x, f"block{index}_a"))
        x = keras.layers.Add()([x, conv3(features, y, f"block{index}_b", initializer)])
    return keras.layers.Add()([first, x])
