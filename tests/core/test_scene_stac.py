"""STAC items: the offset rules of each catalogue, and reading over HTTP with tokens that age out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planetary_computer import sas
from products import L2A_BANDS, digital_numbers, make_stac_item, real_data, reflectances
from tokens import Token, stand_in

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.jobs import SceneOptions
from s2sr_qgis.core.scene import Scene, Window, open_scene, stac
from s2sr_qgis.core.scene.stac import asset_radiometry, band_assets, item_facts, read_item

ROUNDING = 0.6e-4


def _assert_true_reflectance(scene: Scene, size: int) -> None:
    assert tuple(scene.bands) == L2A_BANDS
    pixels = scene.read(L2A_BANDS)
    for name, expected in reflectances(size, L2A_BANDS).items():
        assert np.abs(pixels.data[name] - expected).max() < ROUNDING, name


@pytest.mark.parametrize(
    ("catalogue", "baseline", "offset"),
    [
        ("planetary-computer", "05.09", -1000),
        ("planetary-computer", "04.00", -1000),
        ("planetary-computer", "03.01", 0),
        ("earth-search-v1", "05.09", 0),
        ("earth-search-v1", "02.14", 0),
        ("earth-search-c1", "05.10", -1000),
    ],
)
def test_offset_rules(tmp_path: Path, catalogue: str, baseline: str, offset: float) -> None:
    with open_scene(make_stac_item(tmp_path, catalogue, size=60, baseline=baseline)) as scene:
        assert {(band.offset, band.quantification) for band in scene.bands.values()} == {(offset, 10000)}
        assert (scene.level, scene.platform, scene.baseline, scene.warnings) == ("L2A", "S2A", baseline, [])
        assert scene.name.startswith("S2A_MSIL2A_20230815T103631")
        assert scene.acquired is not None
        assert scene.acquired.isoformat() == "2023-08-15T10:36:31.024000+00:00"
        _assert_true_reflectance(scene, 60)


def test_earth_search_item_whose_offset_is_not_taken_off(tmp_path: Path) -> None:
    properties = {"earthsearch:boa_offset_applied": False}
    item = make_stac_item(tmp_path, size=60, offset=-1000, properties=properties)
    with open_scene(item) as scene:
        assert scene.warnings == []
        _assert_true_reflectance(scene, 60)


@pytest.mark.parametrize(("applied", "offset", "advice"), [(True, -1000, "-1000"), (False, 0, "0")])
def test_wrong_flag_is_noticed(tmp_path: Path, applied: bool, offset: int, advice: str) -> None:
    item = make_stac_item(tmp_path, size=60, offset=offset, properties={"earthsearch:boa_offset_applied": applied})
    with open_scene(item) as scene:
        assert scene.warnings[0].endswith(f"if the flag is wrong, give an offset of {advice}.")
    with open_scene(item, SceneOptions(radiometric_offset=offset)) as scene:
        assert scene.warnings == []
        _assert_true_reflectance(scene, 60)


def test_baseline_from_the_product_name(tmp_path: Path) -> None:
    item = make_stac_item(tmp_path, "planetary-computer", size=12, properties={"s2:processing_baseline": None})
    with open_scene(item) as scene:
        assert scene.baseline == "05.09"
        assert scene.bands["B02"].offset == -1000


def test_nothing_tells_the_offset(tmp_path: Path) -> None:
    hidden = {"s2:processing_baseline": None, "s2:product_uri": "unnamed"}
    item = make_stac_item(tmp_path, "planetary-computer", size=12, properties=hidden)
    with pytest.raises(InputError, match="does not say whether its pixels carry the radiometric offset; give one"):
        open_scene(item)
    with open_scene(item, SceneOptions(radiometric_offset=-1000)) as scene:
        assert scene.bands["B02"].offset == -1000


def test_missing_asset_is_named(tmp_path: Path) -> None:
    item = make_stac_item(tmp_path, size=12)
    (tmp_path / "B11.tif").unlink()
    with pytest.raises(InputError, match=r"B11\.tif cannot be opened"):
        open_scene(item)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is no JSON"),
        ('{"type": "Feature"}', "is no STAC item: it has no assets"),
        ('{"type": "FeatureCollection", "features": []}', "a collection of 0 items"),
        ('{"assets": {"red": {}}, "properties": {}, "collection": "landsat-c2-l2"}', "no Sentinel-2 item"),
        ('{"assets": {"tki": {}}, "properties": {}, "collection": "sentinel-2-l2a"}', "no assets that are Sentinel-2"),
        ('[1]', "is no STAC item"),
    ],
)  # fmt: skip
def test_json_that_is_no_item(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "item.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        open_scene(path)


def test_collection_of_one_item(tmp_path: Path) -> None:
    item = make_stac_item(tmp_path, size=12)
    item.write_text(json.dumps({"type": "FeatureCollection", "features": [json.loads(item.read_text())]}))
    with open_scene(item) as scene:
        assert tuple(scene.bands) == L2A_BANDS


_ODC = "stac/odc-stac/tests/data"
_ITEMS = "stac/mapchete-eo/tests/testdata/sentinel2"
_COGS = "stac/rio-tiler-pds/tests/fixtures/sentinel-cogs/sentinel-s2-l2a-cogs"


@pytest.mark.parametrize(
    ("path", "level", "platform", "baseline", "offset"),
    [
        (f"{_ODC}/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json", "L2A", "S2B", "02.12", 0),
        (f"{_ODC}/S2A_28QCH_20200714_0_L2A.json", "L2A", "S2A", "02.14", 0),
        (f"{_ITEMS}/full_products/sentinel-2-l2a/S2A_33TWL_20230815_0_L2A/S2A_33TWL_20230815_0_L2A.json",
         "L2A", "S2A", "05.09", 0),
        (f"{_ITEMS}/stac_items/S2A_12RWT_20240106_0_L2A/S2A_12RWT_20240106_0_L2A.json", "L2A", "S2A", "05.10", 0),
        (f"{_COGS}/29/R/KH/2020/2/S2A_29RKH_20200219_0_L2A/S2A_29RKH_20200219_0_L2A.json", "L2A", "S2A", "02.14", 0),
        (f"{_ITEMS}/stac_items/S2A_OPER_MSI_L2A_TL_2APS_20230602T025701_A041483_T01WCR.json",
         "L2A", "S2A", "05.09", -1000),
    ],
)  # fmt: skip
def test_real_items(path: str, level: str, platform: str, baseline: str, offset: float) -> None:
    source = str(real_data(path))
    item = read_item(source)
    facts = item_facts(item, source)
    assert (facts.level, facts.platform, facts.baseline) == (level, platform, baseline)
    assert facts.acquired is not None
    assets = band_assets(item)
    assert tuple(assets) == L2A_BANDS
    assert not any(key.endswith("-jp2") for key in assets.values())
    for name, key in assets.items():
        stated, quantification = asset_radiometry(item, key, facts.baseline)
        assert (name, stated) == (name, offset)
        assert quantification in (None, 10000)


def test_real_planetary_computer_item_of_a_new_baseline() -> None:
    source = str(real_data(f"{_ODC}/S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json"))
    item = read_item(source)
    assert asset_radiometry(item, "B02", "04.00") == (-1000, None)


def test_real_earth_search_jpeg_assets_are_esa_s_own() -> None:
    path = f"{_ITEMS}/full_products/sentinel-2-l2a/S2A_33TWL_20230815_0_L2A/S2A_33TWL_20230815_0_L2A.json"
    item = read_item(str(real_data(path)))
    assert asset_radiometry(item, "blue", "05.09") == (0, 10000)
    item["assets"]["blue-jp2"].pop("raster:bands", None)
    assert asset_radiometry(item, "blue-jp2", "05.09") == (-1000, None)


def test_real_old_item_that_does_not_say_enough() -> None:
    item = read_item(str(real_data(f"{_ODC}/S2A_28QCH_20200714_0_L2A.json")))
    assert asset_radiometry(item, "B02", "04.00") == (None, None)
    item["properties"]["sentinel:boa_offset_applied"] = True
    assert asset_radiometry(item, "B02", "04.00") == (0, None)


class _Handler(SimpleHTTPRequestHandler):
    """Serves byte ranges; refuses whoever lacks the token of the hour, where there is one."""

    server: _Server

    def do_HEAD(self) -> None:
        self._serve(body=False)

    def do_GET(self) -> None:
        self._serve(body=True)

    def _serve(self, body: bool) -> None:
        path, _, query = self.path.partition("?")
        token = self.server.token
        status, data = 200, b""
        file = self.server.folder / path.lstrip("/")
        if token and file.suffix == ".tif" and query != f"sig={token}":
            status = 403
        elif not file.is_file():
            status = 404
        else:
            data = file.read_bytes()
        size, span = len(data), self.headers.get("Range")
        if status == 200 and span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or size - 1), size - 1)
            status, data = 206, data[start : end + 1]
        self.server.answers.append((status, file.name, len(data) if body else 0))
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler))
        self.folder, self.token = folder, ""
        self.answers: list[tuple[int, str, int]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def count(self, status: int) -> int:
        return sum(answer[0] == status for answer in self.answers)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    running = _Server(tmp_path)
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def signing(server: _Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Planetary Computer's signing with the server's tokens, cached as the library caches them."""
    return stand_in(monkeypatch, server)


def test_item_and_assets_over_http(server: _Server) -> None:
    make_stac_item(server.folder, "earth-search-c1", size=60)
    with open_scene(f"{server.url}/item.json") as scene:
        _assert_true_reflectance(scene, 60)
    assert {name for _, name, _ in server.answers} == {"item.json", *(f"{name}.tif" for name in L2A_BANDS)}


def test_only_what_a_window_needs_travels(server: _Server) -> None:
    make_stac_item(server.folder, "earth-search-c1", size=1200, bands=("B02",))
    size = (server.folder / "B02.tif").stat().st_size
    with open_scene(f"{server.url}/item.json") as scene:
        scene.read(["B02"], Window(0, 600, 1200, 12))
    travelled = sum(count for _, name, count in server.answers if name == "B02.tif")
    assert travelled < size / 4


def test_token_that_ages_out_during_a_long_read(server: _Server, signing: list[str]) -> None:
    make_stac_item(server.folder, "planetary-computer", size=600, bands=("B02", "B8A"), href=f"{server.url}/{{file}}")
    server.token = "first"
    truth = digital_numbers(600, ("B02", "B8A"), offset=-1000)["B02"]
    with open_scene(server.folder / "item.json") as scene:
        rows = []
        for row in range(0, 600, 60):
            if row == 300:
                server.token = "second"
            rows.append(scene.read(["B02"], Window(0, row, 600, 60)).data["B02"])
    numbers = np.rint(np.concatenate(rows) * 10000 + 1000)
    assert np.array_equal(numbers, truth)
    assert server.count(403) >= 1
    assert signing == ["first", "second"]


def test_refusal_for_good_is_told_without_the_token(
    server: _Server, signing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_stac_item(server.folder, "planetary-computer", size=60, bands=("B02",), href=f"{server.url}/{{file}}")
    sas.TOKEN_CACHE["tokens"] = Token("stale-secret")
    server.token = "good"
    with open_scene(server.folder / "item.json") as scene:
        assert signing == ["good"]
        scene.close()
        server.token = "nobody knows"
        monkeypatch.setattr(sas, "get_token", lambda *_, **__: Token("secret"))
        with pytest.raises(InputError, match=r"Asset B02 \(B02\.tif\) could not be read") as caught:
            scene.read(["B02"])
    assert "secret" not in str(caught.value)


def test_asset_that_is_not_there(server: _Server) -> None:
    make_stac_item(server.folder, size=12)
    (server.folder / "B12.tif").unlink()
    with pytest.raises(InputError, match=r"Asset swir22 \(B12\.tif\) could not be read \(HTTP 404\)"):
        open_scene(f"{server.url}/item.json")


def test_item_that_is_not_there(server: _Server) -> None:
    with pytest.raises(InputError, match="gave no STAC item"):
        open_scene(f"{server.url}/nothing.json")


def test_item_from_the_network_may_not_name_local_files(server: _Server) -> None:
    make_stac_item(server.folder, size=12, href=f"file://{server.folder}/{{file}}")
    with pytest.raises(InputError, match="has an address that cannot be read"):
        open_scene(f"{server.url}/item.json")


def test_real_tile_over_http(server: _Server) -> None:
    """An Earth Search tile with its (decimated) GeoTIFFs, its addresses moved to the local server."""
    source = real_data(f"{_COGS}/29/R/KH/2020/2/S2A_29RKH_20200219_0_L2A/S2A_29RKH_20200219_0_L2A.json")
    server.folder = source.parent
    item = json.loads(source.read_text())
    for asset in item["assets"].values():
        asset["href"] = f"{server.url}/{asset['href'].rpartition('/')[2]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stac, "_text", lambda _: json.dumps(item))
        with open_scene(f"{server.url}/item.json") as scene:
            assert (scene.grid.spacing, scene.grid.width, scene.grid.height) == (100, 1098, 1098)
            assert scene.level == "L2A"
            pixels = scene.read(["B02", "B8A", "B09"], Window(300, 300, 60, 60))
    assert [data.shape for data in pixels.data.values()] == [(60, 60), (30, 30), (10, 10)]
    assert 0.05 < float(pixels.data["B02"].mean()) < 0.6
