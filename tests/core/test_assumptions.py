"""What was assumed about an input stands in the log, in the result and in the output's tags."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from s2sr_qgis.core import jobs
from s2sr_qgis.core.progress import Once, Progress
from s2sr_qgis.core.raster.writer import ASSUMPTIONS
from tests.products import BANDS, CORNER, CRS, L2A_BANDS, digital_numbers


class Log(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def log(self, text, level="info"):
        if level == "warning":
            self.warnings.append(text)


@pytest.fixture
def stack(tmp_path):
    """A stack of real numbers near 0 to 1 without any tag: taken for reflectance."""
    layers = {
        n: np.kron(x, np.ones((BANDS[n].resolution // 10,) * 2)) for n, x in digital_numbers(120, L2A_BANDS).items()
    }
    path = tmp_path / "stack.tif"
    grid = Affine(10, 0, CORNER[0], 0, -10, CORNER[1])
    with rasterio.open(
        path, "w", driver="GTiff", width=120, height=120, count=12, dtype="float32", crs=CRS, transform=grid
    ) as file:
        for number, (name, values) in enumerate(layers.items(), start=1):
            file.write((values / 10000).astype("float32"), number)
            file.set_band_description(number, name)
    return path


def test_super_resolve(stack, tmp_path):
    log, output = Log(), tmp_path / "out.tif"
    result = jobs.run(jobs.SuperResolveJob(scene=str(stack), output=output), log)
    (sentence,) = [text for text in log.warnings if "taken for reflectance" in text]
    assert sentence in result["assumptions"]
    with rasterio.open(output) as file:
        assert sentence in file.tags()[ASSUMPTIONS].split(" | ")


def test_nothing_assumed_leaves_no_tag(stack, tmp_path):
    output = tmp_path / "out.tif"
    options = jobs.SceneOptions(quantification=1, radiometric_offset=0, processing_level="L2A")
    job = jobs.SuperResolveJob(scene=str(stack), output=output, scene_options=options, data_type="float32")
    result = jobs.run(job)
    assert result["assumptions"] == []
    with rasterio.open(output) as file:
        assert ASSUMPTIONS not in file.tags()


def test_evaluate(stack, tmp_path):
    log, file = Log(), tmp_path / "figures.json"
    result = jobs.run(jobs.EvaluateJob(model="sharpen_20m", scene=str(stack), json_file=file, border=0), log)
    assert any("taken for reflectance" in text for text in result["assumptions"])
    assert json.loads(file.read_text())["assumptions"] == result["assumptions"]
    assert set(result["assumptions"]) <= set(log.warnings)


def test_a_warning_is_logged_once():
    log = Log()
    once = Once(log)
    for _ in range(2):
        once.log("No unit is stated.", "warning")
    assert log.warnings == ["No unit is stated."]
