"""Windowed reads, threads, and regions of interest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
from products import CORNER, L2A_BANDS, make_band_folder, make_safe, make_stack, write_band, zip_safe
from pyogrio.raw import write as write_vector
from rasterio.warp import transform_bounds

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.scene import Scene, Window, open_scene
from s2sr_qgis.core.scene.files import FilePool

X, Y = CORNER


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_safe(tmp_path_factory.mktemp("safe"), "L2A", size=240, nodata_corner=30)


@pytest.fixture(scope="module", params=["folder", "zip", "bands", "stack"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, safe: Path) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("scenes")
    source = {
        "folder": lambda: safe,
        "zip": lambda: zip_safe(safe, folder / "x.zip"),
        "bands": lambda: make_band_folder(folder / "bands", nodata_corner=30),
        "stack": lambda: make_stack(folder / "stack.tif", nodata_corner=30),
    }[request.param]()
    with open_scene(source) as opened:
        yield opened


@pytest.mark.parametrize(
    "window", [Window(0, 0, 6, 6), Window(60, 18, 96, 120), Window(234, 0, 6, 240), Window(0, 0, 240, 240)]
)
def test_a_window_equals_that_part_of_the_whole(scene: Scene, window: Window) -> None:
    whole, part = scene.read(L2A_BANDS), scene.read(L2A_BANDS, window)
    for name in L2A_BANDS:
        native = window.scaled(scene.bands[name].resolution // 10)
        place = np.s_[native.row : native.row + native.height, native.col : native.col + native.width]
        assert part.data[name].shape == native.shape
        assert np.array_equal(part.data[name], whole.data[name][place])
        assert np.array_equal(part.valid[name], whole.valid[name][place])


def test_window_needs_multiples_of_the_bands_read_only(scene: Scene) -> None:
    assert scene.read(["B02"], Window(1, 3, 5, 7)).data["B02"].shape == (7, 5)
    assert scene.read(["B02", "B11"], Window(2, 4, 8, 6)).data["B11"].shape == (3, 4)
    with pytest.raises(ValueError, match="6 times coarser"):
        scene.read(["B02", "B09"], Window(2, 4, 8, 6))


def test_window_off_the_grid(scene: Scene) -> None:
    with pytest.raises(ValueError, match="is not inside"):
        scene.read(["B02"], Window(-6, 0, 12, 12))
    with pytest.raises(ValueError, match="is not inside"):
        scene.read(["B02"], Window(234, 234, 12, 6))


def test_band_that_the_scene_lacks(scene: Scene) -> None:
    with pytest.raises(InputError, match="has no band B10; it has B01, B02"):
        scene.read(["B10"])


def test_only_the_window_of_each_file_is_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Window | None] = []
    original = FilePool.read

    def record(self: FilePool, file, index, window=None, shape=None):  # type: ignore[no-untyped-def]
        read.append(window)
        return original(self, file, index, window, shape)

    monkeypatch.setattr(FilePool, "read", record)
    scene.read(["B02", "B12", "B01"], Window(60, 120, 12, 6))
    factors = [scene.bands[name].stored_resolution // 10 for name in ("B02", "B12", "B01")]
    assert read == [Window(60, 120, 12, 6).scaled(factor) for factor in factors]


def test_opening_reads_no_pixels_of_a_product(safe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FilePool, "read", lambda *_: pytest.fail("pixels were read"))
    open_scene(safe).close()


def test_many_threads_read_what_one_reads(scene: Scene) -> None:
    windows = [Window(col, row, 48, 48) for row in range(0, 240, 48) for col in range(0, 240, 48)] * 2
    expected = scene.read(["B03", "B8A", "B09"])
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda window: scene.read(["B03", "B8A", "B09"], window), windows))
    for window, part in zip(windows, parts, strict=True):
        for name, factor in (("B03", 1), ("B8A", 2), ("B09", 6)):
            native = window.scaled(factor)
            place = np.s_[native.row : native.row + native.height, native.col : native.col + native.width]
            assert np.array_equal(part.data[name], expected.data[name][place])


def test_close_closes_the_handles_of_every_thread(safe: Path) -> None:
    with open_scene(safe) as scene:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda row: scene.read(["B02"], Window(0, row, 240, 6)), range(0, 240, 6)))
        handles = list(scene.files._open)
        assert len(handles) > len(scene.bands)
    assert all(handle.closed for handle in handles)
    assert scene.read(["B02"], Window(0, 0, 6, 6)).data["B02"].shape == (6, 6)
    scene.close()


def test_dn_come_back_from_reflectance(safe: Path) -> None:
    """What a writer does: reflectance x quantification - offset gives the stored DN again."""
    with open_scene(safe) as scene:
        band = scene.bands["B04"]
        stored = scene.files.read(band.file, band.index)
        pixels = scene.read(["B04"])
        numbers = np.rint(pixels.data["B04"] * band.quantification - band.offset)
    assert np.array_equal(numbers[pixels.valid["B04"]], stored[pixels.valid["B04"]])


def test_every_dn_survives_the_way_to_reflectance_and_back(tmp_path: Path) -> None:
    stored = np.arange(65536, dtype=np.uint16).reshape(256, 256)[:252, :252].copy()
    write_band(tmp_path / "B02.tif", stored, 10)
    with open_scene(tmp_path) as scene:
        pixels = scene.read(["B02"])
    assert np.array_equal(np.rint(pixels.data["B02"] * 10000).astype(np.uint16), stored)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((X + 600, Y - 1200, X + 1200, Y - 600), Window(60, 60, 60, 60)),
        ((X + 601, Y - 1199, X + 1199, Y - 601), Window(60, 60, 60, 60)),
        ((X + 599, Y - 1201, X + 1201, Y - 599), Window(54, 54, 72, 72)),
        ((X + 650, Y - 660, X + 660, Y - 650), Window(60, 60, 6, 6)),
        ((X - 1000, Y - 70, X + 70, Y + 1000), Window(0, 0, 12, 12)),
    ],
)
def test_roi_snaps_outwards(scene: Scene, box: tuple[float, ...], expected: Window) -> None:
    text = ",".join(str(value) for value in box)
    assert scene.roi_window(text) == expected
    assert scene.roi_window(f" {text.replace(',', ' , ')} [EPSG:32631]") == expected
    assert scene.roi_window(f"{text} EPSG:32631") == expected
    scene.read(["B02", "B05", "B09"], expected)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32632"])
def test_roi_in_another_crs_covers_the_same_ground(scene: Scene, crs: str) -> None:
    box = (X + 700, Y - 1400, X + 1300, Y - 800)
    there = transform_bounds("EPSG:32631", crs, *box)
    window = scene.roi_window(",".join(repr(value) for value in there) + f" {crs}")
    bounds = scene.grid.crop(window).bounds
    assert bounds[0] <= box[0]
    assert bounds[1] <= box[1]
    assert bounds[2] >= box[2]
    assert bounds[3] >= box[3]
    assert window.width <= 84
    assert window.height <= 84


def _square(left: float, bottom: float, right: float, top: float) -> bytes:
    ring = np.array([[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]], "<f8")
    return b"\x01" + np.array([3, 1, 5], "<u4").tobytes() + ring.tobytes()


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb"])
def test_roi_from_a_vector_file(scene: Scene, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"area{suffix}"
    squares = [_square(X + 610, Y - 900, X + 700, Y - 650), _square(X + 900, Y - 1190, X + 1000, Y - 1000)]
    write_vector(
        path, np.array(squares, object), field_data=[np.array([1, 2])], fields=["id"],
        geometry_type="Polygon", crs="EPSG:32631",
    )  # fmt: skip
    assert scene.roi_window(str(path)) == Window(60, 60, 42, 60)


def _geojson(path: Path, coordinates: list[list[float]], name: str = "Polygon") -> str:
    geometry = {"type": name, "coordinates": [coordinates] if name == "Polygon" else coordinates}
    features = [{"type": "Feature", "properties": {}, "geometry": geometry}] if coordinates else []
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return str(path)


def test_roi_from_geojson_is_in_degrees(scene: Scene, tmp_path: Path) -> None:
    left, bottom, right, top = transform_bounds("EPSG:32631", "EPSG:4326", X + 600, Y - 1200, X + 1200, Y - 600)
    ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
    window = scene.roi_window(_geojson(tmp_path / "area.geojson", ring))
    assert (window.col, window.row) in {(54, 54), (54, 60), (60, 54), (60, 60)}
    assert window.width <= 78
    assert window.height <= 78


def test_roi_outside_names_both_extents(scene: Scene) -> None:
    with pytest.raises(
        InputError, match=r"\(700000, 0, 700100, 100\) lies outside .*\(600000, 5397600, 602400, 5400000\)"
    ):
        scene.roi_window("700000,0,700100,100")


def test_roi_in_degrees_without_its_crs_is_told_what_to_do(scene: Scene) -> None:
    with pytest.raises(InputError, match="such as 'xmin,ymin,xmax,ymax EPSG:4326'"):
        scene.roi_window("4.36,48.7,4.37,48.8")


@pytest.mark.parametrize(
    ("roi", "text"),
    [
        ("1,2,3", "neither a box"),
        ("600100,5399900,600100,5399950", "has no area"),
        ("600200,5399900,600100,5399950", "has no area"),
        ("1,2,3,4 EPSG:99999999", "is no CRS"),
        ("nowhere.gpkg", "neither a box .* nor a vector file"),
    ],
)
def test_roi_that_cannot_be_used(scene: Scene, roi: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        scene.roi_window(roi)


def test_roi_file_that_is_no_vector(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "area.gpkg"
    path.write_text("no")
    with pytest.raises(InputError, match=r"area\.gpkg cannot be read as a vector file"):
        scene.roi_window(str(path))


def test_roi_file_without_features(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no feature"):
        scene.roi_window(_geojson(tmp_path / "empty.geojson", []))


def test_pyogrio_is_a_base_dependency() -> None:
    assert pyogrio.__gdal_version__ >= (3, 5, 0)


def test_scene_classification_is_read_on_the_grid(tmp_path):
    folder = make_band_folder(tmp_path / "scene", size=60)
    with rasterio.open(folder / "B05.tif") as band:
        profile = {**band.profile, "dtype": "uint8", "nodata": None}
        corner = band.transform
    classes = np.arange(40 * 40, dtype=np.uint8).reshape(40, 40) % 12
    # A file that begins 2 pixels (40 m) further north-west than the bands, and ends before them.
    profile.update(width=20, height=20, transform=rasterio.Affine(20, 0, corner.c - 40, 0, -20, corner.f + 40))
    with rasterio.open(folder / "T31_SCL_20m.tif", "w", **profile) as file:
        file.write(classes[:20, :20], 1)
    with open_scene(folder) as scene:
        read = scene.read_scl(Window(2, 0, 58, 60))
    expected = np.zeros((30, 30), np.uint8)
    expected[:18, :18] = classes[2:20, 2:20]
    np.testing.assert_array_equal(read, expected.repeat(2, 0).repeat(2, 1)[:, 2:])


def test_a_scene_without_classification_says_so(tmp_path):
    with open_scene(make_band_folder(tmp_path / "scene", size=60)) as scene:
        assert scene.read_scl() is None
