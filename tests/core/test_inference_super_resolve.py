import os
import sys

import numpy as np
import pytest
import rasterio
from products import digital_numbers, make_safe, make_stack
from rasterio.warp import transform_bounds
from tiny_model import RESOLUTION, SIXTIES, TENS, TWENTIES, scene_numbers, tiny_model, write_scene

from s2sr_qgis.core.errors import Cancelled, InputError, MissingPackageError, ModelError, OutputError
from s2sr_qgis.core.inference import model as model_module
from s2sr_qgis.core.inference.model import find_model, load_model
from s2sr_qgis.core.jobs import SuperResolveJob, run
from s2sr_qgis.core.progress import Progress

ALL = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


class Log(Progress):
    def __init__(self, stop_at=None):
        self.lines, self.percents, self.files, self.stop_at = [], [], [], stop_at

    def log(self, text, level="info"):
        self.lines.append((level, text))

    def progress(self, percent, text=""):
        self.percents.append(percent)

    def artifact(self, name, path):
        self.files.append(path)

    def cancelled(self):
        return self.stop_at is not None and bool(self.percents) and self.percents[-1] >= self.stop_at

    def warnings(self):
        return " ".join(text for level, text in self.lines if level == "warning")


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny_20m")


@pytest.fixture(scope="module")
def sixty(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny_60m", "60m")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scenes") / "plain", scene_numbers())


def sharpen(scene, output, *models, progress=None, level="L2A", offset=0, **options):
    job = SuperResolveJob(
        scene=str(scene),
        output=output,
        models=[str(model) for model in models],
        scene_options={"processing_level": level, "radiometric_offset": offset},
        **{"threads": 1, "device": "cpu", **options},
    )
    return run(job, progress)


def read(path):
    with rasterio.open(path) as dataset:
        return dict(zip(dataset.descriptions, dataset.read(), strict=True))


def test_a_scene_comes_out_whole(scene, twenty, sixty, tmp_path):
    log = Log()
    result = sharpen(scene, tmp_path / "out.tif", twenty, sixty, progress=log, tile_size=96)
    seconds = result.pop("seconds")
    assert sorted(seconds) == ["decode", "encode", "network", "rest"]
    assert all(value >= 0 for value in seconds.values())
    assert result == {
        "output": str(tmp_path / "out.tif"),
        "scene": scene.name,
        "width": 240,
        "height": 240,
        "bands": ALL,
        "models": ["tiny_20m", "tiny_60m"],
        "level": "L2A",
        "device": "cpu",
        "assumptions": [],
    }
    assert os.listdir(tmp_path) == ["out.tif"]
    assert log.files == [str(tmp_path / "out.tif")]
    assert log.percents == sorted(log.percents)
    assert log.percents[-1] == 100
    assert any(text.startswith("summary: ") and "L2A" in text and "tiny_60m on cpu" in text for _, text in log.lines)
    images, numbers = read(tmp_path / "out.tif"), scene_numbers()
    assert list(images) == ALL
    for band in TENS:
        np.testing.assert_array_equal(images[band], numbers[band])
    predicted = {}
    for folder in (twenty, sixty):
        bands = {band: image.astype(np.float32) / 10000 for band, image in numbers.items()}
        predicted.update(load_model(folder, "cpu").predict(bands))
    for band, image in predicted.items():
        np.testing.assert_allclose(images[band], np.clip(image * 10000, 1, 65535), atol=0.51)


def test_metadata(scene, twenty, sixty, tmp_path):
    sharpen(scene, tmp_path / "out.tif", twenty, sixty, offset=-1000)
    with rasterio.open(tmp_path / "out.tif") as dataset, rasterio.open(scene / "B02.tif") as original:
        assert dataset.transform == original.transform
        assert dataset.crs == original.crs
        assert dataset.shape == original.shape
        assert dataset.dtypes == ("uint16",) * 12
        assert dataset.nodata == 0
        assert dataset.scales == pytest.approx((1e-4,) * 12)
        assert dataset.offsets == pytest.approx((-0.1,) * 12)
        assert dataset.tags(ALL.index("B8A") + 1)["wavelength"] == "864.4"
        assert dataset.tags()["PROCESSING_LEVEL"] == "L2A"
        assert dataset.tags()["MODELS"] == "tiny_20m, tiny_60m"


@pytest.mark.parametrize("tile_size", [60, 78, 126, 234])
@pytest.mark.parametrize("consistency", [0, 1, 2])
def test_tiled_equals_untiled(scene, twenty, sixty, tmp_path, tile_size, consistency):
    options = {"data_type": "float32", "consistency": consistency}
    sharpen(scene, tmp_path / "whole.tif", twenty, sixty, tile_size=1000, **options)
    sharpen(scene, tmp_path / "tiled.tif", twenty, sixty, tile_size=tile_size, **options)
    whole, tiled = read(tmp_path / "whole.tif"), read(tmp_path / "tiled.tif")
    for band, image in whole.items():
        assert np.isfinite(image).all()
        np.testing.assert_allclose(tiled[band], image, atol=2e-6)


def test_tiled_equals_untiled_with_nodata(twenty, sixty, tmp_path):
    numbers, rng = scene_numbers(), np.random.default_rng(5)
    for image in numbers.values():
        image[rng.random(image.shape) < 0.2] = 0
        image[: image.shape[0] // 4] = 0
    numbers["B12"][:, :50] = 0  # the edge of a swath is not the same in every band
    scene = write_scene(tmp_path / "scene", numbers)
    options = {"data_type": "float32", "consistency": 1}
    sharpen(scene, tmp_path / "whole.tif", twenty, sixty, tile_size=1000, **options)
    sharpen(scene, tmp_path / "tiled.tif", twenty, sixty, tile_size=60, **options)
    whole, tiled = read(tmp_path / "whole.tif"), read(tmp_path / "tiled.tif")
    for band, image in whole.items():
        np.testing.assert_allclose(tiled[band], image, atol=2e-6)
        f = RESOLUTION[band] // 10
        np.testing.assert_array_equal(np.isnan(image), (numbers[band] == 0).repeat(f, axis=0).repeat(f, axis=1))


def test_a_region_is_a_crop_of_the_whole(scene, twenty, sixty, tmp_path):
    sharpen(scene, tmp_path / "whole.tif", twenty, sixty)
    with rasterio.open(tmp_path / "whole.tif") as dataset:
        left, top, right, bottom = 600700, 5399000, 601300, 5398300
        geographic = transform_bounds(dataset.crs, "EPSG:4326", left + 15, bottom + 15, right - 15, top - 15)
    for name, roi in (("a", f"{left},{bottom},{right},{top}"), ("b", ",".join(map(str, geographic)) + " EPSG:4326")):
        result = sharpen(scene, tmp_path / f"{name}.tif", twenty, sixty, roi=roi, tile_size=60)
        assert (result["width"], result["height"]) == (66, 78)  # outwards to 60 m
        whole, region = read(tmp_path / "whole.tif"), read(tmp_path / f"{name}.tif")
        for band, image in region.items():
            assert np.abs(image.astype(int) - whole[band][96:174, 66:132]).max() <= 1  # rounding of other tiles
        with rasterio.open(tmp_path / f"{name}.tif") as dataset:
            assert (dataset.transform.c, dataset.transform.f) == (600660, 5399040)
    with pytest.raises(InputError, match="outside"):
        sharpen(scene, tmp_path / "c.tif", twenty, roi="0,0,10,10")
    assert not (tmp_path / "c.tif").exists()


def test_invalid_pixels_do_not_bleed(twenty, sixty, tmp_path):
    numbers = scene_numbers()
    clean = write_scene(tmp_path / "clean", numbers)
    numbers["B05"][30:40, 30:33] = 0
    numbers["B03"][:20] = 0
    holes = write_scene(tmp_path / "holes", numbers)
    sharpen(clean, tmp_path / "clean.tif", twenty, sixty, consistency=1)
    sharpen(holes, tmp_path / "holes.tif", twenty, sixty, consistency=1)
    before, after = read(tmp_path / "clean.tif"), read(tmp_path / "holes.tif")
    hole = np.zeros((240, 240), bool)
    hole[60:80, 60:66] = True
    np.testing.assert_array_equal(after["B05"] == 0, hole)
    top = np.zeros((240, 240), bool)
    top[:20] = True
    np.testing.assert_array_equal(after["B03"] == 0, top)
    for band in ALL:
        if band not in ("B05", "B03"):
            assert (after[band] > 0).all()
        np.testing.assert_array_equal(after[band][100:], before[band][100:])
        seen = after[band] > 0
        assert np.abs(after[band][seen].astype(int) - before[band][seen]).max() < 1500


def test_dn_convention_of_the_input(twenty, tmp_path):
    """The same ground with the offset of baseline 04.00 gives the same reflectance, and DN 1000 higher."""
    old, new = scene_numbers(), {band: image + 1000 for band, image in scene_numbers().items()}
    sharpen(write_scene(tmp_path / "old", old), tmp_path / "old.tif", twenty)
    sharpen(write_scene(tmp_path / "new", new), tmp_path / "new.tif", twenty, offset=-1000)
    before, after = read(tmp_path / "old.tif"), read(tmp_path / "new.tif")
    for band, image in before.items():
        difference = after[band].astype(int) - image
        assert np.abs(difference - 1000)[image > 1].max() <= (0 if band in TENS else 1)
    np.testing.assert_array_equal(after["B08"], new["B08"])


def test_a_valid_pixel_never_becomes_nodata(twenty, tmp_path):
    numbers = scene_numbers()
    for image in numbers.values():
        image[:] = 1001
    for image in (numbers[band] for band in TWENTIES):
        image[::2, ::3] = 3  # below the offset: negative reflectance is legal
    numbers["B02"][5, 5], numbers["B05"][5, 5] = 65535, 65535
    sharpen(write_scene(tmp_path / "dark", numbers), tmp_path / "out.tif", twenty, offset=-1000, consistency=2)
    images = read(tmp_path / "out.tif")
    assert all((image > 0).all() for image in images.values())
    assert images["B02"][5, 5] == 65535
    assert images["B05"][11, 11] > 30000


def test_reflectance_output(scene, twenty, tmp_path):
    sharpen(scene, tmp_path / "out.tif", twenty, data_type="float32", offset=-1000)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert set(dataset.dtypes) == {"float32"}
        assert np.isnan(dataset.nodata)
        assert set(dataset.scales) == {1.0}
        assert set(dataset.offsets) == {0.0}
    expected = (scene_numbers()["B04"].astype(float) - 1000) / 10000
    np.testing.assert_allclose(read(tmp_path / "out.tif")["B04"], expected, atol=1e-6)


def test_back_projection_brings_the_original_back(scene, twenty, sixty, tmp_path):
    log = Log()
    residual = {}
    for passes in (1, 2):
        result = sharpen(scene, tmp_path / "out.tif", twenty, sixty, progress=log, consistency=passes)
        assert sorted(result["residual"]) == sorted([*TWENTIES, *SIXTIES])
        for before, after in result["residual"].values():
            assert after < 0.7 * before
        residual[passes] = result["residual"]
    for band in residual[1]:
        assert residual[2][band][0] == pytest.approx(residual[1][band][0])
        assert residual[2][band][1] < residual[1][band][1]
    assert any("B05: residual" in text for _, text in log.lines)


def test_bands_in_the_order_asked_for(scene, twenty, sixty, tmp_path):
    log = Log()
    result = sharpen(scene, tmp_path / "out.tif", twenty, sixty, progress=log, bands=["b12", "8A", "B4"])
    assert result["bands"] == ["B12", "B8A", "B04"]
    assert result["models"] == ["tiny_20m"]
    assert list(read(tmp_path / "out.tif")) == ["B12", "B8A", "B04"]
    assert any("tiny_60m is not needed" in text for _, text in log.lines)


def test_ten_metre_bands_alone_need_no_model(scene, tmp_path):
    result = sharpen(scene, tmp_path / "out.tif", bands=["B08"], roi="600000,5399000,600500,5400000")
    assert result["models"] == []
    np.testing.assert_array_equal(read(tmp_path / "out.tif")["B08"], scene_numbers()["B08"][:102, :54])


def test_cog(scene, twenty, tmp_path):
    sharpen(scene, tmp_path / "out.tif", twenty, format="cog", compression="zstd")
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.compression.name == "zstd"


def test_little_memory_means_small_tiles(scene, twenty, sixty, tmp_path):
    log = Log()
    sharpen(scene, tmp_path / "out.tif", twenty, sixty, progress=log, memory=200)
    assert "tiles of 60 pixels" in log.lines[-1][1]


@pytest.mark.parametrize(("level", "baseline"), [("L1C", "03.01"), ("L1C", "04.00"), ("L2A", "05.09")])
def test_product_as_delivered(twenty, sixty, tmp_path, level, baseline):
    """SAFE: level, offset and what else goes into the file come from its metadata; B10 is left out."""
    product, offset = make_safe(tmp_path, level, baseline, nodata_corner=60, saturated=12), -1000 * (baseline >= "04")
    result = run(SuperResolveJob(scene=str(product), output=tmp_path / "out.tif", models=[str(twenty), str(sixty)]))
    assert result["level"] == level
    assert result["bands"] == ALL
    numbers = digital_numbers(240, offset=offset, nodata_corner=60, saturated=12)
    for band, image in read(tmp_path / "out.tif").items():
        f = RESOLUTION[band] // 10
        source = numbers[band].repeat(f, axis=0).repeat(f, axis=1)
        np.testing.assert_array_equal(image == 0, source == 0)
        if f == 1:
            np.testing.assert_array_equal(image, source)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.offsets == pytest.approx((offset / 10000,) * 12)
        assert dataset.tags()["PROCESSING_LEVEL"] == level
        assert dataset.tags()["ACQUISITION"].startswith("2023-08-15T10:36:31")
        assert dataset.tags()["PLATFORM"]


def test_stack_of_reflectance_comes_out_as_usual_dn(twenty, tmp_path):
    stack = make_stack(tmp_path / "stack.tif", reflectance=True)
    sharpen(stack, tmp_path / "out.tif", twenty, offset=None)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert set(dataset.scales) == {1e-4}
        assert set(dataset.offsets) == {0}
    np.testing.assert_array_equal(read(tmp_path / "out.tif")["B03"], digital_numbers(240)["B03"])


def test_scene_without_projected_crs(twenty, tmp_path):
    scene = write_scene(tmp_path / "bare", scene_numbers(), crs=None)
    sharpen(scene, tmp_path / "out.tif", twenty, bands=["B05"])
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.crs is None
        assert (dataset.transform.c, dataset.transform.f) == (600000, 5400000)


# What is bundled, and what fits


@pytest.fixture
def bundle(monkeypatch, tmp_path):
    monkeypatch.setattr(model_module, "MODELS", tmp_path / "models")
    for task in ("20m", "60m"):
        for level in ("L1C", "L2A"):
            tiny_model(tmp_path / "models" / f"sharpen_{task}_{level.lower()}", task, (level,))
    return tmp_path / "models"


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_bundled_models_by_level(bundle, scene, tmp_path, level):
    result = sharpen(scene, tmp_path / "out.tif", level=level)
    assert result["models"] == [f"sharpen_20m_{level.lower()}", f"sharpen_60m_{level.lower()}"]
    assert result["bands"] == ALL


def test_scene_of_unknown_level_is_taken_with_a_warning(bundle, scene, tmp_path):
    log = Log()
    result = sharpen(scene, tmp_path / "out.tif", level=None, progress=log)
    assert len(result["models"]) == 2
    assert "does not say its processing level" in log.warnings()


def test_scene_without_sixty_metre_bands(bundle, tmp_path):
    numbers = {band: image for band, image in scene_numbers().items() if band not in SIXTIES}
    result = sharpen(write_scene(tmp_path / "ten", numbers), tmp_path / "out.tif")
    assert result["models"] == ["sharpen_20m_l2a"]
    assert result["bands"] == [band for band in ALL if band not in SIXTIES]


def test_what_no_model_sharpens_is_left_out_with_a_warning(scene, twenty, tmp_path):
    log = Log()
    result = sharpen(scene, tmp_path / "out.tif", twenty, progress=log)
    assert result["bands"] == [band for band in ALL if band not in SIXTIES]
    assert "No model here sharpens B01, B09" in log.warnings()


def test_level_of_the_model(scene, tmp_path):
    only = tiny_model(tmp_path / "only_l1c", levels=("L1C",))
    with pytest.raises(ModelError, match=r"only_l1c is for L1C, but the scene is L2A; .* allow another"):
        sharpen(scene, tmp_path / "out.tif", only)
    assert not (tmp_path / "out.tif").exists()
    log = Log()
    sharpen(scene, tmp_path / "out.tif", only, progress=log, allow_other_level=True)
    assert "only_l1c is for L1C, but the scene is L2A" in log.warnings()


def test_bundled_models_of_another_level(monkeypatch, scene, tmp_path):
    monkeypatch.setattr(model_module, "MODELS", tmp_path / "models")
    tiny_model(tmp_path / "models" / "sharpen", levels=("L1C",))
    with pytest.raises(
        ModelError, match=r"No bundled model fits this scene: the L2A has B01.*sharpen \(L1C\) makes B05"
    ):
        sharpen(scene, tmp_path / "out.tif")
    log = Log()
    assert sharpen(scene, tmp_path / "out.tif", progress=log, allow_other_level=True)["models"] == ["sharpen"]
    assert "is for L1C" in log.warnings()


def test_bands_that_a_model_takes_are_missing(twenty, tmp_path):
    numbers = {band: image for band, image in scene_numbers().items() if band not in ("B08", "B11")}
    scene = write_scene(tmp_path / "part", numbers)
    with pytest.raises(ModelError, match=r"takes B02, B03, B04, B08, B05.* but there are only B01.*: B08, B11 missing"):
        sharpen(scene, tmp_path / "out.tif", twenty)
    assert not (tmp_path / "out.tif").exists()


def test_bands_that_no_model_gives(scene, twenty, tmp_path):
    with pytest.raises(ModelError, match=r"The bands B09 cannot be had: .*tiny_20m .*makes B05, B06"):
        sharpen(scene, tmp_path / "out.tif", twenty, bands=["B05", "B09"])
    with pytest.raises(InputError, match="'B13' is no Sentinel-2 band"):
        sharpen(scene, tmp_path / "out.tif", twenty, bands=["B13"])


def test_two_models_for_one_band(scene, twenty, tmp_path):
    other = tiny_model(tmp_path / "other", seed=9)
    with pytest.raises(ModelError, match="tiny_20m and other both give B05"):
        sharpen(scene, tmp_path / "out.tif", twenty, other)


# What can go wrong with device and output


def test_device_that_is_not_there(scene, twenty, tmp_path):
    with pytest.raises(MissingPackageError, match="not available: the installed ONNX Runtime offers"):
        sharpen(scene, tmp_path / "out.tif", twenty, device="coreml" if sys.platform != "darwin" else "directml")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kind", ["gtiff", "cog"])
@pytest.mark.parametrize("stop_at", [1, 50, 95])
def test_cancel_leaves_nothing(scene, twenty, tmp_path, kind, stop_at):
    with pytest.raises(Cancelled):
        sharpen(scene, tmp_path / "out.tif", twenty, progress=Log(stop_at), tile_size=60, format=kind)
    assert os.listdir(tmp_path) == []


def test_outputs_that_cannot_be(scene, twenty, tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        sharpen(scene, tmp_path / "nowhere" / "out.tif", twenty)
    with pytest.raises(OutputError, match="is a folder"):
        sharpen(scene, tmp_path, twenty)
    stacked = tmp_path / "scene.tif"
    sharpen(scene, stacked, twenty, bands=["B02"])
    with pytest.raises(OutputError, match="belongs to the scene"):
        sharpen(stacked, stacked, bands=["B02"])
    assert list(read(stacked)) == ["B02"]
    with pytest.raises(OutputError, match="belongs to the scene"):
        sharpen(scene, scene / "B05.tif", twenty)


def test_a_band_file_that_breaks_off(twenty, tmp_path):
    scene = write_scene(tmp_path / "scene", scene_numbers())
    data = (scene / "B11.tif").read_bytes()
    (scene / "B11.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="B11"):
        sharpen(scene, tmp_path / "out.tif", twenty, tile_size=60)
    assert os.listdir(tmp_path) == ["scene"]


# The models that come with the package


BUNDLED = [*model_module.bundled_models()] or [
    pytest.param("", marks=pytest.mark.skip(reason="no model is bundled in this checkout"))
]


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("tile_size", [60, 96, 150])
def test_bundled_models_tiled_equal_untiled(name, tile_size):
    model = load_model(name, "cpu", threads=1)
    assert model.halo >= model.card.radius
    bands = {band: dn.astype(np.float32) / 10000 for band, dn in scene_numbers(252).items()}
    whole, tiled = model.predict(bands, tile_size=1000), model.predict(bands, tile_size=tile_size)
    for band, image in whole.items():
        np.testing.assert_allclose(tiled[band], image, atol=1e-4)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_are_small(name):
    assert sum(path.stat().st_size for path in find_model(name).iterdir()) <= 4 * 2**20
