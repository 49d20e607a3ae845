"""Stages of a job side by side: one thread draws items, several work on them, whoever asked takes them in order."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2
"""Items beyond those in work that may wait, drawn or done: enough that no worker waits for the slower neighbour."""

_PAUSE = 0.2
"""Seconds between two looks at whether the user asked to stop."""


def ordered(
    source: Iterable[T], work: Callable[[T], R], workers: int, check: Callable[[], None] = lambda: None
) -> Generator[R]:
    """``work`` on every item of ``source``, by ``workers`` threads; the results in the items' order.

    ``source`` is drawn in a thread of its own, at most ``workers`` + `AHEAD` items before the result that was taken
    last. ``check`` is called while a result is waited for, and may raise. What any stage raises is raised here, in its
    item's place; then, and when the generator is closed, all threads end before it returns: use `contextlib.closing`.
    """
    ready: queue.Queue[Future[R] | None] = queue.Queue()
    free = threading.Semaphore(workers + AHEAD - 1)  # the first item takes none
    stopped = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="work")

    def draw() -> None:
        try:
            for item in source:
                ready.put(pool.submit(work, item))
                free.acquire()
                if stopped.is_set():
                    return
        except BaseException as error:
            failed: Future[R] = Future()
            failed.set_exception(error)
            ready.put(failed)
        finally:
            ready.put(None)

    reader = threading.Thread(target=draw, name="draw")
    reader.start()
    try:
        while (future := _next(ready, check)) is not None:
            while not wait([future], _PAUSE).done:
                check()
            yield future.result()
            free.release()
    finally:
        stopped.set()
        free.release()
        reader.join()
        pool.shutdown(cancel_futures=True)


def _next(ready: queue.Queue[Future[R] | None], check: Callable[[], None]) -> Future[R] | None:
    while True:
        try:
            return ready.get(timeout=_PAUSE)
        except queue.Empty:
            check()


@dataclass
class Profile:
    """Seconds of processor time by stage, from any thread."""

    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, stage: str, seconds: float) -> None:
        """Count more seconds of a stage."""
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def measured(self, stage: str, work: Callable[[T], R]) -> Callable[[T], R]:
        """The same work, its thread's processor time counted."""

        def timed(item: T) -> R:
            begin = time.thread_time()
            try:
                return work(item)
            finally:
                self.add(stage, time.thread_time() - begin)

        return timed

    def drawn(self, stage: str, items: Iterable[T]) -> Generator[T]:
        """The same items, the processor time of the thread that draws them counted."""
        begin = time.thread_time()
        for item in items:
            self.add(stage, time.thread_time() - begin)
            yield item
            begin = time.thread_time()
        self.add(stage, time.thread_time() - begin)
