"""Writes XS and PAN and serves a catalogue with two scenes over them, until its input ends. Run with the worker's
Python: `serve_pair.py FOLDER` prints the catalogue's address.
"""

import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "core")]

from cross_pairs import BANDS, X, Y, make_reference, make_scene  # noqa: E402
from stac_server import running_server  # noqa: E402

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    make_reference(folder, size=192)
    make_scene(folder / "scene", size=150)
    with running_server() as server:
        for name, day, cloudy in (("S2A_CLEAR", "2022-07-01", 0), ("S2B_CLOUDY", "2022-07-03", 60)):
            classes = np.full((75, 75), 4, np.uint8)
            classes[:, :cloudy] = 9
            item = server.add_scene(name, classes, day=day, corner=(X, Y), folder=folder)
            for band in BANDS:
                path = f"/files/{name}_{band}.tif"
                server.files[path] = next((folder / "scene").glob(f"*_{band}.tif"))
                item["assets"][band] = {"href": server.url + path, "type": "image/tiff", "roles": ["data"]}
        print(server.url, flush=True)
        sys.stdin.read()
