"""Windows of a scene that come from top to bottom: every block of its files is decoded once, by several threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..raster.grid import Window
from .files import RasterFile
from .scene import Scene, SceneBand

TALLEST = 2048
"""Most rows of a file that are decoded at once, however tall its blocks are."""

Raw = dict[str, NDArray[Any]]


@dataclass
class _Source:
    """The bands that lie on one grid in one file, and the rows of it that are in memory, from top to bottom."""

    file: RasterFile
    bands: list[SceneBand]
    limits: Window
    block: tuple[int, int]
    chunks: list[tuple[int, NDArray[Any]]] = field(default_factory=list)

    @property
    def bottom(self) -> int:
        """The first row below those in memory; the top of the limits where there are none."""
        return self.chunks[-1][0] + self.chunks[-1][1].shape[1] if self.chunks else self.limits.row

    def missing(self, window: Window) -> Window | None:
        """The rows to decode next for a window of the file: down to the end of a block, within the limits."""
        needed = window.row + window.height
        if self.chunks and not self.chunks[0][0] <= window.row <= self.bottom:
            self.chunks.clear()
        if self.chunks and needed <= self.bottom:
            return None
        top = self.bottom if self.chunks else window.row
        height = min(self.block[0], TALLEST)
        bottom = min(-(-needed // height) * height, self.limits.row + self.limits.height)
        return Window(self.limits.col, top, self.limits.width, bottom - top)

    def drop(self, row: int) -> None:
        """Forget the rows above this one."""
        self.chunks = [(top, rows) for top, rows in self.chunks if top + rows.shape[1] > row]

    def cut(self, window: Window) -> NDArray[Any]:
        """A copy of a window of the file that is in memory, (band, row, column)."""
        left = window.col - self.limits.col
        columns = slice(left, left + window.width)
        bottom = window.row + window.height
        parts = [
            rows[:, max(window.row - top, 0) : bottom - top, columns]
            for top, rows in self.chunks
            if top < bottom and top + rows.shape[1] > window.row
        ]
        return np.concatenate(parts, axis=1)


class Rows:
    """Reads windows of bands as stored, from left to right and from top to bottom.

    ``limits``: the part of the scene's 10 m grid that the windows lie in; one that reaches beyond is read by itself.
    ``back``: how far above the last window (10 m pixels) the next may begin. ``check``: called between reads, may raise
    to stop. A context manager. Not thread-safe: its threads are its own.
    """

    def __init__(
        self, scene: Scene, bands: Sequence[str], limits: Window, back: int, threads: int, check: Callable[[], None]
    ) -> None:
        self.seconds = 0.0
        """What decoding took, in seconds of processor time."""
        self._scene, self._limits, self._back, self._check = scene, limits, back, check
        self._threads, self._lock = threads, threading.Lock()
        self._sources: list[_Source] = []
        together: dict[tuple[Any, ...], list[SceneBand]] = {}
        for band in map(scene.band, bands):
            together.setdefault((band.file, band.col, band.row, band.stored_resolution), []).append(band)
        for (file, *_), group in together.items():
            header = scene.files.header(file)
            self._sources.append(_Source(file, group, group[0].stored(limits), header.block))
        # OpenJPEG would hand each block to a thread of its own, and what that took would not be known.
        os.environ.setdefault("OPJ_NUM_THREADS", "0")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __enter__(self) -> Rows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self, window: Window) -> Raw:
        """The stored pixels of every band in a window of the 10 m grid, each (rows, columns) in its file's pixels.

        Raises `InputError` naming a file that cannot be read.
        """
        places = [source.bands[0].stored(window) for source in self._sources]
        if not self._limits.contains(window):
            found = self._decode(list(zip(self._sources, places, strict=True)))
        else:
            wanted = []
            for source, place in zip(self._sources, places, strict=True):
                source.drop(place.row - self._back * 10 // source.bands[0].stored_resolution)
                missing = source.missing(place)
                if missing:
                    wanted.append((source, missing))
            for (source, place), rows in zip(wanted, self._decode(wanted), strict=True):
                source.chunks.append((place.row, rows))
            found = [source.cut(place) for source, place in zip(self._sources, places, strict=True)]
        return {
            band.name: image
            for source, images in zip(self._sources, found, strict=True)
            for band, image in zip(source.bands, images, strict=True)
        }

    def _decode(self, wanted: list[tuple[_Source, Window]]) -> list[NDArray[Any]]:
        """Decode windows of files in all threads; where there are fewer windows than threads, columns of them."""
        tasks = []
        for source, place in wanted:
            end, width = place.col + place.width, source.block[1]
            shares = min(-(-self._threads // len(wanted)), -(-place.width // width))
            step = -(-place.width // (shares * width)) * width
            # On the boundaries of the file's blocks, or two threads would decode the same one.
            starts = [place.col, *range((place.col // step + 1) * step, end, step)]
            columns = [
                Window(left, place.row, right - left, place.height)
                for left, right in zip(starts, [*starts[1:], end], strict=True)
            ]
            tasks.append([self._pool.submit(self._part, source, part) for part in columns])
        found = []
        for futures in tasks:
            parts = [future.result() for future in futures]
            found.append(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2))
        return found

    def _part(self, source: _Source, place: Window) -> NDArray[Any]:
        self._check()
        begin = time.thread_time()
        # One thread a window: each decodes at its own pace, and what it takes is known.
        with rasterio.Env(GDAL_NUM_THREADS="1"):
            pixels = self._scene.files.read(source.file, [band.index for band in source.bands], place)
        with self._lock:
            self.seconds += time.thread_time() - begin
        return pixels
