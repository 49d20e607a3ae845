"""What the benchmarks share: runs in turn, spread, peak memory, contenders that work in processes of their own."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "samples" / "S2_MSIL1C_T18SVG_extract.SAFE"
CACHE = ROOT / ".cache" / "bench"
REPETITIONS = 5
"""Fewer show no spread."""


class Taken(NamedTuple):
    """Seconds of one call by the clock on the wall and of the processor's cores together."""

    wall: float
    processor: float


Runs = dict[str, list[Taken]]


def clocked(call: Callable[[], Any], least: float = 0.0) -> Taken:
    """What a call takes in this process; short ones are made until they took ``least`` seconds, the mean is told."""
    wall, processor = time.perf_counter(), time.process_time()
    calls = 0
    while not calls or time.perf_counter() - wall < least:
        call()
        calls += 1
    return Taken((time.perf_counter() - wall) / calls, (time.process_time() - processor) / calls)


def in_turn(calls: Mapping[str, Callable[[], Taken]], repetitions: int) -> Runs:
    """What each call takes in each repetition, the order turned round every time.

    What else the machine does strikes all calls of a repetition, so ratios are to be taken within one.
    """
    runs: Runs = {name: [] for name in calls}
    for repetition in range(repetitions):
        for name in list(calls) if repetition % 2 else list(calls)[::-1]:
            runs[name].append(calls[name]())
    return runs


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def wall(runs: Sequence[Taken]) -> dict[str, float]:
    """Spread of the seconds by the clock on the wall."""
    return spread([taken.wall for taken in runs])


def ratio(slower: Sequence[Taken], faster: Sequence[Taken], clock: Literal["wall", "processor"] = "wall") -> Any:
    """Spread of how many times faster, repetition by repetition."""
    return spread([getattr(a, clock) / getattr(b, clock) for a, b in zip(slower, faster, strict=True)])


def shown(values: Mapping[str, float], decimals: int) -> str:
    """Median and, in brackets, the range."""
    low, middle, high = (f"{values[key]:.{decimals}f}" for key in ("lowest", "median", "highest"))
    return f"{middle} ({low} to {high})"


def machine() -> dict[str, Any]:
    """What figures were measured on."""
    return {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}


def peak_memory() -> float | None:
    """Peak memory (MB) of this process; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent had before this process began
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return float(lines["VmHWM"].split()[0]) / 2**10
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class Worker:
    """A script in a process of its own that answers requests, one line of JSON each; see `serve`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        # A pipe that nobody reads would fill and stop the script.
        self._words = tempfile.TemporaryFile("w+")  # noqa: SIM115  it lives as long as the process
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env={**os.environ, **(env or {})},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request, wait for its answer. Raises `RuntimeError` with the script's last words where it failed."""
        given, told = self._process.stdin, self._process.stdout
        assert given is not None
        assert told is not None
        try:
            given.write(json.dumps(request) + "\n")
            given.flush()
            line = told.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            self._words.seek(0)
            last = [text.strip() for text in self._words if text.strip()]
            raise RuntimeError(last[-1] if last else f"ended with code {code}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def take(self, **request: Any) -> Taken:
        """The seconds in the answer to a request."""
        answer = self.ask(**request)
        return Taken(answer["wall"], answer["processor"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._words.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(work: Callable[..., Any]) -> None:
    """Do the requests of a `Worker` until there are no more; answer with the seconds and the peak memory so far.

    ``least`` in a request: see `clocked`. Only answers reach its standard output.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        least = request.pop("least", 0.0)
        taken = clocked(partial(work, **request), least)
        channel.write(json.dumps({**taken._asdict(), "peak_memory_mb": peak_memory()}) + "\n")
        channel.flush()
