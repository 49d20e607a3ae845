"""The contract of a network: `otbtf.ModelBase`'s, under Keras 3.

A model trained here is served by OTBTF's TensorflowModelServe: NHWC tensors, free height and width, inputs named as in
the dataset, and beside each output cropped copies of it (`NAME_crop16` …), because OTBTF does not pad image borders.
Source: https://github.com/remicres/otbtf, `otbtf/model.py` (Apache-2.0), whose published class needs Keras 2.
"""

from __future__ import annotations

import abc
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

OUTPUT = "sharpened"
"""Name of every network's output."""

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
"""The layers whose kernels hold the weights and make the work."""

FILTER = keras.layers.DepthwiseConv2D
"""A filter of each channel alone: few weights, little work, and not of the trunk."""

INFERENCE_CROPPING = (16, 32, 64, 96, 128)
"""Pixels cut off each side in the additional outputs, as in OTBTF."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape of one dataset tensor: (batch, height, width, channels), None where free."""

    shape: tuple[int | None, ...]


ElementSpec = tuple[dict[str, TensorSpec], dict[str, TensorSpec]]
"""(inputs, targets), like ``element_spec`` of the `tf.data` set that OTBTF passes to its models."""


def element_spec(inputs: dict[str, int], targets: dict[str, int], sizes: dict[str, int] | None = None) -> ElementSpec:
    """The specification of tensors from their numbers of channels, and the patches' ``sizes`` where they are known.

    A network leaves height and width free all the same: it only learns from the sizes how much finer the target is.
    """
    sides = sizes or {}

    def shapes(channels: dict[str, int]) -> dict[str, TensorSpec]:
        return {name: TensorSpec((None, *[sides.get(name)] * 2, count)) for name, count in channels.items()}

    return shapes(inputs), shapes(targets)


class OwnModelBase(abc.ABC):
    """Our own class of OTBTF's contract, for where OTBTF's Python package is not installed."""

    def __init__(
        self,
        dataset_element_spec: ElementSpec,
        input_keys: list[str] | None = None,
        inference_cropping: list[int] | None = None,
    ) -> None:
        inputs = dataset_element_spec[0]
        self.dataset_input_keys = input_keys or list(inputs)
        self.inputs_shapes = {key: inputs[key].shape[1:] for key in self.dataset_input_keys}
        self.inference_cropping = list(inference_cropping or INFERENCE_CROPPING)
        self.model = self.create_network()

    @abc.abstractmethod
    def create_network(self) -> keras.Model:
        """The Keras model of inputs, normalisation and outputs."""

    @abc.abstractmethod
    def get_outputs(self, normalized_inputs: dict[str, Any]) -> dict[str, Any]:
        """The network: outputs by name, from normalised inputs by name."""

    def normalize_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Inputs in the network's own units; unchanged by default."""
        return inputs


CONTRACT_PROBLEM = ""
"""Why an installed otbtf is not used, for a warning."""

try:
    from otbtf import ModelBase as _Contract
except Exception as error:  # whatever an incomplete installation raises
    _Contract = OwnModelBase
    if importlib.util.find_spec("otbtf") is not None:
        CONTRACT_PROBLEM = (
            f"The installed otbtf cannot be imported ({type(error).__name__}: {error}), so s2sr's own class of its "
            "contract is used; install the package that is missing."
        )


class ModelBase(_Contract):  # type: ignore[misc,valid-type]
    """What every network here derives from; the parts of OTBTF's class that need Keras 2 are written for Keras 3.

    Subclasses give `get_outputs` and `normalize_inputs`. Inputs are named as the dataset's tensors and hold DN without
    offset (reflectance times 10000), float32, NHWC; so does the output.
    """

    required: tuple[str, ...] = ("input_10m", "input_20m")
    """Inputs without which there is no such network."""

    upsampling = "bilinear, half-pixel centres"
    """What the detail is added to, for the model's card."""

    coarseness = 1
    """Side in output pixels of the grid that the convolutions run on."""

    def mflop_per_pixel(self) -> float:
        """Million floating-point operations (two a multiplication) of the convolutions per output pixel."""
        layers = [layer for layer in self.model.layers if isinstance(layer, CONVOLUTIONS)]
        return float(sum(2 * math.prod(layer.kernel.shape) / self.side_of(layer) ** 2 for layer in layers)) / 1e6

    def side_of(self, layer: keras.layers.Layer) -> int:
        """Side in output pixels of the pixels that a layer's kernel is moved over."""
        return self.coarseness

    def get_inputs(self) -> dict[str, Any]:
        """Keras inputs by name, with free height and width."""
        return {
            key: keras.Input(shape=(None, None, self.inputs_shapes[key][-1]), name=key)
            for key in self.dataset_input_keys
        }

    def postprocess_outputs(
        self,
        outputs: dict[str, Any],
        inputs: dict[str, Any] | None = None,
        normalized_inputs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The additional outputs ``NAME_crop16`` …: each output without that many pixels on each side."""
        return {
            f"{name}_crop{crop}": keras.layers.Cropping2D(crop, name=f"{name}_crop{crop}", dtype="float32")(tensor)
            for name, tensor in outputs.items()
            for crop in self.inference_cropping
        }

    def create_network(self) -> keras.Model:
        """The Keras model for training: the outputs proper, without the cropped copies."""
        inputs = self.get_inputs()
        outputs = self.get_outputs(normalized_inputs=self.normalize_inputs(inputs=inputs))
        return keras.Model(inputs=inputs, outputs=outputs, name=type(self).__name__.lower())

    def serving_model(self, crops: Sequence[int] = (), orientations: int = 1) -> keras.Model:
        """The same network (same weights) with the cropped outputs, for the SavedModel.

        Args:
            crops: further crops in output pixels, beside those of the constructor.
            orientations: 2: each output is the mean with that on the image rotated by 180°, as inference computes it
                where a model's card has ``orientations: 2``.
        """
        inputs = {tensor.name: tensor for tensor in self.model.inputs}
        outputs = dict(zip(self.model.output_names, self.model.outputs, strict=True))
        if orientations == 2:
            rotated = self.model({name: _rotated(tensor) for name, tensor in inputs.items()})
            outputs = {name: (tensor + _rotated(rotated[name])) * 0.5 for name, tensor in outputs.items()}
        self.inference_cropping: list[int] = sorted({*self.inference_cropping, *crops})
        extra = self.postprocess_outputs(outputs=outputs, inputs=None)
        return keras.Model(inputs=self.model.input, outputs={**outputs, **extra}, name=self.model.name)


def _rotated(images: Any) -> Any:
    """Images (n, h, w, channels) rotated by 180°."""
    return ops.flip(images, (1, 2))
