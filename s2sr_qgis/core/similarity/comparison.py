"""Several measures of one pair of images at once, and images of any size through them: blocks, threads, memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import Cancelled, InputError
from ..processors import available_threads
from ..progress import Progress
from ..raster.grid import Window
from .measure import BLOCK_STEP, Accumulator, Block, Definition, Float, Measure, Score, Setup, size

if TYPE_CHECKING:
    from .pictures import Pictures

_T = TypeVar("_T")

BLOCK_PIXELS = 6 * 512**2
"""Pixels of all bands together in a block: with what the measures make of them, some 100 MB a thread."""

BLOCK_UNIT = 256
"""A block's sides are multiples of it, so that blocks fall on the tiles of a raster that is written."""

MOST_THREADS = 4
"""Threads where the job names no number: each holds a block."""


@dataclass(frozen=True)
class Result:
    """What a comparison found.

    Attributes:
        measures: that were asked for, in the catalogue's order.
        scores: of each, by its name.
        bands: names, in the order of every array of bands.
        setup: what the measures knew: definition, data range, size.
        pixels: that count in at least one band.
        counts: pixels that count, a band.
        means: of reference and image over the pixels that count, (2, bands); NaN where none does.
        shift: (dx, dy), pixels that the image must go to the right and down to lie on the reference; None where that
            was not asked for or not found.
        pictures: for the report, where they were asked for.
    """

    measures: tuple[Measure, ...]
    scores: dict[str, Score]
    bands: tuple[str, ...]
    setup: Setup
    pixels: int
    counts: Float
    means: Float
    shift: tuple[float, float] | None
    pictures: Pictures | None


def chosen(names: Sequence[str], definition: Definition) -> tuple[Measure, ...]:
    """The measures of these names, in the catalogue's order; without names all that the definition has.

    Raises `InputError` for a name that there is not, or that has no such definition.
    """
    from .measures import catalogue

    known = catalogue()
    having = [name for name, measure in known.items() if definition in measure.definitions]
    for name in names:
        if name not in known:
            raise InputError(f"There is no measure '{name}'; choose of {', '.join(known)}.")
        if name not in having:
            raise InputError(
                f"The measure '{name}' has no definition '{definition}'; those that have it are {', '.join(having)}."
            )
    wanted = set(names or having)
    return tuple(measure for name, measure in known.items() if name in wanted)


class Comparison:
    """The chosen measures at work on one pair of images; an accumulator of all of them.

    ``names``: of measures, none for all of the definition. ``bands``: their names. ``pictures``: gather what the report
    shows, too. Raises `InputError` as `chosen` does, and for an image that a measure cannot take.
    """

    def __init__(self, names: Sequence[str], bands: Sequence[str], setup: Setup, pictures: bool = False) -> None:
        self.measures, self.bands, self.setup = chosen(names, setup.definition), tuple(bands), setup
        self._accumulators: list[Accumulator] = [measure.create(setup) for measure in self.measures]
        self._pictures = self._gather() if pictures else None
        self._sums = np.zeros((3, setup.bands))
        self._pixels = 0
        self.halo: int = max((accumulator.halo for accumulator in self._all()), default=0)

    def observe(self, block: Block, check: Callable[[], None] = lambda: None) -> Any:
        """See `Accumulator`. ``check`` is called between the measures, and may raise to stop."""
        parts = []
        seen: dict[str | int, Any] = {}
        for accumulator in self._all():
            check()
            # RMSE, PSNR, SRE and ERGAS come from the same sums.
            what = getattr(accumulator, "observes", id(accumulator))
            if what not in seen:
                seen[what] = accumulator.observe(block)
            parts.append(seen[what])
        own = np.s_[:, block.own[0], block.own[1]]
        valid = block.valid[own]
        sums = np.stack([valid.sum(axis=(1, 2)), block.x[own].sum(axis=(1, 2)), block.y[own].sum(axis=(1, 2))])
        return parts, sums, int(valid.any(axis=0).sum())

    def take(self, part: Any) -> None:
        """See `Accumulator`."""
        parts, sums, pixels = part
        for accumulator, its in zip(self._all(), parts, strict=True):
            accumulator.take(its)
        self._sums += sums
        self._pixels += pixels

    def result(self) -> Result:
        """What was found. Raises `InputError` where no pixel counts."""
        if not self._pixels:
            raise InputError("No pixel can be compared: everywhere one of the images has nodata or the mask is 0.")
        counts = self._sums[0]
        means = np.divide(self._sums[1:], counts, out=np.full((2, len(counts)), np.nan), where=counts > 0)
        scores = {m.name: a.score() for m, a in zip(self.measures, self._accumulators, strict=True)}
        return Result(
            self.measures, scores, self.bands, self.setup, self._pixels, counts, means, self._shift(), self._pictures
        )

    def _all(self) -> Iterator[Accumulator | Pictures]:
        yield from self._accumulators
        if self._pictures is not None:
            yield self._pictures

    def _gather(self) -> Pictures:
        from .pictures import Pictures

        return Pictures(self.bands, self.setup)

    def _shift(self) -> tuple[float, float] | None:
        from .shift import SpatialShift

        for accumulator in self._accumulators:
            if isinstance(accumulator, SpatialShift) and math.isfinite(accumulator.vector()[0]):
                return accumulator.vector()
        return None


def blocks(height: int, width: int, bands: int, flat: bool = False) -> list[Window]:
    """The blocks' own parts, row by row. ``flat``: for files in strips, wide and low.

    They depend on the images alone, never on threads, so that the figures do not either.
    """
    side = max(math.isqrt(BLOCK_PIXELS // bands) // BLOCK_UNIT, 1) * BLOCK_UNIT
    high = max(side // 2 // BLOCK_UNIT, 1) * BLOCK_UNIT if flat else side
    wide = side * side // high
    return [
        Window(col, row, wide, high).clipped(width, height)
        for row in range(0, height, high)
        for col in range(0, width, wide)
    ]


def block(window: Window, halo: int, setup: Setup, read: Callable[[Window], tuple[Float, Float, Any]]) -> Block:
    """The block whose own part is ``window``, with its surroundings. ``read`` gives x, y and valid of a window."""
    if window.row % BLOCK_STEP or window.col % BLOCK_STEP:
        raise ValueError(f"{window} does not start at a multiple of {BLOCK_STEP}")
    around = window.grown(halo).clipped(setup.width, setup.height)
    x, y, valid = read(around)
    if x.shape != (setup.bands, *around.shape) or y.shape != x.shape:
        raise ValueError(f"{around} was read as {size(x)} and {size(y)}")
    rows = slice(window.row - around.row, window.row - around.row + window.height)
    cols = slice(window.col - around.col, window.col - around.col + window.width)
    return Block(x, y, valid, around.row, around.col, (rows, cols))


def in_threads(
    windows: Sequence[Window],
    work: Callable[[Window, Callable[[], None]], _T],
    progress: Progress,
    threads: int | None = None,
    share: tuple[float, float] = (0.0, 100.0),
) -> Generator[tuple[Window, _T], None, None]:
    """What ``work`` gives of each window, in the windows' order, while other threads are at the next ones.

    ``work`` gets a function, too, that raises when the job is to stop. No more results wait than there are threads.
    ``share``: the part of the job's progress that this is. Raises `Cancelled` and whatever ``work`` raises.
    """
    count = threads or min(available_threads(), MOST_THREADS)
    stopped = Event()

    def check() -> None:
        if stopped.is_set():
            raise Cancelled("Stopped.")

    start, end = share
    executor = ThreadPoolExecutor(count, thread_name_prefix="block")
    waiting: deque[tuple[Window, Future[_T]]] = deque()
    coming = iter(windows)
    try:
        for number in range(len(windows)):
            while len(waiting) < count and (window := next(coming, None)) is not None:
                waiting.append((window, executor.submit(work, window, check)))
            progress.progress(start + (end - start) * number / len(windows), f"Block {number + 1} of {len(windows)}")
            window, future = waiting.popleft()
            yield window, _await(future, progress)
    finally:
        stopped.set()
        executor.shutdown(wait=True, cancel_futures=True)


def _await(future: Future[_T], progress: Progress) -> _T:
    while not future.done():
        progress.check()
        wait([future], timeout=0.2)
    progress.check()
    return future.result()
