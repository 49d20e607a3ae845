"""Starting a network from a trained one with wider or more blocks: the inner channels that do least are left out.

A residual block's inner channels only meet in its second convolution, so each can go by itself. Half of them, chosen by
what they give on the training patches times the kernels that take it, cost less than 1 % before any further training.
After Li et al. 2017, doi:10.48550/arXiv.1608.08710, who judge by the kernels alone. Of blocks the last ones go.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from ..errors import InputError


def take_weights(
    model: keras.Model, source: keras.Model, patches: dict[str, npt.NDArray[np.float32]], folder: Path
) -> None:
    """Give a network the weights of another one of the same kind, whose blocks may be more, and wider inside.

    ``patches``: inputs by name, (n, h, w, c), DN, to judge the channels by. ``folder``: the other's run, for messages.
    Raises `InputError` where they differ in more.
    """
    kept: dict[str, npt.NDArray[np.intp]] = {}
    for layer in model.layers:
        shapes = [tuple(weight.shape) for weight in layer.get_weights()]
        if not shapes:
            continue
        try:
            weights = source.get_layer(layer.name).get_weights()
        except ValueError:
            raise InputError(_differs(folder, layer.name)) from None
        block, _, part = layer.name.rpartition("_")
        if block.startswith("block") and part == "a" and shapes[0][-1] < weights[0].shape[-1]:
            kept[block] = _strongest(source, block, shapes[0][-1], patches)
            weights = [weights[0][..., kept[block]], weights[1][kept[block]]]
        elif block in kept and part == "b":
            weights = [weights[0][:, :, kept[block]], weights[1]]
        if [weight.shape for weight in weights] != shapes:
            raise InputError(_differs(folder, layer.name))
        layer.set_weights(weights)


def _strongest(source: keras.Model, block: str, count: int, patches: dict[str, Any]) -> npt.NDArray[np.intp]:
    """The ``count`` inner channels of a block that add most to its result, in their order."""
    probe = keras.Model(source.inputs, source.get_layer(f"{block}_a").output)
    given = np.maximum(np.asarray(probe.predict_on_batch(patches)), 0)
    taken = source.get_layer(f"{block}_b").get_weights()[0]
    strength = np.mean(np.square(given), axis=(0, 1, 2)) * np.square(taken).sum(axis=(0, 1, 3))
    return np.sort(np.argsort(strength)[::-1][:count])


def _differs(folder: Path, layer: str) -> str:
    return (
        f"The network of {folder} differs from this one in its layer {layer}; start from a run of the same network and "
        "options, whose blocks may be wider inside (hidden)."
    )
