"""A STAC API and its files on a port of this machine, with faults to order: for the tests of searching."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

QUERY = "https://api.stacspec.org/v1.0.0/item-search#query"
FILTER = "https://api.stacspec.org/v1.0.0/item-search#filter"


class StacServer(ThreadingHTTPServer):
    """Serves ``items`` by /search, ``files`` by path, and whatever ``faults`` says before that.

    ``faults``: (what the path begins with, status, headers), each used once. ``token``: what ``?sig=`` of a file must
    be, where it is not empty. ``pages``: recorded answers that are given instead of a search, one after the other.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler))
        self.items: list[dict[str, Any]] = []
        self.files: dict[str, Path] = {}
        self.faults: list[tuple[str, int, dict[str, str]]] = []
        self.conforms: list[str] = [QUERY]
        self.methods = ("GET", "POST")
        self.pages: list[str] = []
        self.token = ""
        self.asked: list[tuple[str, str, int]] = []
        self.bodies: list[dict[str, Any]] = []
        self.sent: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def statuses(self, path: str) -> list[int]:
        """What was answered to requests whose path begins so, in order."""
        return [status for _, asked, status in self.asked if asked.startswith(path)]

    def add_scene(
        self,
        name: str,
        classes: NDArray[np.uint8],
        cloud: float = 10,
        day: str = "2023-08-15",
        corner: tuple[float, float] = (600000, 5400000),
        spacing: float = 20,
        folder: Path | None = None,
        **properties: Any,
    ) -> dict[str, Any]:
        """Add an item with a classification; returns it, to be changed where a test wants that."""
        path = write_scl(folder / f"{name}.tif", classes, corner, spacing) if folder else None
        if path:
            self.files[f"/files/{name}_SCL.tif"] = path
        x, y = corner
        sides = (x, y - classes.shape[0] * spacing, x + classes.shape[1] * spacing, y)
        w, s, e, n = transform_bounds("EPSG:32631", "EPSG:4326", *sides)
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": name,
            "collection": "sentinel-2-l2a",
            "bbox": [w, s, e, n],
            "geometry": {"type": "Polygon", "coordinates": [[[w, s], [e, s], [e, n], [w, n], [w, s]]]},
            "properties": {
                "datetime": f"{day}T10:36:31.024Z",
                "platform": "sentinel-2a",
                "eo:cloud_cover": cloud,
                "s2:processing_baseline": "05.09",
                **properties,
            },
            "links": [{"rel": "self", "href": f"{self.url}/collections/sentinel-2-l2a/items/{name}"}],
            "assets": {"SCL": {"href": f"{self.url}/files/{name}_SCL.tif", "type": "image/tiff", "roles": ["data"]}},
        }
        self.items.append(item)
        return item

    def landing(self) -> dict[str, Any]:
        links = [{"rel": "search", "href": f"{self.url}/search", "method": method} for method in self.methods]
        return {
            "type": "Catalog",
            "id": "test",
            "stac_version": "1.0.0",
            "description": "test",
            "links": [{"rel": "self", "href": self.url}, {"rel": "root", "href": self.url}, *links],
            "conformsTo": [
                "https://api.stacspec.org/v1.0.0/core",
                "https://api.stacspec.org/v1.0.0/item-search",
                *self.conforms,
            ],
        }

    def search(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The answer to a search, filtered as STAC says, in pages of ``limit``."""
        if self.pages:
            answer: dict[str, Any] = json.loads(self.pages.pop(0))
            return answer
        most = asked.get("query", {}).get("eo:cloud_cover", {}).get("lte", 100)
        if "filter" in asked:
            most = asked["filter"]["args"][1]
        start, end = asked["datetime"].split("/")
        matched = [
            item
            for item in self.items
            if item["collection"] in asked["collections"]
            and start <= item["properties"]["datetime"] <= end
            and item["properties"]["eo:cloud_cover"] <= most
            and ("bbox" not in asked or _meet(asked["bbox"], item["bbox"]))
        ]
        first, limit = int(asked.get("token", 0)), int(asked.get("limit", 10))
        links = []
        if first + limit < len(matched):
            body = {"token": first + limit}
            links.append({"rel": "next", "href": f"{self.url}/search", "method": "POST", "merge": True, "body": body})
        return {"type": "FeatureCollection", "features": matched[first : first + limit], "links": links}


def _meet(one: list[float], other: list[float]) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


class _Handler(BaseHTTPRequestHandler):
    server: StacServer

    def do_GET(self) -> None:
        self._answer({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, asked: dict[str, Any]) -> None:
        server, path = self.server, urlsplit(self.path).path
        fault = next((fault for fault in server.faults if path.startswith(fault[0])), None)
        if fault:
            server.faults.remove(fault)
            self._send(path, fault[1], b"refused", fault[2])
        elif path in server.files:
            self._file(path, asked)
        elif path == "/":
            self._json(path, server.landing())
        elif path == "/search":
            server.bodies.append(asked)
            if isinstance(asked.get("collections"), str):
                asked = {**asked, "collections": asked["collections"].split(",")}
                asked |= {"bbox": [float(side) for side in asked["bbox"].split(",")]} if "bbox" in asked else {}
            self._json(path, server.search(asked))
        else:
            item = next((item for item in server.items if path.endswith(f"/items/{item['id']}")), None)
            self._json(path, item) if item else self._send(path, 404, b"{}")

    def _json(self, path: str, answer: Any) -> None:
        self._send(path, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, path: str, asked: dict[str, Any]) -> None:
        if self.server.token and asked.get("sig") != self.server.token:
            self._send(path, 403, b"")
            return
        data, span = self.server.files[path].read_bytes(), self.headers.get("Range")
        if not span:
            self._send(path, 200, data, {"Accept-Ranges": "bytes"})
            return
        first, _, last = span.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
        headers = {"Content-Range": f"bytes {start}-{end}/{len(data)}", "Accept-Ranges": "bytes"}
        self._send(path, 206, data[start : end + 1], headers)

    def _send(self, path: str, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.server.asked.append((self.command, path, status))
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.server.sent[path] = self.server.sent.get(path, 0) + len(data)
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def running_server() -> Iterator[StacServer]:
    """A server for as long as the block lasts."""
    server = StacServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def write_scl(
    path: Path,
    classes: NDArray[np.uint8],
    corner: tuple[float, float] = (600000, 5400000),
    spacing: float = 20,
    crs: str = "EPSG:32631",
) -> Path:
    """Write a classification as a cloud-optimised GeoTIFF.

    Its directories all lie in front: GDAL reads those without letting go of Python's lock, which the server needs to
    answer, but the first 16 KB come while the lock is free.
    """
    height, width = classes.shape
    profile = {
        "driver": "GTiff",
        "width": width,
        "height": height,
        "count": 1,
        "dtype": "uint8",
        "crs": crs,
        "transform": Affine(spacing, 0, corner[0], 0, -spacing, corner[1]),
        "nodata": 0,
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(classes, 1)
        rasterio.shutil.copy(
            memory.name, path, driver="COG", BLOCKSIZE=128, COMPRESS="DEFLATE", OVERVIEW_RESAMPLING="NEAREST"
        )
    return path
