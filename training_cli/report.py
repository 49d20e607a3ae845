"""What a finished job gives, on standard output: tables for people, plain lines for pipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from s2sr_qgis.core import jobs


def show(job: jobs.Job, outputs: dict[str, Any]) -> None:
    """Print a job's outputs."""
    console = Console(highlight=False, markup=False)
    _show_lines(console, outputs)


def _show_lines(console: Console, outputs: Mapping[str, Any], indent: str = "") -> None:
    """One output a line; nested ones further right."""
    width = max((len(name) for name in outputs), default=0)
    for name, value in outputs.items():
        title = name.replace("_", " ")
        if isinstance(value, Mapping):
            console.print(f"{indent}{title}")
            _show_lines(console, value, indent + "  ")
        elif value not in (None, [], ""):
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else _text(value)
            console.print(f"{indent}{title:<{width}}  {text}", soft_wrap=True)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_models() -> None:
    """Print the bundled models, as the environment's check finds them."""
    console = Console(highlight=False, markup=False)
    outputs = jobs.run(jobs.CheckEnvironmentJob())
    table = Table(box=None, pad_edge=False)
    for model in outputs["models"]:
        table.add_row(str(model))
    console.print(table)
