"""A stand-in for OTBTF's TensorflowModelServe: its geometry and its tiles, ONNX Runtime instead of TensorFlow.

The tests that use it run with the real application too, where that is installed, and expect the same of both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import rasterio


class StandIn:
    """What pyotb gives for the application: an image whose windows are computed when they are read."""

    name = "TensorflowModelServe"

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.runs = 0
        self._session = onnxruntime.InferenceSession(Path(parameters["model.dir"]).parent / "model.onnx")
        self._tensor = parameters["source1.placeholder"]
        self._output, crop = re.fullmatch(r"(\w+)_crop(\d+)", parameters["output.names"][0]).groups()
        self._crop, self._field = int(crop), parameters["output.efieldx"]
        self._ratio = round(1 / parameters["output.spcscale"])
        self._seen = parameters["source1.rfieldx"]
        assert self._seen == (self._field + 2 * self._crop) // self._ratio
        with rasterio.open(parameters["source1.il"][0]) as file:
            self._pixels = file.read().astype(np.float32)
        # OTBTF gives them to the network, and NaN would spread.
        assert np.isfinite(self._pixels).all()
        sides = ((side * self._ratio - 2 * self._crop) // self._field for side in self._pixels.shape[1:])
        rows, cols = (side * self._field for side in sides)
        self.shape = (rows, cols, len(self._tile(0, 0)))

    def __getitem__(self, key: tuple[slice, slice, slice]) -> Window:
        rows, cols = key[:2]
        assert 0 <= rows.start < rows.stop <= self.shape[0]
        assert 0 <= cols.start < cols.stop <= self.shape[1]
        field = self._field
        top, left = rows.start // field * field, cols.start // field * field
        tiles = [
            [self._tile(row, col) for col in range(left, cols.stop, field)] for row in range(top, rows.stop, field)
        ]
        whole = np.concatenate([np.concatenate(row, axis=2) for row in tiles], axis=1)
        return Window(whole[:, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left])

    def _tile(self, row: int, col: int) -> np.ndarray:
        self.runs += 1
        row, col = row // self._ratio, col // self._ratio
        seen = self._pixels[:, row : row + self._seen, col : col + self._seen].transpose(1, 2, 0)[None]
        made = self._session.run([self._output], {self._tensor: seen})[0][0]
        return made[self._crop : -self._crop, self._crop : -self._crop].transpose(2, 0, 1)


class Window:
    """Pixels (bands, height, width) as pyotb's images give them, (height, width, bands)."""

    def __init__(self, pixels: np.ndarray) -> None:
        self._pixels = pixels

    def to_numpy(self, preserve_dtype: bool, copy: bool) -> np.ndarray:
        return self._pixels.transpose(1, 2, 0).copy()
