"""The worker process: a job as JSON on standard input, events as JSON lines on standard output (protocol 1).

Run by path (`python -s -u -X utf8 worker.py`) by the plugin's runner, with any Python from 3.10 on. After the job,
standard input takes ``{"cmd": "cancel"}``; its end means that the parent is gone, and the worker stops too.
"""

from __future__ import annotations

import _thread
import importlib.util
import io
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROTOCOL = 1
OLDEST = (3, 10)
ORPHAN_ASK, ORPHAN_TERMINATE = 3.0, 10.0
"""Seconds that a worker without parent has: until it is interrupted, until it ends without ado."""


class Protocol:
    """Writes events, one JSON object a line, on what was standard output when the process began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clean: Callable[[Any], Any] = lambda value: value
        """What each event passes through; set as soon as the package can be imported."""
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
        # From here on whatever prints, native code included, goes to standard error and cannot break the protocol.
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def event(self, event: str, **values: Any) -> None:
        """Write one event; a parent that no longer reads is noticed on standard input."""
        line = json.dumps(self.clean({"event": event, **values}), default=_plain)
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except OSError:
            return


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


class Stop:
    """The wish to stop, from a cancel message, from the end of standard input or from SIGTERM."""

    def __init__(self, stream: io.FileIO) -> None:
        self.asked = threading.Event()
        self._stream = stream
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while line := self._stream.readline():
            try:
                command = json.loads(line).get("cmd")
            except (ValueError, AttributeError, RecursionError):
                continue
            if command == "cancel":
                self.asked.set()
        self.asked.set()
        time.sleep(ORPHAN_ASK)
        if hasattr(signal, "pthread_kill"):
            # To the main thread itself, which may be asleep in a system call.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        else:
            _thread.interrupt_main(signal.SIGTERM)
        time.sleep(ORPHAN_TERMINATE - ORPHAN_ASK)
        os._exit(3)


def main() -> int:
    """Run one job; the exit status is 0 on success and 1 otherwise."""
    protocol = Protocol()
    if sys.version_info < OLDEST:
        needed = ".".join(map(str, OLDEST))
        protocol.event(
            "error",
            kind="environment",
            message=f"The worker's Python at {sys.executable} is {platform.python_version()}, too old.",
            hint=f"Python {needed} or newer is needed: run 'Set up the environment' or set another 'Worker Python'.",
        )
        return 1
    protocol.event("started", protocol=PROTOCOL, python=platform.python_version(), executable=sys.executable)
    # Unbuffered: a buffered stdin that a daemon thread waits on aborts the interpreter at its end.
    stream = io.FileIO(0, closefd=False)
    line = stream.readline()
    stop = Stop(stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return _run(line, protocol, stop)


def _run(line: bytes, protocol: Protocol, stop: Stop) -> int:
    _bind_package()
    from s2sr_qgis.core import processors, variables

    variables.own_packages_first()
    variables.drop_foreign()
    processors.bound_native_threads()
    try:
        from s2sr_qgis.core import errors, jobs
        from s2sr_qgis.core.leaving import resource_sentence
        from s2sr_qgis.core.progress import Level, Progress
        from s2sr_qgis.core.redaction import cleaned

        protocol.clean = cleaned
    except ModuleNotFoundError as error:
        _missing(protocol, error)
        return 1
    except ImportError as error:
        protocol.event("error", kind="environment", message=variables.import_sentence(error), hint="")
        return 1

    class Reporter(Progress):
        _last = 0.0

        def progress(self, percent: float, text: str = "") -> None:
            now = time.monotonic()
            if now - self._last > 0.1 or percent >= 100:
                self._last = now
                protocol.event("progress", percent=round(float(percent), 2), text=text)

        def log(self, text: str, level: Level = "info") -> None:
            protocol.event("log", level=level, text=text)

        def metric(self, **values: float) -> None:
            protocol.event("metric", **values)

        def artifact(self, name: str, path: str) -> None:
            protocol.event("artifact", name=name, path=path)

        def cancelled(self) -> bool:
            return stop.asked.is_set()

    def interrupted(number: int, frame: object) -> None:
        # An exception, unlike the signal's own effect, lets every context manager remove its unfinished file.
        stop.asked.set()
        raise errors.Cancelled("Interrupted; no output was written.")

    signal.signal(signal.SIGTERM, interrupted)
    try:
        try:
            job = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise errors.InputError("The first line on standard input is no job: not JSON.") from error
        protocol.event("result", outputs=jobs.run(jobs.parse(job), Reporter()))
        return 0
    except errors.Cancelled:
        protocol.event("cancelled")
    except errors.S2SRError as error:
        protocol.event("error", kind=error.kind, message=str(error), hint="")
    except ModuleNotFoundError as error:
        _missing(protocol, error)
    except ImportError as error:
        protocol.event("error", kind="environment", message=variables.import_sentence(error), hint="")
    except Exception as error:
        sentence = resource_sentence(error)
        if not sentence:
            raise
        protocol.event("error", kind="memory", message=sentence, hint="")
    return 1


def _bind_package() -> None:
    """Make this file's own package importable as `s2sr_qgis`, and nothing that lies beside it.

    The folder above may be QGIS's plugin folder, whose other packages must not shadow those of the environment; and
    the environment may hold another version of this package.
    """
    root = Path(__file__).resolve().parents[1]
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != here]
    spec = importlib.util.spec_from_file_location(
        "s2sr_qgis", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("s2sr_qgis", name="s2sr_qgis")
    module = importlib.util.module_from_spec(spec)
    sys.modules["s2sr_qgis"] = module
    spec.loader.exec_module(module)


def _missing(protocol: Protocol, error: ModuleNotFoundError) -> None:
    protocol.event(
        "error",
        kind="environment",
        message=f"The worker's Python at {sys.executable} lacks the package '{error.name}'.",
        hint="Run 'Set up the environment' (with training, for TensorFlow) or install the package there.",
    )


if __name__ == "__main__":
    status = main()
    if "s2sr_qgis.core.leaving" in sys.modules:
        sys.modules["s2sr_qgis.core.leaving"].leave(status)
    sys.exit(status)
