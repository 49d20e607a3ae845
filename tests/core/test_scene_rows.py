"""Windows from top to bottom: the pixels that single reads give, and every block of a file decoded once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import rasterio
from products import CRS, make_safe, make_stack, write_band
from rasterio.transform import from_origin
from tiny_model import RESOLUTION, scene_numbers

from s2sr_qgis.core.errors import Cancelled, InputError
from s2sr_qgis.core.raster.grid import Window
from s2sr_qgis.core.raster.tiles import enclosing, tiles
from s2sr_qgis.core.scene import open_scene
from s2sr_qgis.core.scene.files import FilePool
from s2sr_qgis.core.scene.rows import Rows


@pytest.fixture(scope="module")
def blocked(tmp_path_factory) -> Path:
    """A folder of bands with inner tiles of sizes that fit nothing."""
    folder = tmp_path_factory.mktemp("scenes") / "blocked"
    folder.mkdir()
    for band, image in scene_numbers().items():
        step = RESOLUTION[band]
        side = {10: 64, 20: 48, 60: 16}[step]
        profile = {"tiled": True, "blockxsize": side, "blockysize": side, "compress": "deflate"}
        with rasterio.open(
            folder / f"{band}.tif", "w", driver="GTiff", width=image.shape[1], height=image.shape[0], count=1,
            dtype="uint16", crs=CRS, transform=from_origin(600000, 5400000, step, step), **profile,
        ) as file:  # fmt: skip
            file.write(image, 1)
    return folder


@pytest.fixture(scope="module")
def scenes(blocked, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("more")
    # Bands that begin at different corners: the common grid begins inside the files.
    shifted = folder / "shifted"
    shifted.mkdir()
    for number, (band, image) in enumerate(scene_numbers().items()):
        corner = (600000.0 - 60 * (number % 3), 5400000.0 + 60 * (number % 2))
        write_band(shifted / f"{band}.tif", image, RESOLUTION[band], corner=corner)
    return {
        "blocked": blocked,
        "shifted": shifted,
        "safe": make_safe(folder, "L1C", size=240, nodata_corner=30),
        "stack": make_stack(folder / "stack.tif", nodata_corner=30),
    }


def no_check() -> None:
    """Nobody asks to stop."""


@pytest.mark.parametrize("kind", ["blocked", "shifted", "safe", "stack"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [54, 90, 240])
def test_windows_are_those_of_single_reads(scenes, kind, threads, size):
    with open_scene(scenes[kind]) as scene:
        grid, names = scene.grid, list(scene.bands)
        parts = [tile.padded.clipped(grid.width, grid.height) for tile in tiles(grid.window, size, 24, 6)]
        with Rows(scene, names, enclosing(parts), 30, threads, no_check) as rows:
            for part in parts:
                raw = rows.read(part)
                for name in names:
                    band = scene.bands[name]
                    expected = scene.files.read(band.file, band.index, band.stored(part))
                    np.testing.assert_array_equal(raw[name], expected)


def test_a_window_may_reach_back_and_beyond(blocked):
    with open_scene(blocked) as scene:
        names, limits = ["B02", "B11", "B09"], Window(60, 60, 120, 150)
        windows = [
            Window(60, 60, 60, 60),
            Window(60, 60, 120, 72),
            Window(60, 102, 60, 60),
            Window(60, 78, 60, 90),  # 24 rows back
            Window(30, 90, 180, 90),  # wider than the limits
            Window(60, 132, 120, 78),
            Window(60, 60, 60, 60),  # all the way back
        ]
        with Rows(scene, names, limits, 30, 2, no_check) as rows:
            for window in windows:
                raw = rows.read(window)
                for name in names:
                    band = scene.bands[name]
                    expected = scene.files.read(band.file, band.index, band.stored(window))
                    np.testing.assert_array_equal(raw[name], expected)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_every_block_is_decoded_once(blocked, monkeypatch, threads):
    read: Counter[tuple[str, int, int]] = Counter()
    original = FilePool.read

    def record(self, file, index, window=None, shape=None):
        side = self.header(file).block[0]
        for row in range(window.row // side, -(-(window.row + window.height) // side)):
            for col in range(window.col // side, -(-(window.col + window.width) // side)):
                read[file.path, row, col] += 1
        return original(self, file, index, window, shape)

    with open_scene(blocked) as scene:
        names = list(scene.bands)
        parts = [tile.padded.clipped(240, 240) for tile in tiles(scene.grid.window, 48, 30, 6)]
        monkeypatch.setattr(FilePool, "read", record)
        with Rows(scene, names, enclosing(parts), 30, threads, no_check) as rows:
            for part in parts:
                rows.read(part)
    assert set(read.values()) == {1}
    assert len(read) == 4 * 16 + 6 * 9 + 2 * 9  # 4 x 4 blocks of 64, 3 x 3 of 48 and of 16


def test_a_small_area_touches_its_own_blocks_only(blocked, monkeypatch):
    windows = []
    original = FilePool.read

    def record(self, file, index, window=None, shape=None):
        windows.append(window)
        return original(self, file, index, window, shape)

    with open_scene(blocked) as scene:
        monkeypatch.setattr(FilePool, "read", record)
        with Rows(scene, ["B02"], Window(66, 72, 60, 48), 30, 2, no_check) as rows:
            rows.read(Window(66, 72, 60, 48))
    assert {(w.row, w.height) for w in windows} == {(72, 48)}
    assert min(w.col for w in windows) == 66
    assert max(w.col + w.width for w in windows) == 126


def test_errors_and_stops_come_through(blocked, monkeypatch):
    def stop():
        raise Cancelled("stop")

    def fail(self, file, index, window=None, shape=None):
        raise InputError(f"{file.label} cannot be read")

    with open_scene(blocked) as scene:
        with Rows(scene, ["B02"], scene.grid.window, 30, 2, stop) as rows, pytest.raises(Cancelled):
            rows.read(Window(0, 0, 60, 60))
        monkeypatch.setattr(FilePool, "read", fail)
        with Rows(scene, ["B11"], scene.grid.window, 30, 2, no_check) as rows, pytest.raises(InputError, match="B11"):
            rows.read(scene.grid.window)
