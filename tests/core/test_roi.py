"""Regions of interest as people give them: orders of numbers, the antimeridian, files, WKT; and their sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyogrio.raw import write as write_vector
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.scene.roi import Bounds, area_of, roi_bounds

UTM = CRS.from_epsg(32631)
EXTENT = (600000.0, 5397600.0, 602400.0, 5400000.0)
PART = (600600.0, 5398800.0, 601200.0, 5399400.0)
WEST, SOUTH, EAST, NORTH = transform_bounds(UTM, "EPSG:4326", *PART)


def text(*values: float, code: str = "") -> str:
    return ",".join(f"{value:.12g}" for value in values) + code


def read(roi: str, crs: CRS = UTM, extent: Bounds = EXTENT) -> tuple[Bounds, list[str]]:
    return roi_bounds(roi, crs, extent)


def square(left: float, bottom: float, right: float, top: float) -> bytes:
    ring = np.array([[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]], "<f8")
    return b"\x01" + np.array([3, 1, 5], "<u4").tobytes() + ring.tobytes()


def geojson(path: Path, kind: str, coordinates: Any) -> str:
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": kind, "coordinates": coordinates}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return str(path)


def vector(path: Path, bounds: Bounds = PART, crs: str | None = "EPSG:32631", **more: Any) -> str:
    write_vector(
        path, np.array([square(*bounds)], object), field_data=[np.array([1])], fields=["id"],
        geometry_type="Polygon", crs=crs, **more,
    )  # fmt: skip
    return str(path)


L, B, R, T = PART


@pytest.mark.parametrize(
    "roi",
    [
        text(L, B, R, T),
        text(L, B, R, T, code=" EPSG:32631"),
        text(L, B, R, T, code=" [EPSG:32631]"),
        text(L, R, B, T, code=" [EPSG:32631]"),
        text(L, R, B, T, code=" (EPSG:32631)"),
        f"{L} {B} {R} {T}",
        f"{L}; {B}; {R}; {T}",
        f"POLYGON(({L} {B}, {R} {B}, {R} {T}, {L} {B}))",
        f"SRID=32631;MULTIPOLYGON Z (((  {L} {B} 5,{R} {B} 5,{R} {T} 5,{L} {B} 5)))",
        f"LINESTRING ({L} {B}, {R} {T}) EPSG:32631",
    ],
)
def test_the_same_part(roi: str) -> None:
    bounds, notes = read(roi)
    assert bounds == PART
    assert len(notes) == (text(L, R) in roi), "QGIS's order is an assumption"


@pytest.mark.parametrize("order", [(WEST, SOUTH, EAST, NORTH), (WEST, EAST, SOUTH, NORTH)])
def test_both_orders_in_degrees(order: tuple[float, ...]) -> None:
    bounds, _ = read(text(*order, code=" [EPSG:4326]"))
    assert np.allclose(bounds, PART, atol=30)


def test_numbers_in_the_wrong_order_without_brackets_are_a_warning() -> None:
    bounds, notes = read(text(L, R, B, T))
    assert bounds[2] - bounds[0] > 1e6
    assert "times as large as the scene" in notes[0]
    assert "brackets: [EPSG:n]" in notes[0]


def test_a_box_far_larger_than_the_scene_is_a_warning() -> None:
    _, notes = read("500000,5300000,700000,5500000")
    assert "the order is xmin,ymin,xmax,ymax" in notes[0]
    assert not read("599000,5396000,603000,5401000")[1], "somewhat larger is usual"


@pytest.mark.parametrize("roi", ["179.9,-17,-179.5,-16 EPSG:4326", "179.9,-17,180.5,-16 EPSG:4326"])
@pytest.mark.parametrize(("crs", "extent"), [(32701, (199980.0, 8198800.0, 201180.0, 8200000.0))])
def test_across_the_antimeridian(roi: str, crs: int, extent: Bounds) -> None:
    bounds, _ = read(roi, CRS.from_epsg(crs), extent)
    assert bounds[0] < extent[0]
    assert bounds[2] > extent[2]
    assert area_of(roi).boxes() == [(179.9, -17, 180, -16), (-180, -17, -179.5, -16)]


@pytest.mark.parametrize(
    ("roi", "words"),
    [
        (text(SOUTH, WEST, NORTH, EAST, code=" EPSG:4326"), r"x and y exchanged it would lie inside: 4\.3"),
        (text(WEST, SOUTH, EAST, NORTH), r"in degrees of longitude and latitude it would lie inside"),
        ("1,1,2,2 EPSG:4326", r"lies outside the scene \(600000, 5397600, 602400, 5400000\)"),
        (text(L, B, R, T, code=" EPSG:4326"), r"are no degrees; give the code of the CRS"),
        ("13.2,100.5,13.4,100.7 EPSG:4326", "longitude comes first, then latitude"),
        ("10,50,9,51 EPSG:4326", "has no area"),
        ("1,1,2,2 EPSG:999999", "is no CRS"),
        ("POLYGON((1 1, 2 2, nowhere))", "no WKT"),
        ("POINT(1 1)", "has no area"),
        ("x" * 300, "neither a box"),
        ("1,2,3," * 200, "neither a box"),
    ],
)
def test_sentences(roi: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(roi)


@pytest.mark.parametrize("tiny", [1e-3, 1.0, 9.0])
def test_smaller_than_a_pixel(tiny: float) -> None:
    assert read(text(L, B, L + tiny, B + tiny))[0] == pytest.approx((L, B, L + tiny, B + tiny))


def test_a_file_of_several_layers(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    vector(path, layer="far", bounds=(0, 0, 1, 1))
    roi = vector(path, layer="near", append=True)
    with pytest.raises(InputError, match=r"has 2 layers \(far, near\); .*\|layername=far"):
        read(roi)
    assert read(f"{roi}|layername=near")[0] == PART
    assert read(f"{roi}|layerid=1")[0] == PART
    with pytest.raises(InputError, match="has no layer nowhere; it has far, near"):
        read(f"{roi}|layername=nowhere")
    with pytest.raises(InputError, match="is no layer"):
        read(f"{roi}|subset=id=1")


def test_a_shapefile_without_its_prj_is_an_assumption(tmp_path: Path) -> None:
    roi = vector(tmp_path / "a.shp")
    (tmp_path / "a.prj").unlink()
    bounds, notes = read(roi)
    assert bounds == PART
    assert ".prj): its numbers are taken as EPSG:32631" in notes[0]


def test_a_geojson_with_latitude_first(tmp_path: Path) -> None:
    ring = [[SOUTH, WEST], [SOUTH, EAST], [NORTH, EAST], [NORTH, WEST], [SOUTH, WEST]]
    with pytest.raises(InputError, match="file seems to hold latitude before longitude"):
        read(geojson(tmp_path / "a.geojson", "Polygon", [ring]))


def test_a_geojson_with_metres(tmp_path: Path) -> None:
    ring = [[L, B], [R, B], [R, T], [L, B]]
    with pytest.raises(InputError, match="are no degrees"):
        read(geojson(tmp_path / "a.geojson", "Polygon", [ring]))


@pytest.mark.parametrize(
    ("kind", "coordinates"),
    [
        ("MultiPolygon", [[[[WEST, SOUTH, 9], [EAST, SOUTH, 9], [EAST, NORTH, 9], [WEST, SOUTH, 9]]]]),
        ("LineString", [[WEST, SOUTH], [EAST, NORTH]]),
        ("MultiPoint", [[WEST, SOUTH], [EAST, NORTH]]),
    ],
)
def test_the_extent_of_any_geometry(tmp_path: Path, kind: str, coordinates: Any) -> None:
    assert np.allclose(read(geojson(tmp_path / "a.geojson", kind, coordinates))[0], PART, atol=30)


def test_a_single_point(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="put a buffer around it"):
        read(geojson(tmp_path / "a.geojson", "Point", [WEST, SOUTH]))


def test_a_search_takes_qgis_s_order() -> None:
    assert area_of("2.2,2.4,48.8,48.9 [EPSG:4326]").bounds == (2.2, 48.8, 2.4, 48.9)
    assert area_of("2.2,48.8,2.4,48.9 [EPSG:4326]").bounds == (2.2, 48.8, 2.4, 48.9)
