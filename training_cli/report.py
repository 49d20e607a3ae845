"""What a finished job gives, on standard output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from s2sr_qgis.core import jobs

METRICS = {"rmse": "RMSE", "sre": "SRE (dB)", "sam": "SAM (°)", "uiq": "UIQ"}


def show(job: jobs.Job, outputs: dict[str, Any]) -> None:
    """Print a job's outputs: a table for an evaluation and for the environment's check, else one output a line."""
    console = Console(highlight=False, markup=False)
    if isinstance(job, jobs.EvaluateJob):
        console.print(evaluation_table(outputs, title=f"{job.model} on {job.scene}"))
        if job.json_file:
            console.print(f"Figures in {job.json_file}", soft_wrap=True)
    elif isinstance(job, jobs.CheckEnvironmentJob):
        _show_environment(console, outputs)
    else:
        _show_lines(console, outputs)


def show_models() -> None:
    """Print the bundled models, as the environment's check finds them."""
    found = jobs.run(jobs.CheckEnvironmentJob())["models"]
    Console(highlight=False, markup=False).print(_models_table(found) if found else "No models are bundled.")


def _show_environment(console: Console, outputs: Mapping[str, Any]) -> None:
    installed = {name: version for name, version in outputs["packages"].items() if version}
    devices = ", ".join(outputs["devices"])
    training = ", ".join(outputs["training_devices"]) if outputs["training"] else "no: install the 'train' extra"
    _show_lines(console, {"Python": f"{outputs['python']} at {outputs['executable']}", **installed})
    _show_lines(console, {"inference on": devices, "training on": training})
    if outputs["models"]:
        console.print()
        console.print(_models_table(outputs["models"]))


def _models_table(models: list[dict[str, Any]]) -> Table:
    table = Table("model", "sharpens", "for", box=None, pad_edge=False, header_style="bold")
    table.add_column("parameters", justify="right")
    table.add_column("MFLOP per 10 m pixel", justify="right")
    table.add_column("")
    for model in models:
        size = f"{model['parameters'] / 1e6:.2f} M"
        work = f"{model['mflop_per_pixel']:.2f}"
        table.add_row(model["name"], model["task"], ", ".join(model["levels"]), size, work, model["title"])
    return table


def _show_lines(console: Console, outputs: Mapping[str, Any], indent: str = "") -> None:
    """One output a line; nested ones further right."""
    width = max((len(name) for name in outputs), default=0)
    for name, value in outputs.items():
        title = name.replace("_", " ")
        if isinstance(value, Mapping):
            console.print(f"{indent}{title}")
            _show_lines(console, value, indent + "  ")
        elif value is not None and value != [] and value != "":
            parts = value if isinstance(value, list | tuple) else [value]
            console.print(f"{indent}{title:<{width}}  {', '.join(map(_text, parts))}", soft_wrap=True)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
