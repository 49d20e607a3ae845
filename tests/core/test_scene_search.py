"""Finding scenes: a STAC API on this machine, its pages and refusals, cloud over the area, the file of footprints."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from numpy.typing import NDArray
from products import L2A_BANDS, make_stac_item, make_stack, real_data
from pyogrio import raw
from rasterio.crs import CRS
from rasterio.warp import transform_bounds
from stac_server import FILTER, StacServer, running_server, write_scl
from tokens import stand_in

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import Cancelled, InputError, OutputError
from s2sr_qgis.core.jobs import SearchScenesJob
from s2sr_qgis.core.progress import Level, Progress
from s2sr_qgis.core.scene import catalog, open_scene, search
from s2sr_qgis.core.scene.cloud import area_cloud
from s2sr_qgis.core.scene.files import RasterFile
from s2sr_qgis.core.scene.roi import area_of
from s2sr_qgis.core.scene.search import find, search_scenes

RECORDED = Path(__file__).parents[1] / "data" / "stac"
AREA = "601000,5398000,602000,5399000 [EPSG:32631]"
"""50 x 50 pixels of a classification, from column 50 and row 50 on."""

CLEAR, CLOUD, SHADOW = 4, 9, 3


class Log(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.stop_at = 1e9
        self.steps = 0

    def log(self, text: str, level: Level = "info") -> None:
        if level == "warning":
            self.warnings.append(text)

    def cancelled(self) -> bool:
        self.steps += 1
        return self.steps > self.stop_at


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StacServer]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST", "AWS_S3_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(catalog, "BACK_OFF", 0.01)
    with running_server() as running:
        yield running


def job(server: StacServer | None, **changes: Any) -> SearchScenesJob:
    values = {
        "output": "unused.geojson",
        "area": AREA,
        "start": "2023-08-01",
        "end": "2023-08-31",
        "catalog": server.url if server else "planetary-computer",
    }
    return SearchScenesJob(**{**values, **changes})


def classes(percent: float = 0, kind: int = CLOUD, size: int = 150) -> NDArray[np.uint8]:
    """Clear but for the first percent of the area's rows."""
    image = np.full((size, size), CLEAR, np.uint8)
    image[50 : 50 + round(percent / 2), 50:100] = kind
    return image


# Over the area


def test_least_cloud_over_the_area_comes_first(server: StacServer, tmp_path: Path, log: Log) -> None:
    server.add_scene("CLOUDED", classes(40), cloud=2, folder=tmp_path)
    server.add_scene("CLEAR", classes(0), cloud=25, folder=tmp_path)
    server.add_scene("SHADED", classes(20, SHADOW), cloud=1, folder=tmp_path)
    server.add_scene("EMPTY", classes(30, 0), cloud=0, folder=tmp_path)
    found = find(job(server), log)
    assert [scene.id for scene in found] == ["CLEAR", "SHADED", "EMPTY", "CLOUDED"]
    assert [(scene.area_cloud, scene.area_nodata) for scene in found] == [(0, 0), (20, 0), (0, 30), (40, 0)]
    assert [scene.unusable for scene in found] == [0, 20, 30, 40]
    first = found[0]
    assert (first.cloud, first.baseline, first.platform) == (25, "05.09", "S2A")
    assert first.acquired is not None
    assert first.acquired.isoformat().startswith("2023-08-15T10:36:31")
    assert first.source == f"{server.url}/collections/sentinel-2-l2a/items/CLEAR"
    assert first.assets == {"SCL": f"{server.url}/files/CLEAR_SCL.tif"}
    assert log.warnings == []


@pytest.mark.parametrize("kind", range(12))
def test_which_classes_spoil_an_area(tmp_path: Path, kind: int) -> None:
    write_scl(tmp_path / "scl.tif", classes(100, kind))
    seen = area_cloud(RasterFile(str(tmp_path / "scl.tif"), "scl"), area_of(AREA))
    assert seen.cloud == (100 if kind in (3, 8, 9, 10) else 0)
    assert seen.nodata == (100 if kind in (0, 1) else 0)


def test_the_part_beyond_the_scene_counts_as_nodata(tmp_path: Path) -> None:
    file = RasterFile(str(write_scl(tmp_path / "scl.tif", classes(50))), "scl")
    half = "599000,5398000,601000,5399000 [EPSG:32631]"
    assert area_cloud(file, area_of(half)).nodata == 50
    away = area_cloud(file, area_of("700000,5300000,701000,5301000 [EPSG:32631]"))
    assert (away.cloud, away.nodata) == (0, 100)
    tiny = area_cloud(file, area_of("601001,5398995,601005,5398999 [EPSG:32631]"))
    assert (tiny.cloud, tiny.nodata) == (100, 0)


def test_an_area_in_another_crs_is_reprojected(tmp_path: Path) -> None:
    """A quarter of the image is cloud; an area in degrees that covers the image sees a quarter of its own pixels."""
    image = np.full((400, 400), CLEAR, np.uint8)
    image[:200, :200] = CLOUD
    file = RasterFile(str(write_scl(tmp_path / "scl.tif", image)), "scl")
    inside = (600500, 5392500, 607500, 5399500)
    west, south, east, north = transform_bounds("EPSG:32631", "EPSG:4326", *inside)
    seen = area_cloud(file, area_of(f"{west},{south},{east},{north} EPSG:4326"))
    assert seen.cloud == pytest.approx(25, abs=1.5)
    assert seen.nodata == 0
    assert area_cloud(file, area_of(f"{west},{south},{east},{north}")) == seen, "degrees where no CRS is given"


def test_a_large_area_is_read_through_overviews(server: StacServer, tmp_path: Path, log: Log) -> None:
    noise = np.random.default_rng(0).integers(0, 12, (2400, 2400)).astype(np.uint8)
    server.add_scene("LARGE", noise, folder=tmp_path)
    (found,) = find(job(server, area="600000,5352000,648000,5400000 [EPSG:32631]"), log)
    assert found.area_cloud == pytest.approx(100 * 4 / 12, abs=1)
    assert found.area_nodata == pytest.approx(100 * 2 / 12, abs=1)
    assert server.sent["/files/LARGE_SCL.tif"] < 0.2 * (tmp_path / "LARGE.tif").stat().st_size


def test_scenes_that_only_touch_the_area_are_left_out(server: StacServer, tmp_path: Path, log: Log) -> None:
    server.add_scene("HERE", classes(60), folder=tmp_path)
    server.add_scene("EDGE", classes(100, 0), folder=tmp_path)
    assert [scene.id for scene in find(job(server), log)] == ["HERE"]
    server.items = server.items[1:]
    with pytest.raises(InputError, match=r"None of the 1 scenes found .* has pixels over the area"):
        find(job(server), log)


def test_limits_of_cloud(server: StacServer, tmp_path: Path, log: Log) -> None:
    server.add_scene("A", classes(10), cloud=20, folder=tmp_path)
    server.add_scene("B", classes(4), cloud=50, folder=tmp_path)
    assert [scene.id for scene in find(job(server, max_cloud=60), log)] == ["B", "A"]
    assert [scene.id for scene in find(job(server, max_cloud=60, best=1), log)] == ["B"]
    assert [scene.id for scene in find(job(server, max_cloud=60, max_area_cloud=5), log)] == ["B"]
    assert [scene.id for scene in find(job(server), log)] == ["A"]
    with pytest.raises(InputError, match=r"at most 3 % cloud, .* \(the best, B, has 4 %\)"):
        find(job(server, max_cloud=60, max_area_cloud=3), log)


def test_the_newer_processing_of_one_scene_comes_first(server: StacServer, tmp_path: Path, log: Log) -> None:
    server.add_scene("OLD", classes(0), folder=tmp_path, **{"s2:processing_baseline": "02.14"})
    server.add_scene("NEW", classes(0), folder=tmp_path, **{"s2:processing_baseline": "05.10"})
    assert [scene.id for scene in find(job(server), log)] == ["NEW", "OLD"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_of_files_is_asked_again(server: StacServer, tmp_path: Path, log: Log, status: int) -> None:
    server.add_scene("A", classes(20), folder=tmp_path)
    server.faults = [("/files/", status, {})] * 2
    (found,) = find(job(server), log)
    assert found.area_cloud == 20
    assert server.statuses("/files/")[:2] == [status, status]


def test_classification_that_cannot_be_read(server: StacServer, tmp_path: Path, log: Log) -> None:
    server.add_scene("LOST", classes(0), cloud=0, folder=tmp_path)
    server.add_scene("READ", classes(70), cloud=9, folder=tmp_path)
    del server.files["/files/LOST_SCL.tif"]
    found = find(job(server), log)
    assert [(scene.id, scene.unusable) for scene in found] == [("READ", 70), ("LOST", None)]
    (warning,) = log.warnings
    assert warning.startswith("The cloud over the area is not known for LOST: Asset SCL (LOST_SCL.tif)")
    assert [scene.id for scene in find(job(server, max_area_cloud=80), log)] == ["READ"]


def test_no_classification_can_be_read(server: StacServer, tmp_path: Path, log: Log) -> None:
    for number in range(12):
        server.add_scene(f"S{number}", classes(0), cloud=20 - number)
    found = find(job(server), log)
    assert [scene.id for scene in found][:2] == ["S11", "S10"]
    (warning,) = log.warnings
    assert warning.startswith("Scenes are sorted by the cloud over all of each, not over the area: S")
    with pytest.raises(InputError, match="none could be looked at"):
        find(job(server, max_area_cloud=50), log)


def test_level_1c_has_no_classification(server: StacServer, log: Log) -> None:
    for name in ("A", "B"):
        item = server.add_scene(name, classes(0), cloud=5 if name == "B" else 8)
        item["assets"] = {"B02": {"href": "B02.jp2"}}
        item["collection"] = "sentinel-2-l1c"
    found = find(job(server, collection="sentinel-2-l1c"), log)
    assert [scene.id for scene in found] == ["B", "A"]
    assert log.warnings == [
        "Scenes are sorted by the cloud over all of each, not over the area: A has no scene classification."
    ]


# The catalogue


def test_pages_are_followed(server: StacServer, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_PAGE", 3)
    for number in range(8):
        server.add_scene(f"S{number}", classes(2 * number), folder=tmp_path)
    assert [scene.id for scene in find(job(server), log)] == [f"S{number}" for number in range(8)]
    assert [body.get("token") for body in server.bodies] == [None, 3, 6]
    assert log.warnings == []
    assert len(find(job(server, limit=8), log)) == 8
    assert log.warnings == [], "exactly the limit is not more than it"
    assert len(find(job(server, limit=5), log)) == 5
    assert "more than 5 scenes" in log.warnings[0]


@pytest.mark.parametrize(("conforms", "methods"), [([FILTER], ("POST",)), ([], ("POST",)), ([], ("GET",))])
def test_apis_that_filter_otherwise_or_not_at_all(
    server: StacServer, tmp_path: Path, log: Log, conforms: list[str], methods: tuple[str, ...]
) -> None:
    server.conforms, server.methods = conforms, methods
    server.add_scene("CLEAR", classes(0), cloud=5, folder=tmp_path)
    server.add_scene("CLOUDY", classes(0), cloud=95, folder=tmp_path)
    assert [scene.id for scene in find(job(server), log)] == ["CLEAR"]
    assert ("filter" in server.bodies[0], "query" in server.bodies[0]) == (bool(conforms), False)
    assert {method for method, path, _ in server.asked if path == "/search"} == set(methods)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("path", ["/", "/search"])
def test_a_busy_api_is_asked_again(server: StacServer, tmp_path: Path, log: Log, status: int, path: str) -> None:
    server.add_scene("A", classes(0), folder=tmp_path)
    server.faults = [(path, status, {}), (path, status, {})]
    assert [scene.id for scene in find(job(server), log)] == ["A"]
    assert [got for _, asked, got in server.asked if asked == path][:3] == [status, status, 200]


def test_the_api_says_when_to_come_back(server: StacServer, tmp_path: Path, log: Log) -> None:
    server.add_scene("A", classes(0), folder=tmp_path)
    server.faults = [("/search", 429, {"Retry-After": "1"})]
    assert find(job(server), log)
    assert server.statuses("/search") == [429, 200]


def test_waiting_can_be_cancelled(server: StacServer, log: Log) -> None:
    server.faults = [("/", 429, {"Retry-After": "3000"})]
    log.stop_at = 3
    with pytest.raises(Cancelled):
        find(job(server), log)


def test_looking_for_clouds_can_be_cancelled(server: StacServer, tmp_path: Path, log: Log) -> None:
    server.add_scene("A", classes(0), folder=tmp_path)
    target = tmp_path / "out.geojson"
    log.stop_at = 1
    with pytest.raises(Cancelled):
        search_scenes(job(server, output=target), log)
    assert not list(tmp_path.glob("*.geojson")) + list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"127\.0\.0\.1 refuses access \(HTTP 401\); it needs credentials that are valid"),
        (403, r"refuses access \(HTTP 403\)"),
        (429, r"is throttling \(HTTP 429\) and did not give way after 5 retries; wait some minutes"),
        (503, r"is out of order \(HTTP 503 after 5 retries\); try again later"),
        (404, r"is no STAC API that can be searched \(HTTP 404\)"),
        (400, r"did not take the query \(HTTP 400: refused\)"),
    ],
)
def test_refusals_are_told(server: StacServer, log: Log, status: int, message: str) -> None:
    server.faults = [("/", status, {})] * 6
    with pytest.raises(InputError, match=message):
        find(job(server), log)
    assert len(server.asked) == (6 if status in (429, 503) else 1)


def test_no_network(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "BACK_OFF", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(InputError, match=r"127\.0\.0\.1 cannot be reached; check the network and the address"):
        find(job(None, catalog=url), log)


def test_something_else_than_a_stac_api(server: StacServer, tmp_path: Path, log: Log) -> None:
    (tmp_path / "page").write_text("<html>welcome</html>")
    server.files["/"] = tmp_path / "page"
    with pytest.raises(InputError, match=rf"^{server.url} is no STAC API that can be searched; check the address\.$"):
        find(job(server), log)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "2023-08-31", "end": "2023-08-01"}, "The dates are the wrong way round: the search starts on"),
        ({"start": "15.6.2023"}, "'15.6.2023' is no date; write year, month and day as 2022-06-15"),
        ({"end": "2023-02-30"}, "'2023-02-30' is no date"),
        ({"catalog": "sentinel-hub"}, "'sentinel-hub' is no catalogue that is known here; give planetary-computer, "),
        ({"catalog": "file:///etc/passwd"}, "is no catalogue that is known here"),
        ({"area": "200,10,201,11"}, "lies outside the world as EPSG:4326 has it; check its numbers"),
        ({"area": "600000,5390000,610000,5400000"}, "lies outside the world"),
        ({"area": "10,80,11,95 EPSG:4326"}, "lies outside the world"),
        ({"area": "1e12,5e12,2e12,6e12 EPSG:32631"}, "lies outside the world as EPSG:32631"),
        ({"area": "10,50,9,51"}, "has no area"),
        ({"area": "nowhere.gpkg"}, "neither a box .* nor a vector file or raster that exists"),
        ({"area": "0,0,1,1 EPSG:99999999"}, "is no CRS that can be used"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_asked(
    server: StacServer, log: Log, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        find(job(server, **changes), log)
    assert server.asked == []


def test_no_result(server: StacServer, tmp_path: Path, log: Log) -> None:
    server.add_scene("CLOUDY", classes(0), cloud=80, folder=tmp_path)
    target = tmp_path / "out.gpkg"
    with pytest.raises(InputError, match=r"has no scene of sentinel-2-l2a over .* from 2023-08-01 to 2023-08-31 with "
                                         r"at most 30 % cloud; allow a longer period"):  # fmt: skip
        search_scenes(job(server, output=target), log)
    assert not target.exists()


# Areas


def test_the_area_may_be_a_vector_file_or_a_raster(server: StacServer, tmp_path: Path, log: Log) -> None:
    server.add_scene("A", classes(20), folder=tmp_path)
    stack = make_stack(tmp_path / "xs.tif", size=60, bands=("B02",), corner=(601000, 5399000))
    outline = tmp_path / "area.geojson"
    west, south, east, north = area_of(str(stack)).boxes()[0]
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    outline.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    (by_raster,) = find(job(server, area=str(stack)), log)
    (by_vector,) = find(job(server, area=str(outline)), log)
    assert by_raster.area_cloud == pytest.approx(100 * 10 / 30, abs=0.001)
    assert by_vector.area_cloud == pytest.approx(100 * 10 / 30, abs=4)
    assert server.bodies[0]["bbox"] == pytest.approx([west, south, east, north])


def test_files_that_give_no_area(tmp_path: Path) -> None:
    plain = make_stack(tmp_path / "xs.tif", size=12, bands=("B02",))
    with rasterio.open(plain, "r+") as dataset:
        dataset.crs = CRS()
    with pytest.raises(InputError, match="has no CRS, so where it lies is not known"):
        area_of(str(plain))
    (tmp_path / "text.txt").write_text("no raster")
    with pytest.raises(InputError, match=r"cannot be read as a vector file .* nor as a raster"):
        area_of(str(tmp_path / "text.txt"))


def test_an_area_across_the_antimeridian_is_asked_for_in_two_parts(
    server: StacServer, tmp_path: Path, log: Log
) -> None:
    server.add_scene("A", classes(0), folder=tmp_path)
    assert area_of("179,50,181,51").boxes() == [(179, 50, 180, 51), (-180, 50, -179, 51)]
    west, east = area_of("650000,5700000,750000,5710000 EPSG:32660").boxes()
    assert (west[2], east[0]) == (180, -180)
    assert 179 < west[0] < 180
    assert -180 < east[2] < -178
    with pytest.raises(InputError, match="None of the 1 scenes"):
        find(job(server, area="179,50,181,51"), log)
    assert server.bodies[0]["intersects"]["type"] == "MultiPolygon"
    assert "bbox" not in server.bodies[0]


# Signing


def test_a_stale_token_is_renewed(
    server: StacServer, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_scene("A", classes(30), folder=tmp_path)
    server.token = "fresh"
    asked = stand_in(monkeypatch, server, stale="stale")
    (found,) = find(job(server), log)
    assert found.area_cloud == 30
    assert asked == ["fresh"]
    assert server.statuses("/files/A")[0] == 403
    assert "sig=" not in json.dumps(found.assets), "tokens are not for files"


def test_copernicus_wants_a_key_for_its_pixels(server: StacServer, tmp_path: Path, log: Log) -> None:
    item = server.add_scene("A", classes(0), folder=tmp_path)
    item["assets"] = {"SCL_20m": {"href": "s3://eodata/Sentinel-2/A_SCL.jp2"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_S3_ENDPOINT", server.url.removeprefix("http://"))
        patch.setenv("AWS_HTTPS", "NO")
        (found,) = find(job(server), log)
        assert found.unusable is None
        assert "Copernicus Data Space wants a key for its pixels; make one at https://" in log.warnings[0]
        server.files["/eodata/Sentinel-2/B_SCL.tif"] = tmp_path / "A.tif"
        item["assets"] = {"SCL_20m": {"href": "s3://eodata/Sentinel-2/B_SCL.tif"}}
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        (found,) = find(job(server), log)
        assert found.unusable == 0


# The file of footprints


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".json"])
def test_footprints(server: StacServer, tmp_path: Path, log: Log, suffix: str) -> None:
    server.add_scene("A", classes(20), cloud=12.3456, folder=tmp_path)
    best = server.add_scene("B", classes(0), folder=tmp_path)
    away = server.add_scene("C", classes(4), folder=tmp_path)
    away["geometry"] = {"type": "MultiPolygon", "coordinates": [away["geometry"]["coordinates"]]}
    del server.files["/files/A_SCL.tif"]
    target = tmp_path / f"scenes{suffix}"
    outputs = jobs.run(job(server, output=target), log)
    address = f"{server.url}/collections/sentinel-2-l2a/items/B"
    assert {name: value for name, value in outputs.items() if name != "scenes"} == {
        "output": str(target), "count": 3, "best": address, "best_id": "B", "cloud": 10, "area_cloud": 0,
        "area_nodata": 0,
    }  # fmt: skip
    info = pyogrio.read_info(target, force_total_bounds=True)
    assert info["crs"] == "EPSG:4326"
    assert info["layer_name"] == "scenes"
    assert list(info["total_bounds"]) == pytest.approx(best["bbox"])
    meta, _, shapes, columns = raw.read(target, datetime_as_string=True)
    table = dict(zip(meta["fields"], (list(column) for column in columns), strict=True))
    assert table["id"] == ["B", "C", "A"]
    assert table["cloud"] == [10, 10, 12.346]
    assert table["area_cloud"][:2] == [0, 4]
    assert np.isnan(table["area_cloud"][2])
    assert table["date"][0].startswith("2023-08-15T10:36:31")
    assert table["baseline"] == ["05.09"] * 3
    assert table["platform"] == ["S2A"] * 3
    assert table["item"][0] == address
    assert json.loads(table["assets"][0]) == {"SCL": f"{server.url}/files/B_SCL.tif"}
    assert all(shape for shape in shapes)


def test_only_these_formats(server: StacServer, tmp_path: Path, log: Log) -> None:
    with pytest.raises(OutputError, match=r"neither GeoJSON nor GeoPackage; let its name end in \.geojson or \.gpkg"):
        search_scenes(job(server, output=tmp_path / "scenes.shp"), log)
    with pytest.raises(OutputError, match="does not exist; create it"):
        search_scenes(job(server, output=tmp_path / "no" / "scenes.gpkg"), log)
    assert server.asked == []


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".json"])
def test_the_best_scene_of_the_file_can_be_opened(server: StacServer, tmp_path: Path, log: Log, suffix: str) -> None:
    """The result chains: its address, or the file itself, is a scene."""
    path = make_stac_item(tmp_path, "planetary-computer", size=60, href=f"{server.url}/files/{{file}}")
    for name in L2A_BANDS:
        server.files[f"/files/{name}.tif"] = tmp_path / f"{name}.tif"
    server.add_scene("WORSE", classes(50), folder=tmp_path)
    item = server.add_scene("S2A_BEST", classes(0), folder=tmp_path)
    item["assets"] |= json.loads(path.read_text())["assets"]
    outputs = search_scenes(job(server, output=tmp_path / f"found{suffix}"), log)
    for source in (outputs["best"], outputs["output"]):
        with open_scene(source) as scene:
            assert tuple(scene.bands) == L2A_BANDS
            assert scene.source == outputs["best"]
            classification = scene.read_scl()
            assert classification is not None
            assert set(np.unique(classification)) == {CLEAR}


def test_a_geopackage_that_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "a.gpkg").write_text("no database")
    with pytest.raises(InputError, match="holds no scenes; give a file that a search has written"):
        open_scene(tmp_path / "a.gpkg")
    target = tmp_path / "b.gpkg"
    point = np.array([bytes.fromhex("0101000000" + "00" * 16)], dtype=object)
    raw.write(target, point, [np.array([1])], ["number"], geometry_type="Point", crs="EPSG:4326", driver="GPKG")
    with pytest.raises(InputError, match="holds no scenes"):
        open_scene(target)


# Recorded answers


def _replay(server: StacServer, name: str, home: str) -> list[str]:
    """A recording's pages, their addresses moved to the server."""
    recorded = json.loads((RECORDED / name).read_text())
    return [json.dumps(page["answer"]).replace(home, server.url) for page in recorded["pages"]]


def test_recorded_earth_search(server: StacServer, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    home = "https://earth-search.aws.element84.com/v1"
    recorded = json.loads((RECORDED / "earth_search.json").read_text())
    landing = json.loads(json.dumps(recorded["landing"]).replace(home, server.url))
    monkeypatch.setattr(server, "landing", lambda: landing)
    monkeypatch.setattr(search, "_look", lambda *_: None)
    monkeypatch.setitem(catalog.CATALOGS, "earth-search", server.url)
    server.pages = _replay(server, "earth_search.json", home)
    # The recording ends with a link to a third page; the API answers that by an empty one.
    server.pages.append(json.dumps({"type": "FeatureCollection", "features": [], "links": []}))
    found = find(job(server, catalog="earth-search", area="-60,-61,-38,-4", max_cloud=40), log)
    assert [(scene.id, scene.cloud) for scene in found] == [
        ("S2B_24MVV_20250731_0_L1C", 24.217),
        ("S2B_T20EPT_20250731T131905_L2A", 26.025),
        ("S2B_20EPT_20250731_0_L2A", 26.025),
        ("S2B_24MVV_20250731_0_L2A", 34.761),
    ]
    assert {(scene.platform, scene.baseline, scene.catalog) for scene in found} == {("S2B", "05.11", "earth-search")}
    assert found[1].source == f"{server.url}/collections/sentinel-2-c1-l2a/items/S2B_T20EPT_20250731T131905_L2A"
    assert found[1].assets["scl"].endswith("/S2B_T20EPT_20250731T131905_L2A/SCL.tif")
    assert server.bodies[0]["query"] == {"eo:cloud_cover": {"lte": 40}}
    assert server.bodies[1] == {"next": "2025-07-31T13:03:25.899000Z,S2B_T24MVV_20250731T130245_L2A,sentinel-2-c1-l2a"}


def test_recorded_planetary_computer(
    server: StacServer, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = "https://planetarycomputer.microsoft.com/api/stac/v1"
    blob = "https://sentinel2l2a01.blob.core.windows.net"
    (page,) = _replay(server, "planetary_computer.json", home)
    server.pages = [page.replace(blob, server.url)]
    for number, item in enumerate(json.loads(server.pages[0])["features"]):
        bands, path = item["assets"]["SCL"], tmp_path / f"{number}.tif"
        left, top = bands["proj:transform"][2], bands["proj:transform"][5]
        cover = np.full((550, 550), CLEAR if number else CLOUD, np.uint8)
        write_scl(path, cover, (left, top), 200, "EPSG:32660")
        server.files[bands["href"].removeprefix(server.url)] = path
    found = find(job(server, area="173.7,57.65,173.75,57.69", start="2019-01-01", end="2019-01-01", max_cloud=60), log)
    assert [(s.id.split("_")[4], s.area_cloud, s.baseline, s.platform) for s in found] == [
        ("T60VUJ", 0, "02.12", "S2A"), ("T60VUK", 100, "02.12", "S2A"),
    ]  # fmt: skip
    assert found[0].source.startswith(f"{server.url}/collections/sentinel-2-l2a/items/S2A_MSIL2A_20190101T000001")


# Real items


def test_real_items_of_a_catalogue(server: StacServer, tmp_path: Path, log: Log) -> None:
    """Eleven Earth Search items of two neighbouring tiles, with classifications made for them."""
    folder = real_data("stac/mapchete-eo/tests/testdata/sentinel2/full_products/sentinel-2-l2a")
    for number, path in enumerate(sorted(folder.glob("*/*.json"))):
        item = json.loads(path.read_text())
        item["links"] = []
        item["assets"] = {"scl": item["assets"]["scl"]}
        item["assets"]["scl"]["href"] = f"{server.url}/files/{item['id']}.tif"
        place = item["assets"]["scl"]["proj:transform"]
        image = np.full((275, 275), CLEAR, np.uint8)
        image[:, : 10 * number] = CLOUD
        server.files[f"/files/{item['id']}.tif"] = write_scl(
            tmp_path / f"{number}.tif", image, (place[2], place[5]), 400, "EPSG:32633"
        )
        server.items.append(item)
    area = "510000,5000000,600000,5180000 EPSG:32633"
    found = find(job(server, area=area, max_cloud=100), log)
    assert {scene.id.split("_")[1] for scene in found} == {"33TWL", "33TWM"}
    assert [s.unusable for s in found] == sorted(s.unusable for s in found if s.unusable is not None)
    assert {scene.baseline for scene in found} == {"05.09"}
    assert found[0].source == f"{server.url}/collections/sentinel-2-l2a/items/{found[0].id}"
    few = find(job(server, area=area, max_cloud=5, start="2023-08-14", end="2023-08-18"), log)
    assert {scene.cloud is not None and scene.cloud <= 5 for scene in few} == {True}
    assert 0 < len(few) < len(found)


def test_real_classification_agrees_with_the_item(server: StacServer, log: Log) -> None:
    """The cloud that ESA states for a tile is the share of its classes; what is read here says the same."""
    name = "S2A_29RKH_20200219_0_L2A"
    folder = real_data(f"stac/rio-tiler-pds/tests/fixtures/sentinel-cogs/sentinel-s2-l2a-cogs/29/R/KH/2020/2/{name}")
    item = json.loads((folder / f"{name}.json").read_text())
    for asset in item["assets"].values():
        asset["href"] = f"{server.url}/files/{asset['href'].rpartition('/')[2]}"
    for path in folder.glob("*.tif"):
        server.files[f"/files/{path.name}"] = path
    server.items = [item]
    west, south, east, north = item["bbox"]
    tile = f"{west},{south},{east},{north}"
    (found,) = find(job(server, area=tile, start="2020-02-01", end="2020-02-29"), log)
    assert found.cloud == pytest.approx(4.052, abs=0.001)
    assert found.area_cloud == pytest.approx(4.052, abs=0.5)
    assert found.source == f"{server.url}/collections/sentinel-2-l2a/items/{name}"
    with open_scene(found.source) as scene:
        assert tuple(scene.bands) == L2A_BANDS


def test_a_server_of_files_that_stalls_is_not_waited_for(
    server: StacServer, tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(search, "area_cloud", lambda *_: release.wait(60))
    monkeypatch.setattr(search, "_PATIENCE", 0.5)
    for number in range(6):
        server.add_scene(f"S{number}", classes(0), cloud=20 - number, folder=tmp_path)
    begin = time.monotonic()
    assert [scene.id for scene in find(job(server), log)][:2] == ["S5", "S4"]
    assert time.monotonic() - begin < 10
    assert "no answer in 0.5 s" in log.warnings[0]
    release.set()
