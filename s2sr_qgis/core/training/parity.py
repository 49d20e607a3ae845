"""Whether an ONNX file gives what the Keras network gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from ..errors import ModelError, first_line
from ..inference.card import SAVED_MODEL, ModelCard
from ..inference.model import Model, load_model, turned
from ..networks.base import OUTPUT

Array = npt.NDArray[Any]
Patches = dict[str, Array]

PARITY = 2e-4
"""Largest difference (reflectance) between Keras and ONNX Runtime that the parity check lets pass."""


def random_patches(card: ModelCard) -> Patches:
    """Noise of two scales in the range of reflectances, DN, as two patches of each input.

    Noise of the finest pixels alone is nearly flat in the coarsest ones; what the networks measure there, variances as
    differences of large numbers, is then little but the rounding that engines differ by.
    """
    rng = np.random.default_rng(1)
    finest = min(tensor.resolution for tensor in card.inputs)
    coarsest = max(tensor.coarser(finest) for tensor in card.inputs)
    patches = {}
    for tensor in card.inputs:
        inside = coarsest // tensor.coarser(finest)
        ground = rng.uniform(0, 6000, (2, 16, 16, len(tensor.bands))).repeat(inside, axis=1).repeat(inside, axis=2)
        patches[tensor.name] = (ground + rng.uniform(0, 2000, ground.shape)).astype(np.float32)
    return patches


def check_parity(
    model: keras.Model, folder: Path, card: ModelCard, patches: Patches, precision: str = "float32"
) -> float:
    """Largest difference (reflectance) between Keras and one of the model folder's ONNX files on the same patches."""
    found = outputs(load_model(folder, device="cpu", precision=precision), patches)
    return float(np.abs(found - expected(model, card, patches)).max() * card.scaling)


def check_saved_model(folder: Path, card: ModelCard, patches: Patches) -> float:
    """Largest difference (reflectance) between a model folder's SavedModel and its float32 ONNX file.

    The SavedModel is loaded into a session, as OTBTF does: `tf.saved_model.load` finds weights that a session does not.
    Raises `ModelError` where it does not run there.
    """
    import tensorflow as tf

    found = outputs(load_model(folder, device="cpu", precision="float32"), patches)
    served = []
    try:
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            signature = tf.compat.v1.saved_model.load(session, ["serve"], str(folder / SAVED_MODEL)).signature_def[
                "serving_default"
            ]
            feeds = {name: tensor.name for name, tensor in signature.inputs.items()}
            for index in range(len(found)):
                feed = {feeds[tensor.name]: patches[tensor.name][index : index + 1] for tensor in card.inputs}
                served.append(session.run(signature.outputs[OUTPUT].name, feed)[0])
    except (tf.errors.OpError, KeyError, ValueError) as error:
        raise ModelError(
            f"The SavedModel does not run in a TensorFlow session: {first_line(error)}; leave it out."
        ) from error
    return float(np.abs(np.stack(served) - found).max() * card.scaling)


def outputs(model: Model, patches: Patches) -> Array:
    """What a model folder's file gives for patches by input name (n, h, w, c): (n, H, W, bands), in the same units."""
    card, found = model.card, []
    for index in range(len(patches[card.inputs[0].name])):
        bands = {
            band: patches[tensor.name][index, :, :, channel] * np.float32(card.scaling)
            for tensor in card.inputs
            for channel, band in enumerate(tensor.bands)
        }
        result = model.infer(bands)  # `predict` would mirror the edges, which Keras pads with zeros
        found.append(np.stack([result[band] for band in card.output_bands], axis=-1) / np.float32(card.scaling))
    return np.stack(found)


def expected(model: keras.Model, card: ModelCard, patches: Patches) -> Array:
    """What the Keras network gives for the same patches, one by one."""
    found = []
    for index in range(len(patches[card.inputs[0].name])):
        one = {tensor.name: patches[tensor.name][index : index + 1] for tensor in card.inputs}
        found.append(sharpened(model, card, one)[0])
    return np.stack(found)


def sharpened(model: keras.Model, card: ModelCard, inputs: Patches) -> Array:
    """The Keras network's output (n, H, W, bands) for inputs by name, in both orientations where the card says so."""
    output = np.asarray(model.predict_on_batch(inputs)[OUTPUT])
    if card.orientations == 2:
        again = {name: np.ascontiguousarray(turned(tensor)) for name, tensor in inputs.items()}
        output = (output + turned(np.asarray(model.predict_on_batch(again)[OUTPUT]))) / 2
    return output
