"""The workflow that comes with the plugin: search, dataset, training, super-resolution, in one run of qgis_process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import worker_python

WORKFLOW = Path(__file__).resolve().parents[2] / "s2sr_qgis" / "workflows" / "cross_sensor.model3"
LOOK = """
import json, sys, rasterio
file = rasterio.open(sys.argv[1])
print(json.dumps({"count": file.count, "res": file.res, "dtype": file.dtypes[0], "scene": file.tags()["SCENE"]}))
"""
SERVER = Path(__file__).with_name("serve_pair.py")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "pair"
    folder.mkdir()
    process = subprocess.Popen(
        [worker_python(), SERVER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield folder, process.stdout.readline().strip()
    finally:
        process.communicate()


def test_the_workflow_is_listed(qgis_process) -> None:
    status, out, err = qgis_process("list")
    assert status == 0, err
    assert "s2sr:Cross-sensor super-resolution" in out


@pytest.mark.slow
@pytest.mark.train
def test_from_a_fine_image_to_a_super_resolved_scene(qgis_process, served, tmp_path) -> None:
    folder, url = served
    result = tmp_path / "result.tif"
    inputs = {
        "XS": str(folder / "xs.tif"), "PAN": str(folder / "pan.tif"), "START": "2022-06-15", "END": "2022-08-15",
        "CATALOG_URL": url, "PATCH_SIZE": 16, "EPOCHS": 1, "superresolved_image": str(result),
        "scenes_found": str(tmp_path / "s.gpkg"),
        "dataset": str(tmp_path / "dataset"), "model": str(tmp_path / "model"),
    }  # fmt: skip
    status, results, err = qgis_process.run(str(WORKFLOW), inputs, timeout=900)
    assert status == 0, err
    assert {"dataset.yaml", "pair_report.html"} <= {path.name for path in (tmp_path / "dataset").iterdir()}
    assert (tmp_path / "model" / "model.onnx").is_file()
    look = subprocess.run([worker_python(), "-c", LOOK, result], capture_output=True, text=True, check=True)
    assert json.loads(look.stdout) == {"count": 4, "res": [1.5, 1.5], "dtype": "uint16", "scene": "S2A_CLEAR"}
    assert results["superresolved_image"] == str(result)
