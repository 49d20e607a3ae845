"""`make models`: train the bundled models again from their recipes (`tools/recipes`) and the training scenes.

Each recipe names datasets (jobs of `create_sharpening_dataset`) and stages (jobs of `train`, each starting from the
weights of the one before). The result goes to `s2sr_qgis/models/NAME`, the work to `build/models/NAME`. Training runs
under whatever backend KERAS_BACKEND names; the export needs TensorFlow.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "tools" / "recipes"
MODELS = ROOT / "s2sr_qgis" / "models"


def main() -> int:
    """Make the models named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the training scenes")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "models", help="datasets and runs")
    parser.add_argument("names", nargs="*", help="recipes to run; none: all")
    options = parser.parse_args()
    names = options.names or sorted(path.stem for path in RECIPES.glob("*.yaml"))
    for name in names:
        recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
        work = options.work / name
        work.mkdir(parents=True, exist_ok=True)
        for key, job in recipe["datasets"].items():
            if not (work / key).exists():
                run({"job": "create_sharpening_dataset", "output": str(work / key), **dataset(job, options.data)}, work)
        weights = None
        for number, stage in enumerate(recipe["stages"]):
            folder = work / f"run{number}"
            if not (folder / "run.yaml").exists():
                job = {"job": "train", "output": str(folder), "resume": (folder / "state.json").exists(), **stage}
                job["datasets"] = [str(work / key) for key in stage["datasets"]]
                run(job | ({"initial_weights": str(weights)} if weights else {}), work)
            weights = folder / "best.weights.h5"
        shutil.rmtree(work / "model", ignore_errors=True)
        export = {"job": "export", "run": str(folder), "output": str(work / "model"), "name": name}
        run({**export, "title": recipe["title"], "saved_model": False}, work, KERAS_BACKEND="tensorflow")
        shutil.rmtree(MODELS / name, ignore_errors=True)
        shutil.copytree(work / "model", MODELS / name)
        print(f"{MODELS / name}: done")
    return 0


def dataset(job: dict[str, Any], data: Path) -> dict[str, Any]:
    """The dataset's job with its scenes found in the data folder, every patch for training."""
    scenes = [str(found) for pattern in job["scenes"] for found in sorted(data.glob(pattern))]
    if len(scenes) < len(job["scenes"]):
        raise SystemExit(f"{data} lacks some of {', '.join(job['scenes'])}.")
    return {**job, "scenes": scenes, "train": 1, "valid": 0, "test": 0}


def run(job: dict[str, Any], work: Path, **environment: str) -> None:
    """Run one job in a process of its own: the backend of Keras is chosen when it is imported."""
    path = work / "job.yaml"
    path.write_text(yaml.safe_dump(job), encoding="utf-8")
    print(f"{job['job']} -> {job['output']}", flush=True)
    command = [sys.executable, "-m", "training_cli.main", "run", str(path)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **environment})


if __name__ == "__main__":
    sys.exit(main())
