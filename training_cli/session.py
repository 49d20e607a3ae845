"""Runs one job for a terminal: progress, a live view of training, Ctrl-C, errors as one sentence, exit status."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import Cancelled, InputError, OutputError, S2SRError
from s2sr_qgis.core.leaving import leave_now, resource_sentence
from s2sr_qgis.core.progress import Level, Progress
from s2sr_qgis.core.redaction import printable
from s2sr_qgis.core.variables import import_sentence

from .console import console, is_terminal

USAGE, FAILURE = 2, 1
GRACE, HASTE = 10.0, 2.0
"""Seconds that a job has to stop, after the first signal and after the second."""

ROWS = 10
"""Epochs that the live view of a training shows."""


class TerminalProgress(Progress):
    """Shows what a job reports on stderr: live where that is a terminal, one line an event where it is a file."""

    def __init__(self, console: Console, debug: bool = False, live: bool | None = None) -> None:
        self.console = console
        on_terminal = is_terminal(console.file) and not console.is_dumb_terminal
        self.live = on_terminal if live is None else live
        self.debug = debug
        self.signal: int | None = None
        self.epochs: list[dict[str, float]] = []
        self._fresh = False
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._task = self._bars.add_task("Starting", total=100)
        self._live = Live(console=console, get_renderable=self._view, refresh_per_second=5, transient=True)
        self._said = (-10.0, "")

    def __enter__(self) -> TerminalProgress:
        if self.live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self.epochs and self.live:
            self.console.print(self._training())
        self._epoch_line()

    def progress(self, percent: float, text: str = "") -> None:
        """Move the bar; in a log file, a line at each new step or tenth."""
        self._bars.update(self._task, completed=percent, description=escape(printable(text)) or None)
        last, step = self._said
        quiet = self.live or self.epochs
        if not quiet and (percent - last >= 10 or (text and text != step and percent - last >= 1)):
            self._said = (percent, text)
            self._line(f"{percent:3.0f} %  {text}", "")

    def log(self, text: str, level: Level = "info") -> None:
        """One line above the bar."""
        if level != "debug" or self.debug:
            self._epoch_line()
            self._line(text, {"debug": "dim", "info": "", "warning": "yellow"}[level])

    def metric(self, **values: float) -> None:
        """A row of the training view: figures of one epoch belong together."""
        epoch = values.get("epoch")
        if self.epochs and epoch is not None and self.epochs[-1].get("epoch") == epoch:
            self.epochs[-1].update(values)
        else:
            self._epoch_line()
            self.epochs.append(dict(values))
        self._fresh = True

    def cancelled(self) -> bool:
        """Whether a signal asked to stop."""
        return self.signal is not None

    def _line(self, text: str, style: str) -> None:
        self.console.print(Text(text, style=style), soft_wrap=True)

    def _epoch_line(self) -> None:
        """In a log file, the present epoch's figures, unless they were said already."""
        if not self._fresh or self.live:
            return
        self._fresh = False
        self._line("  ".join(f"{label(name)} {figure(name, value)}" for name, value in self.epochs[-1].items()), "")

    def _view(self) -> Group:
        return Group(*([self._training()] if self.epochs else []), self._bars)

    def _training(self) -> Table:
        names = list(dict.fromkeys(name for row in self.epochs for name in row))
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            table.add_column(label(name), justify="right")
        best = min((row["valid_rmse"] for row in self.epochs if "valid_rmse" in row), default=None)
        for row in self.epochs[-ROWS:]:
            is_best = best is not None and row.get("valid_rmse") == best
            cells = (figure(name, row[name]) if name in row else "" for name in names)
            table.add_row(*cells, style="green" if is_best else "")
        return table


def label(name: str) -> str:
    """A metric's heading."""
    known = {"valid_rmse": "valid RMSE", "samples_per_s": "samples/s", "seconds_left": "time left"}
    return known.get(name, name.replace("_", " "))


def figure(name: str, value: float) -> str:
    """A metric's value: whole numbers, times, or four digits."""
    if name == "seconds_left":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}"


@contextmanager
def _stoppable(progress: TerminalProgress) -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or SIGHUP asks the job to stop; the second stops Python at once.

    SIGHUP comes where the terminal or the SSH session is closed; under nohup it stays ignored. A job that does not stop
    in `GRACE` seconds, or `HASTE` seconds after the second signal, is ended with its unfinished outputs removed: Python
    does not get to handle signals while it waits for a server.
    """
    count = 0

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count > 1:
            raise KeyboardInterrupt
        progress.signal = number
        with suppress(OSError):  # a terminal that was closed takes no text
            progress.log("Stopping; press Ctrl-C again to stop at once.", "warning")

    names = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    numbers = [number for number in (getattr(signal, name, None) for name in names) if number is not None]
    before = {number: signal.signal(number, ask) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    # Written to by the signal itself, whatever Python is doing.
    old = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiver, progress, set(before)), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(old)
        sender.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(receiver: socket.socket, progress: TerminalProgress, numbers: set[int]) -> None:
    """End the process when the job, asked to stop, goes on; ends itself with the job."""
    first: int | None = None
    with receiver:
        while True:
            try:
                received = receiver.recv(16)
            except TimeoutError:
                break
            if not received:
                return
            for number in received:
                if number in numbers:
                    receiver.settimeout(GRACE if first is None else HASTE)
                    first = first or number
                    progress.signal = progress.signal or first
    with suppress(Exception):
        sys.stderr.write("Stopped at once: the job did not stop by itself. No unfinished output was left.\n")
    leave_now(128 + (first or signal.SIGINT))


def run_job(collect: Callable[[], dict[str, Any]], debug: bool = False) -> tuple[jobs.Job, dict[str, Any]]:
    """Collect, validate and run a job; returns it with its outputs. Ends the process by `typer.Exit` on an error.

    Exit status: 1 for an error, 2 for an option that is not usable, 128 + signal (Ctrl-C: 130) when stopped.
    """
    errors = console(stderr=True)
    progress = TerminalProgress(errors, debug)
    try:
        job = jobs.parse(collect())
    except InputError as error:
        raise stop(errors, str(error), USAGE) from error
    # TensorFlow's native code greets on stderr otherwise.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if debug else "2")
    start = time.monotonic()
    try:
        with _stoppable(progress), progress:
            outputs = jobs.run(job, progress)
    except (Cancelled, KeyboardInterrupt) as error:
        text = str(error) or "Stopped at once."
        raise stop(errors, text, 128 + (progress.signal or signal.SIGINT), "yellow") from error
    except S2SRError as error:
        if debug:
            raise
        own = isinstance(error, OutputError) or "memory" in str(error).lower()
        lack = None if own else resource_sentence(error)
        raise stop(errors, lack or str(error), FAILURE) from error
    except ModuleNotFoundError as error:
        if debug:
            raise
        text = f"This environment lacks the package '{error.name}'; for training install s2sr with its 'train' extra."
        raise stop(errors, text, FAILURE) from error
    except ImportError as error:
        if debug:
            raise
        raise stop(errors, import_sentence(error), FAILURE) from error
    except Exception as error:
        if debug:
            raise
        text = resource_sentence(error) or (
            f"Unexpected {type(error).__name__}: {error}; --debug shows where, please report it."
        )
        raise stop(errors, " ".join(text.split()), FAILURE) from error
    progress.log(f"Done in {time.monotonic() - start:.1f} s.")
    return job, outputs


def stop(console: Console, text: str, status: int, style: str = "red") -> typer.Exit:
    """Say one sentence on stderr and give the exception that ends the process."""
    with suppress(OSError):  # a terminal that was closed takes no text
        console.print(Text(text, style=style), soft_wrap=True)
    return typer.Exit(status)
