"""Runs one job of `core.jobs` in a worker process and turns its events into Processing feedback."""

from __future__ import annotations

import glob
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from qgis.core import QgsProcessingException, QgsProcessingFeedback

from .interpreter import PROTOCOL, WORKER, find_python
from .process import Child
from .text import tr


def run_job(job: dict[str, Any], feedback: QgsProcessingFeedback, python: str = "") -> dict[str, Any]:
    """Run a job to its end and return its outputs. Raises `QgsProcessingException` on any failure and on cancel."""
    command = [python or find_python(feedback), "-s", "-u", "-X", "utf8", str(WORKER)]
    feedback.pushCommandInfo(" ".join(command))
    feedback.setProgress(0)
    child = Child(command)
    events = _Events(feedback)
    try:
        child.send(json.dumps(job))
        status = child.follow(feedback, events.take, lambda: child.send('{"cmd": "cancel"}'))
    finally:
        if child.process.returncode != 0:
            _sweep(job)
    if events.problem:
        raise QgsProcessingException(events.problem)
    if status or events.outputs is None:
        if status == 1:
            text = tr("The worker failed unexpectedly; this is a fault of s2sr, please report it with the text below.")
        else:
            text = tr("The worker stopped unexpectedly (exit status {}); it may have run out of memory.").format(status)
        raise QgsProcessingException("\n".join(filter(None, (text, child.errors_tail))))
    return events.outputs


def _sweep(job: dict[str, Any]) -> None:
    """Remove the unfinished outputs that a killed worker could not remove; their names are `core.outputs`'s.

    What a living process writes, such as another job of the same output, has a lock that is held; it stays.
    """
    for target in filter(None, map(job.get, ("output", "json_file", "report", "map"))):
        path = Path(target)
        for left in path.parent.glob(f".{glob.escape(path.name)}-????????.part"):
            if not left.is_symlink() and not _in_use(left / "lock"):
                shutil.rmtree(left, ignore_errors=True)


def _in_use(lock: Path) -> bool:
    try:
        if sys.platform == "win32":
            lock.unlink()  # not while a process has it open
            return False
        import fcntl

        with lock.open("r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except FileNotFoundError:
        return False
    except OSError:
        return True


class _Events:
    """What the worker has said so far."""

    def __init__(self, feedback: QgsProcessingFeedback) -> None:
        self._feedback = feedback
        self._text = ""
        self._handlers = {
            "started": self._started,
            "progress": self._progress,
            "log": self._log,
            "metric": self._metric,
            "artifact": self._artifact,
            "result": self._result,
            "error": self._error,
            "cancelled": self._cancelled,
        }
        self.outputs: dict[str, Any] | None = None
        self.problem = ""

    def take(self, line: str) -> None:
        try:
            event = json.loads(line)
            handler = self._handlers[event["event"]]
        except (ValueError, TypeError, KeyError):
            self._feedback.pushConsoleInfo(line.rstrip())
            return
        handler(event)

    def _started(self, event: dict[str, Any]) -> None:
        if event.get("protocol") != PROTOCOL:
            self.problem = tr("The worker speaks protocol {}, the plugin {}; install the plugin again.").format(
                event.get("protocol"), PROTOCOL
            )
        self._feedback.pushDebugInfo(tr("Worker: Python {}").format(event.get("python", "?")))

    def _progress(self, event: dict[str, Any]) -> None:
        self._feedback.setProgress(float(event.get("percent") or 0))
        text = str(event.get("text") or "")
        if text and text != self._text:
            self._text = text
            self._feedback.setProgressText(text)

    def _log(self, event: dict[str, Any]) -> None:
        push = {"warning": self._feedback.pushWarning, "debug": self._feedback.pushDebugInfo}
        push.get(event.get("level"), self._feedback.pushInfo)(str(event.get("text", "")))

    def _metric(self, event: dict[str, Any]) -> None:
        named = (f"{name} {value:.5g}" for name, value in event.items() if isinstance(value, (int, float)))
        self._feedback.pushInfo(", ".join(named))

    def _artifact(self, event: dict[str, Any]) -> None:
        self._feedback.pushInfo(tr("{}: {}").format(event.get("name", ""), event.get("path", "")))

    def _result(self, event: dict[str, Any]) -> None:
        self.outputs = event.get("outputs") or {}

    def _error(self, event: dict[str, Any]) -> None:
        self.problem = " ".join(filter(None, (event.get("message"), event.get("hint")))) or tr("The worker failed.")

    def _cancelled(self, event: dict[str, Any]) -> None:
        self.problem = tr("The worker was stopped; no output was written.")
