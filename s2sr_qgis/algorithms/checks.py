"""Cheap looks at paths, for `checkParameterValues`; the worker looks closer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..runner.text import tr

MODELS = Path(__file__).resolve().parents[1] / "models"


def bundled_models() -> list[str]:
    """Names of the models that come with the plugin."""
    return sorted(card.parent.name for card in MODELS.glob("*/card.yaml"))


def filled(**values: Any) -> dict[str, Any]:
    """The values that are there: the job's own defaults stand for the others."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def scene_problem(source: str) -> str:
    """Why a scene cannot be read, as far as can be told without reading it; empty if nothing is wrong."""
    if "://" in source or os.path.exists(os.path.expanduser(source)):
        return ""
    return tr("There is no scene at {}.").format(source)


def scene_name(source: str) -> str:
    """A name for a scene from its path alone: the product's where the path has one."""
    parts = [part for part in source.replace("\\", "/").split("/") if part]
    product = next((part for part in reversed(parts) if part.upper().endswith(".SAFE")), parts[-1] if parts else "")
    return product.partition("?")[0].rpartition(".")[0] or product


def model_problem(folder: str | None) -> str:
    """Why a folder is no model folder; empty if it is one or none is given."""
    if not folder or (Path(folder) / "card.yaml").is_file():
        return ""
    return tr("{} is no model folder: it has no card.yaml.").format(folder)


def output_problem(path: str) -> str:
    """Why nothing can be written to a path; empty if nothing is wrong."""
    folder = Path(path).parent
    if not folder.is_dir():
        return tr("The folder {} does not exist; create it or choose another output.").format(folder)
    if not os.access(folder, os.W_OK):
        return tr("The folder {} cannot be written to; choose another output.").format(folder)
    return ""
