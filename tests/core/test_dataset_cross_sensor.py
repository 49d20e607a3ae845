"""Pairs of a scene and a finer image, from files to the dataset's folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from cross_pairs import BANDS, X, Y, ground, make_reference, make_scene, sampled, wrap_in_dimap, write
from stac_server import running_server

from s2sr_qgis.core.dataset.card import read_dataset
from s2sr_qgis.core.errors import DatasetError, InputError, MissingPackageError
from s2sr_qgis.core.jobs import CreateCrossSensorDatasetJob, run
from s2sr_qgis.core.progress import Progress


class Listening(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, text: str, level: str = "info") -> None:
        self.lines.append(text)


def make(folder: Path, **options):
    progress = Listening()
    job = CreateCrossSensorDatasetJob(
        **{"output": folder / "dataset", "patch_size": 16, "strategy": "all", "seed": 1, **options}
    )
    result = run(job, progress)
    return read_dataset(result["output"]), result, progress.lines


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    xs, pan = make_reference(folder)
    return {"scene": str(make_scene(folder / "scene")), "xs": str(xs), "pan": str(pan)}


def test_patches_of_both_images_show_the_same_ground(files, tmp_path):
    dataset, result, _ = make(tmp_path, **files)
    card = dataset.card
    assert (card.task, card.factor, result["ratio"]) == ("cross-sensor", 4, 4)
    assert [(t.name, t.resolution, t.size) for t in card.tensors] == [("input_lr", 6.0, 16), ("target", 1.5, 64)]
    assert [t.bands for t in card.tensors] == [list(BANDS)] * 2
    arrays = dataset.arrays("train")
    assert len(arrays["target"]) == 64
    x, y = (np.arange(128) + 0.5) * 6 + 60, (np.arange(128) + 0.5) * 6 + 60
    for index in (0, 9, 63):
        row, col = 16 * (index // 8), 16 * (index % 8)
        for band in range(4):
            truth = ground(x[None, col : col + 16], y[row : row + 16, None], band)
            low = arrays["input_lr"][index][..., band]
            high = arrays["target"][index][..., band].reshape(16, 4, 16, 4).mean(axis=(1, 3))
            assert np.abs(low - truth).mean() < 25  # bicubic interpolation of a 10 m image
            assert np.abs(high - truth).mean() < 60  # pansharpening
            assert np.corrcoef(high.ravel(), truth.ravel())[0, 1] > 0.97
    assert CreateCrossSensorDatasetJob(**card.job).model_dump(mode="json") == card.job
    assert (card.job["xs"], card.job["harmonize"], card.pair["scene"]) == (files["xs"], False, files["scene"])
    assert np.hypot(*card.pair["shift_metres"]) / 10 == pytest.approx(result["shift"])
    folder = tmp_path / "dataset"
    assert {"dataset.yaml", "pair_report.html", "preview_train.png"} <= {path.name for path in folder.iterdir()}
    assert abs(result["shift"]) < 0.15
    assert result["overlap"] > 0.99


def test_dimap_products_are_read(files, tmp_path):
    xs, pan = make_reference(tmp_path / "spot")
    dimap = {"xs": str(wrap_in_dimap(xs)), "pan": str(wrap_in_dimap(pan))}
    plain, _, _ = make(tmp_path, **files)
    spot, _, _ = make(tmp_path, **{**files, **dimap, "output": tmp_path / "dimap"})
    assert spot.count("train") == 64
    for name, array in spot.arrays("train").items():
        np.testing.assert_array_equal(array[:4], plain.arrays("train")[name][:4])
    # The product's date, 2022-07-05, is 100 days after this scene's.
    old = tmp_path / "S2A_MSIL2A_20220327T105031"
    old.mkdir()
    for path in Path(files["scene"]).iterdir():
        (old / path.name.replace("20220701", "20220327")).write_bytes(path.read_bytes())
    with pytest.raises(DatasetError, match="100 days apart"):
        make(tmp_path, **{**files, **dimap, "scene": str(old), "output": tmp_path / "late"})


def test_without_pan_the_multispectral_image_is_the_target(files, tmp_path):
    pixels = sampled((X + 100, Y - 100), 2.5, 240, 4).astype(np.float32)
    xs = write(tmp_path / "naip.tif", pixels, (X + 100, Y - 100), 2.5)
    dataset, result, _ = make(tmp_path, xs=str(xs), scene=files["scene"])
    assert result["ratio"] == 4
    assert [t.resolution for t in dataset.card.tensors] == [10.0, 2.5]
    np.testing.assert_array_equal(dataset.arrays("train")["target"][0], pixels[:, :64, :64].transpose(1, 2, 0))
    with rasterio.open(Path(files["scene"]) / "S2A_MSIL2A_20220701T105031_B04.tif") as file:
        scene = file.read(1)
    np.testing.assert_allclose(dataset.arrays("train")["input_lr"][0][..., 0], scene[10:26, 10:26], atol=0.01)


def test_splits_lie_apart(files, tmp_path):
    dataset, _, _ = make(
        tmp_path, **files, strategy="split", patch_size=8, block_size=2, train=0.6, valid=0.2, test=0.2
    )
    assert all(dataset.count(split) for split in ("train", "valid", "test"))


def test_a_shift_is_found_refused_and_corrected(files, tmp_path):
    scene = str(make_scene(tmp_path / "scene", shift=(22.0, -9.0)))
    wrong = {**files, "scene": scene}
    with pytest.raises(DatasetError, match=r"shifted by 2\.\d+ Sentinel-2 pixels"):
        make(tmp_path, **wrong)
    with pytest.raises(DatasetError, match=r"with --coregister or raise --max-shift\. To make .* use --force"):
        make(tmp_path, **wrong)
    assert not (tmp_path / "dataset").exists()
    assert (tmp_path / "dataset_pair_report.html").is_file()
    _, result, lines = make(tmp_path, **wrong, force=True)
    assert result["shift"] == pytest.approx(np.hypot(2.2, 0.9), abs=0.2)
    assert any("shifted by" in line for line in result["overridden"])
    assert "refused" not in result
    assert any("shifted by" in line for line in lines)
    _, mended, _ = make(tmp_path, **{**wrong, "output": tmp_path / "mended"}, coregister=True)
    assert mended["shift"] < 0.15
    assert not mended["overridden"]


def test_harmonised_targets_have_the_scenes_radiometry(files, tmp_path):
    with rasterio.open(files["xs"]) as file:
        pixels, corner = file.read(), (file.transform.c, file.transform.f)
    dark = write(tmp_path / "xs.tif", (pixels * 0.25 + 40).astype(np.uint16), corner, 6)
    plain, _, _ = make(tmp_path, xs=str(dark), scene=files["scene"], ratio=2)
    even, _, _ = make(tmp_path, xs=str(dark), scene=files["scene"], ratio=2, harmonize=True, output=tmp_path / "even")
    low = even.arrays("train")["input_lr"][:].mean()
    assert plain.arrays("train")["target"][:].mean() < 0.4 * low
    assert even.arrays("train")["target"][:].mean() == pytest.approx(low, rel=0.01)


def test_otbtf_mode_gives_otbtfs_patches(files, tmp_path):
    dataset, _, _ = make(tmp_path, **files, compat="otbtf", strategy="chessboard")
    # OTBTF's grid begins one pixel later, and an even patch lies one row lower.
    assert (dataset.count("train"), dataset.count("valid")) == (25, 24)
    assert dataset.card.split == "otbtf"


@pytest.mark.parametrize("engine", ["native", pytest.param("otb", marks=pytest.mark.otb("PatchesExtraction"))])
@pytest.mark.parametrize("nodata", [None, 0.0])
def test_otbtf_mode_leaves_out_patches_with_nodata(files, tmp_path, engine, nodata):
    scene = make_scene(tmp_path / "scene")
    for path in scene.iterdir():
        with rasterio.open(path, "r+") as file:
            image = file.read()
            image[:, 20:23, 30:33] = 0
            file.write(image)
    options = {"compat": "otbtf", "engine": engine, "force": True, "nodata": nodata}
    whole, _, _ = make(tmp_path, **files, **options)
    dataset, _, lines = make(tmp_path, **{**files, "scene": str(scene)}, **options, output=tmp_path / "holed")
    for array in dataset.arrays("train").values():
        assert np.isfinite(np.asarray(array)).all()
    # 30 m of nodata, and 20 m around that bicubic interpolation sees, lie in 1, 2 or 4 patches of 96 m.
    assert 1 <= whole.count("train") - dataset.count("train") <= 4
    if nodata is None:
        left_out = whole.count("train") - dataset.count("train")
        assert any(f"left out: {left_out} with nodata" in line for line in lines)
    inputs = np.asarray(dataset.arrays("train")["input_lr"])
    assert inputs.min() > 300  # no number stands for nodata in a patch


def test_otbtf_mode_leaves_out_nodata_of_the_reference(files, tmp_path):
    with rasterio.open(files["xs"]) as file:
        pixels, corner = file.read().astype(np.float32), (file.transform.c, file.transform.f)
    pixels[:, 60:64, 60:64] = np.nan
    path = write(tmp_path / "xs.tif", pixels, corner, 6)
    dataset, _, _ = make(tmp_path, xs=str(path), scene=files["scene"], ratio=2, compat="otbtf", force=True)
    for array in dataset.arrays("train").values():
        assert np.isfinite(np.asarray(array)).all()


def test_clouds_are_left_out(files, tmp_path):
    scene = make_scene(tmp_path / "scene")
    classes = np.full((1, 45, 45), 4, np.uint8)
    classes[:, :, :20] = 9
    write(scene / "T31_SCL_20m.tif", classes, (X, Y), 20)
    dataset, _, _ = make(tmp_path, **{**files, "scene": str(scene)})
    # 400 m of cloud less the 60 m before the image: 56.7 of 128 columns, so the first four columns of patches go.
    assert dataset.count("train") == 8 * 4


def test_a_mask_says_where(files, tmp_path):
    mask = np.zeros((1, 128, 128), np.uint8)
    mask[:, :32, :48] = 255
    path = write(tmp_path / "mask.tif", mask, (X + 60, Y - 60), 6)
    dataset, _, _ = make(tmp_path, **files, mask=str(path))
    assert dataset.count("train") == 2 * 3


BAD = [
    ("mask", "has 64 x 64 pixels, but the XS image has 128 x 128"),
    ("ratio", "must be an integer"),
    ("apart", "do not overlap"),
    ("crs", "EPSG:32631 and PAN in EPSG:32632"),
    ("bands", "has 4 bands, but 5 are asked for"),
    ("small", "less than one patch"),
    ("nodata", "nowhere do both have values"),
    ("elsewhere", "show different places"),
    ("dates", "does not say when it was taken"),
    ("shares", "must sum to 1"),
    ("otb", "[Oo]rfeo"),
]


@pytest.mark.parametrize(("case", "sentence"), BAD, ids=[case for case, _ in BAD])
def test_bad_input_gets_one_sentence_and_leaves_nothing(files, tmp_path, case, sentence):
    corner, image = (X + 60, Y - 60), np.ones((1, 64, 64), np.uint8)
    options = dict(files)
    if case == "mask":
        options["mask"] = str(write(tmp_path / "mask.tif", image, corner, 6))
    elif case == "ratio":
        options["pan"] = str(write(tmp_path / "p.tif", image, corner, 2.2))
    elif case == "apart":
        options["pan"] = str(write(tmp_path / "p.tif", image, (X + 6000, Y), 1.5))
    elif case == "crs":
        options["pan"] = str(write(tmp_path / "p.tif", image, corner, 1.5, crs="EPSG:32632"))
    elif case == "bands":
        options["bands"] = [*BANDS, "B05"]
    elif case == "small":
        options["patch_size"] = 256
    elif case == "nodata":
        options["xs"] = str(write(tmp_path / "x.tif", np.zeros((4, 128, 128), np.uint16), corner, 6, nodata=0))
    elif case == "elsewhere":
        options["scene"] = str(make_scene(tmp_path / "far", shift=(50000, 0)))
    elif case == "dates":
        options["scene"] = None
        options["xs"] = str(write(tmp_path / "x.tif", sampled(corner, 6, 64, 4).astype(np.uint16), corner, 6))
        options["pan"] = None
    elif case == "shares":
        options.update(train=0.5, valid=0.1, test=0.1)
    elif case == "otb":
        options["engine"] = "otb"
        from s2sr_qgis.core.raster.otb import otb_available

        if otb_available():
            pytest.skip("OTB is installed here")
    with pytest.raises((InputError, DatasetError, MissingPackageError), match=sentence):
        make(tmp_path, **options)
    assert not [path for path in tmp_path.iterdir() if "dataset" in path.name and path.suffix != ".html"]


def test_a_network_that_goes_away_leaves_no_dataset(files, tmp_path, monkeypatch):
    from s2sr_qgis.core.scene.image import SceneImage

    with running_server() as server:
        item = server.add_scene("S2A", np.full((45, 45), 4, np.uint8), day="2022-07-01", corner=(X, Y), folder=tmp_path)
        for band in BANDS:
            server.files[f"/files/{band}.tif"] = next(Path(files["scene"]).glob(f"*_{band}.tif"))
            item["assets"][band] = {"href": f"{server.url}/files/{band}.tif", "type": "image/tiff"}
        source = tmp_path / "item.json"
        source.write_text(json.dumps(item))
        whole, _, _ = make(tmp_path, **{**files, "scene": str(source)})
        assert whole.count("train") == 64

        read = SceneImage.read

        def gone(image, window=None):
            server.shutdown()
            server.server_close()
            image.scene.close()
            return read(image, window)

        monkeypatch.setattr(SceneImage, "read", gone)
        with pytest.raises(InputError, match=r"could not be read .* check the network"):
            make(tmp_path, **{**files, "scene": str(source), "output": tmp_path / "lost"})
    assert not [path for path in tmp_path.iterdir() if "lost" in path.name]


@pytest.mark.parametrize("how", ["internal", "beside", "untagged"])
@pytest.mark.parametrize("which", ["xs", "pan"])
def test_pixels_that_a_file_masks_are_in_no_patch(files, tmp_path, which, how):
    names = dict(zip(("xs", "pan"), map(str, make_reference(tmp_path)), strict=True))
    with rasterio.open(names[which]) as file:
        pixels, profile = file.read(), file.profile
        tags = file.tags()
    edge = pixels.shape[1] // 4
    pixels = pixels.astype("int16")
    pixels[:, :edge, :edge] = -9999 if how == "untagged" else 32000
    internal = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=how == "internal")
    with internal, rasterio.open(names[which], "w", **{**profile, "dtype": "int16"}) as file:
        file.write(pixels)
        file.update_tags(**tags)
        if how != "untagged":
            file.write_mask(np.pad(np.zeros((edge, edge), bool), (0, pixels.shape[1] - edge), constant_values=True))
    dataset, result, _ = make(tmp_path, scene=files["scene"], **names)
    target = np.asarray(dataset.arrays("train")["target"])
    assert 40 < len(target) < 64
    assert np.isfinite(target).all()
    assert 0 < target.min() < target.max() < 10000
    assert any("taken for nodata" in text for text in result["assumptions"]) == (how == "untagged")
