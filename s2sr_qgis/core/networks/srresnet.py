"""Networks of the cross-sensor task, and the first of them: the one of OTBTF's super-resolution tutorial.

The tutorial (https://otb-keras-tutorial.readthedocs.io, part 4) brings Sentinel-2 bands on the 6 m grid of SPOT-6/7 to
that sensor's pansharpened 1.5 m.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from ..errors import InputError
from .base import OUTPUT, ElementSpec, ModelBase
from .coarsenet import EXACT, near_zero, residual_blocks

INPUT, TARGET = "input_lr", "target"

RATIO = 4
"""How much finer the target is where nothing says it."""


class CrossSensor(ModelBase):
    """What networks of the cross-sensor task share: one input, an output ``ratio`` times finer, and reflectance.

    The output ``sharpened`` is in DN (reflectance times 10000), which a 16-bit product holds: the network is trained
    and scored on it. That is the tutorial's target times 1e-4 and its extra output times 1e4, turned round; l1 changes
    by the constant 1e4 alone. The serving model has the further output ``reflectance``, 1e-4 times the first.

    Args:
        spec: shapes of ``input_lr`` and ``target``.
        ratio: how much finer the target is; not given: as the spec's sizes say, or 4 where they are free.
    """

    required = (INPUT,)

    def __init__(self, spec: ElementSpec, ratio: int | None = None, **kwargs: Any) -> None:
        low, target = spec[0][INPUT].shape, spec[1][TARGET].shape
        self.bands = int(target[-1] or 0)
        self.ratio = _ratio(low[1], target[1], ratio)
        super().__init__(spec, **kwargs)

    def normalize_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {name: keras.layers.Rescaling(1e-4, **EXACT)(tensor) for name, tensor in inputs.items()}

    def postprocess_outputs(
        self,
        outputs: dict[str, Any],
        inputs: dict[str, Any] | None = None,
        normalized_inputs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        reflectance = {"reflectance": keras.layers.Rescaling(1e-4, name="reflectance", **EXACT)(outputs[OUTPUT])}
        return {**reflectance, **super().postprocess_outputs({**outputs, **reflectance}, inputs, normalized_inputs)}


class SRModel(CrossSensor):
    """The tutorial's network: everything but the last layers at the input's resolution, then transposed convolutions.

    A 7 × 7 convolution, residual blocks with a skip around them, a transposed convolution of stride 2 for each doubling
    of the resolution, with a skip of the nearest neighbour around it, and a 7 × 7 convolution.

    Args:
        spec: shapes of ``input_lr`` and ``target``.
        blocks: residual blocks (convolution, ReLU, convolution).
        features: channels of the hidden layers.
        ratio: 2, 4 or 8; see `CrossSensor`.
    """

    upsampling = "none: transposed convolutions"

    def __init__(self, spec: ElementSpec, blocks: int = 16, features: int = 64, **kwargs: Any) -> None:
        self.blocks, self.features = blocks, features
        super().__init__(spec, **kwargs)

    def side_of(self, layer: keras.layers.Layer) -> int:
        if layer.name == "last":
            return 1
        # A transposed convolution's kernel is moved over the pixels that come in.
        stage = int(layer.name.removeprefix("up")) if layer.name.startswith("up") else 0
        return int(self.ratio // 2**stage)

    def get_outputs(self, normalized_inputs: dict[str, Any]) -> dict[str, Any]:
        stages = round(math.log2(self.ratio))
        if self.ratio not in (2, 4, 8):
            raise InputError(
                f"srresnet doubles the resolution in stages, so its ratio is 2, 4 or 8, not {self.ratio}; take the "
                "network crossnet, which has any."
            )
        conv: dict[str, Any] = {"padding": "same", "kernel_initializer": "he_normal"}
        first = keras.layers.Conv2D(self.features, 7, activation="relu", name="first", **conv)(normalized_inputs[INPUT])
        x = residual_blocks(first, self.blocks, self.features, near_zero())
        for stage in range(stages):
            # 4 × 4, because a side that the stride divides reaches every output pixel alike: no chequered pattern.
            up = keras.layers.Conv2DTranspose(self.features, 4, 2, activation="relu", name=f"up{stage}", **conv)(x)
            x = keras.layers.Add()([keras.layers.UpSampling2D(2)(x), up])
        total = keras.layers.Conv2D(self.bands, 7, padding="same", name="last", **EXACT)(x)
        return {OUTPUT: keras.layers.Rescaling(1e4, name=OUTPUT, **EXACT)(total)}


def _ratio(low: int | None, target: int | None, asked: int | None) -> int:
    """The ratio that patch sizes and the option agree on. Raises `InputError`."""
    if low and target:
        if target % low:
            raise InputError(f"The target's patches of {target} pixels are no whole multiple of the input's {low}.")
        if asked not in (None, target // low):
            raise InputError(f"The dataset's ratio is {target // low}, not {asked}; leave the option 'ratio' out.")
        return target // low
    if asked is not None and (not isinstance(asked, int) or asked < 1):
        raise InputError(f"The option 'ratio' is not usable (got {asked!r}): give a whole number from 1 on.")
    return asked or RATIO
