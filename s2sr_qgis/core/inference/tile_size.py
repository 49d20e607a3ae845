"""How large tiles are, and how many are worked on at once: halo, processor's cache and memory weighed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..raster.grid import Window
from ..scene.rows import TALLEST
from .card import ModelCard
from .pipeline import AHEAD

if TYPE_CHECKING:
    from .model import Model
    from .sharpening import Sharpening

BASE_MEMORY = 250
"""MB that the process holds before the first tile: interpreter, libraries, models."""

CACHE = 64
"""MB of GDAL's block cache: each block is read or written once, so that a few of each file are enough."""

BLOCK = 512
"""Side of the file's inner tiles where none fits."""

SMALLEST = 60
"""Side of the smallest tile."""

LARGEST = 1440
"""Side of the largest tile: beyond it the halo is hardly smaller, and a cancelled job is not over soon."""

SPILL = 0.03
"""Share of its speed that a network loses with each doubling of its feature maps beyond the cache, as measured: little,
since its convolutions do hundreds of operations on each number that they fetch."""

UNKNOWN_CACHE = 4.0
"""MB of cache a worker where the system does not tell."""

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Load:
    """What a network costs a tile; ``halo``: pixels of the finest input that it and what follows see around it."""

    card: ModelCard
    precision: str
    halo: int

    def pixels(self, height: float, width: float) -> float:
        """Pixels of the output that are computed for so many of the finest input, the halo's included."""
        return (height + 2 * self.halo) * (width + 2 * self.halo) * self.card.scale**2

    @property
    def bytes_per_pixel(self) -> float:
        """Rough bytes per output pixel of a convolutional network at work.

        Three feature maps, and what the arithmetic between bands keeps. Measured on the bundled networks, with the
        tensors that enter and leave: 340 to 390 in int8.
        """
        return 280 + 3 * self.map_bytes

    @property
    def map_bytes(self) -> float:
        """Bytes per output pixel of one feature map, from the card's operations and parameters.

        Operations per parameter tell how many of the pixels the trunk works on, the parameters its width (taking ten
        3 x 3 layers).
        """
        density = self.card.mflop_per_pixel * 1e6 / (2 * max(self.card.parameters, 1))
        return density * math.sqrt(self.card.parameters / 90) * {"float32": 4, "float16": 2, "int8": 1}[self.precision]


def plan(work: Sharpening, area: Window, threads: int, tile_size: int | None, memory: int | None) -> tuple[int, int]:
    """Side of a tile in 10 m pixels and number of tiles at once, for ``threads`` threads of the processor.

    Large tiles waste less on the halo, which every tile computes anew; small ones keep the feature maps between two
    layers in the processor's cache, need less memory and, in a small area, leave no thread idle. Of the sides that fit
    the file's inner tiles and the memory, the one with the least expected time is taken. ``tile_size``: the side, where
    the user gives it. ``memory``: MB that the process may take; None: 1000 and 250 for each thread. Where even the
    smallest tiles need more, fewer are worked on at once.
    """
    longest = max(area.width, area.height)
    sides = [
        side
        for side in _sides(work.multiple, longest, math.lcm(work.multiple, 16), tile_size)
        if tile_size or longest <= LARGEST or block_side(side, 192)
    ]
    return _best(sides, work.loads, area, threads, memory, lambda side, n: needed_memory(work, area, side, n))


def plan_model(
    model: Model, area: Window, threads: int, tile_size: float | None = None, memory: int | None = None
) -> tuple[int, int]:
    """As `plan` for a model alone; sides and area in pixels of its finest input."""
    load = Load(model.card, model.precision, model.halo)
    sides = _sides(model.multiple, max(area.width, area.height), model.multiple, tile_size)

    def needed(side: int, workers: int) -> float:
        seen = load.pixels(min(side, area.height), min(side, area.width))
        return BASE_MEMORY + workers * load.bytes_per_pixel * seen / 2**20

    return _best(sides, [load], area, threads, memory, needed)


def _sides(unit: int, longest: int, step: int, wanted: float | None) -> list[int]:
    """Sides that may be taken, multiples of ``unit``, for an area whose longer side is ``longest``."""
    if wanted:
        return [math.ceil(wanted / unit) * unit]
    smallest = math.ceil(SMALLEST / unit) * unit
    sides = [smallest, *(side for side in range(step, LARGEST + step, step) if side > smallest)]
    if longest <= LARGEST:  # in equal parts, rather than a large one and a sliver
        sides += [max(math.ceil(longest / parts / unit) * unit, smallest) for parts in range(1, 9)]
    return sides


def _best(
    sides: Sequence[int],
    loads: Sequence[Load],
    area: Window,
    threads: int,
    memory: int | None,
    needed: Callable[[int, int], float],
) -> tuple[int, int]:
    limit = memory or 1000 + 250 * threads
    for workers in range(threads, 0, -1):
        possible = [side for side in sides if needed(side, workers) <= limit]
        if possible:
            return min(possible, key=lambda side: expected_time(loads, area, side, workers)), workers
    return min(sides), 1


def block_side(size: int, smallest: int = 128) -> int | None:
    """The side of the file's inner tiles that divides the tile, so that each is written once; None: there is none."""
    return next((side for side in range(512, smallest - 1, -16) if size % side == 0), None)


def block_cache(size: int, row_bytes: int) -> int:
    """Bytes of GDAL's block cache that a file of so many bytes a row of pixels is written with in tiles of ``size``."""
    # Where tiles and blocks do not fit, a row of blocks stays until the next tiles complete it.
    return CACHE * 2**20 + (0 if block_side(size) else 2 * BLOCK * row_bytes)


def expected_time(loads: Sequence[Load], area: Window, side: int, workers: int) -> float:
    """A measure of how long the networks take: pixels, halo included, those beyond the cache dearer."""
    rows, columns = -(-area.height // side), -(-area.width // side)
    if not loads:
        return rows * columns
    mean = largest = 0.0
    for load in loads:
        pixels = load.pixels(min(area.height, side), min(area.width, side))
        spilt = math.log2(2 * load.map_bytes * pixels / cache_of_worker(workers))
        cost = load.card.mflop_per_pixel * (1 + SPILL * max(spilt, 0))
        largest += cost * pixels
        # The last row and column of tiles are smaller.
        mean += cost * load.pixels(area.height / rows, area.width / columns)
    whole = max(area.height // side, 1) * max(area.width // side, 1)
    return max(mean * rows * columns / workers, largest * math.ceil(whole / workers))


def needed_memory(work: Sharpening, area: Window, side: int, workers: int) -> float:
    """MB that the process will take, roughly: strips of decoded pixels, tiles underway, networks at work."""
    side = min(side, max(area.width, area.height))
    stored = sum(2 / work.factor(band) ** 2 for band in work.needed)
    padded = (side + 2 * work.halo) ** 2
    strips = stored * area.width * (min(TALLEST, area.height) + side)
    waiting = (workers + AHEAD) * (stored * padded + 2 * len(work.outputs) * side**2)
    networks = [load.bytes_per_pixel * load.pixels(side, side) for load in work.loads]
    tile = max(networks, default=0.0) + 9 * stored * padded + 6 * len(work.outputs) * side**2
    return BASE_MEMORY + CACHE + (strips + waiting + workers * tile) / 2**20


@cache
def cache_of_worker(workers: int) -> float:
    """Bytes of the processor's second and third level cache that each of several threads has for itself."""
    found = {}
    for entry in sorted(_CACHES.glob("index*")):
        try:
            level, size = ((entry / name).read_text().strip() for name in ("level", "size"))
            sharing = len(_numbers((entry / "shared_cpu_list").read_text()))
        except (OSError, ValueError):
            continue
        if level in ("2", "3") and size.endswith("K"):
            found[level] = int(size[:-1]) * 1024 / min(max(sharing, 1), workers)
    return sum(found.values()) or UNKNOWN_CACHE * 2**20


def _numbers(text: str) -> set[int]:
    """The processors of a list such as 0-3,8."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
