"""The networks, by name, behind one contract (`base.SharpeningModel`, the contract of `otbtf.ModelBase`).

Written with `keras.ops`: they train under the TensorFlow, JAX and PyTorch backends of Keras 3.
"""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from .base import ElementSpec, ModelBase, element_spec
from .coarsenet import CoarseNet
from .crossnet import CrossNet
from .dsen2 import DSen2, VDSen2
from .srresnet import SRModel

NETWORKS: dict[str, type[ModelBase]] = {
    "coarsenet": CoarseNet,
    "dsen2": DSen2,
    "vdsen2": VDSen2,
    "srresnet": SRModel,
    "crossnet": CrossNet,
}
"""The first three sharpen a scene's own bands; the last two are for the cross-sensor task."""


def build_network(name: str, spec: ElementSpec, options: dict[str, Any] | None = None) -> ModelBase:
    """Build a network for tensors of these shapes.

    Args:
        name: a key of `NETWORKS`.
        spec: shapes of inputs and targets, see `element_spec`.
        options: width, depth … of the network (its constructor's keyword arguments).

    Raises:
        InputError: no network of that name, none for these inputs, or an option that it does not have.
    """
    if name not in NETWORKS:
        raise InputError(f"There is no network '{name}'; the networks are {', '.join(NETWORKS)}.")
    if not _fits(name, spec):
        fitting = ", ".join(other for other in NETWORKS if _fits(other, spec)) or "none"
        raise InputError(
            f"The network '{name}' takes {' and '.join(NETWORKS[name].required)}, but the dataset has "
            f"{', '.join(spec[0])}; the networks for it are {fitting}."
        )
    try:
        return NETWORKS[name](spec, **(options or {}))
    except TypeError as error:
        raise InputError(f"The network '{name}' does not take these options: {error}.") from error


def _fits(name: str, spec: ElementSpec) -> bool:
    return all(key in spec[0] for key in NETWORKS[name].required)


__all__ = ["NETWORKS", "ElementSpec", "ModelBase", "build_network", "element_spec"]
