"""Folders of single-band files and stacked rasters: names, grids, radiometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from products import CORNER, L2A_BANDS, make_band_folder, make_safe, make_stack, real_data, reflectances, write_band
from rasterio.transform import Affine

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.jobs import SceneOptions
from s2sr_qgis.core.scene import Scene, Window, open_scene

ROUNDING = 0.6e-4


def _assert_true_reflectance(scene: Scene, size: int, names: tuple[str, ...] = L2A_BANDS) -> None:
    assert tuple(scene.bands) == names
    pixels = scene.read(names)
    for name, expected in reflectances(size, names).items():
        assert np.abs(pixels.data[name] - expected).max() < ROUNDING, name


@pytest.mark.parametrize(
    ("pattern", "level"),
    [
        ("{band}.tif", None),
        ("s2_{band}.jp2", None),
        ("T31UDQ_20230815T103631_{band}_{resolution}m.jp2", None),
        ("S2A_MSIL2A_20230815T103631_87_48_{band}.tif", "L2A"),
        ("S2B_MSIL1C_20230815T103631_N0509_R008_T31UDQ_20230815T140000_{band}.TIFF", "L1C"),
    ],
)
def test_names_of_band_files(tmp_path: Path, pattern: str, level: str | None) -> None:
    offset = -1000 if "N0509" in pattern else 0
    with open_scene(make_band_folder(tmp_path / "scene", pattern, size=60, offset=offset)) as scene:
        assert scene.level == level
        assert scene.multiple == 6
        _assert_true_reflectance(scene, 60)


def test_one_digit_band_names(tmp_path: Path) -> None:
    for path in make_band_folder(tmp_path / "scene", size=60).iterdir():
        path.rename(path.with_name(path.name.replace("B0", "B")))
    with open_scene(tmp_path / "scene") as scene:
        _assert_true_reflectance(scene, 60)


def test_level_can_be_given(tmp_path: Path) -> None:
    with open_scene(make_band_folder(tmp_path, size=60), SceneOptions(processing_level="L1C")) as scene:
        assert (scene.level, scene.warnings) == ("L1C", [])


def test_own_resolution_is_chosen_among_several(tmp_path: Path) -> None:
    make_band_folder(tmp_path, "x_{band}_{resolution}m.tif", size=60)
    for name, resolution in (("B02", 60), ("B05", 60), ("B01", 20)):
        write_band(tmp_path / f"x_{name}_{resolution}m.tif", np.ones((600 // resolution,) * 2, np.uint16), resolution)
    with open_scene(tmp_path) as scene:
        _assert_true_reflectance(scene, 60)


def test_band_stored_finer_is_read_at_its_own_resolution(tmp_path: Path) -> None:
    make_band_folder(tmp_path, size=60)
    fine = np.random.default_rng(1).integers(100, 5000, (30, 30)).astype(np.uint16)
    write_band(tmp_path / "B01.tif", fine, 20)
    with open_scene(tmp_path) as scene:
        assert (scene.bands["B01"].resolution, scene.bands["B01"].stored_resolution) == (60, 20)
        data = scene.read(["B01"]).data["B01"]
    assert np.allclose(data, fine.reshape(10, 3, 10, 3).mean(axis=(1, 3)) / 10000, atol=1e-6)


def test_band_stored_coarser_is_left_out(tmp_path: Path) -> None:
    make_band_folder(tmp_path, size=60)
    write_band(tmp_path / "B02.tif", np.ones((30, 30), np.uint16), 20)
    with open_scene(tmp_path) as scene:
        assert "B02" not in scene.bands
        assert scene.warnings == ["B02 is left out: it is stored at 20 m, above its own 10 m."]


@pytest.mark.parametrize(
    ("bands", "multiple"), [(("B02", "B03", "B8A"), 2), (("B04", "B08"), 1), (("B05", "B11"), 2), (("B01",), 6)]
)
def test_subset_of_bands(tmp_path: Path, bands: tuple[str, ...], multiple: int) -> None:
    with open_scene(make_band_folder(tmp_path, size=60, bands=bands)) as scene:
        assert scene.multiple == multiple
        assert (scene.grid.spacing, scene.grid.width, scene.grid.height) == (10, 60, 60)
        _assert_true_reflectance(scene, 60, bands)


def test_grids_of_different_corners_meet_on_the_coarsest(tmp_path: Path) -> None:
    """As in Virginia's extract: 10 m from 10 m further in, 20 m from 20 m lower, 60 m the widest."""
    x, y = CORNER
    rng = np.random.default_rng(0)
    values = {
        name: rng.integers(1, 9000, shape).astype(np.uint16)
        for name, shape in (("B02", (125, 131)), ("B05", (62, 65)), ("B09", (21, 22)))
    }
    write_band(tmp_path / "B02.tif", values["B02"], 10, corner=(x + 10, y - 20))
    write_band(tmp_path / "B05.tif", values["B05"], 20, corner=(x, y - 20))
    write_band(tmp_path / "B09.tif", values["B09"], 60, corner=(x, y))
    with open_scene(tmp_path) as scene:
        assert (scene.grid.x, scene.grid.y) == (x + 60, y - 60)
        assert (scene.grid.width, scene.grid.height) == (120, 120)
        pixels = scene.read(["B02", "B05", "B09"])
        assert np.array_equal(np.rint(pixels.data["B02"] * 10000), values["B02"][4:124, 5:125])
        assert np.array_equal(np.rint(pixels.data["B05"] * 10000), values["B05"][2:62, 3:63])
        assert np.array_equal(np.rint(pixels.data["B09"] * 10000), values["B09"][1:21, 1:21])


def test_two_crs_are_named(tmp_path: Path) -> None:
    make_band_folder(tmp_path, size=12, bands=("B02",))
    make_band_folder(tmp_path, size=12, bands=("B05",), crs="EPSG:32632")
    with pytest.raises(InputError, match="B02 is in EPSG:32631, B05 in EPSG:32632"):
        open_scene(tmp_path)


def test_grids_that_do_not_nest_are_named(tmp_path: Path) -> None:
    make_band_folder(tmp_path, size=60, bands=("B02", "B03"))
    write_band(tmp_path / "B05.tif", np.ones((30, 30), np.uint16), 20, corner=(CORNER[0] + 5, CORNER[1]))
    with pytest.raises(
        InputError, match=r"do not nest: B0[23] starts at \(600000, 5400000\).*B05 at \(600005, 5400000\)"
    ):
        open_scene(tmp_path)


def test_sixty_metre_grid_off_the_twenty_metre_one(tmp_path: Path) -> None:
    make_band_folder(tmp_path, size=60, bands=("B02", "B05"))
    write_band(tmp_path / "B09.tif", np.ones((10, 10), np.uint16), 60, corner=(CORNER[0] + 10, CORNER[1]))
    with pytest.raises(InputError, match="do not nest: B05"):
        open_scene(tmp_path)


def test_pixel_size_of_no_sentinel_2_band(tmp_path: Path) -> None:
    make_band_folder(tmp_path, size=60, bands=("B02",))
    write_band(tmp_path / "B05.tif", np.ones((20, 20), np.uint16), 30)
    with pytest.raises(InputError, match="do not nest: the pixels of B05 measure 30"):
        open_scene(tmp_path)


def test_extents_that_do_not_overlap(tmp_path: Path) -> None:
    make_band_folder(tmp_path, size=60, bands=("B02",))
    write_band(tmp_path / "B05.tif", np.ones((30, 30), np.uint16), 20, corner=(CORNER[0] + 6000, CORNER[1]))
    with pytest.raises(InputError, match="B02, B05 have no ground in common"):
        open_scene(tmp_path)


@pytest.mark.parametrize(
    ("transform", "text"),
    [(Affine(10, 2, 0, 2, -10, 0), "is rotated"), (Affine(10, 0, 600000, 0, 10, 5400000), "is not north-up")],
)
def test_rotated_and_south_up_rasters_are_refused(tmp_path: Path, transform: Affine, text: str) -> None:
    write_band(tmp_path / "B02.tif", np.ones((12, 12), np.uint16), 10, transform=transform)
    with pytest.raises(InputError, match=rf"B02\.tif {text}"):
        open_scene(tmp_path)


def test_eight_bit_pictures_are_refused(tmp_path: Path) -> None:
    write_band(tmp_path / "B02.tif", np.ones((12, 12), np.uint8), 10)
    with pytest.raises(InputError, match=r"B02 of .*B02\.tif has pixels of type uint8"):
        open_scene(tmp_path)


def test_image_folder_taken_out_of_a_level_2a_product(tmp_path: Path) -> None:
    product = make_safe(tmp_path, "L2A", size=60, baseline="02.14")
    images = next(product.rglob("IMG_DATA")).rename(tmp_path / "images")
    with open_scene(images) as scene:
        assert (scene.level, scene.multiple) == (None, 6)
        _assert_true_reflectance(scene, 60)


def test_two_files_of_one_band(tmp_path: Path) -> None:
    make_band_folder(tmp_path, "first_{band}.tif", size=12, bands=("B02",))
    make_band_folder(tmp_path, "second_{band}.tif", size=12, bands=("B02",))
    with pytest.raises(InputError, match=r"two files of band B02: first_B02\.tif and second_B02\.tif"):
        open_scene(tmp_path)


def test_truncated_geotiff_is_named_when_read(tmp_path: Path) -> None:
    make_band_folder(tmp_path, size=120, bands=("B02", "B03"))
    path = tmp_path / "B03.tif"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"B03\.tif cannot be read"), open_scene(tmp_path) as scene:
        scene.read(["B03"])


@pytest.mark.parametrize("crs", ["EPSG:4326", None])
def test_without_metres_the_pixel_counts_tell(tmp_path: Path, crs: str | None) -> None:
    size = 60
    for name, factor in (("B02", 1), ("B8A", 2), ("B09", 6)):
        data = np.full((size // factor, size // factor), 1000 * factor, np.uint16)
        # Exports in degrees start each band at its own rounded corner.
        transform = Affine(1e-4 * factor, 0, 7 - 1e-5 * factor, 0, -8e-5 * factor, 48) if crs else None
        write_band(tmp_path / f"{name}.tif", data, 10, crs, transform=transform or Affine.identity())
    with open_scene(tmp_path) as scene:
        assert (scene.multiple, scene.grid.width, scene.grid.height) == (6, 60, 60)
        assert {name: band.resolution for name, band in scene.bands.items()} == {"B02": 10, "B8A": 20, "B09": 60}
        if crs:
            assert scene.grid.crs.to_epsg() == 4326
            assert scene.grid.transform.almost_equals(Affine(1e-4, 0, 7 - 1e-5, 0, -8e-5, 48), precision=1e-12)
        data = scene.read(["B8A"], Window(12, 0, 24, 48)).data["B8A"]
    assert data.shape == (24, 12)
    assert np.allclose(data, 0.2)


def test_degrees_that_do_not_nest(tmp_path: Path) -> None:
    write_band(
        tmp_path / "B02.tif", np.ones((60, 60), np.uint16), 10, "EPSG:4326", transform=Affine(1e-4, 0, 7, 0, -1e-4, 48)
    )
    write_band(
        tmp_path / "B05.tif", np.ones((29, 30), np.uint16), 20, "EPSG:4326", transform=Affine(2e-4, 0, 7, 0, -2e-4, 48)
    )
    with pytest.raises(InputError, match="do not nest: B05 has 30 x 29 pixels"):
        open_scene(tmp_path)


def test_stack_with_descriptions(tmp_path: Path) -> None:
    with open_scene(make_stack(tmp_path / "S2A_MSIL2A_20230815T103631_x.tif", size=60)) as scene:
        assert (scene.level, scene.platform, scene.multiple) == ("L2A", "S2A", 6)
        assert {band.stored_resolution for band in scene.bands.values()} == {10}
        _assert_true_reflectance(scene, 60)


def test_stack_with_given_names(tmp_path: Path) -> None:
    path = make_stack(tmp_path / "stack.tif", size=60, bands=("B02", "B05", "B09"), descriptions=False)
    with open_scene(path, SceneOptions(band_names=["b2", "-", "9"])) as scene:
        _assert_true_reflectance(scene, 60, ("B02", "B09"))


def test_stack_without_names(tmp_path: Path) -> None:
    path = make_stack(tmp_path / "stack.tif", size=12, descriptions=False)
    with pytest.raises(InputError, match=r"bands of .*stack\.tif have no names.*give the band names in file order"):
        open_scene(path)


def test_stack_with_too_few_names(tmp_path: Path) -> None:
    path = make_stack(tmp_path / "stack.tif", size=12, descriptions=False)
    with pytest.raises(InputError, match="has 12 bands, but 2 names are given"):
        open_scene(path, SceneOptions(band_names=["B02", "B03"]))


def test_stack_with_a_name_twice(tmp_path: Path) -> None:
    path = make_stack(tmp_path / "stack.tif", size=12, bands=("B02", "B03"), descriptions=False)
    with pytest.raises(InputError, match="two bands named B02"):
        open_scene(path, SceneOptions(band_names=["B02", "B2"]))


def test_stack_with_a_name_that_is_no_band(tmp_path: Path) -> None:
    path = make_stack(tmp_path / "stack.tif", size=12, bands=("B02", "B03"), descriptions=False)
    with pytest.raises(InputError, match="'B13' is no Sentinel-2 band"):
        open_scene(path, SceneOptions(band_names=["B02", "B13"]))


def test_blocks_of_a_stack_start_at_multiples_of_sixty_metres(tmp_path: Path) -> None:
    """A stack cut at any 10 m pixel out of a tile keeps the tile's 60 m blocks."""
    whole = make_stack(tmp_path / "whole.tif", size=120)
    cut = tmp_path / "cut.tif"
    with rasterio.open(whole) as source:
        profile = {**source.profile, "width": 100, "height": 90}
        profile["transform"] = source.transform @ Affine.translation(7, 11)
        with rasterio.open(cut, "w", **profile) as target:
            target.write(source.read()[:, 11:101, 7:107])
            target.descriptions = source.descriptions
    with open_scene(whole) as full, open_scene(cut) as part:
        assert (part.grid.x, part.grid.y) == (full.grid.x + 120, full.grid.y - 120)
        assert (part.grid.width, part.grid.height) == (90, 84)
        expected = full.read(list(full.bands), Window(12, 12, 90, 84))
        pixels = part.read(list(part.bands))
    for name in L2A_BANDS:
        assert np.allclose(pixels.data[name], expected.data[name], atol=1e-6)


def test_scale_and_offset_tags_are_honoured(tmp_path: Path) -> None:
    with open_scene(make_stack(tmp_path / "s.tif", size=60, offset=-1000, tags=True)) as scene:
        assert {(band.offset, band.quantification) for band in scene.bands.values()} == {(-1000, 10000)}
        assert scene.warnings == []
        _assert_true_reflectance(scene, 60)


def test_user_overrides_tags(tmp_path: Path) -> None:
    path = make_stack(tmp_path / "s.tif", size=12, offset=-1000, tags=True)
    with open_scene(path, SceneOptions(radiometric_offset=-500)) as scene:
        assert {(band.offset, band.quantification) for band in scene.bands.values()} == {(-500, 10000)}


def test_offset_that_nothing_states_is_warned_of(tmp_path: Path) -> None:
    path = make_stack(tmp_path / "s.tif", size=60, offset=-1000)
    with open_scene(path) as scene:
        assert {band.offset for band in scene.bands.values()} == {0}
        assert "give a radiometric offset of -1000" in scene.warnings[0]
    with open_scene(path, SceneOptions(radiometric_offset=-1000)) as scene:
        assert scene.warnings == []
        _assert_true_reflectance(scene, 60)


def test_dark_pixels_without_offset_are_not_warned_of(tmp_path: Path) -> None:
    with open_scene(make_stack(tmp_path / "s.tif", size=60)) as scene:
        assert scene.warnings == []


def test_float_reflectance_with_nan(tmp_path: Path) -> None:
    with open_scene(make_stack(tmp_path / "s.tif", size=60, reflectance=True, nodata_corner=12)) as scene:
        assert {(band.offset, band.quantification) for band in scene.bands.values()} == {(0, 1)}
        assert "taken for reflectance" in scene.warnings[0]
        pixels = scene.read(["B02", "B09"])
        truth = reflectances(60, ("B02", "B09"))
    assert int((~pixels.valid["B02"]).sum()) == 78
    assert np.isfinite(pixels.data["B02"]).all()
    assert (pixels.data["B02"][~pixels.valid["B02"]] == 0).all()
    valid = pixels.valid["B09"]
    assert int((~valid).sum()) == 3
    assert np.abs(pixels.data["B09"] - truth["B09"])[valid].max() < ROUNDING
    assert not pixels.saturated["B02"].any()


def test_block_of_a_coarse_band_is_invalid_if_a_part_is(tmp_path: Path) -> None:
    path = make_stack(tmp_path / "s.tif", size=12, bands=("B02", "B05"))
    with rasterio.open(path, "r+") as dataset:
        data = dataset.read()
        data[:, 0, 0] = 0
        data[1, 11, 11] = 65535
        dataset.write(data)
    with open_scene(path) as scene:
        pixels = scene.read(["B02", "B05"])
    assert np.argwhere(~pixels.valid["B05"]).tolist() == [[0, 0]]
    assert pixels.data["B05"][0, 0] == 0
    assert np.argwhere(pixels.saturated["B05"]).tolist() == [[5, 5]]


def test_nodata_tag(tmp_path: Path) -> None:
    path = make_stack(tmp_path / "s.tif", size=12, bands=("B02",), nodata=65535, saturated=3)
    with open_scene(path) as scene:
        pixels = scene.read(["B02"])
    assert int((~pixels.valid["B02"]).sum()) == 9
    assert not pixels.saturated["B02"].any()


def test_real_virginia_comes_out_on_its_documented_corner() -> None:
    with open_scene(real_data("s2_l1c/virginia_18S")) as scene:
        assert (scene.grid.x, scene.grid.y) == (435780, 4179420)
        assert (scene.grid.width, scene.grid.height, scene.multiple) == (1926, 1938, 6)
        assert (scene.level, scene.warnings) == (None, [])
        pixels = scene.read(["B8A", "B08"], Window(600, 600, 600, 600))
    coarse = pixels.data["B08"].reshape(300, 2, 300, 2).mean(axis=(1, 3))
    # Co-registered: the shift of no pixel fits best, by correlating what the eye calls detail.
    scores = {
        (dy, dx): np.corrcoef(_detail(pixels.data["B8A"])[5:-5, 5:-5].ravel(),
                              np.roll(_detail(coarse), (dy, dx), (0, 1))[5:-5, 5:-5].ravel())[0, 1]
        for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    }  # fmt: skip
    assert max(scores, key=scores.__getitem__) == (0, 0)


def _detail(image: np.ndarray) -> np.ndarray:
    return image - (np.roll(image, 1, 0) + np.roll(image, -1, 0) + np.roll(image, 1, 1) + np.roll(image, -1, 1)) / 4


def test_real_bigearthnet() -> None:
    with open_scene(real_data("s2_l2a/bigearthnet/S2A_MSIL2A_20170613T101031_87_48")) as scene:
        assert (scene.level, scene.platform, scene.multiple) == ("L2A", "S2A", 6)
        assert (scene.grid.width, scene.grid.height) == (120, 120)
        assert scene.acquired is not None
        assert scene.acquired.isoformat() == "2017-06-13T10:10:31+00:00"
        assert [scene.read([name]).data[name].shape for name in ("B02", "B05", "B09")] == [
            (120, 120),
            (60, 60),
            (20, 20),
        ]


@pytest.mark.parametrize("name", ["S2B_MSIL2A_20170924T93020_69_24", "S2B_MSIL2A_20180204T94161_57_38"])
def test_real_bigearthnet_with_a_broken_time(name: str) -> None:
    with open_scene(real_data(f"s2_l2a/bigearthnet/{name}")) as scene:
        times = {"69_24": "2017-09-24T09:30:20+00:00", "57_38": None}
        assert (scene.acquired.isoformat() if scene.acquired else None) == times[name[-5:]]


def test_real_ssl4eo_in_degrees() -> None:
    with open_scene(real_data("s2_l1c/ssl4eo/s2c/0000200/20200604T054639_20200604T054831_T43RCP")) as scene:
        assert scene.grid.crs.to_epsg() == 4326
        assert (scene.grid.width, scene.grid.height, scene.multiple) == (264, 264, 6)
        pixels = scene.read(["B02", "B11", "B01"], Window(60, 120, 120, 60))
        assert [pixels.data[name].shape for name in ("B02", "B11", "B01")] == [(60, 120), (30, 60), (10, 20)]
        with rasterio.open(scene.bands["B11"].file.path) as dataset:
            stored = dataset.read(1)[60:90, 30:90]
        assert np.allclose(pixels.data["B11"], stored / 10000)


def test_real_offset_is_noticed() -> None:
    with open_scene(real_data("s2_l2a/majortom_33NZA_offset")) as scene:
        assert "give a radiometric offset of -1000" in scene.warnings[0]


def test_real_bands_resampled_to_ten_metres() -> None:
    """B8A comes in 2 x 2 blocks and B09 in 6 x 6 blocks that do not start at the raster's corner."""
    with open_scene(real_data("s2_l1c/openeo_icor_31UFS")) as scene:
        assert (scene.grid.x, scene.grid.y) == (655380, 5686260)
        for name, factor in (("B8A", 2), ("B09", 6)):
            band = scene.bands[name]
            assert band.resolution == factor * 10
            data = scene.read([name]).data[name]
            with rasterio.open(band.file.path) as dataset:
                stored = dataset.read(1)[
                    band.row : band.row + scene.grid.height, band.col : band.col + scene.grid.width
                ]
            assert np.allclose(np.kron(data, np.ones((factor, factor))) * 10000, stored, atol=0.01)
