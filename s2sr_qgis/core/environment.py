"""What the environment of this process can do: packages, devices, bundled models."""

from __future__ import annotations

import platform
import sys
from importlib import metadata, util
from typing import Any

from .progress import Progress

PACKAGES = ("numpy", "scipy", "rasterio", "onnxruntime", "pydantic", "scikit-image", "pystac-client",
            "planetary-computer", "tensorflow", "keras", "tf2onnx", "pyotb")  # fmt: skip
_VARIANTS = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime-directml"),
    "tensorflow": ("tensorflow-cpu", "tensorflow-macos", "tensorflow-intel"),
}


def check_environment(progress: Progress) -> dict[str, Any]:
    """Look at this process's Python.

    Returns ``python`` (version), ``executable``, ``packages`` (version by name; None where not installed), ``devices``
    (that inference can use, best first), ``training`` (whether it can train), ``training_devices``, and ``models``: for
    each bundled one what `bundled` says.
    Raises `MissingPackageError` without ONNX Runtime, `ModelError` for a damaged card.
    """
    from .inference.model import devices

    progress.progress(0, "Looking at packages and devices")
    models = bundled()
    training = all(util.find_spec(name) is not None for name in ("tensorflow", "keras", "tf2onnx"))
    inference_devices = devices()
    progress.check()
    progress.progress(30, "Looking at devices for training" if training else "")
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": inference_devices,
        "training": training,
        "training_devices": _training_devices() if training else [],
        "models": models,
    }


def bundled() -> list[dict[str, Any]]:
    """The bundled models: ``name``, ``title``, ``task``, ``levels``, ``parameters``, ``mflop_per_pixel``, ``metrics``.

    ``variants``: their precisions; ``used``: the one that runs here unasked. Raises `ModelError` for a damaged card,
    `MissingPackageError` without ONNX Runtime.
    """
    from .inference.card import read_card
    from .inference.model import automatic_device, bundled_models, choose

    device = automatic_device()
    cards = [read_card(folder) for folder in bundled_models().values()]
    return [
        {
            "name": card.name,
            "title": card.title,
            "task": card.task,
            "levels": card.processing_levels,
            "parameters": card.parameters,
            "mflop_per_pixel": card.mflop_per_pixel,
            "variants": [file.precision for file in card.files],
            "used": choose(card, device).precision,
            "metrics": card.metrics,
        }
        for card in cards
    ]


def _version(name: str) -> str | None:
    for distribution in (name, *_VARIANTS.get(name, ())):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _training_devices() -> list[str]:
    from .training.devices import training_devices

    return training_devices()
