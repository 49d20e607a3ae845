"""Accuracy of models on test scenes by Wald's protocol, peers and bicubic in the same run.

    python benchmarks/accuracy.py --data FOLDER [--peer MODEL]... [MODEL]...

FOLDER holds the scenes below; scenes that are not there are left out. MODEL: bundled names (default: all) or folders.
A peer is scored like a model, whatever its processing level. Prints one table per task, RMSE in DN.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import h5py
import numpy as np
import rasterio
from rasterio.transform import from_origin
from rich.console import Console
from rich.table import Table

from s2sr_qgis.core import jobs
from s2sr_qgis.core.inference.card import read_card
from s2sr_qgis.core.inference.model import bundled_models, find_model
from s2sr_qgis.core.scene import open_scene

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "scenes"
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
        chosen = [name for name in names if read_card(find_model(name)).task == task]
        rows = {}
        for label, level, pattern, tasks in SCENES:
            found = sorted(options.data.glob(pattern))
            if task not in tasks or not found:
                continue
            scene = found[0] if found[0].is_dir() else unpack(found[0], transpose="stored" not in label)
            rows[f"{label}, {level}"] = score(scene, level, chosen)
        if chosen and rows:
            figures[task] = rows
            show(task, chosen, rows)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return 0 if figures else 1


def score(scene: Path, level: str, models: list[str]) -> dict[str, float]:
    """RMSE of each model and of bicubic on a scene, mean over the bands' RMSE."""
    row = {}
    for name in models:
        with open_scene(scene) as opened:
            own = opened.level
        result = jobs.run(
            jobs.EvaluateJob(
                model=name,
                scene=str(scene),
                scene_options=jobs.SceneOptions(processing_level=None if own else level),
                allow_other_level=True,
            )
        )
        row[name] = result["rmse"]
        row["bicubic"] = result["rmse_bicubic"]
    return row


def show(task: str, models: list[str], rows: dict[str, dict[str, float]]) -> None:
    """Print one task's table; the mean leaves out the second copy of T33UUB."""
    table = Table(title=f"{task} task, RMSE in DN (share of bicubic)")
    table.add_column("scene")
    for name in ["bicubic", *models]:
        table.add_column(Path(name).name, justify="right")
    kept = [row for label, row in rows.items() if "stored" not in label]
    mean = {name: float(np.mean([row[name] for row in kept])) for name in kept[0]}
    for label, row in [*rows.items(), ("mean without the copy", mean)]:
        cells = [f"{row[name]:.1f} ({row[name] / row['bicubic']:.3f})" for name in models]
        table.add_row(label, f"{row['bicubic']:.1f}", *cells)
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
                    profile = {
                        "driver": "GTiff",
                        "width": image.shape[1],
                        "height": image.shape[0],
                        "count": 1,
                        "dtype": "uint16",
                        "crs": "EPSG:32633",
                        "transform": from_origin(300000, 6200040, spacing, spacing),
                    }
                    with rasterio.open(folder / f"{band}.tif", "w", **profile) as target:
                        target.write(image, 1)
    return folder


if __name__ == "__main__":
    sys.exit(main())
