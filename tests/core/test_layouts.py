"""Layouts, containers, grids and band names as people have them; rasterio reads the output, held against the truth."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.scene import open_scene
from s2sr_qgis.core.scene.names import bands_named
from tests.products import (
    BANDS,
    CORNER,
    CRS,
    L2A_BANDS,
    digital_numbers,
    make_band_folder,
    make_safe,
    make_stack,
    write_band,
    zip_safe,
)

SIZE = 120
GRID = Affine(10, 0, CORNER[0], 0, -10, CORNER[1])


def layers() -> dict[str, np.ndarray]:
    """DN of each band on the 10 m grid, coarse bands repeated."""
    numbers = digital_numbers(SIZE, L2A_BANDS)
    return {name: np.kron(x, np.ones((BANDS[name].resolution // 10,) * 2, x.dtype)) for name, x in numbers.items()}


def stack(path: Path, images: dict[str, np.ndarray], names: list[str] | None = None, transform: Affine = GRID) -> Path:
    """A GeoTIFF of one band for each image."""
    height, width = next(iter(images.values())).shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": len(images), "dtype": "uint16"}
    with rasterio.open(path, "w", **profile, crs=CRS, transform=transform) as dataset:
        dataset.write(np.stack(list(images.values())))
        dataset.descriptions = tuple(names or images)
    return path


def aws(folder: Path) -> Path:
    for name, data in digital_numbers(SIZE, L2A_BANDS).items():
        native = BANDS[name].resolution
        for resolution in (r for r in (10, 20, 60) if r >= native):
            f = resolution // native
            coarse = data.reshape(len(data) // f, f, -1, f).mean(axis=(1, 3)).round().astype("uint16")
            write_band(folder / f"R{resolution}m/{name}.jp2", coarse, resolution)
    return folder


def apple(folder: Path) -> Path:
    make_band_folder(folder, "T31UDQ_20230815T103631_{band}.tif", SIZE)
    for path in list(folder.iterdir()):
        (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(4000))
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    return folder


def browser(folder: Path) -> Path:
    return make_band_folder(folder, "2023-08-15-00_00_2023-08-15-23_59_Sentinel-2_L2A_{band}_(Raw).tiff", SIZE)


def theia(folder: Path) -> Path:
    make_band_folder(folder, "SENTINEL2A_20230815-103631-024_L2A_T31UDQ_C_V3-0_FRE_{band}.tif", SIZE)
    make_band_folder(folder, "SENTINEL2A_20230815-103631-024_L2A_T31UDQ_C_V3-0_SRE_{band}.tif", SIZE, seed=1)
    return folder


def parts(folder: Path, rows: bool = True) -> Path:
    folder.mkdir()
    for top in (0, 72) if rows else (0,):
        for left in (0, 48):
            bottom, right = {0: 72, 72: 120}[top] if rows else 120, {0: 48, 48: 120}[left]
            images = {name: x[top:bottom, left:right] for name, x in layers().items()}
            stack(folder / f"S2-{top:010}-{left:010}.tif", images, transform=GRID @ Affine.translation(left, top))
    return folder


def common(folder: Path) -> Path:
    names = "coastal blue green red rededge1 rededge2 rededge3 nir nir08 nir09 swir16 swir22"
    return stack(folder.with_suffix(".tif"), layers(), names.split())


def australia(folder: Path) -> Path:
    names = "coastal_aerosol blue green red red_edge_1 red_edge_2 red_edge_3 nir_1 nir_2 water_vapour swir_2 swir_3"
    return stack(folder.with_suffix(".tif"), layers(), [f"nbart_{name}" for name in names.split()])


def force(folder: Path) -> Path:
    names = "COASTAL BLUE GREEN RED REDEDGE1 REDEDGE2 REDEDGE3 BROADNIR NIR WATERVAPOR SWIR1 SWIR2"
    return stack(folder.with_suffix(".tif"), layers(), names.split())


def numbered(folder: Path) -> Path:
    return stack(folder.with_suffix(".tif"), layers(), [f"{name} - reflectance" for name in L2A_BANDS])


def backslashes(folder: Path) -> Path:
    product = make_safe(folder / "safe", "L2A", "02.14", size=SIZE)
    path = folder / "win.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(x for x in product.rglob("*") if x.is_file()):
            info = zipfile.ZipInfo("x")
            info.filename = "\\".join((product.name, *file.relative_to(product).parts))
            archive.writestr(info, file.read_bytes())
    return path


def beside_zip(folder: Path) -> Path:
    zip_safe(make_safe(folder, "L2A", "02.14", size=SIZE))
    return folder


def netcdf(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "cube.nc"
    with h5py.File(path, "w") as file:
        file.attrs["Conventions"] = "CF-1.8"
        for axis, size, sign in (("y", SIZE, -1), ("x", SIZE, 1)):
            start = CORNER[1] if axis == "y" else CORNER[0]
            file[axis] = start + sign * (np.arange(size) * 10.0 + 5)
            file[axis].make_scale(axis)
            file[axis].attrs["standard_name"] = f"projection_{axis}_coordinate"
            file[axis].attrs["units"] = "m"
        file["spatial_ref"] = np.int32(0)
        file["spatial_ref"].attrs["crs_wkt"] = rasterio.CRS.from_string(CRS).to_wkt()
        for name, image in layers().items():
            file[name] = image
            file[name].attrs["grid_mapping"] = "spatial_ref"
            file[name].dims[0].attach_scale(file["y"])
            file[name].dims[1].attach_scale(file["x"])
    return path


def item(folder: Path) -> Path:
    folder.mkdir()
    stack(folder / "openEO.tif", layers())
    asset = {"href": "./openEO.tif", "eo:bands": [{"name": name} for name in L2A_BANDS]}
    data = {"type": "Feature", "id": "x", "collection": "SENTINEL2_L2A", "assets": {"openEO.tif": asset}}
    data["properties"] = {"datetime": "2023-02-15T10:36:31Z", "s2:processing_baseline": "02.09"}
    (folder / "item.json").write_text(json.dumps(data))
    return folder / "item.json"


@pytest.mark.parametrize(
    "make",
    [aws, apple, browser, theia, parts, common, australia, force, numbered, backslashes, beside_zip, netcdf, item],
    ids=lambda make: make.__name__,
)
def test_layouts_give_the_true_pixels(make: Callable[[Path], Path], tmp_path: Path) -> None:
    target = tmp_path / "out.tif"
    source = make(tmp_path / "in")
    jobs.run(jobs.SuperResolveJob(scene=str(source), output=target, models=["sharpen_20m_fast", "sharpen_60m_fast"]))
    with rasterio.open(target) as dataset:
        assert dataset.shape == (SIZE, SIZE)
        for index, name in enumerate(dataset.descriptions, start=1):
            k = BANDS[name].resolution // 10
            truth = digital_numbers(SIZE, L2A_BANDS)[name].astype(float)
            mean = dataset.read(index).astype(float).reshape(SIZE // k, k, SIZE // k, k).mean(axis=(1, 3))
            rmse = np.sqrt(np.mean((mean - truth) ** 2))
            assert rmse <= (1 if k == 1 else 0.05 * truth.mean()), name


def test_flat_reflectance_is_chosen_with_a_warning(tmp_path: Path) -> None:
    with open_scene(theia(tmp_path / "x")) as scene:
        assert any("FRE" in warning and "SRE" in warning for warning in scene.warnings)


def test_parts_with_a_gap_are_refused(tmp_path: Path) -> None:
    folder = parts(tmp_path / "x")
    (folder / "S2-0000000072-0000000048.tif").unlink()
    with pytest.raises(InputError, match="lacks a part of its export"):
        open_scene(folder)


def test_bands_of_one_grid_of_thirty_metres_are_refused(tmp_path: Path) -> None:
    for name in L2A_BANDS:
        write_band(tmp_path / f"HLS.S30.{name}.tif", np.ones((60, 60), np.int16), 30)
    with pytest.raises(InputError, match=r"All bands .* have pixels of 30 m"):
        open_scene(tmp_path)


def test_pixels_beyond_whole_coarse_pixels_are_reported(tmp_path: Path) -> None:
    images = {name: x[1:, 1:] for name, x in layers().items()}
    path = stack(tmp_path / "s.tif", images, transform=GRID @ Affine.translation(1, 1))
    with open_scene(path) as scene:
        assert "5 columns on the left, 5 rows at the top are left out: of the 119 x 119 pixels" in str(scene.warnings)


def test_missing_bands_are_left_out_with_a_warning(tmp_path: Path) -> None:
    product = make_safe(tmp_path, "L1C", size=SIZE)
    for name in ("B01", "B09", "B10"):
        next(product.rglob(f"*_{name}.jp2")).unlink()
    with open_scene(product) as scene:
        assert not {"B01", "B09", "B10"} & set(scene.bands)
        assert "B01, B09 left out" in scene.warnings[0]


@pytest.mark.parametrize(
    "names",
    [["Band 1", "Band 2", "Band 3"], [f"Band{n}" for n in range(1, 13)], ["rededge", "red"], ["blue", "swir"]],
)
def test_names_that_leave_it_open_are_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match="give the band names in file order"):
        bands_named(names, "x.tif")


def test_an_index_is_no_band() -> None:
    assert bands_named(["(B08-B04)/(B08+B04)", "B4", "Band 8A", "Red (665 nm)", "SCL"], "x.tif") == [
        None,
        "B04",
        "B8A",
        "B04",
        None,
    ]


def test_a_stack_without_bands_in_a_container_is_refused(tmp_path: Path) -> None:
    import rasterio.shutil

    rasterio.shutil.copy(make_stack(tmp_path / "s.tif", SIZE), tmp_path / "c.nc", driver="netCDF")
    with pytest.raises(InputError, match="container"):
        open_scene(tmp_path / "c.nc")
    with open_scene(tmp_path / "c.nc", jobs.SceneOptions(band_names=list(L2A_BANDS))) as scene:
        pixels = scene.read(["B8A"]).data["B8A"]
        assert np.allclose(pixels * 10000, digital_numbers(SIZE, L2A_BANDS)["B8A"], atol=0.01)


def test_a_result_is_not_sharpened_again(tmp_path: Path) -> None:
    source, target = make_stack(tmp_path / "s.tif", SIZE), tmp_path / "out.tif"
    jobs.run(jobs.SuperResolveJob(scene=str(source), output=target, models=["sharpen_20m_fast"]))
    with pytest.raises(InputError, match="is a result of s2sr"):
        open_scene(target)


@pytest.mark.parametrize("crs", [CRS, "EPSG:4326"])
def test_interpolated_bands(tmp_path: Path, crs: str) -> None:
    images = {name: x.copy() for name, x in layers().items()}
    images["B05"] = (images["B05"] + np.arange(SIZE)).astype("uint16")
    path = stack(tmp_path / "s.tif", images)
    if crs != CRS:
        with rasterio.open(path, "r+") as dataset:
            dataset.crs, dataset.transform = crs, Affine(1e-4, 0, 7, 0, -1e-4, 48)
        with pytest.raises(InputError, match="B05 are on a grid in degrees"):
            open_scene(path)
        return
    with open_scene(path) as scene:
        assert any(text.startswith("B05 are stored finer") for text in scene.warnings)


def test_the_product_behind_a_subdataset(tmp_path: Path) -> None:
    product = make_safe(tmp_path, "L2A", size=SIZE)
    with open_scene(f"SENTINEL2_L2A:{product}/MTD_MSIL2A.xml:10m:EPSG_32631") as scene:
        assert len(scene.bands) == 12


def test_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"x")
    with pytest.raises(InputError, match="unpack it"):
        open_scene(tmp_path / "x.tar.gz")


def test_a_damaged_band_that_is_not_needed(tmp_path: Path) -> None:
    product = make_safe(tmp_path / "p", "L2A", "02.14", size=SIZE)
    next(product.rglob("*_B09_60m.jp2")).write_bytes(b"")
    target = tmp_path / "out.tif"
    job = jobs.SuperResolveJob(scene=str(product), output=target, models=["sharpen_20m_fast"])
    with pytest.raises(InputError, match=r"_B09_60m\.jp2 is empty"):
        jobs.run(job)
    result = jobs.run(job.model_copy(update={"bands": ["B05", "B8A"]}))
    assert any("B09 is left out" in text for text in result["assumptions"])
    with rasterio.open(target) as dataset:
        assert dataset.descriptions == ("B05", "B8A")
