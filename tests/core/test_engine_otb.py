"""The engine "otb" writes what the native engine writes; OTBTF is a stand-in, and the real one where it is there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from cross_pairs import X, Y, make_scene
from stand_in_otbtf import StandIn
from tiny_model import tiny_cross_model
from tiny_saved_model import add_saved_model, python_with_tensorflow

from s2sr_qgis.core.errors import Cancelled, InputError, ModelError
from s2sr_qgis.core.inference import cross_sensor
from s2sr_qgis.core.inference.card import read_card, write_card
from s2sr_qgis.core.jobs import SuperResolveJob, run
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster import serve

SIZE = 93
"""Side of the scene in pixels of 10 m: 155 of 6 m, which fill no whole number of tiles."""


@pytest.fixture(params=["stand-in", pytest.param("OTBTF", marks=pytest.mark.otb("TensorflowModelServe"))])
def otbtf(request, monkeypatch):
    """Either of the two; the parameters of each run of the application."""
    runs = []
    real = serve.run_application

    def application(name, parameters, sources=None, threads=None):
        runs.append({"threads": threads, **parameters})
        return StandIn(parameters) if request.param == "stand-in" else real(name, parameters, sources, threads)

    monkeypatch.setattr(serve, "run_application", application)
    if request.param == "stand-in":
        monkeypatch.setattr(serve, "require_application", lambda name: None)
        monkeypatch.setattr(cross_sensor, "require_application", lambda name: None)
    return runs


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """With a real SavedModel where this machine can make one."""
    folder = tiny_cross_model(tmp_path_factory.mktemp("models") / "cross")
    if serve_available() and (python := python_with_tensorflow()):
        add_saved_model(folder, python)
    elif serve_available():
        pytest.skip("no Python with TensorFlow here makes the SavedModel; 'make setup' sets one up")
    else:
        (folder / "saved_model").mkdir()
    return folder


def serve_available() -> bool:
    from s2sr_qgis.core.raster.otb import otbtf_available

    return otbtf_available()


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """With holes, a corner without pixels that is wider than the filling reaches, and dark valid pixels."""
    folder = make_scene(tmp_path_factory.mktemp("scenes") / "scene", size=SIZE)
    for number, path in enumerate(sorted(folder.iterdir())):
        with rasterio.open(path, "r+") as file:
            image = file.read()
            image[:, 20:24, 50:54] = 0
            image[:, 70:, 60:] = 0
            image[:, 40:60, 5:25] = 1 + number
            image[:, 0, 0] = 0 if number == 2 else 900
            file.write(image)
    return folder


def written(scene: Path, model: Path, output: Path, **options):
    result = run(SuperResolveJob(scene=str(scene), output=output, models=[str(model)], **options))
    with rasterio.open(output) as file:
        profile = {name: value for name, value in file.profile.items() if name != "nodata"}
        facts = (profile, repr(file.nodata), file.tags(), file.descriptions, file.scales, file.offsets)
        facts += tuple(file.tags(band) | file.tags(band, ns="IMAGERY") for band in file.indexes)
        facts += tuple(file.overviews(1))
        layout = file.tags(ns="IMAGE_STRUCTURE")
        return file.read(), (*facts, layout), result


def assert_same(scene: Path, model: Path, folder: Path, **options) -> np.ndarray:
    """The same file from both engines, its pixels within 1 DN; nodata in the same pixels."""
    native, facts, result = written(scene, model, folder / "native.tif", engine="native", **options)
    otb, its, others = written(scene, model, folder / "otb.tif", engine="otb", **options)
    assert its == facts
    assert {**others, "device": "", "output": ""} == {**result, "device": "", "output": ""}
    assert others["device"] == "otbtf"
    assert otb.shape == native.shape
    np.testing.assert_array_equal(np.isnan(otb), np.isnan(native))
    np.testing.assert_array_equal(otb == 0, native == 0)
    step = 1 if native.dtype == np.uint16 else 1e-4
    np.testing.assert_allclose(otb.astype(float), native.astype(float), rtol=0, atol=step)
    assert not [path for path in folder.iterdir() if path.name not in ("native.tif", "otb.tif")]
    return otb


OPTIONS = [
    {},
    {"data_type": "float32"},
    {"tile_size": 60, "compression": "zstd"},
    {"format": "cog", "data_type": "float32"},
    {"roi": f"{X + 203},{Y - 633},{X + 461},{Y - 101}"},
    {"roi": f"{X + 830},{Y - 930},{X + 930},{Y - 860}", "data_type": "float32"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "float32", "tiles", "cog", "region", "corner"])
def test_both_engines_write_the_same_file(otbtf, scene, model, tmp_path, options):
    pixels = assert_same(scene, model, tmp_path, **options)
    if "roi" not in options:
        assert pixels.shape == (4, 620, 620)  # nothing is lost at any edge
        # The dark pixels are valid: 20 x 20 pixels of 10 m are 33 x 33 of 6 m.
        dark = pixels[:, 280:380, 48:152]
        assert np.isfinite(dark).all()
        assert (dark > 0).all() or pixels.dtype == np.float32
        assert 0.05 < (np.isnan(pixels) | (pixels == 0)).mean() < 0.15


def test_the_tile_size_is_the_users(otbtf, scene, model, tmp_path):
    written(scene, model, tmp_path / "a.tif", engine="otb", tile_size=60)
    written(scene, model, tmp_path / "b.tif", engine="otb", tile_size=600, threads=1)
    # 60 pixels of 10 m are 100 of 6 m and 400 of 1.5 m.
    assert [run["output.efieldx"] for run in otbtf] == [400, 4000]
    assert [run["threads"] for run in otbtf] == [None, 1]
    assert "OTB_TF_NSOURCES" not in os.environ
    assert "TF_NUM_INTRAOP_THREADS" not in os.environ


def test_an_image_smaller_than_a_tile(otbtf, model, tmp_path):
    small = make_scene(tmp_path / "scene", size=7)
    out = tmp_path / "out"
    out.mkdir()
    assert assert_same(small, model, out, data_type="float32").shape == (4, 44, 44)


def test_a_network_that_wants_sides_of_a_multiple(otbtf, scene, model, tmp_path):
    folder = changed(model, tmp_path / "models", multiple=8)
    out = tmp_path / "out"
    out.mkdir()
    assert_same(scene, folder, out, roi=f"{X + 203},{Y - 633},{X + 461},{Y - 101}")


def changed(model: Path, folder: Path, **card) -> Path:
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "card.yaml").unlink()
    write_card(read_card(model).model_copy(update=card), folder)
    return folder


REFUSED = [
    ({"memory": 500}, InputError, "no bound on its memory, a smaller tile size needs less; leave the option 'memory'"),
    ({"device": "cpu"}, InputError, "chooses the device itself; leave the option 'device' out"),
    ({"precision": "float16"}, InputError, "the SavedModel, which is float32; leave the option 'precision' out"),
]


@pytest.mark.parametrize(("options", "error", "sentence"), REFUSED, ids=[next(iter(o)) for o, _, _ in REFUSED])
def test_options_that_otbtf_lacks_are_refused(otbtf, scene, model, tmp_path, options, error, sentence):
    with pytest.raises(error, match=f"{sentence}.*engine 'native'"):
        written(scene, model, tmp_path / "out.tif", engine="otb", **options)
    assert not list(tmp_path.iterdir())
    assert not otbtf


def test_a_saved_model_of_one_orientation_is_refused_for_a_model_of_two(otbtf, scene, model, tmp_path):
    folder = changed(model, tmp_path / "models", orientations=2)
    with pytest.raises(ModelError, match=r"mean of two orientations.*export the run again, or use the engine 'native'"):
        written(scene, folder, tmp_path / "out.tif", engine="otb")
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.otb("TensorflowModelServe")
@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ({"bands": ["B04", "B03", "B02"]}, "input depth must be evenly divisible by filter depth: 3 vs 4"),
        ({"name": "other"}, 'Tensor name "other" not found'),
    ],
)
def test_what_otbtf_says_is_passed_on(scene, model, tmp_path, card, reason):
    folder = changed(model, tmp_path / "models", inputs=[read_card(model).inputs[0].model_copy(update=card)])
    with pytest.raises(ModelError, match=rf"{reason} \(.*saved_model\); export the run again, or use"):
        written(scene, folder, tmp_path / "out.tif", engine="otb")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_values_that_are_not_numbers_are_refused(otbtf, scene, model, tmp_path, monkeypatch):
    def broken(image, window=None):
        return np.full((4, *window.shape), np.nan, np.float32)

    monkeypatch.setattr(serve.OtbImage, "read", broken)
    with pytest.raises(ModelError, match="saved_model gave values that are not numbers; export the model again"):
        written(scene, model, tmp_path / "out.tif", engine="otb")
    assert not list(tmp_path.iterdir())


def test_a_cancel_leaves_nothing(otbtf, scene, model, tmp_path):
    class Stopped(Progress):
        def cancelled(self) -> bool:
            return bool(otbtf)  # once the application runs

    job = SuperResolveJob(scene=str(scene), output=tmp_path / "out.tif", models=[str(model)], engine="otb")
    with pytest.raises(Cancelled):
        run(job, Stopped())
    assert not list(tmp_path.iterdir())
