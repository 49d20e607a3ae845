"""SAFE products: folders and zips, what their metadata say, and what is wrong with bad ones."""

from __future__ import annotations

import shutil
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from products import L1C_BANDS, L2A_BANDS, make_band_folder, make_safe, real_data, reflectances, write_band, zip_safe

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.jobs import SceneOptions
from s2sr_qgis.core.scene import BANDS, open_scene
from s2sr_qgis.core.scene.safe import parse_metadata

ROUNDING = 0.6e-4


@pytest.fixture(scope="module")
def l1c(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_safe(tmp_path_factory.mktemp("l1c"), "L1C", size=120, platform="S2B")


@pytest.fixture(scope="module")
def l2a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_safe(tmp_path_factory.mktemp("l2a"), "L2A", size=120, platform="S2C")


def _copy(product: Path, folder: Path) -> Path:
    return Path(shutil.copytree(product, folder / product.name))


def _assert_true_reflectance(source: Path, bands: tuple[str, ...], size: int = 120) -> None:
    with open_scene(source) as scene:
        assert tuple(scene.bands) == bands
        pixels = scene.read(bands)
    for name, expected in reflectances(size, bands).items():
        assert pixels.data[name].dtype == np.float32
        assert np.abs(pixels.data[name] - expected).max() < ROUNDING, name
        assert pixels.valid[name].all()


def test_l1c_facts(l1c: Path) -> None:
    with open_scene(l1c) as scene:
        assert (scene.level, scene.platform, scene.baseline) == ("L1C", "S2B", "05.09")
        assert scene.acquired == datetime(2023, 8, 15, 10, 36, 31, 24000, tzinfo=timezone.utc)
        assert scene.name == l1c.name.removesuffix(".SAFE")
        assert (scene.grid.width, scene.grid.height, scene.multiple) == (120, 120, 6)
        assert scene.grid.crs.to_epsg() == 32631
        assert scene.warnings == []
        assert {name: band.resolution for name, band in scene.bands.items()} == {
            name: band.resolution for name, band in BANDS.items()
        }
        assert {(band.offset, band.quantification) for band in scene.bands.values()} == {(-1000, 10000)}
        assert scene.names(60) == ["B01", "B09", "B10"]


def test_l1c_pixels(l1c: Path) -> None:
    _assert_true_reflectance(l1c, L1C_BANDS)


def test_l2a_takes_each_band_at_its_own_resolution(l2a: Path) -> None:
    with open_scene(l2a) as scene:
        assert (scene.level, scene.platform) == ("L2A", "S2C")
        for band in scene.bands.values():
            assert band.stored_resolution == band.resolution
            assert f"_{band.resolution}m.jp2" in band.file.path
    _assert_true_reflectance(l2a, L2A_BANDS)


@pytest.mark.parametrize(
    "inside",
    ["", "..", "GRANULE", "GRANULE/{granule}", "GRANULE/{granule}/IMG_DATA", "MTD_MSIL1C.xml", "manifest.safe"],
)
def test_product_is_found_from(l1c: Path, inside: str) -> None:
    granule = next((l1c / "GRANULE").iterdir()).name
    with open_scene(l1c / inside.format(granule=granule)) as scene:
        assert scene.name == l1c.name.removesuffix(".SAFE")


@pytest.mark.parametrize("inside", ["GRANULE/{granule}/IMG_DATA/R20m", "MTD_MSIL2A.xml", "B04"])
def test_l2a_product_is_found_from(l2a: Path, inside: str) -> None:
    granule = next((l2a / "GRANULE").iterdir()).name
    chosen = next(l2a.rglob("*_B04_10m.jp2")) if inside == "B04" else l2a / inside.format(granule=granule)
    with open_scene(chosen) as scene:
        assert scene.level == "L2A"
        assert tuple(scene.bands) == L2A_BANDS


def test_old_names(tmp_path: Path) -> None:
    product = make_safe(tmp_path, baseline="02.04", size=60, old_names=True)
    assert not list(product.glob("MTD_*"))
    _assert_true_reflectance(product, L1C_BANDS, 60)
    with open_scene(product) as scene:
        assert (scene.level, scene.platform, scene.baseline) == ("L1C", "S2A", "02.04")


def test_product_of_two_granules_needs_a_choice(tmp_path: Path) -> None:
    """Before December 2016 a product held many tiles."""
    product = make_safe(tmp_path, baseline="02.04", size=60, old_names=True)
    metadata = next(product.glob("*.xml"))
    first = next((product / "GRANULE").iterdir())
    second = first.with_name(first.name.replace("T31UDQ", "T31UEQ"))
    shutil.copytree(first, second)
    for path in second.rglob("*.jp2"):
        path.rename(path.with_name(path.name.replace("T31UDQ", "T31UEQ")))
    text = metadata.read_text()
    granule = text[text.index("<Granule ") : text.index("</Granule>") + len("</Granule>")]
    metadata.write_text(text.replace(granule, granule + granule.replace("T31UDQ", "T31UEQ")))
    with pytest.raises(InputError, match="lists several granules; name one folder in GRANULE"):
        open_scene(product)
    for chosen in (second, second / "IMG_DATA"):
        with open_scene(chosen) as scene:
            assert "T31UEQ" in scene.bands["B02"].file.path
            assert tuple(scene.bands) == L1C_BANDS


def test_bands_beside_a_product_s_granules_are_not_the_product(l1c: Path, tmp_path: Path) -> None:
    product = _copy(l1c, tmp_path)
    make_band_folder(product / "mine", size=60, bands=("B02", "B05"))
    with open_scene(product / "mine") as scene:
        assert tuple(scene.bands) == ("B02", "B05")


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_no_offset_before_baseline_four(tmp_path: Path, level: str) -> None:
    product = make_safe(tmp_path, level, baseline="02.14", size=60)
    assert "ADD_OFFSET" not in (product / f"MTD_MSI{level}.xml").read_text()
    with open_scene(product) as scene:
        assert {band.offset for band in scene.bands.values()} == {0}
    _assert_true_reflectance(product, L1C_BANDS if level == "L1C" else L2A_BANDS, 60)


def test_offset_is_taken_by_band_id(tmp_path: Path) -> None:
    product = make_safe(tmp_path, size=60)
    metadata = product / "MTD_MSIL1C.xml"
    metadata.write_text(metadata.read_text().replace('band_id="8">-1000', 'band_id="8">-900'))
    with open_scene(product) as scene:
        assert {name for name, band in scene.bands.items() if band.offset == -900} == {"B8A"}


def test_user_overrides_metadata(l1c: Path) -> None:
    options = SceneOptions(radiometric_offset=0, quantification=20000)
    with open_scene(l1c, options) as scene:
        assert {(band.offset, band.quantification) for band in scene.bands.values()} == {(0, 20000)}


def test_contradicting_level_is_told(l1c: Path) -> None:
    with open_scene(l1c, SceneOptions(processing_level="L2A")) as scene:
        assert scene.level == "L2A"
        assert "says L1C" in scene.warnings[0]


def test_nodata_and_saturation(tmp_path: Path) -> None:
    product = make_safe(tmp_path, size=60, nodata_corner=12, saturated=12)
    with open_scene(product) as scene:
        pixels = scene.read(["B02", "B11", "B09"])
    assert [int((~pixels.valid[name]).sum()) for name in ("B02", "B11", "B09")] == [78, 21, 3]
    assert [int(pixels.saturated[name].sum()) for name in ("B02", "B11", "B09")] == [144, 36, 4]
    # DN 0 is nodata before the offset: it must come out as 0, not as -0.1.
    assert (pixels.data["B02"][~pixels.valid["B02"]] == 0).all()
    assert not (pixels.saturated["B02"] & ~pixels.valid["B02"]).any()


def test_negative_reflectance_is_kept(tmp_path: Path) -> None:
    product = make_safe(tmp_path, size=60)
    path = next(product.rglob("*_B02.jp2"))
    write_band(path, np.full((60, 60), 990, np.uint16), 10)
    with open_scene(product) as scene:
        pixels = scene.read(["B02"])
    assert pixels.valid["B02"].all()
    assert np.allclose(pixels.data["B02"], -0.001)


def test_zip_is_read_in_place(l1c: Path, tmp_path: Path) -> None:
    zipped = zip_safe(l1c, tmp_path / "product.zip")
    _assert_true_reflectance(zipped, L1C_BANDS)
    assert [path.name for path in tmp_path.iterdir()] == ["product.zip"]


def test_zip_found_from_the_folder_above(l1c: Path, tmp_path: Path) -> None:
    zip_safe(l1c, tmp_path / f"{l1c.stem}.zip")
    with open_scene(tmp_path) as scene:
        assert scene.level == "L1C"


def test_folder_without_product(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match="holds no Sentinel-2 product"):
        open_scene(tmp_path)


def test_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        open_scene(tmp_path / "nowhere")


def test_folder_with_two_products(tmp_path: Path) -> None:
    make_safe(tmp_path, "L1C", size=12)
    make_safe(tmp_path, "L2A", size=12)
    with pytest.raises(InputError, match=r"several products \(S2A_MSIL1C.*S2A_MSIL2A"):
        open_scene(tmp_path)


def test_missing_band_file_is_named(l1c: Path, tmp_path: Path) -> None:
    product = _copy(l1c, tmp_path)
    next(product.rglob("*_B8A.jp2")).unlink()
    with open_scene(product) as scene:
        assert "B8A" not in scene.bands
        assert "B8A left out" in scene.warnings[0]
        assert "download the product again" in scene.warnings[0]


@pytest.mark.parametrize("part", [0, 30, 3000])
def test_truncated_band_file_is_named(l1c: Path, tmp_path: Path, part: int) -> None:
    product = _copy(l1c, tmp_path)
    path = next(product.rglob("*_B05.jp2"))
    path.write_bytes(path.read_bytes()[:part])
    with pytest.raises(InputError, match=r"_B05\.jp2 is (truncated|empty)"):
        open_scene(product)


def test_band_file_cut_by_one_byte_is_named(l1c: Path, tmp_path: Path) -> None:
    product = _copy(l1c, tmp_path)
    path = next(product.rglob("*_B12.jp2"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"_B12\.jp2 is truncated"):
        open_scene(product)


def test_band_file_that_is_no_image_is_named(l1c: Path, tmp_path: Path) -> None:
    product = _copy(l1c, tmp_path)
    next(product.rglob("*_B03.jp2")).write_text("<html>503 Service Unavailable</html>")
    with pytest.raises(InputError, match=r"_B03\.jp2 cannot be read"):
        open_scene(product)


def test_damage_inside_a_band_file_is_named_when_read(l1c: Path, tmp_path: Path) -> None:
    product = _copy(l1c, tmp_path)
    path = next(product.rglob("*_B04.jp2"))
    data = bytearray(path.read_bytes())
    start = data.index(b"jp2c") + 60
    data[start:-2] = bytes(len(data) - 2 - start)
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"_B04\.jp2 cannot be read"), open_scene(product) as scene:
        scene.read(["B04"])


def test_truncated_band_in_a_zip_is_named(l1c: Path, tmp_path: Path) -> None:
    product = _copy(l1c, tmp_path)
    path = next(product.rglob("*_B05.jp2"))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"_B05\.jp2 in .* is truncated"):
        open_scene(zip_safe(product))


def test_zip_that_is_no_safe(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match=r"a\.zip holds no SAFE product"):
        open_scene(tmp_path / "a.zip")


def test_damaged_zip(l1c: Path, tmp_path: Path) -> None:
    zipped = zip_safe(l1c, tmp_path / "cut.zip")
    zipped.write_bytes(zipped.read_bytes()[: zipped.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut\.zip is no zip that can be read"):
        open_scene(zipped)


@pytest.mark.parametrize("name", ["../../evil.jp2", "/etc/evil.jp2", "C:/evil.jp2", "a\\..\\evil.jp2"])
def test_zip_with_a_member_that_escapes(l1c: Path, tmp_path: Path, name: str) -> None:
    zipped = zip_safe(l1c, tmp_path / "evil.zip")
    with zipfile.ZipFile(zipped, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(InputError, match="names a file outside itself"):
        open_scene(zipped)


def test_metadata_that_point_outside(l1c: Path, tmp_path: Path) -> None:
    product = _copy(l1c, tmp_path)
    metadata = product / "MTD_MSIL1C.xml"
    metadata.write_text(metadata.read_text().replace("<IMAGE_FILE>GRANULE/", "<IMAGE_FILE>../GRANULE/", 1))
    with pytest.raises(InputError, match="names a file outside itself"):
        open_scene(product)


def test_metadata_with_an_entity_is_refused(l1c: Path, tmp_path: Path) -> None:
    product = _copy(l1c, tmp_path)
    metadata = product / "MTD_MSIL1C.xml"
    bomb = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
    text = metadata.read_text().replace("?>\n", f"?>\n{bomb}\n", 1).replace("Level-1C</PROC", "&x;</PROC")
    metadata.write_text(text)
    with pytest.raises(InputError, match="is no sound XML"):
        open_scene(product)


def test_offset_missing_from_a_new_baseline(l1c: Path, tmp_path: Path) -> None:
    product = _copy(l1c, tmp_path)
    metadata = product / "MTD_MSIL1C.xml"
    metadata.write_text(metadata.read_text().replace("RADIO_ADD_OFFSET", "OTHER"))
    with pytest.raises(InputError, match=r"baseline 05\.09 but states no radiometric offset"):
        open_scene(product)
    with open_scene(product, SceneOptions(radiometric_offset=-1000)) as scene:
        assert {band.offset for band in scene.bands.values()} == {-1000}


@pytest.mark.parametrize(
    ("product", "level", "baseline", "offset", "count"),
    [
        ("S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126", "L2A", "04.00", -1000, 13),
        ("S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825", "L2A", "05.09", -1000, 13),
        ("S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857", "L2A", "02.12", None, 0),
        ("esa_S2B_MSIL2A_20210122T133229_N0214_R081_T22HBD_20210122T155500", "L2A", "02.14", None, 0),
        ("S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248", "L1C", "03.01", None, 0),
    ],
)
def test_real_metadata(product: str, level: str, baseline: str, offset: float | None, count: int) -> None:
    path = real_data(f"safe/stactools/tests/data-files/{product}.SAFE/MTD_MSI{level}.xml")
    metadata = parse_metadata(path.read_bytes(), "x", "y")
    facts = metadata.facts
    assert (facts.level, facts.baseline, metadata.quantification) == (level, baseline, 10000)
    assert facts.platform == product.removeprefix("esa_")[:3]
    assert facts.acquired is not None
    assert facts.acquired.strftime("%Y%m%dT%H%M%S") in product
    assert len(metadata.offsets) == count
    assert set(metadata.offsets.values()) == ({offset} if count else set())
    assert len(metadata.images) >= 14


def test_real_metadata_without_pixels() -> None:
    product = real_data(
        "safe/stactools/tests/data-files/S2A_MSIL2A_20180721T053721_N0212_R062_T43MDV_20201011T181419.SAFE"
    )
    with pytest.raises(InputError, match=r"MTD_MSIL2a\.xml .* lists GRANULE.*as are all others"):
        open_scene(product)


def test_real_product_with_one_band_of_thirteen() -> None:
    product = real_data(
        "safe/eodag/tests/resources/products/S2A_MSIL1C_20180101T105441_N0206_R051_T31TDH_20180101T124911"
    )
    with open_scene(product) as scene:
        assert list(scene.bands) == ["B01"]
        assert "B02, B03, B04, B05, B06, B07, B08, B8A, B09, B11, B12 left out" in scene.warnings[0]


def test_real_file_of_another_kind_under_the_metadata_name() -> None:
    folder = real_data("safe/mapchete_eo/tests/testdata/sentinel2/SAFE")
    with pytest.raises(InputError, match="no Sentinel-2 product metadata: it holds 'Level-2A_Tile_ID'"):
        open_scene(next(folder.rglob("MTD_MSIL2A.xml")))


def test_real_zip_with_empty_bands() -> None:
    folder = real_data("safe/s2reader/tests/data/zipped_safe")
    with pytest.raises(InputError, match=r"_B01\.jp2 in .* is empty"):
        open_scene(folder / "S2A_MSIL1C_20170809T100031_N0205_R122_T32TQT_20170809T100028.zip")


@pytest.mark.parametrize(
    ("name", "spacing", "side", "baseline"),
    [
        ("S2A_MSIL1C_20171207T002051_N0206_R116_T55JEJ_20171207T032513", 640, 168, "02.06"),
        ("S2B_MSIL1C_20170719T000219_N0205_R030_T56JKT_20170719T000218", 640, 168, "02.05"),
        ("S2A_MSIL1C_20210713T032051_N0301_R032_T48LWP_20210713T054224", 5490, 18, "03.01"),
    ],
)
def test_real_zipped_products(name: str, spacing: float, side: int, baseline: str) -> None:
    with open_scene(real_data(f"safe/zips/{name}.zip")) as scene:
        assert (scene.name, scene.level, scene.platform, scene.baseline) == (name, "L1C", name[:3], baseline)
        assert (scene.grid.spacing, scene.grid.width, scene.grid.height) == (spacing, side, side)
        assert tuple(scene.bands) == L1C_BANDS
        assert f"measures {spacing} m" in scene.warnings[0]
        pixels = scene.read(list(scene.bands))
    assert pixels.data["B02"].shape == (side, side)
    assert pixels.data["B09"].shape == (side // 6, side // 6)


def test_real_pixels_under_real_metadata(tmp_path: Path) -> None:
    """Chips of a real L2A product of baseline 04.00, written under the names that real metadata list."""
    source = real_data(
        "safe/stactools/tests/data-files/S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126.SAFE"
    )
    chips = real_data("s2_l2a/majortom_33NZA_offset")
    product = tmp_path / source.name
    product.mkdir()
    shutil.copyfile(source / "MTD_MSIL2A.xml", product / "MTD_MSIL2A.xml")
    images = parse_metadata((product / "MTD_MSIL2A.xml").read_bytes(), "x", "y").images
    for name in L2A_BANDS:
        listed = next(image for image in images if image.endswith(f"_{name}_{BANDS[name].resolution}m"))
        target = product / f"{listed}.jp2"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(chips / f"{name}.tif", target)
    with open_scene(product) as scene, open_scene(chips, SceneOptions(radiometric_offset=-1000)) as plain:
        assert {band.offset for band in scene.bands.values()} == {-1000}
        assert scene.level == "L2A"
        ours, theirs = scene.read(["B02", "B09"]), plain.read(["B02", "B09"])
    assert np.array_equal(ours.data["B02"], theirs.data["B02"])
    assert np.array_equal(ours.data["B09"], theirs.data["B09"])
