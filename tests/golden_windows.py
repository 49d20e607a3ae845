"""Windows of what real OTB 8.1 gave (`../shared/data/otbtf_golden`), with the runs that gave them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from s2sr_qgis.core.raster.grid import Window

GOLDEN = Path(__file__).parents[2] / "shared" / "data" / "otbtf_golden"
INTERPOLATIONS = {"bco": "bicubic", "linear": "linear", "nn": "nearest"}


def runs(prefix: str) -> list[Any]:
    """The names of the runs, as parameters of a test; one that skips where the data are absent."""
    if not GOLDEN.is_dir():
        return [pytest.param("", marks=pytest.mark.skip(reason="the shared data 'otbtf_golden' are absent"))]
    return [name for name in json.loads((GOLDEN / "manifest.json").read_text()) if name.startswith(prefix)]


def arguments(run: str) -> dict[str, Any]:
    """The application's parameters; ``dtype`` is the output's type."""
    found: dict[str, Any] = json.loads((GOLDEN / "manifest.json").read_text())[run]["args"]
    return found | {"dtype": found["out"][1].replace("float", "float32")}


def windows(run: str) -> Iterator[tuple[Window, NDArray[Any]]]:
    """The windows that are kept of a run's output, and its pixels there, (bands, h, w)."""
    with np.load(GOLDEN / "windows.npz") as kept:
        for key in kept.files:
            name, _, row, col = key.split("|")
            if name == run:
                pixels = kept[key]
                yield Window(int(col), int(row), pixels.shape[2], pixels.shape[1]), pixels
