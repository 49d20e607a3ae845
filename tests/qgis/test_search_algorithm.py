"""What 'Find Sentinel-2 scenes' asks the worker for, what it gives on, and what it refuses."""

from __future__ import annotations

import pytest
from qgis.core import QgsCoordinateReferenceSystem, QgsRectangle, QgsReferencedRectangle
from qgis.PyQt.QtCore import QDate, QDateTime
from test_algorithms import algorithm, job_fields, refusal, run

NAME = "searchscenes"
FOUND = {
    "output": "ignored", "count": 3, "best": "https://stac/collections/c/items/S2A", "best_id": "S2A", "cloud": 12.5,
    "area_cloud": 0.5, "area_nodata": 0, "scenes": [],
}  # fmt: skip


@pytest.fixture
def good(tmp_path) -> dict:
    return {"EXTENT": "600000,610000,5390000,5400000 [EPSG:32631]", "START": "2023-06-01", "END": "2023-08-31",
            "OUTPUT": str(tmp_path / "scenes.gpkg")}  # fmt: skip


def test_the_job(provider, worker, good) -> None:
    worker.behave("ok", FOUND)
    results = run(NAME, {**good, "CATALOG": "earth-search", "COLLECTION": "sentinel-2-c1-l2a", "MAX_CLOUD": 40,
                         "MAX_AREA_CLOUD": 5.5, "LIMIT": 20, "KEEP": 1})  # fmt: skip
    assert results == {
        "OUTPUT": good["OUTPUT"], "COUNT": 3, "BEST": "https://stac/collections/c/items/S2A", "BEST_ID": "S2A",
        "CLOUD": 12.5, "AREA_CLOUD": 0.5, "AREA_NODATA": 0,
    }  # fmt: skip
    assert worker.job() == {
        "job": "search_scenes", "output": good["OUTPUT"], "area": "600000.0,5390000.0,610000.0,5400000.0 EPSG:32631",
        "start": "2023-06-01", "end": "2023-08-31", "catalog": "earth-search", "collection": "sentinel-2-c1-l2a",
        "max_cloud": 40, "max_area_cloud": 5.5, "limit": 20, "best": 1,
    }  # fmt: skip
    assert set(worker.job()) == job_fields("SearchScenesJob"), "every feature of the job is offered"


def test_the_rest_is_the_jobs(provider, worker, good) -> None:
    worker.behave("ok", {**FOUND, "area_cloud": None, "area_nodata": None})
    results = run(NAME, good)
    assert results["AREA_CLOUD"] is None
    assert worker.job() == {
        "job": "search_scenes", "output": good["OUTPUT"], "area": "600000.0,5390000.0,610000.0,5400000.0 EPSG:32631",
        "start": "2023-06-01", "end": "2023-08-31", "catalog": "planetary-computer", "collection": "sentinel-2-l2a",
        "max_cloud": 30, "max_area_cloud": 100, "limit": 100,
    }  # fmt: skip


def test_dates_extents_and_catalogues_of_other_kinds(provider, worker, good) -> None:
    """As the dialog gives them, as a project's layer gives them, and an address of one's own."""
    worker.behave("ok", FOUND)
    extent = QgsReferencedRectangle(QgsRectangle(10, 50, 11, 51), QgsCoordinateReferenceSystem("EPSG:4326"))
    days = {"START": QDate(2023, 6, 1), "END": QDateTime(2023, 8, 31, 12, 0)}
    output = good["OUTPUT"].replace("gpkg", "geojson")
    run(NAME, {**days, "EXTENT": extent, "CATALOG_URL": "https://stac.example.com/v1", "OUTPUT": output})
    job = worker.job()
    assert (job["start"], job["end"]) == ("2023-06-01", "2023-08-31")
    assert job["area"] == "10.0,50.0,11.0,51.0 EPSG:4326"
    assert job["catalog"] == "https://stac.example.com/v1"
    assert job["output"] == output


def test_a_temporary_output_is_a_geopackage(provider, worker, good) -> None:
    worker.behave("ok", FOUND)
    assert run(NAME, {**good, "OUTPUT": "TEMPORARY_OUTPUT"})["OUTPUT"].endswith(".gpkg")


def test_it_refuses(provider, context, good) -> None:
    assert algorithm(NAME).checkParameterValues(good, context) == (True, "")
    swapped = {**good, "START": "2023-08-31", "END": "2023-06-01"}
    assert "starts on 2023-08-31 and ends on 2023-06-01" in refusal(NAME, swapped, context)
    assert "START" in refusal(NAME, {**good, "START": "summer"}, context)
    assert "/no/folder does not exist" in refusal(NAME, {**good, "OUTPUT": "/no/folder/o.gpkg"}, context)
    shape = {**good, "OUTPUT": good["OUTPUT"].replace("gpkg", "shp")}
    assert "must end in .gpkg or .geojson" in refusal(NAME, shape, context)
    assert "no web address" in refusal(NAME, {**good, "CATALOG_URL": "stac.example.com"}, context)
    assert "EXTENT" in refusal(NAME, {**good, "EXTENT": None}, context)
    assert "CATALOG" in refusal(NAME, {**good, "CATALOG": "google"}, context)
    assert "MAX_CLOUD" in refusal(NAME, {**good, "MAX_CLOUD": 101}, context)


def test_its_result_is_a_scene_for_the_others(provider, worker, tmp_path) -> None:
    """Both outputs chain: the best scene's address, and the file."""
    (tmp_path / "scenes.gpkg").write_bytes(b"")
    for source in (FOUND["best"], str(tmp_path / "scenes.gpkg")):
        assert algorithm("superresolve").parameterDefinition("INPUT").checkValueIsAcceptable(source)
        run("superresolve", {"INPUT": source, "OUTPUT": str(tmp_path / "o.tif")})
        assert worker.job()["scene"] == source
