"""A Keras network out of a model folder: the card says which, the ONNX file holds the weights.

A model folder has no Keras weights. Our sharpening networks are a chain of convolutions with element-wise layers and
skips between, so the order of the convolutions in the ONNX graph is that of the network's layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..dataset.card import TARGET
from ..errors import InputError, ModelError
from ..inference.card import ModelCard
from ..networks import NETWORKS, build_network, element_spec
from ..networks.base import CONVOLUTIONS, FILTER
from .parity import PARITY, check_parity, random_patches
from .stored import by_channel, constants

Float = NDArray[np.float32]


def rebuild(folder: Path, card: ModelCard) -> Any:
    """The network of a sharpening model's folder, with its weights, as a `core.networks.ModelBase`, float32.

    Raises `ModelError` where the card does not say how to build it, or where the result would not be the same network:
    they are compared on random patches.
    """
    what = f"The model {card.name} cannot be trained further"
    options = card.training.get("network_options")
    if card.network not in NETWORKS or options is None:
        raise ModelError(
            f"{what}: its card does not say how to build its network ('{card.network}'); take a bundled model, one "
            "that 's2sr export' wrote, or published DSen2 weights that 's2sr import-model' did."
        )
    channels = {tensor.name: len(tensor.bands) for tensor in card.inputs}
    try:
        network = build_network(
            card.network, element_spec(channels, {TARGET: len(card.outputs[0].bands)}), dict(options)
        )
    except InputError as error:
        raise ModelError(f"{what}: {error}") from error
    layers = [layer for layer in network.model.layers if isinstance(layer, (*CONVOLUTIONS, FILTER))]
    convolutions = read_convolutions(folder, card)
    found = [kernel.shape for kernel, _ in convolutions]
    wanted = [tuple(layer.get_weights()[0].shape) for layer in layers]
    if found != wanted:
        raise ModelError(
            f"{what}: its ONNX file has {len(found)} convolutions and the network of its card {len(wanted)}, or their "
            "shapes differ; export it again."
        )
    for layer, (kernel, bias) in zip(layers, convolutions, strict=True):
        layer.set_weights([kernel, bias] if layer.use_bias else [kernel])
    difference = check_parity(network.model, folder, card, random_patches(card))
    if difference > PARITY:
        raise ModelError(
            f"{what}: rebuilt from its card it differs from its ONNX file by {difference:.2g} in reflectance (at most "
            f"{PARITY:g} is allowed); export it again."
        )
    return network


def read_convolutions(folder: Path, card: ModelCard) -> list[tuple[Float, Float]]:
    """Kernel (height, width, in, out) and bias (out,) of each convolution of a model's float32 file, in their order.

    A filter of each channel alone has (height, width, channels, 1), as Keras has it.

    Raises `ModelError` where there is no such file or its weights are no constants.
    """
    names = [file.file for file in card.files if file.precision == "float32"]
    if not names:
        raise ModelError(f"The model {card.name} has no float32 file, which further training starts from.")
    path = folder / names[0]
    try:
        graph = onnx.load(path).graph
        stored = constants(graph)
        found = []
        for node in graph.node:
            if node.op_type == "Conv":
                kernel = stored[node.input[1]].astype(np.float32).transpose(2, 3, 1, 0)
                if by_channel(node):
                    kernel = kernel.transpose(0, 1, 3, 2)
                bias = stored[node.input[2]] if len(node.input) > 2 else np.zeros(kernel.shape[-1])
                found.append((kernel, bias.astype(np.float32)))
    except Exception as error:  # protobuf's own class is private
        raise ModelError(f"The weights in {path} cannot be read; export the model again.") from error
    return found
