"""Writes what the tests of qgis_process work on. Run with the worker's Python: `make_inputs.py FOLDER`."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "core")]

import numpy as np  # noqa: E402
import rasterio  # noqa: E402
from products import make_safe, make_stack  # noqa: E402
from tiny_model import scene_numbers, tiny_model, write_scene  # noqa: E402

from s2sr_qgis.core.jobs import CreateSharpeningDatasetJob, SceneOptions, run  # noqa: E402

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    make_safe(folder, "L2A", size=240).rename(folder / "small.SAFE")
    tiny_model(folder / "model_20m", "20m")
    tiny_model(folder / "model_60m", "60m")
    tiny_model(folder / "model_l1c", "20m", levels=("L1C",))
    write_scene(folder / "large", scene_numbers(1800))
    options = SceneOptions(processing_level="L2A")
    scenes = [str(folder / "large")]
    run(CreateSharpeningDatasetJob(scenes=scenes, output=folder / "dataset", block_size=2, scene_options=options))
    make_stack(folder / "stack.tif", size=240)
    make_stack(folder / "coarse.tif", size=120)
    with (
        rasterio.open(folder / "stack.tif") as stack,
        rasterio.open(folder / "other.tif", "w", **stack.profile) as file,
    ):
        file.write(stack.read() + np.random.default_rng(0).integers(0, 100, stack.shape, np.uint16))
        file.descriptions = stack.descriptions
