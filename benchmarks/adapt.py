"""What adapting a model to a scene gains, on every test scene: the whole scene, and the block held out of it.

    python benchmarks/adapt.py --data FOLDER [--minutes 2] [--scale 2] [--json FILE] [MODEL]...

FOLDER holds the scenes of accuracy.py; scenes that are not there are left out. MODEL: bundled names or folders, by
default sharpen_20m and sharpen_60m. Prints one table per model, RMSE in DN by Wald's protocol.

The block held out takes no part in the training; the whole scene holds the training ground too, and says less. With
``--scale 2`` the model is adapted to the scene made twice as coarse, and scored on the scene itself: whether a gain at
reduced scale is one at the next finer scale as well, where the truth is known too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import SCENES, score, unpack, write_band
from rich.console import Console
from rich.table import Table

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.inference.card import read_card
from s2sr_qgis.core.inference.model import find_model
from s2sr_qgis.core.raster.degradation import degrade
from s2sr_qgis.core.scene import open_scene


def main() -> int:
    """Print the tables, and write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the scenes")
    parser.add_argument("--minutes", type=float, default=2.0, help="of fine-tuning, a scene")
    parser.add_argument("--scale", type=int, default=1, help="adapt to the scene made so many times coarser")
    parser.add_argument("--scene", action="append", default=[], help="only scenes whose name holds this")
    parser.add_argument("--json", type=Path, help="figures as JSON, written after each scene")
    parser.add_argument("models", nargs="*", default=["sharpen_20m", "sharpen_60m"], help="bundled names or folders")
    options = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    for name in options.models:
        task = read_card(find_model(name)).task
        figures[name] = {}
        for label, level, pattern, tasks in SCENES:
            found = sorted(options.data.glob(pattern))
            wanted = not options.scene or any(word in label for word in options.scene)
            if task not in tasks or not found or not wanted or "stored" in label:
                continue
            scene = found[0] if found[0].is_dir() else unpack(found[0], transpose=True)
            try:
                figures[name][f"{label}, {level}"] = gain(name, scene, level, options.minutes, options.scale)
            except InputError as error:
                print(f"{label}: {error}", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
        if figures[name]:
            show(name, figures[name], options.scale)
    return 0 if any(figures.values()) else 1


def gain(model: str, scene: Path, level: str, minutes: float, scale: int) -> dict[str, Any]:
    """Adapt a model to a scene and score it on all of it before and after."""
    with open_scene(scene) as opened:
        own = opened.level
    known = jobs.SceneOptions(processing_level=None if own else level)
    with tempfile.TemporaryDirectory() as folder:
        output, shown = Path(folder) / "adapted", scene
        common: dict[str, Any] = {"allow_other_level": True, "scene_options": known}
        if scale > 1:
            shown = coarser(scene, Path(folder) / "coarser", scale)
            common["scene_options"] = jobs.SceneOptions(processing_level=level)
        result = jobs.run(jobs.AdaptJob(model=model, scene=str(shown), output=output, max_minutes=minutes, **common))
        models = [(name, "float32") for name in (model, str(output))]
        found = score(scene, level, models)
        before, after = (found[scored] for scored in models)
    return {**{key: result[key] for key in ("rmse_before", "rmse_after", "gain", "adapted", "minutes", "steps")},
            "patches": result["patches"], "pixels": result["pixels"],
            "whole_before": before, "whole_after": after}  # fmt: skip


def coarser(scene: Path, folder: Path, scale: int) -> Path:
    """A scene reduced ``scale`` times, by Wald's protocol, as a folder of bands of 10, 20 and 60 m in name."""
    folder.mkdir()
    with open_scene(scene) as opened:
        side = {band: scale * found.resolution // 10 for band, found in opened.bands.items()}
        unit = int(np.lcm.reduce(list(side.values())))
        grid = opened.grid
        pixels = opened.read(list(opened.bands))
        for band, image in pixels.data.items():
            resolution = opened.bands[band].resolution
            rows, cols = (length // unit * unit * 10 // resolution for length in (grid.height, grid.width))
            ok = pixels.valid[band][:rows, :cols] & ~pixels.saturated[band][:rows, :cols]
            small = degrade(image[:rows, :cols], scale, None, ok)
            whole = ok.reshape(rows // scale, scale, cols // scale, scale).all(axis=(1, 3))
            numbers = np.where(whole, np.clip(np.rint(small * 1e4), 1, 65534), 0).astype(np.uint16)
            write_band(folder / f"{band}.tif", numbers, resolution)
    return folder


def show(model: str, rows: dict[str, dict[str, Any]], scale: int) -> None:
    """Print one model's table."""
    how = f"adapted at {scale} times coarser, whole scene scored as it is" if scale > 1 else "adapted to the scene"
    table = Table(title=f"{model}, {how}; RMSE in DN")
    table.add_column("scene")
    for heading in ("held out before", "after", "gain", "whole before", "after", "gain", "patches", "steps", "minutes"):
        table.add_column(heading, justify="right")
    keys = ("rmse_before", "rmse_after", "whole_before", "whole_after")
    mean = {key: float(np.mean([row[key] for row in rows.values()])) for key in keys}
    for label, row in [*rows.items(), ("mean", mean)]:
        cells = []
        for start in ("rmse", "whole"):
            before, after = row[f"{start}_before"], row[f"{start}_after"]
            cells += [f"{before:.1f}", f"{after:.1f}", f"{100 * (1 - after / before):+.1f} %"]
        more = [str(row[key]) if key in row else "" for key in ("patches", "steps", "minutes")]
        table.add_row(label, *cells, *more)
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.exit(main())
