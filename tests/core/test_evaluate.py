"""Wald's protocol: published bicubic figures, blocks, masks, output, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from tiny_model import RESOLUTION, SIXTIES, TWENTIES, scene_numbers, tiny_model, write_scene

from s2sr_qgis.core.errors import Cancelled, InputError, ModelError, OutputError
from s2sr_qgis.core.inference import evaluate as module
from s2sr_qgis.core.inference.model import load_model
from s2sr_qgis.core.jobs import EvaluateJob, run
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.degradation import degrade
from s2sr_qgis.core.raster.resample import upsample
from s2sr_qgis.core.scene import Scene
from s2sr_qgis.core.similarity.measures import catalogue, measure

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test imagery in {DATA}")
BANDS = {"20m": TWENTIES, "60m": SIXTIES}
FACTOR = {"20m": 2, "60m": 6}


@pytest.fixture(autouse=True)
def few_measures(monkeypatch):
    """Those that take little time; who asks for all of them sets it back."""
    monkeypatch.setattr(module, "MEASURES", ("rmse", "psnr", "sre", "sam", "uiq", "spectral_correlation"))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {task: tiny_model(folder / task, task) for task in ("20m", "60m")}


@pytest.fixture(scope="module")
def numbers() -> dict[str, np.ndarray]:
    return scene_numbers(720)


@pytest.fixture(scope="module")
def scene(tmp_path_factory, numbers) -> Path:
    return write_scene(tmp_path_factory.mktemp("scenes") / "made", numbers)


def evaluate(model: Path, scene: Path, progress: Progress | None = None, **options):
    return run(EvaluateJob(model=str(model), scene=str(scene), **options), progress)


def whole_image(model: Path, numbers: dict[str, np.ndarray], task: str, border: int):
    """The protocol on arrays, without blocks: reference, model and bicubic in DN."""
    factor = FACTOR[task]
    side = numbers["B02"].shape[0] // (6 * factor) * 6 * factor  # the 60 m bands' pixels, degraded
    if task == "20m":
        side = numbers["B02"].shape[0] // 4 * 4
    cut = {b: x[: side * 10 // RESOLUTION[b], : side * 10 // RESOLUTION[b]] for b, x in numbers.items()}
    low = {b: degrade(x.astype(np.float32) / np.float32(1e4), factor) for b, x in cut.items()}
    sharp = load_model(model).predict(low)
    inner = np.s_[:, border:-border, border:-border]
    return [
        np.stack(images)[inner]
        for images in (
            [cut[b].astype(np.float64) for b in BANDS[task]],
            [sharp[b] * 1e4 for b in BANDS[task]],
            [upsample(low[b], factor, "bicubic") * 1e4 for b in BANDS[task]],
        )
    ]


def close(figure: float | None, expected: float) -> bool:
    """Equal but for what tiles change in a network's float32; None stands for NaN."""
    return np.isnan(expected) if figure is None else figure == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(("task", "border"), [("20m", 6), ("60m", 6), ("20m", 9)])
def test_figures_are_those_of_the_whole_image(models, scene, numbers, task, border, monkeypatch):
    """In blocks much smaller than the scene."""
    monkeypatch.setattr(module, "BLOCK", 240)
    if border == 6:
        monkeypatch.setattr(module, "MEASURES", ())
    result = evaluate(models[task], scene, border=border)
    reference, sharp, smooth = whole_image(models[task], numbers, task, border)
    names = module.MEASURES or list(catalogue())
    for way, image in (("model", sharp), ("bicubic", smooth)):
        expected = measure(reference, image, names, data_range=1e4, ratio=FACTOR[task])
        assert sorted(result["mean"][way]) == sorted(names)
        for name, score in expected.items():
            assert close(result["mean"][way][name], score.total), name
            for i, band in enumerate(BANDS[task]):
                if score.bands is None:
                    assert name not in result["bands"][band][way]
                else:
                    assert close(result["bands"][band][way][name], score.bands[i]), (name, band)
    assert result["rmse"] == result["mean"]["model"]["rmse"]
    assert result["rmse_bicubic"] == result["mean"]["bicubic"]["rmse"]
    assert result["ratio"] == pytest.approx(result["rmse"] / result["rmse_bicubic"])
    assert result["pixels"] == reference[0].size
    assert (result["task"], result["factor"], result["border"]) == (task, FACTOR[task], border)


def test_reads_are_bounded(models, scene, monkeypatch):
    sizes = []
    read = Scene.read

    def spy(self, bands, window=None):
        sizes.append(max(window.width, window.height))
        return read(self, bands, window)

    monkeypatch.setattr(Scene, "read", spy)
    monkeypatch.setattr(module, "BLOCK", 240)
    evaluate(models["20m"], scene)
    assert len(sizes) == 16  # 348 pixels in blocks of 96
    assert max(sizes) <= 2 * (96 + 2 * (7 + 24 + 4))  # block, the measures' windows, halo on both sides


@pytest.mark.parametrize("value", [0, 65535])
def test_unusable_pixels_do_not_count(models, scene, numbers, tmp_path, value, monkeypatch):
    """A hole in one 10 m band costs the degraded pixels that see it, in every block size."""
    spoilt = {band: image.copy() for band, image in numbers.items()}
    spoilt["B08"][200:221, 300:340] = value  # touches rows 100 to 110 and columns 150 to 169 of 20 m
    folder = write_scene(tmp_path / "hole", spoilt)
    whole = evaluate(models["20m"], folder)
    assert whole["pixels"] == (360 - 12) ** 2 - 11 * 20
    clean = evaluate(models["20m"], scene)
    assert whole["rmse_bicubic"] == pytest.approx(clean["rmse_bicubic"], rel=0.01)
    assert whole["rmse"] == pytest.approx(clean["rmse"], rel=0.05)
    monkeypatch.setattr(module, "BLOCK", 240)
    blocks = evaluate(models["20m"], folder)
    assert blocks["pixels"] == whole["pixels"]
    assert blocks["rmse"] == pytest.approx(whole["rmse"], rel=1e-4)
    assert blocks["mean"]["model"]["uiq"] == pytest.approx(whole["mean"]["model"]["uiq"], abs=1e-4)


def test_nodata_in_a_target_band_does_not_bleed(models, numbers, tmp_path):
    spoilt = {band: image.copy() for band, image in numbers.items()}
    spoilt["B11"][:, 300:] = 0
    result = evaluate(models["20m"], write_scene(tmp_path / "half", spoilt))
    assert result["pixels"] == 348 * (300 - 6)
    cut = {band: image[:, : 600 * 10 // RESOLUTION[band]] for band, image in numbers.items()}
    cut = {band: image[: image.shape[1]] for band, image in cut.items()}
    assert result["bands"]["B05"]["bicubic"]["rmse"] == pytest.approx(
        evaluate(models["20m"], write_scene(tmp_path / "cut", cut))["bands"]["B05"]["bicubic"]["rmse"], rel=0.02
    )


def test_no_usable_pixel_is_a_sentence(models, numbers, tmp_path):
    empty = {**numbers, "B11": np.zeros_like(numbers["B11"])}
    with pytest.raises(InputError, match="No pixel can be compared"):
        evaluate(models["20m"], write_scene(tmp_path / "empty", empty))


def test_region_and_blur_count(models, scene, numbers):
    west, north = 600000, 5400000
    part = evaluate(models["20m"], scene, roi=f"{west},{north - 3600},{west + 3600},{north}")
    assert part["pixels"] == (180 - 12) ** 2
    assert (
        evaluate(models["20m"], scene, sigma=2.0)["rmse_bicubic"]
        > 1.05 * evaluate(models["20m"], scene)["rmse_bicubic"]
    )


def test_json_file(models, scene, tmp_path):
    result = evaluate(models["60m"], scene, json_file=tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text()) == result
    assert result["mean"]["model"]["spectral_correlation"] is None, "of two bands there is none"
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]


def test_report(models, scene, tmp_path):
    done = evaluate(models["20m"], scene, report=tmp_path / "report.html")
    assert done["report"] == str(tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "20m on made" in page
    assert "blurred (Gaussian of 0.5 fine pixels) and reduced 2 times" in page
    for way in ("model", "bicubic"):
        assert f"{done['mean'][way]['psnr']:.2f}" in page
        assert f"{done['bands']['B8A'][way]['uiq']:.4f}" in page
    assert len(page) < 3e6


def test_json_file_holds_no_infinity(models, tmp_path):
    """Bicubic is exact on a flat band, which JSON cannot say."""
    numbers = scene_numbers(240)
    numbers["B05"][:] = 1000
    evaluate(models["20m"], write_scene(tmp_path / "flat", numbers), json_file=tmp_path / "f.json")
    figures = json.loads((tmp_path / "f.json").read_text(), parse_constant=pytest.fail)
    assert figures["bands"]["B05"]["bicubic"]["rmse"] < 0.01


def test_output_is_checked_before_the_work(models, scene, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open_scene", pytest.fail)
    with pytest.raises(OutputError, match="does not exist"):
        evaluate(models["20m"], scene, json_file=tmp_path / "no" / "f.json")
    with pytest.raises(OutputError, match="does not exist"):
        evaluate(models["20m"], scene, report=tmp_path / "no" / "f.html")


def test_missing_bands_are_named(models, numbers, tmp_path):
    some = {band: image for band, image in numbers.items() if band not in ("B01", "B12")}
    with pytest.raises(ModelError, match=r"takes B02.*B12.*only B02.*B12 missing"):
        evaluate(models["20m"], write_scene(tmp_path / "some", some))


def test_another_level_needs_leave(models, scene, tmp_path):
    model = tiny_model(tmp_path / "l2a", "20m", ("L2A",))
    options = {"scene_options": {"processing_level": "L1C"}}
    with pytest.raises(ModelError, match="for L2A, but the scene is L1C"):
        evaluate(model, scene, **options)
    assert evaluate(model, scene, allow_other_level=True, **options)["level"] == "L1C"


def test_too_small(models, tmp_path):
    folder = write_scene(tmp_path / "small", scene_numbers(36))
    with pytest.raises(InputError, match="gives 18 x 18 pixels to compare, too few with a border of 6"):
        evaluate(models["20m"], folder)
    assert evaluate(models["20m"], folder, border=3)["pixels"] == 144


def test_cancelling_leaves_nothing(models, scene, tmp_path):
    class Stop(Progress):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        evaluate(models["20m"], scene, Stop(), json_file=tmp_path / "f.json", report=tmp_path / "f.html")
    assert list(tmp_path.iterdir()) == []


PUBLISHED = [
    ("s2_l1c/iceland", 104.0, 109.2),
    ("s2_l1c/usa", 109.2, 54.0),
    ("s2_l2a/majortom_48QUE", 161.7, 281.3),
    ("s2_l2a/bigearthnet/S2A_MSIL2A_20170613T101031_87_48", 167.3, None),
    ("s2_l2a/bigearthnet/S2B_MSIL2A_20180204T94161_57_38", 342.2, None),
]


@needs_data
@pytest.mark.parametrize(("name", "at_20m", "at_60m"), PUBLISHED)
def test_bicubic_is_as_measured_before(models, name, at_20m, at_60m):
    assert evaluate(models["20m"], DATA / name)["rmse_bicubic"] == pytest.approx(at_20m, rel=0.001)
    if at_60m:
        assert evaluate(models["60m"], DATA / name)["rmse_bicubic"] == pytest.approx(at_60m, rel=0.003)


@needs_data
def test_bicubic_of_dsen2_s_own_test_image(models, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py reads the .mat file")
    groups = {"im10": (["B04", "B03", "B02", "B08"], 10), "im20": (TWENTIES, 20), "im60": (SIXTIES, 60)}
    with h5py.File(DATA / "s2_l1c" / "S2A_MSIL1C_20170527_T33UUB.mat") as file:
        for key, (bands, spacing) in groups.items():
            for band, image in zip(bands, np.array(file[key]).transpose(0, 2, 1), strict=True):
                profile = {"driver": "GTiff", "height": image.shape[0], "width": image.shape[1], "count": 1}
                place = from_origin(300000, 6200040, spacing, spacing)
                path = tmp_path / f"{band}.tif"
                with rasterio.open(path, "w", dtype="uint16", crs="EPSG:32633", transform=place, **profile) as out:
                    out.write(image.astype(np.uint16), 1)
    assert evaluate(models["20m"], tmp_path)["rmse_bicubic"] == pytest.approx(136.7, rel=0.001)
    assert evaluate(models["60m"], tmp_path)["rmse_bicubic"] == pytest.approx(105.4, rel=0.003)
