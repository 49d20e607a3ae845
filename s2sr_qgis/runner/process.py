"""Child processes that a Processing algorithm can cancel for certain."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from qgis.core import QgsProcessingException, QgsProcessingFeedback
from qgis.PyQt.QtCore import QCoreApplication

from .interpreter import clean_environment
from .text import tr

ASK, TERMINATE, ABANDON = 3.0, 6.0, 12.0
"""Seconds after a cancel: until the child is told to terminate, until it is killed, until it is left alone."""

TAIL = 2000
"""Bytes of a child's standard error that are kept."""


class Child:
    """A process in its own group: lines of its standard output in a queue, standard error in a temporary file.

    ``errors_tail``: the end of what it wrote to standard error, once it has been followed.
    """

    errors_tail = ""

    def __init__(self, command: list[str], merge_errors: bool = False) -> None:
        # Its own session: Ctrl-C in the terminal of qgis_process reaches QGIS alone, and the group can be killed whole.
        apart: dict[str, Any] = (
            {"creationflags": subprocess.CREATE_NO_WINDOW} if sys.platform == "win32" else {"start_new_session": True}
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        try:
            # A list and no shell; the program is a Python or uv of the user's own machine.
            self.process = subprocess.Popen(  # noqa: S603  # nosec B603
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merge_errors else self._errors,
                text=True, encoding="utf-8", errors="replace", env=clean_environment(), **apart,
            )  # fmt: skip
        except OSError as error:
            self._errors.close()
            raise QgsProcessingException(
                tr("The program {} cannot be started ({}).").format(command[0], error.strerror or error)
            ) from error
        self._lines: queue.Queue = queue.Queue()
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        with self.process.stdout as stream:
            for line in stream:
                self._lines.put(line)
        self._lines.put(None)

    def send(self, text: str) -> None:
        """Write one line to the child; a child that is gone already is noticed elsewhere."""
        try:
            self.process.stdin.write(text + "\n")
            self.process.stdin.flush()
        except (OSError, ValueError):
            return

    def follow(
        self, feedback: QgsProcessingFeedback, on_line: Callable[[str], None], on_cancel: Callable[[], None]
    ) -> int:
        """Hand every line to `on_line` until the child ends; returns its exit status. Raises after a cancel."""
        try:
            self._follow(feedback, on_line, on_cancel)
        finally:
            if self.process.poll() is None:
                self.kill()
            self.send_end()
            self._errors.seek(0)
            self.errors_tail = self._errors.read()[-TAIL:].decode("utf-8", errors="replace").strip()
            self._errors.close()
        if feedback.isCanceled():
            raise QgsProcessingException(tr("Canceled."))
        return self.process.wait()

    def _follow(
        self, feedback: QgsProcessingFeedback, on_line: Callable[[str], None], on_cancel: Callable[[], None]
    ) -> None:
        canceled_at = ended_at = None
        terminated = killed = closed = False
        while True:
            QCoreApplication.processEvents()  # qgis_process serves Ctrl-C only here
            now = time.monotonic()
            if feedback.isCanceled():
                if canceled_at is None:
                    canceled_at = now
                    on_cancel()
                if now - canceled_at > ABANDON:
                    return
                if now - canceled_at > TERMINATE and not killed:
                    killed = True
                    self.kill()
                elif now - canceled_at > ASK and not terminated:
                    terminated = True
                    self.process.terminate()
            if self.process.poll() is not None:
                ended_at = ended_at or now
                # A grandchild may hold the pipe open for ever: the end of the process is an end too.
                if closed or (self._lines.empty() and now - ended_at > 2):
                    return
            try:
                line = self._lines.get(timeout=0.1)
            except queue.Empty:
                continue
            if line is None:
                closed = True
            else:
                on_line(line)

    def send_end(self) -> None:
        """Close the child's standard input, which tells a worker that its parent is gone."""
        try:
            self.process.stdin.close()
        except OSError:
            return

    def kill(self) -> None:
        """End the child and its own children at once."""
        if sys.platform == "win32":
            taskkill = os.path.join(os.environ.get("SYSTEMROOT", "C:\\Windows"), "System32", "taskkill.exe")
            command = [taskkill, "/F", "/T", "/PID", str(self.process.pid)]
            subprocess.run(command, capture_output=True, check=False)  # noqa: S603  # nosec B603
        else:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return
