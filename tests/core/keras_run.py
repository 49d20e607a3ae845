"""A Keras network as `core.training.behaviour` runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def as_run(model: Any) -> tuple[Callable[[dict[str, Any]], Any], dict[str, int]]:
    """The function from input tensors to the result (batch, rows, columns, bands), and the inputs' channels."""
    channels = {tensor.name: int(tensor.shape[-1]) for tensor in model.inputs}
    return lambda tensors: np.asarray(model.predict_on_batch(tensors)["sharpened"]), channels
