"""Accuracy of models on test scenes by Wald's protocol, peers and bicubic in the same run.

    python benchmarks/accuracy.py --data FOLDER [--peer MODEL]... [MODEL]...

FOLDER holds the scenes below; scenes that are not there are left out. MODEL: bundled names (default: all) or folders.
A peer is scored like a model, whatever its processing level. Prints one table per task, RMSE in DN.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rich.console import Console
from rich.table import Table
from timing import ROOT

from s2sr_qgis.core import jobs
from s2sr_qgis.core.inference.card import read_card
from s2sr_qgis.core.inference.model import bundled_models, find_model
from s2sr_qgis.core.scene import open_scene

CACHE = ROOT / ".cache" / "scenes"
MALMO = "s2_l1c/S2A_MSIL1C_20170527_T33UUB.mat"
"""Test image of DSen2's authors. Its axes are (band, x, y); published figures were made without transposing them."""

SCENES = [
    ("T33UUB", "L1C", MALMO, ("20m", "60m")),
    ("T33UUB, as stored", "L1C", MALMO, ("20m", "60m")),
    ("ssl4eo 20200604", "L1C", "s2_l1c/ssl4eo/*/*/20200604*", ("20m",)),
    ("ssl4eo 20200823, clouds", "L1C", "s2_l1c/ssl4eo/*/*/20200823*", ("20m",)),
    ("ssl4eo 20200604", "L2A", "s2_l2a/ssl4eo/*/*/20200604*", ("20m",)),
    ("ssl4eo 20200813", "L2A", "s2_l2a/ssl4eo/*/*/20200813*", ("20m",)),
    ("bigearthnet 87_48", "L2A", "s2_l2a/bigearthnet/*_87_48", ("20m",)),
    ("bigearthnet 4_55", "L2A", "s2_l2a/bigearthnet/*_4_55", ("20m",)),
    ("bigearthnet 56_35", "L2A", "s2_l2a/bigearthnet/*_56_35", ("20m",)),
    ("bigearthnet 69_24", "L2A", "s2_l2a/bigearthnet/*_69_24", ("20m",)),
    ("bigearthnet 57_38, snow", "L2A", "s2_l2a/bigearthnet/*_57_38", ("20m",)),
]


Scored = tuple[str, str]
"""A model (bundled name or folder) and the precision of its file; ("bicubic", "") is bicubic."""

Figures = dict[str, dict[Scored, float]]
"""RMSE by scene."""

BICUBIC: Scored = ("bicubic", "")


def main() -> int:
    """Print the tables, and write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the scenes")
    parser.add_argument("--peer", action="append", default=[], help="model folder to compare with")
    parser.add_argument("--json", type=Path, help="figures as JSON")
    parser.add_argument("models", nargs="*", help="bundled names or folders; none: all bundled")
    options = parser.parse_args()
    names = [*(options.models or bundled_models()), *options.peer]
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for task in ("20m", "60m"):
        cards = {name: read_card(find_model(name)) for name in names}
        chosen = [(n, f.precision) for n, card in cards.items() if card.task == task for f in card.files]
        rows = measure(options.data, task, chosen) if chosen else {}
        if rows:
            figures[task] = {label: {name_of(s): rmse for s, rmse in row.items()} for label, row in rows.items()}
            show(task, chosen, rows)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return 0 if figures else 1


def measure(data: Path, task: str, chosen: Sequence[Scored], copy: bool = True) -> Figures:
    """RMSE of models and of bicubic on the scenes of a task that are there. ``copy``: T33UUB as stored too."""
    rows: Figures = {}
    for label, level, pattern, tasks in SCENES:
        found = sorted(data.glob(pattern))
        if task in tasks and found and (copy or "stored" not in label):
            scene = found[0] if found[0].is_dir() else unpack(found[0], transpose="stored" not in label)
            rows[f"{label}, {level}"] = score(scene, level, [s for s in chosen if s != BICUBIC])
    return rows


def means(data: Path, task: str, chosen: Sequence[Scored]) -> dict[Scored, float]:
    """Mean RMSE over the scenes; empty where there are none. The second copy of T33UUB is left out."""
    kept = list(measure(data, task, chosen, copy=False).values())
    return {scored: float(np.mean([row[scored] for row in kept])) for scored in kept[0]} if kept else {}


def name_of(scored: Scored) -> str:
    """How a table calls a model in a precision."""
    name, precision = Path(scored[0]).name, scored[1]
    return name if precision in ("", "float32") else f"{name}, {precision}"


def score(scene: Path, level: str, models: Sequence[Scored]) -> dict[Scored, float]:
    """RMSE of each model and of bicubic on a scene, mean over the bands' RMSE."""
    row: dict[Scored, float] = {}
    with open_scene(scene) as opened:
        own = opened.level
    for name, precision in models:
        result = jobs.run(
            jobs.EvaluateJob(
                model=name,
                precision=precision,
                scene=str(scene),
                scene_options=jobs.SceneOptions(processing_level=None if own else level),
                allow_other_level=True,
                device="cpu",
            )
        )
        row[name, precision] = result["rmse"]
        row[BICUBIC] = result["rmse_bicubic"]
    return row


def show(task: str, chosen: Sequence[Scored], rows: Figures) -> None:
    """Print one task's table; the mean leaves out the second copy of T33UUB."""
    table = Table(title=f"{task} task, RMSE in DN (share of bicubic)")
    table.add_column("scene")
    for scored in [BICUBIC, *chosen]:
        table.add_column(name_of(scored), justify="right")
    kept = [row for label, row in rows.items() if "stored" not in label]
    mean = {scored: float(np.mean([row[scored] for row in kept])) for scored in kept[0]}
    for label, row in [*rows.items(), ("mean without the copy", mean)]:
        cells = [f"{row[scored]:.1f} ({row[scored] / row[BICUBIC]:.3f})" for scored in chosen]
        table.add_row(label, f"{row[BICUBIC]:.1f}", *cells)
    Console(width=140).print(table)


def unpack(path: Path, *, transpose: bool) -> Path:
    """The HDF5 test image as a folder of bands, made once."""
    folder = CACHE / f"{path.stem}_{'geographic' if transpose else 'stored'}"
    groups = {
        "im10": (10, ("B04", "B03", "B02", "B08")),
        "im20": (20, ("B05", "B06", "B07", "B8A", "B11", "B12")),
        "im60": (60, ("B01", "B09")),
    }
    if not folder.is_dir():
        folder.mkdir(parents=True)
        with h5py.File(path) as file:
            for key, (spacing, bands) in groups.items():
                for band, stored in zip(bands, file[key][()], strict=True):
                    image = np.rint(stored.T if transpose else stored).astype(np.uint16)
                    write_band(folder / f"{band}.tif", image, spacing)
    return folder


def write_band(path: Path, image: np.ndarray, spacing: int) -> None:
    """A band of DN, (height, width), as GeoTIFF somewhere near Malmö. ``spacing``: metres a pixel."""
    height, width = image.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint16"}
    place = {"crs": "EPSG:32633", "transform": from_origin(300000, 6200040, spacing, spacing)}
    with rasterio.open(path, "w", **profile, **place) as target:
        target.write(image, 1)


if __name__ == "__main__":
    sys.exit(main())
