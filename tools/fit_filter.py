"""`fit_filter.py DATASET… NETWORK OPTIONS WEIGHTS`: what the training of a 60 m network begins with.

That is a filter of the guides' detail by least squares, and a trunk that adds nothing yet. The filter is the one thing
of the start that a scene cannot tell by itself: how much softer a coarse band's optics are than its guides. With few
scenes it is fitted rather than trained; each scene counts alike, whatever its contrast.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from s2sr_qgis.core.dataset.card import TARGET, read_dataset
from s2sr_qgis.core.networks import build_network, element_spec
from s2sr_qgis.core.networks.base import OUTPUT
from s2sr_qgis.core.networks.coarsenet import Symmetric

Float = NDArray[np.float32]

BORDER = 6
"""Pixels of each patch's edge that are left out: beyond them the filter sees zeros."""


def start(datasets: Sequence[Path], network: str, options: dict[str, Any], weights: Path) -> None:
    """Write the weights of a network whose filter (``guide_kernel``) is fitted to datasets of one task."""
    patches = [read_dataset(folder) for folder in datasets]
    channels = {tensor.name: len(tensor.bands) for tensor in patches[0].card.tensors}
    bands = channels.pop(TARGET)
    model = build_network(network, element_spec(channels, {TARGET: bands}), options).model
    last, layer = model.get_layer("last"), model.get_layer("guide_filter")
    last.set_weights([np.zeros_like(weight) for weight in last.get_weights()])
    # Before it is corrected to the coarse pixels' means, the output is the upsampled band and the filtered detail.
    plain = build_network(network, element_spec(channels, {TARGET: bands}), {**options, "consistent": False}).model
    plain.set_weights(model.get_weights())
    filtered = plain.get_layer("guide_filter")
    filtered.set_weights([np.zeros_like(weight) for weight in filtered.get_weights()])
    parts = keras.Model(plain.inputs, {"base": plain.output[OUTPUT], "detail": filtered.input})
    kernel = np.zeros_like(layer.get_weights()[0])
    sums = [_sums(parts, dataset.arrays("train"), len(kernel)) for dataset in patches]
    for band in range(bands):
        normal, right = (sum(each[band][i] for each in sums) for i in (0, 1))
        ridge = 1e-3 * np.trace(normal) / len(right)
        kernel[:, :, band, 0] = np.linalg.solve(normal + ridge * np.eye(len(right)), right).reshape(kernel.shape[:2])
    layer.set_weights([np.asarray(Symmetric()(kernel))])
    model.save_weights(weights)


def _sums(parts: keras.Model, arrays: dict[str, Float], side: int) -> list[tuple[Any, Any]]:
    """For each band the normal equations of the filter, the scene's weight in them that of its upsampling's error."""
    found = []
    target = arrays[TARGET]
    result = parts.predict({name: images for name, images in arrays.items() if name != TARGET}, verbose=0)
    lacking = 1e-4 * (target - np.asarray(result["base"]))
    inside = slice(BORDER, -BORDER)
    reach = side // 2
    detail = np.pad(np.asarray(result["detail"]), ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    height, width = target.shape[1:3]
    for band in range(target.shape[-1]):
        shifted = np.stack(
            [
                detail[:, row : row + height, col : col + width, band][:, inside, inside].ravel()
                for row in range(side)
                for col in range(side)
            ]
        ).astype(np.float64)
        wanted = lacking[:, inside, inside, band].ravel().astype(np.float64)
        weight = 1 / np.square(wanted).sum()
        found.append((weight * shifted @ shifted.T, weight * shifted @ wanted))
    return found


if __name__ == "__main__":
    *folders, name, chosen, target = sys.argv[1:]
    start([Path(folder) for folder in folders], name, json.loads(chosen), Path(target))
