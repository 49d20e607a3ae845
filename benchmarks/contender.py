"""One contender of `make bench`, alone in a process: `contender.py SPEC PIXELS`, asked by a `timing.Worker`.

SPEC (JSON): ``kind`` (a function below), ``threads``, and what the kind needs. PIXELS: .npz of reflectance by band.
Asked with ``{"tile": side or null}`` it sharpens the pixels, with ``"part": side`` as well a corner of them.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package's own environment lacks this project

from timing import serve

Bands = dict[str, np.ndarray]
Sharpen = Callable[[Bands, "int | None"], Any]

TEN, TWENTY, SIXTY = ("B04", "B03", "B02", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12"), ("B01", "B09")
"""As GDAL's subdatasets have them, which the package remote_sensing_processor reads."""


def onnx(spec: dict[str, Any]) -> Sharpen:
    """A model folder in ONNX Runtime, as `s2sr super-resolve` runs it. ``folder``, ``precision``."""
    from s2sr_qgis.core.inference.model import load_model

    return load_model(spec["folder"], "cpu", spec["threads"], spec["precision"]).predict


def tensorflow(spec: dict[str, Any]) -> Sharpen:
    """The SavedModel of a model folder in TensorFlow, tiled by the same code as the others. ``folder``."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    from s2sr_qgis.core.inference.card import SAVED_MODEL, read_card
    from s2sr_qgis.core.inference.model import Model

    tf.config.threading.set_intra_op_parallelism_threads(spec["threads"])
    folder = Path(spec["folder"])
    loaded = tf.saved_model.load(str(folder / SAVED_MODEL))
    network, card = loaded.signatures["serving_default"], read_card(folder)

    class Session:
        """What `Model` asks of ONNX Runtime."""

        def get_inputs(self) -> list[Any]:
            return [types.SimpleNamespace(name=tensor.name, type="tensor(float)") for tensor in card.inputs]

        def get_outputs(self) -> list[Any]:
            return [types.SimpleNamespace(name=tensor.name) for tensor in card.outputs]

        def run(self, names: list[str], feed: Bands) -> list[np.ndarray]:
            results = network(**{name: tf.constant(array) for name, array in feed.items()})
            return [results[name].numpy() for name in names]

    return Model(card, Session(), "cpu", "float32").predict  # type: ignore[arg-type]


def bicubic(spec: dict[str, Any]) -> Sharpen:
    """The interpolation that `s2sr evaluate` scores beside a model, on one core. ``bands``, ``factor``."""
    from s2sr_qgis.core.raster.resample import upsample

    def sharpen(bands: Bands, tile: int | None) -> Bands:
        return {name: upsample(bands[name], spec["factor"], "bicubic") for name in spec["bands"]}

    return sharpen


def package(spec: dict[str, Any]) -> Sharpen:
    """The sharpening of the PyPI package remote_sensing_processor 0.2.1, patches of its own size. ``task``."""
    import torch

    # The package's own start loads all it can do, for which it wants a dozen packages that sharpening does not need.
    found = importlib.metadata.distribution("remote_sensing_processor")
    path = Path(str(found.locate_file("remote_sensing_processor")))
    for name in ("", ".sentinel2"):
        module = types.ModuleType(f"remote_sensing_processor{name}")
        module.__path__ = [str(path / name.lstrip("."))]
        sys.modules[module.__name__] = module
    supres = importlib.import_module("remote_sensing_processor.sentinel2.superres.supres")
    torch.set_num_threads(spec["threads"])

    def stack(bands: Bands, names: tuple[str, ...]) -> np.ndarray:
        return np.stack([np.rint(bands[name] * 1e4) for name in names], axis=-1).astype(np.uint16)

    def sharpen(bands: Bands, tile: int | None) -> Any:
        images = [stack(bands, names) for names in (TEN, TWENTY, SIXTY)[: 2 if spec["task"] == "20m" else 3]]
        return (supres.dsen2_20 if spec["task"] == "20m" else supres.dsen2_60)(*images, "MSIL1C")

    return sharpen


KINDS: dict[str, Callable[[dict[str, Any]], Sharpen]] = {f.__name__: f for f in (onnx, tensorflow, bicubic, package)}


def main(spec: dict[str, Any], pixels: str) -> None:
    """Load, then answer."""
    sharpen = KINDS[spec["kind"]](spec)
    with np.load(pixels) as file:
        bands = dict(file)

    def work(tile: int | None, part: int | None = None) -> None:
        sharpen(corner(bands, part) if part else bands, tile)

    serve(work)


def corner(bands: Bands, side: int) -> Bands:
    """The upper left ``side`` × ``side`` pixels of the finest bands, and the same ground of the others."""
    whole = max(len(image) for image in bands.values())
    return {
        name: np.ascontiguousarray(image[(slice(side * len(image) // whole),) * 2]) for name, image in bands.items()
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
