"""A scene in, a finer sensor's grid out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from cross_pairs import BANDS, CRS, X, Y, make_scene
from tiny_model import tiny_cross_model, tiny_model

from s2sr_qgis.core.errors import Cancelled, InputError, MissingPackageError, ModelError
from s2sr_qgis.core.inference.card import read_card
from s2sr_qgis.core.inference.cross_sensor import otbtf_job
from s2sr_qgis.core.inference.model import load_model
from s2sr_qgis.core.jobs import EvaluateJob, SuperResolveJob, run
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.otb import otbtf_available
from s2sr_qgis.core.raster.superimpose import superimpose
from s2sr_qgis.core.scene import open_scene
from s2sr_qgis.core.scene.image import SceneImage


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_cross_model(tmp_path_factory.mktemp("models") / "cross")


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return make_scene(tmp_path_factory.mktemp("scenes") / "scene")


def resolve(scene: Path, model: Path, output: Path, **options):
    result = run(SuperResolveJob(scene=str(scene), output=output, models=[str(model)], **options))
    with rasterio.open(output) as file:
        return result, file.read(), file.profile, file.descriptions


def test_the_result_lies_where_the_scene_lies_at_the_models_spacing(scene, model, tmp_path):
    result, pixels, profile, names = resolve(scene, model, tmp_path / "out.tif")
    assert profile["crs"].to_string() == CRS
    assert tuple(profile["transform"])[:6] == (1.5, 0, X, 0, -1.5, Y)
    assert pixels.shape == (4, 600, 600)
    assert (profile["dtype"], profile["nodata"], list(names)) == ("uint16", 0, list(BANDS))
    assert (result["width"], result["height"], result["bands"]) == (600, 600, list(BANDS))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.scales == pytest.approx((1e-4,) * 4)


def test_pixels_are_the_networks(scene, model, tmp_path):
    _, pixels, _, _ = resolve(scene, model, tmp_path / "out.tif", data_type="float32")
    with open_scene(scene) as opened:
        grid = opened.grid
        coarse = type(grid)(grid.crs, grid.x, grid.y, 6.0, 150, 150)
        low = superimpose(SceneImage(opened, BANDS), coarse).read() * 1e-4
    whole = load_model(model).predict(dict(zip(BANDS, low, strict=True)))
    np.testing.assert_allclose(pixels, np.stack([whole[band] for band in BANDS]), atol=2e-6)


def test_tiles_leave_no_trace(scene, model, tmp_path):
    holed = tmp_path / "scene"
    holed.mkdir()
    for path in scene.iterdir():
        with rasterio.open(path) as file:
            image, profile = file.read(), file.profile
        image[:, 20:37, 50:52] = 0
        with rasterio.open(holed / path.name, "w", **profile) as file:
            file.write(image)
    whole = resolve(holed, model, tmp_path / "whole.tif", data_type="float32", tile_size=4000)[1]
    tiled = resolve(holed, model, tmp_path / "tiled.tif", data_type="float32", tile_size=100)[1]
    assert np.isnan(whole).any()
    assert np.isfinite(whole).mean() > 0.9
    np.testing.assert_allclose(tiled, whole, atol=2e-6)


def test_a_region_is_a_part_of_the_whole(scene, model, tmp_path):
    roi = f"{X + 200},{Y - 500},{X + 400},{Y - 100}"
    _, part, profile, _ = resolve(scene, model, tmp_path / "part.tif", roi=roi)
    whole = resolve(scene, model, tmp_path / "whole.tif")[1]
    # 33 pixels of 6 m begin at 198 m; 200 m are no whole number of them.
    assert (profile["transform"].c, profile["transform"].f) == (X + 198, Y - 96)
    assert part.shape[1:] == (272, 136)
    np.testing.assert_array_equal(part, whole[:, 64:336, 132:268])


def test_bad_input_gets_one_sentence(scene, model, tmp_path):
    def sentence(match, error=ModelError, **options):
        with pytest.raises(error, match=match):
            run(
                SuperResolveJob(
                    **{"scene": str(scene), "output": tmp_path / "x.tif", "models": [str(model)], **options}
                )
            )
        assert not list(tmp_path.glob("*x.tif*"))

    sentence("by itself", models=[str(model), str(tiny_model(tmp_path / "twenty"))])
    sentence("leave the bands out", bands=["B04"])
    sentence("leave them out with a cross-sensor model", InputError, consistency=1)
    few = tmp_path / "few"
    few.mkdir()
    for path in scene.glob("*_B0[23].tif"):
        (few / path.name).write_bytes(path.read_bytes())
    sentence("takes B04, B03, B02, B08, but there are only B02, B03", scene=str(few))


def test_evaluation_wants_a_sharpening_model(scene, model):
    with pytest.raises(ModelError, match="the figures of its test pairs are in its card"):
        run(EvaluateJob(scene=str(scene), model=str(model)))


def test_a_cancel_leaves_nothing(scene, model, tmp_path):
    class Stopped(Progress):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        run(SuperResolveJob(scene=str(scene), output=tmp_path / "out.tif", models=[str(model)]), Stopped())
    assert not list(tmp_path.iterdir())


def test_a_cross_sensor_model_is_never_taken_unasked(scene, tmp_path, monkeypatch, model):
    from s2sr_qgis.core.inference import selection

    monkeypatch.setattr(selection, "bundled_models", lambda: {"cross": model})
    monkeypatch.setattr(selection, "find_model", lambda name: model)
    with pytest.raises(ModelError, match="No bundled model fits"):
        run(SuperResolveJob(scene=str(scene), output=tmp_path / "out.tif"))


def test_the_job_for_otbtf_has_the_right_fields(model, tmp_path):
    folder = tmp_path / "cross"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    card = read_card(folder)
    with pytest.raises(ModelError, match="holds no saved_model"):
        otbtf_job(folder, card, tmp_path / "scene.tif")
    (folder / "saved_model").mkdir()
    job = otbtf_job(folder, card, tmp_path / "scene.tif", field=64)
    # The radius of 5 input pixels is 20 output pixels, so 32 are cut off; a tile of 64 needs 128 / 4 input pixels.
    assert job.parameters == {
        "source1.il": [str(tmp_path / "scene.tif")],
        "source1.rfieldx": 32,
        "source1.rfieldy": 32,
        "source1.placeholder": "input_lr",
        "model.dir": str(folder / "saved_model"),
        "model.fullyconv": True,
        "output.names": ["sharpened_crop32"],
        "output.efieldx": 64,
        "output.efieldy": 64,
        "output.spcscale": 0.25,
        "optim.disabletiling": True,
    }


def test_otbtf_is_named_where_it_is_missing(scene, model, tmp_path):
    if otbtf_available():
        pytest.skip("OTBTF is installed here")
    with pytest.raises(MissingPackageError, match=r"orfeo-toolbox\.org|TensorflowModelServe.*mdl4eo/otbtf"):
        run(SuperResolveJob(scene=str(scene), output=tmp_path / "out.tif", models=[str(model)], engine="otb"))
    assert not list(tmp_path.iterdir())


def test_sharpening_has_no_otb_engine(scene, tmp_path):
    with pytest.raises(InputError, match="leave the engine out"):
        run(SuperResolveJob(scene=str(scene), output=tmp_path / "out.tif", engine="otb"))
