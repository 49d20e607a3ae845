"""What a finished job gives, on standard output."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from s2sr_qgis.core import jobs
from s2sr_qgis.core.environment import bundled

from .console import console

METRICS = {"rmse": ("RMSE", 1), "sre": ("SRE dB", 2), "sam": ("SAM °", 3), "uiq": ("UIQ", 4)}
"""Heading and decimals of each figure of an evaluation."""

DECIMALS = {"dB": 2, "°": 3, "px": 3, "": 4}
"""Of a measure's figure by its unit; figures in the images' own values have four digits."""


def show(job: jobs.Job, outputs: dict[str, Any]) -> None:
    """Print a job's outputs: a table for an evaluation and for the environment's check, else one output a line."""
    out = console()
    if isinstance(job, jobs.EvaluateJob):
        # A line of its own: a table's title is broken at the table's width.
        out.print(f"{job.model} on {job.scene}", style="italic", soft_wrap=True)
        out.print(evaluation_table(outputs))
        _show_files(out, {"Figures": job.json_file, "Report": job.report})
    elif isinstance(job, jobs.SimilarityJob) and "measures" in outputs:
        _show_similarity(out, job, outputs)
    elif isinstance(job, jobs.CheckEnvironmentJob):
        _show_environment(out, outputs)
    elif isinstance(job, jobs.SearchScenesJob):
        out.print(_scenes_table(outputs["scenes"]))
        out.print(f"Footprints in {outputs['output']}\nBest scene: {outputs['best']}", soft_wrap=True)
    elif isinstance(job, jobs.TrainJob) and outputs.get("test"):
        out.print(_test_table(outputs["test"]))
        out.print(f"Run of {outputs['epochs']} epochs in {outputs['output']}", soft_wrap=True)
    else:
        # What was assumed is in the log already.
        _show_lines(out, {name: value for name, value in outputs.items() if name != "assumptions"})


def show_models() -> None:
    """Print the bundled models from their cards; the environment's check shows them too, after longer looks."""
    found = bundled()
    console().print(_models_table(found) if found else "No models are bundled.")


def _show_environment(console: Console, outputs: Mapping[str, Any]) -> None:
    installed = {name: version for name, version in outputs["packages"].items() if version}
    devices = ", ".join(outputs["devices"])
    training = ", ".join(outputs["training_devices"]) if outputs["training"] else "no: install the 'train' extra"
    _show_lines(console, {"Python": f"{outputs['python']} at {outputs['executable']}", **installed})
    _show_lines(console, {"inference on": devices, "training on": training})
    if outputs["models"]:
        console.print()
        console.print(_models_table(outputs["models"]))


def evaluation_table(outputs: Mapping[str, Any], title: str | None = None) -> Table:
    """The figures of an evaluation: a row a band and one for all, each figure of the model beside bicubic's."""
    caption = f"{outputs['pixels']:,} pixels of {outputs['task'].removesuffix('m')} m; RMSE in DN (reflectance x 10000)"
    table = Table(title=title, caption=caption, box=None, header_style="bold", pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column("")
    for heading, _ in METRICS.values():
        table.add_column(heading, justify="right")
        table.add_column("bicubic", justify="right", style="dim")
    table.add_column("ratio", justify="right")
    rows = {**outputs["bands"], "all": outputs["mean"]}
    for name, row in rows.items():
        cells = [
            _figure(row[way].get(metric), decimals)
            for metric, (_, decimals) in METRICS.items()
            for way in ("model", "bicubic")
        ]
        table.add_row(name, *cells, _figure(row["ratio"], 3), style="bold" if name == "all" else "")
    return table


def _show_similarity(console: Console, job: jobs.SimilarityJob, outputs: Mapping[str, Any]) -> None:
    fits = 34 + 10 * len(outputs["bands"]) <= console.width
    # Lines of their own: the title and the caption of a narrow table would be as narrow.
    console.print(f"{job.image} compared with {job.reference}", style="italic", soft_wrap=True)
    console.print(similarity_table(outputs, outputs["bands"] if fits else []))
    console.print(
        f"{outputs['pixels']:,} pixels; definition: {outputs['definition']}; data range {outputs['data_range']:g}, "
        f"from {outputs['data_range_from']}; {outputs['unit']}" + ("" if fits else "; each band: --json, --report"),
        style="dim",
        soft_wrap=True,
    )
    if outputs.get("shift"):
        console.print("Shift onto the reference: {:+.3f} px right, {:+.3f} px down".format(*outputs["shift"]))
    if outputs.get("opensr"):
        console.print()
        _show_lines(console, {"opensr-test": outputs["opensr"]})
    _show_files(console, {"Figures": job.json_file, "Report": job.report, "Map": job.map})


def _show_files(console: Console, files: Mapping[str, Path | None]) -> None:
    for what, path in files.items():
        if path:
            console.print(f"{what} in {path}", soft_wrap=True)


def similarity_table(outputs: Mapping[str, Any], bands: list[str]) -> Table:
    """The figures of a comparison: a row a measure, of all bands and of each of these."""
    table = Table("", box=None, header_style="bold", pad_edge=False)
    for heading in ("all", *bands):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in outputs["measures"].values():
        unit = entry["unit"] if entry["unit"] in DECIMALS else None
        each = entry["bands"] or {}
        cells = [_measured(entry["total"], unit, entry)]
        cells += [_measured(each[band], unit, entry) if band in each else "" for band in bands]
        table.add_row(f"{entry['title']} {unit or ''}".strip(), *cells)
    return table


def _measured(value: float | None, unit: str | None, entry: Mapping[str, Any]) -> str:
    if value is None:
        return "∞" if "infinite" in entry.get("note", "") else "–"
    return f"{value:.4g}" if unit is None else f"{value:.{DECIMALS[unit]}f}"


def _figure(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _test_table(test: Mapping[str, Any]) -> Table:
    """A training's figures on its test split, in DN without offset."""
    title = f"Test split, {test['patches']} patches, DN"
    table = Table(
        "", "model", "bicubic", title=title, box=None, pad_edge=False, header_style="bold", title_justify="left"
    )
    bicubic = test["bicubic"]
    rows = [(f"RMSE {band}", value, bicubic["rmse"][band]) for band, value in test["rmse"].items()]
    rows += [("RMSE mean", test["rmse_mean"], bicubic["rmse_mean"])]
    rows += [(name, test[name.lower()], bicubic[name.lower()]) for name in ("L1", "L2")]
    for name, value, other in rows:
        table.add_row(name, f"{value:.1f}", f"{other:.1f}")
    for name, key, decimals in (("SSIM", "ssim", 4), ("SAM °", "sam", 2)):
        if key in test:
            table.add_row(name, f"{test[key]:.{decimals}f}", f"{bicubic[key]:.{decimals}f}")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _scenes_table(scenes: list[dict[str, Any]]) -> Table:
    """What a search found, best first; empty cells: not known."""
    table = Table("date", box=None, pad_edge=False, header_style="bold")
    for heading in ("cloud %", "over area %", "nodata %"):
        table.add_column(heading, justify="right")
    for heading in ("baseline", "platform"):
        table.add_column(heading)
    table.add_column("scene", overflow="fold")
    for scene in scenes:
        percents = (_figure(scene[name], 1) for name in ("cloud", "area_cloud", "area_nodata"))
        table.add_row(
            (scene["date"] or "")[:10], *percents, scene["baseline"] or "", scene["platform"] or "", scene["id"]
        )
    return table


def _models_table(models: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("model", no_wrap=True, overflow="fold")  # what --model takes
    table.add_column("sharpens")
    table.add_column("for")
    table.add_column("parameters", justify="right")
    table.add_column("MFLOP per output pixel", justify="right")
    table.add_column("variants (* used here)")
    table.add_column("")
    for model in models:
        size = f"{model['parameters'] / 1e6:.2f} M"
        work = f"{model['mflop_per_pixel']:.2f}"
        variants = ", ".join(name + "*" * (name == model["used"]) for name in model["variants"])
        table.add_row(model["name"], model["task"], ", ".join(model["levels"]), size, work, variants, model["title"])
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
