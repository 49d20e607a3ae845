"""Unit, offset and validity of inputs as people have them; rasterio reads the output that is held against the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.raster.writer import ASSUMPTIONS
from s2sr_qgis.core.scene import open_scene
from tests.products import BANDS, CORNER, CRS, digital_numbers, make_safe, make_stac_item, write_band, zip_safe

SIZE = 120
NAMES = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
GRID = Affine(10, 0, CORNER[0], 0, -10, CORNER[1])
PRODUCT = "S2A_MSIL2A_20230815T103631_N{}_R008_T31UDQ_20230815T140000"
OLD, NEW, HOME = (PRODUCT.format(n) for n in ("0301", "0509", "9999"))
EMPTY = (slice(0, 24), slice(0, 36))
"""The part of the 10 m grid without data, where a test has one."""


def truth() -> dict[str, np.ndarray]:
    """Reflectance of each band on the 10 m grid, coarse bands repeated."""
    return {
        name: np.kron(dn / 10000, np.ones((BANDS[name].resolution // 10,) * 2))
        for name, dn in digital_numbers(SIZE, NAMES).items()
    }


def stack(path: Path, dtype: str = "uint16", gain: float = 10000, shift: float = 0, **more: Any) -> Path:
    """A stack of reflectance x ``gain`` + ``shift``.

    ``empty``: value of the part without data. ``nodata``, ``scales``, ``offsets``, ``tags``, ``mask``: as in the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    layers = {name: x * gain + shift for name, x in truth().items()}
    if dtype[0] in "iu":
        layers = {name: np.rint(x) for name, x in layers.items()}
    empty = more.get("empty")
    names, extra = list(layers), more.get("extra")
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=more.get("mask") == "internal"), rasterio.open(
        path, "w", driver="GTiff", width=SIZE, height=SIZE, count=len(layers) + bool(extra), dtype=dtype, crs=CRS,
        transform=GRID, nodata=more.get("nodata"),
    ) as file:  # fmt: skip
        for number, image in enumerate(layers.values(), start=1):
            if empty is not None:
                image[EMPTY] = empty
            file.write(image.astype(dtype), number)
        valid = np.full((SIZE, SIZE), 255, "uint8")
        valid[EMPTY] = 0
        if extra:
            file.write((valid > 0).astype(dtype), len(layers) + 1)
            names.append("" if extra == "alpha" else extra)
            if extra == "alpha":
                file.colorinterp = [*[ColorInterp.undefined] * len(layers), ColorInterp.alpha]
        file.descriptions = tuple(names)
        if "scales" in more:
            file.scales, file.offsets = more["scales"], more["offsets"]
        file.update_tags(**more.get("tags", {}))
        if more.get("mask"):
            file.write_mask(valid)
    return path


def folder(path: Path, dtype: str = "uint16", gain: float = 10000, shift: float = 0, name: str = "{}.tif") -> Path:
    """Files of single bands at their own resolution."""
    for band, dn in digital_numbers(SIZE, NAMES).items():
        write_band(path / name.format(band), (dn / 10000 * gain + shift).astype(dtype), BANDS[band].resolution)
    return path


def sharpen(source: Path, tmp_path: Path, **options: Any) -> list[str]:
    """Run the job, hold the output against the truth, and return the assumptions."""
    output = tmp_path / "output.tif"
    empty = options.pop("empty", False)
    scene_options = jobs.SceneOptions(**options)
    result = jobs.run(
        jobs.SuperResolveJob(scene=str(source), output=output, data_type="float32", scene_options=scene_options)
    )
    with rasterio.open(output) as file:
        assert file.tags().get(ASSUMPTIONS, "") == " | ".join(result["assumptions"])
        images = {name: file.read(number) for number, name in enumerate(file.descriptions, start=1)}
    for name, right in truth().items():
        if name not in images:
            continue
        known = np.isfinite(images[name])
        if empty:
            assert not known[EMPTY].any(), name
            right[EMPTY] = np.nan
            assert known.mean() == pytest.approx(1 - 24 * 36 / SIZE**2, abs=1e-6), name
        else:
            assert known.all(), name
        error = images[name] - right
        factor = BANDS[name].resolution // 10
        if factor == 1:
            assert np.nanmax(np.abs(error)) < 2e-4, name
        else:
            blocks = error.reshape(SIZE // factor, factor, SIZE // factor, factor).mean(axis=(1, 3))
            assert np.sqrt(np.nanmean(blocks**2)) < 0.05 * np.nanmean(right), name
    return list(result["assumptions"])


UNITS: dict[str, tuple[dict[str, Any], str]] = {
    "reflectance": ({"dtype": "float32", "gain": 1}, "taken for reflectance"),
    "reflectance in float64": ({"dtype": "float64", "gain": 1}, "taken for reflectance"),
    "percent": ({"dtype": "float32", "gain": 100}, "taken for reflectance in percent"),
    "digital numbers in float": ({"dtype": "float32"}, "taken for digital numbers"),
    "digital numbers in int16": ({"dtype": "int16"}, ""),
    "digital numbers in int32": ({"dtype": "int32"}, ""),
    "another scale": ({"gain": 20000, "scales": (5e-5,) * 10, "offsets": (0,) * 10}, ""),
    "tags that give percent": (
        {"scales": (0.01,) * 10, "offsets": (0,) * 10},
        "by their tags the pixels are taken for reflectance in percent",
    ),
    "an offset in digital numbers": (
        {"shift": 1000, "scales": (1,) * 10, "offsets": (-1000,) * 10},
        "by their tags the pixels are taken for digital numbers",
    ),
    "an offset in digital numbers beside a scale": (
        {"shift": 1000, "scales": (1e-4,) * 10, "offsets": (-1000,) * 10},
        "taken for digital numbers",
    ),
    "scaled already": (
        {"dtype": "float32", "gain": 1, "scales": (1e-4,) * 10, "offsets": (-0.1,) * 10},
        "not applied a second time",
    ),
    "scaled to percent already": (
        {"dtype": "float32", "gain": 100, "scales": (1e-4,) * 10, "offsets": (0,) * 10},
        "not applied a second time",
    ),
    "float with tags that hold": (
        {"dtype": "float32", "shift": 1000, "scales": (1e-4,) * 10, "offsets": (-0.1,) * 10},
        "",
    ),
    "tags on some bands": (
        {"dtype": "float32", "scales": (1e-4,) * 6 + (1,) * 4, "offsets": (0,) * 10},
        "the scale of the other bands",
    ),
}


@pytest.mark.parametrize("name", UNITS)
def test_unit(name, tmp_path):
    options, sentence = UNITS[name]
    found = sharpen(stack(tmp_path / "in.tif", **options), tmp_path)
    assert any(sentence in text for text in found) if sentence else found == []


@pytest.mark.parametrize(
    ("dtype", "gain", "empty", "tag"),
    [
        ("float32", 1, -9999, -9999),
        ("float32", 1, -9999, None),
        ("float32", 1, -32768, -32768),
        ("float32", 1, 1e20, 1e20),
        ("float32", 1, -3.4028234663852886e38, None),
        ("float32", 1, 9999, 9999),
        ("float32", 1, 65535, 65535),
        ("float32", 1, np.inf, None),
        ("float32", 1, np.nan, None),
        ("float32", 1, 0, None),
        ("float32", 1, -0.1, None),
        ("float32", 1, -1, None),
        ("float32", 100, -9999, -9999),
        ("float32", 10000, -9999, None),
        ("float32", 10000, 0, None),
        ("int16", 10000, -9999, None),
        ("int16", 10000, -32768, None),
        ("int16", 10000, -10000, None),
        ("int16", 10000, -32768, -32768),
        ("int16", 10000, 0, -9999),
        ("uint16", 10000, 65535, 65535),
    ],
)
def test_nodata_is_taken_out_first(dtype, gain, empty, tag, tmp_path):
    found = sharpen(stack(tmp_path / "in.tif", dtype, gain, empty=empty, nodata=tag), tmp_path, empty=True)
    untagged = tag is None and np.isfinite(empty) and not (empty == 0 and gain == 10000)
    assert any("taken for nodata" in text for text in found) == untagged


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint16"])
@pytest.mark.parametrize("how", ["internal", "beside", "alpha", "dataMask", "data_mask"])
def test_validity_that_a_file_states(dtype, how, tmp_path):
    gain, number = (1, 6.5) if dtype == "float32" else (10000, 32000)
    more = {"mask": how} if how in ("internal", "beside") else {"extra": how}
    sharpen(stack(tmp_path / "in.tif", dtype, gain, empty=number, **more), tmp_path, empty=True)
    assert (tmp_path / "in.tif.msk").exists() == (how == "beside")


def test_near_infrared_marked_as_alpha_is_a_band(tmp_path):
    """Writers mark the fourth band of an RGB image as alpha, whatever it shows."""
    path = stack(tmp_path / "in.tif")
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*[ColorInterp.undefined] * 9, ColorInterp.alpha]
    sharpen(path, tmp_path)


def test_band_files_with_a_validity_band_each(tmp_path):
    for name, dn in digital_numbers(SIZE, NAMES).items():
        step = BANDS[name].resolution
        valid = np.full(dn.shape, 1, "uint16")
        valid[: 240 // step, : 360 // step] = 0
        dn[valid == 0] = 40000
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", width=dn.shape[1], height=dn.shape[0], count=2,
            dtype="uint16", crs=CRS, transform=Affine(step, 0, CORNER[0], 0, -step, CORNER[1]),
        ) as file:  # fmt: skip
            file.write(np.stack([dn, valid]))
            file.descriptions = ("", "dataMask")
    sharpen(tmp_path, tmp_path, empty=True)


def test_data_mask_beside_band_files(tmp_path):
    """As Sentinel Hub writes them: every band and dataMask on one grid, in files of their own."""
    valid = np.ones((SIZE, SIZE), "uint8")
    valid[EMPTY] = 0
    for name, image in truth().items():
        write_band(tmp_path / f"{name}.tif", np.where(valid, image, 0.7).astype("float32"), 10)
    write_band(tmp_path / "dataMask.tif", valid, 10)
    sharpen(tmp_path, tmp_path, empty=True)


OFFSETS: dict[str, tuple[str, int]] = {
    f"{NEW}/{{}}.tif": ("states baseline 05.09", 1000),
    f"{NEW}.SAFE/GRANULE/L2A_T31UDQ_A042551_20230815T104044/IMG_DATA/{{}}.tif": ("states baseline 05.09", 1000),
    f"{NEW}/extract/bands/{{}}.tif": ("states baseline 05.09", 1000),
    f"bands/{NEW}_{{}}.tif": ("states baseline 05.09", 1000),
    f"{OLD}/{{}}.tif": ("", 0),
    f"{HOME}/{{}}.tif": ("99.99 is no baseline of ESA", 0),
    f"{NEW}_harmonized/{{}}.tif": ("", 0),
}


@pytest.mark.parametrize("name", OFFSETS)
def test_offset_by_the_names_of_a_folder(name, tmp_path):
    sentence, shift = OFFSETS[name]
    place, _, pattern = name.rpartition("/")
    source = folder(tmp_path / place, shift=shift, name=pattern)
    found = sharpen(source, tmp_path)
    assert any(sentence in text for text in found) if sentence else found == []
    sharpen(source, tmp_path, radiometric_offset=-shift)


@pytest.mark.parametrize(
    ("place", "tags"),
    [
        (f"{NEW}.tif", {}),
        (f"{NEW}/stack.tif", {}),
        ("stack.tif", {"PROCESSING_BASELINE": "05.09"}),
        ("stack.tif", {"PRODUCT_URI": f"{NEW}.SAFE"}),
        ("stack.tif", {"TIFFTAG_IMAGEDESCRIPTION": NEW}),
    ],
)
def test_offset_of_a_stack(place, tags, tmp_path):
    source = stack(tmp_path / place, shift=1000, tags=tags)
    assert any("states baseline 05.09" in text for text in sharpen(source, tmp_path))
    assert not any("baseline" in text for text in sharpen(source, tmp_path, radiometric_offset=-1000))


def test_names_and_pixels_that_contradict_each_other_are_asked_about(tmp_path):
    source = folder(tmp_path / NEW)
    with pytest.raises(InputError, match="give a radiometric offset of 0 where it was taken off"):
        open_scene(source)
    sharpen(source, tmp_path, radiometric_offset=0)


def test_reflectance_needs_no_offset_of_its_baseline(tmp_path):
    sharpen(folder(tmp_path / NEW, "float32", 1), tmp_path)


def test_offset_that_reflectance_still_has(tmp_path):
    """Digital numbers divided by 10000, the offset left in."""
    source = stack(tmp_path / "in.tif", "float32", 1, shift=0.1)
    with open_scene(source) as scene:
        assert any("give a radiometric offset of -1000" in text for text in scene.warnings)
    sharpen(source, tmp_path, radiometric_offset=-1000)


@pytest.mark.parametrize("level", ["L1C", "L2A"])
@pytest.mark.parametrize("inside", ["", "..", "GRANULE", "GRANULE/*", "GRANULE/*/IMG_DATA"])
def test_safe_without_metadata(level, inside, tmp_path):
    product = make_safe(tmp_path / "products", level, size=60)
    (product / f"MTD_MSI{level}.xml").unlink()
    source = next(product.glob(inside)) if "*" in inside else product / inside
    with open_scene(source) as scene:
        assert (scene.level, scene.baseline, scene.platform) == (level, "05.09", "S2A")
        assert scene.name == product.stem
        assert {band.offset for band in scene.bands.values()} == {-1000}
        assert {"B02", "B8A", "B12"} <= set(scene.bands)
        assert any("no MTD_MSIL1C.xml" in text for text in scene.warnings)


@pytest.mark.parametrize("baseline", ["99.99", "99.33"])
@pytest.mark.parametrize("stated", [False, True])
def test_sen2cor_at_home(baseline, stated, tmp_path):
    product = make_safe(tmp_path, "L2A", "05.09" if stated else "02.09", size=60)
    metadata = product / "MTD_MSIL2A.xml"
    metadata.write_text(metadata.read_text().replace("02.09", baseline).replace("05.09", baseline))
    for source in (product, zip_safe(product)):
        with open_scene(source) as scene:
            assert {band.offset for band in scene.bands.values()} == {-1000 if stated else 0}
            assert any(f"{baseline} is no baseline of ESA" in text for text in scene.warnings) != stated


def test_stac_item_over_files_that_are_scaled_already(tmp_path):
    item = make_stac_item(tmp_path, "earth-search-c1", size=SIZE, bands=NAMES)
    for name, reflectance in digital_numbers(SIZE, NAMES).items():
        write_band(tmp_path / f"{name}.tif", (reflectance / 10000).astype("float32"), BANDS[name].resolution)
    assert any("not applied a second time" in text for text in sharpen(item, tmp_path))


def test_dark_band_of_float_files_has_the_unit_of_all(tmp_path):
    source = folder(tmp_path / "bands", "float32")
    dark = np.random.default_rng(0).integers(1, 9, (60, 60)).astype("float32")
    write_band(source / "B11.tif", dark, 20)
    with open_scene(source) as scene:
        assert {band.quantification for band in scene.bands.values()} == {10000}
        assert np.allclose(scene.read(["B11"]).data["B11"] * 10000, dark, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_unit_that_the_pixels_cannot_decide_is_asked_for(dtype, tmp_path):
    values = np.random.default_rng(0).integers(1, 9, (SIZE, SIZE)).astype(dtype)
    for name in ("B02", "B03", "B04", "B08"):
        write_band(tmp_path / f"{name}.tif", values, 10)
    with pytest.raises(InputError, match="give the quantification: 1 for reflectance 0 to 1, 100 for percent"):
        open_scene(tmp_path)
    with open_scene(tmp_path, jobs.SceneOptions(quantification=10000)) as scene:
        assert np.allclose(scene.read(["B02"]).data["B02"] * 10000, values, atol=1e-3)


@pytest.mark.parametrize("nodata", [0, -9999, None])
def test_fill_does_not_silence_the_warning_of_an_offset(nodata, tmp_path):
    empty = -9999 if nodata is None else nodata
    source = stack(tmp_path / "in.tif", "int16", shift=1000, empty=empty, nodata=nodata)
    with open_scene(source) as scene:
        assert any("even the darkest pixels lie above 1000 DN" in text for text in scene.warnings)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_negative_values_are_counted(dtype, tmp_path):
    gain = 1 if dtype == "float32" else 10000
    source = stack(tmp_path / "in.tif", dtype, gain, empty=-0.012 * gain, nodata=-9999)
    output = tmp_path / "out.tif"
    result = jobs.run(jobs.SuperResolveJob(scene=str(source), output=output, bands=["B02", "B08"]))
    sentence = next(text for text in result["assumptions"] if "negative" in text)
    assert "B02 864, B08 864" in sentence
    assert "--data-type float32" in sentence
    with rasterio.open(output) as file:
        assert sentence in file.tags()[ASSUMPTIONS]
    jobs.run(jobs.SuperResolveJob(scene=str(source), output=output, bands=["B02", "B08"], data_type="float32"))
    with rasterio.open(output) as file:
        assert np.allclose(file.read(1)[EMPTY], -0.012, atol=1e-5)


@pytest.mark.parametrize("how", ["internal", "beside", "alpha", "dataMask", "untagged"])
def test_similarity_leaves_out_what_a_file_masks(how, tmp_path):
    whole = stack(tmp_path / "a.tif", "int16")
    number = -9999 if how == "untagged" else 32000
    more = {"untagged": {}, "internal": {"mask": how}, "beside": {"mask": how}}.get(how, {"extra": how})
    part = stack(tmp_path / "b.tif", "int16", empty=number, **more)
    target = tmp_path / "figures.json"
    jobs.run(jobs.SimilarityJob(reference=str(whole), image=str(part), measures=["rmse"], json_file=target))
    figures = json.loads(target.read_text())
    assert (figures["rmse"], figures["pixels"]) == (0, SIZE**2 - 24 * 36)
    assert any("taken for nodata" in text for text in figures["assumptions"]) == (how == "untagged")


def test_similarity_does_not_scale_twice(tmp_path):
    reference = stack(tmp_path / "a.tif", scales=(1e-4,) * 10, offsets=(0,) * 10)
    image = stack(tmp_path / "b.tif", "float32", 1, scales=(1e-4,) * 10, offsets=(-0.1,) * 10)
    result = jobs.run(jobs.SimilarityJob(reference=str(reference), image=str(image), measures=["rmse"]))
    assert result["rmse"] < 0.01  # digital numbers
    assert any("not applied a second time" in text for text in result["assumptions"])


def test_consistency_of_an_image_in_digital_numbers_of_a_real_type(tmp_path):
    source, image = folder(tmp_path / "source"), stack(tmp_path / "b.tif", "float32")
    job = jobs.SimilarityJob(
        reference=str(source), image=str(image), measures=["rmse"], bands=["B02"], consistency=True
    )
    result = jobs.run(job)
    assert result["rmse"] < 1
    assert any("taken for digital numbers" in text for text in result["assumptions"])


def test_evaluate_and_dataset_leave_out_what_a_file_masks(tmp_path):
    whole = stack(tmp_path / "a.tif")
    part = stack(tmp_path / "b.tif", empty=65000, mask="internal")
    figures = [
        jobs.run(jobs.EvaluateJob(model="sharpen_20m", scene=str(path), border=0, allow_other_level=True))
        for path in (whole, part)
    ]
    assert figures[1]["pixels"] < figures[0]["pixels"]
    assert figures[1]["rmse"] < 1.5 * figures[0]["rmse"]
    numbers = [
        jobs.run(
            jobs.CreateSharpeningDatasetJob(
                scenes=[str(path)], output=path.with_suffix(""), patch_size=6, valid=0, test=0, train=1
            )
        )
        for path in (whole, part)
    ]
    assert 0 < numbers[1]["n_train"] < numbers[0]["n_train"]
    with rasterio.open(tmp_path / "b" / "train_target.tif") as file:
        assert file.read().max() < 10000
