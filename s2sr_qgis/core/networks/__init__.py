"""The networks, by name, behind one contract (`base.SharpeningModel`, the contract of `otbtf.ModelBase`).

Written with `keras.ops`: they train under the TensorFlow, JAX and PyTorch backends of Keras 3.
"""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ..errors import InputError, first_line
from .base import ElementSpec, ModelBase, OwnModelBase, element_spec
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


def default_network(task: str) -> str:
    """The network for a dataset's task (``20m``, ``60m`` or ``cross-sensor``) where none is named."""
    return "crossnet" if task == "cross-sensor" else "coarsenet"


def network_options(name: str) -> dict[str, tuple[Any, Any]]:
    """Type and default of each option of a network, from the constructors of its classes."""
    found: dict[str, tuple[Any, Any]] = {}
    for part in NETWORKS[name].__mro__[: NETWORKS[name].__mro__.index(ModelBase)]:
        if "__init__" not in vars(part):
            continue
        types = get_type_hints(part.__init__)  # type: ignore[misc]
        for parameter in inspect.signature(part.__init__).parameters.values():  # type: ignore[misc]
            if parameter.default is not inspect.Parameter.empty:
                found.setdefault(parameter.name, (types[parameter.name], parameter.default))
    return found


def options_text(name: str) -> str:
    """A network's options with their defaults, as a user writes them: ``blocks=8, features=64``."""
    return ", ".join(f"{option}={_written(default)}" for option, (_, default) in network_options(name).items())


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
    _check_options(name, options or {})
    try:
        return NETWORKS[name](spec, **(options or {}))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The network '{name}' cannot be built with these options: {first_line(error)}; its options and "
            f"defaults are {options_text(name)}."
        ) from error


def _check_options(name: str, options: dict[str, Any]) -> None:
    contract = get_type_hints(OwnModelBase.__init__)
    known = {
        **network_options(name),
        **{option: (contract[option], None) for option in ("input_keys", "inference_cropping")},
    }
    for option, value in options.items():
        if option not in known:
            problem = f"has no option '{option}'"
        elif not _valid(value, known[option][0]):
            problem = f"does not take {option}={_written(value)}"
        else:
            continue
        raise InputError(f"The network '{name}' {problem}; its options and defaults are {options_text(name)}.")


def _valid(value: Any, kind: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return isinstance(value, bool) or not isinstance(value, int) or value >= 0


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _fits(name: str, spec: ElementSpec) -> bool:
    return all(key in spec[0] for key in NETWORKS[name].required)


__all__ = [
    "NETWORKS",
    "ElementSpec",
    "ModelBase",
    "build_network",
    "default_network",
    "element_spec",
    "network_options",
    "options_text",
]
