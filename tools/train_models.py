"""`make models`: train the bundled models again from their recipes (`tools/recipes`) and the training scenes.

Each recipe names teachers (jobs of `import_model`), datasets (jobs of `create_sharpening_dataset`; ``soften``: see
`soften.py`) and stages (jobs of `train`, each starting from the weights of the one before), and may have options of the
export, ``filter``, the datasets that the guides' filter is fitted to before the first stage (see `fit_filter.py`), and
``kept``, the share that is kept of what was learned since the filter or, where there is none, in the last stage (see
`shrink.py`). One that ``starts_from`` another
recipe finds its datasets there and, unless it has a filter, begins with its last run. The result goes to
`s2sr_qgis/models/NAME`, the work to `build/models/NAME`; what is there already is not made again. Training runs under
whatever backend KERAS_BACKEND names; the export needs TensorFlow. The card gets the recipe, and the figures of
`benchmarks/accuracy.py` where DATA has the test scenes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import yaml
from soften import soften

from s2sr_qgis.core.inference.card import read_card, write_card

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "tools" / "recipes"
TENSORFLOW = {"KERAS_BACKEND": "tensorflow"}
MODELS = ROOT / "s2sr_qgis" / "models"


def main() -> int:
    """Make the models named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the training scenes")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "models", help="datasets and runs")
    parser.add_argument("--weights", type=Path, help="folder of published weights, for recipes that have a teacher")
    parser.add_argument("names", nargs="*", help="recipes to run; none: all")
    options = parser.parse_args()
    names = options.names or sorted(path.stem for path in RECIPES.glob("*.yaml"))  # NAME stands before NAME_fast
    for name in names:
        recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
        work = options.work / name
        work.mkdir(parents=True, exist_ok=True)
        source = options.work / recipe["starts_from"] if "starts_from" in recipe else None
        if source and not (source / "model").is_dir():
            raise SystemExit(f"{name} starts from {source.name}; make that first.")
        teachers = {key: work / key for key in recipe.get("teachers", {})}
        for key, job in recipe.get("teachers", {}).items():
            if not options.weights:
                raise SystemExit(f"{name} learns from published weights too; name their folder with --weights.")
            if not teachers[key].exists():
                weights = str(options.weights / job["source"])
                run({"job": "import_model", "output": str(work / key), **job, "source": weights}, work, **TENSORFLOW)
        for key, job in recipe.get("datasets", {}).items():
            if "teacher" in job:
                job = {**job, "teacher": str(teachers[job["teacher"]])}
            if not (work / key).exists():
                job = dataset(job, options.data)
                if kernels := job.pop("soften", None):
                    soft = work / f"{key}_soft"
                    soft.mkdir(exist_ok=True)
                    job["scenes"] = [
                        str(soften(Path(scene), kernels, soft / Path(scene).name)) for scene in job["scenes"]
                    ]
                run({"job": "create_sharpening_dataset", "output": str(work / key), **job}, work)
        weights = sorted(source.glob("run*"), key=lambda run: int(run.name[3:]))[-1] if source else None
        begin = work / "start.weights.h5"
        if "filter" in recipe:
            if not begin.exists():
                stage = recipe["stages"][0]
                fitted = [str((source or work) / key) for key in recipe["filter"]]
                tool("fit_filter.py", *fitted, stage["network"], json.dumps(stage["network_options"]), str(begin))
            weights = begin
        for number, stage in enumerate(recipe["stages"]):
            folder = work / f"run{number}"
            if not (folder / "run.yaml").exists():
                job = {"job": "train", "output": str(folder), "resume": (folder / "state.json").exists(), **stage}
                job["datasets"] = [str((source or work) / key) for key in stage["datasets"]]
                run(job | ({"initial_weights": str(weights)} if weights else {}), work)
            before, weights = weights, folder
        if "kept" in recipe:
            start = begin if "filter" in recipe else before
            if start is None:
                raise SystemExit(f"{name} keeps a share of what its only stage learned, which began with nothing.")
            tool("shrink.py", str(folder), str(recipe["kept"]), str(start))
        shutil.rmtree(work / "model", ignore_errors=True)
        export = {"job": "export", "run": str(folder), "output": str(work / "model"), "name": name}
        export |= {"title": recipe["title"], "saved_model": False, "quantize": True, **recipe.get("export", {})}
        run(export, work, **TENSORFLOW)
        describe(work / "model", recipe, options.data)
        shutil.rmtree(MODELS / name, ignore_errors=True)
        shutil.copytree(work / "model", MODELS / name)
        print(f"{MODELS / name}: done")
    return 0


def describe(model: Path, recipe: dict[str, Any], data: Path) -> None:
    """Add the recipe, the licence and the figures on the test scenes to a model's card."""
    card = read_card(model)
    card.training["recipe"] = {key: recipe[key] for key in ("teachers", "filter", "stages", "kept") if key in recipe}
    card.licence = "GPL-3.0-or-later"
    card.source = "s2sr; contains modified Copernicus Sentinel data"
    figures = model.parent / "figures.json"
    command = [sys.executable, "benchmarks/accuracy.py", "--data", str(data), "--json", str(figures), str(model)]
    if subprocess.run(command, cwd=ROOT).returncode == 0:
        found = json.loads(figures.read_text(encoding="utf-8"))[card.task]
        columns = {file.precision: model.name + suffix(file.precision) for file in card.files}
        kept = [row for scene, row in found.items() if "stored" not in scene]
        means = {precision: mean(row[column] for row in kept) for precision, column in columns.items()}
        for file in card.files[1:]:
            loss = 100 * (means[file.precision] / means["float32"] - 1)
            file.metrics |= {
                "split": "test",
                "scenes": len(kept),
                "rmse": round(means[file.precision], 2),
                "rmse_float32": round(means["float32"], 2),
                "loss_percent": round(loss, 2),
            }
            file.metrics.pop("patches", None)
        card.metrics["wald_rmse_dn"] = {
            scene: {
                **{precision: round(row[column], 1) for precision, column in columns.items()},
                "bicubic": round(row["bicubic"], 1),
            }
            for scene, row in found.items()
        }
    write_card(card, model)


def suffix(precision: str) -> str:
    """What benchmarks/accuracy.py adds to a model's name."""
    return "" if precision == "float32" else f", {precision}"


def dataset(job: dict[str, Any], data: Path) -> dict[str, Any]:
    """The dataset's job with its scenes found in the data folder, every patch for training."""
    scenes = [str(found) for pattern in job["scenes"] for found in sorted(data.glob(pattern))]
    if len(scenes) < len(job["scenes"]):
        raise SystemExit(f"{data} lacks some of {', '.join(job['scenes'])}.")
    return {**job, "scenes": scenes, "train": 1, "valid": 0, "test": 0}


def tool(script: str, *arguments: str) -> None:
    """Run another script of this folder in a process of its own, on TensorFlow."""
    command = [sys.executable, str(ROOT / "tools" / script), *arguments]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **TENSORFLOW})


def run(job: dict[str, Any], work: Path, **environment: str) -> None:
    """Run one job in a process of its own: the backend of Keras is chosen when it is imported."""
    path = work / "job.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    print(f"{job['job']} -> {job['output']}", flush=True)
    command = [sys.executable, "-m", "training_cli.main", "run", str(path)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **environment})


if __name__ == "__main__":
    sys.exit(main())
