"""The networks, by name, behind one contract (`base.SharpeningModel`, the contract of `otbtf.ModelBase`).

Written with `keras.ops`: they train under the TensorFlow, JAX and PyTorch backends of Keras 3.
"""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from .base import ElementSpec, ModelBase, element_spec
from .coarsenet import CoarseNet
from .dsen2 import DSen2, VDSen2

NETWORKS: dict[str, type[ModelBase]] = {"coarsenet": CoarseNet, "dsen2": DSen2, "vdsen2": VDSen2}


def build_network(name: str, spec: ElementSpec, options: dict[str, Any] | None = None) -> ModelBase:
    """Build a network for tensors of these shapes.

    Args:
        name: a key of `NETWORKS`.
        spec: shapes of inputs and targets, see `element_spec`.
        options: width, depth … of the network (its constructor's keyword arguments).

    Raises:
        InputError: no network of that name, or an option that it does not have.
    """
    if name not in NETWORKS:
        raise InputError(f"There is no network '{name}'; the networks are {', '.join(NETWORKS)}.")
    try:
        return NETWORKS[name](spec, **(options or {}))
    except TypeError as error:
        raise InputError(f"The network '{name}' does not take these options: {error}.") from error


__all__ = ["NETWORKS", "ElementSpec", "ModelBase", "build_network", "element_spec"]
