"""The worker process: its protocol, and that it stops. Its jobs are stand-ins, run in a copy of the package."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CORE = Path(__file__).resolve().parents[2] / "s2sr_qgis" / "core"
JOBS = """
import os, sys, time
from pathlib import Path
from .errors import Cancelled, InputError

def parse(data):
    return data

def run(job, progress):
    does = job["does"]
    if does == "speak":
        import numpy
        print("printed")
        os.write(1, b"written by native code\\\\n")
        progress.progress(12.345, "tile")
        progress.log("careful", "warning")
        progress.metric(epoch=1, loss=numpy.float32(0.5))
        progress.artifact("output", "/a/ü.tif")
        return {"number": numpy.float64(1.5), "count": numpy.int64(3), "path": Path("/a/b"), "missing": float("nan")}
    if does == "paths":
        import s2sr_qgis
        return {"path": sys.path, "package": s2sr_qgis.__file__, "name": __name__}
    if does == "import":
        import a_package_that_is_not_there
    if does == "input error":
        raise InputError("The scene is upside down.")
    if does == "bug":
        raise RuntimeError("a bug")
    if does == "memory":
        raise MemoryError
    part = Path(job["part"])
    part.write_text("half done")
    try:
        progress.log("working")
        if does == "check":
            while True:
                progress.check()
                time.sleep(0.05)
        if does == "sleep":
            time.sleep(60)
        while does == "never stop":
            try:
                time.sleep(60)
            except BaseException:
                pass
    finally:
        part.unlink()
"""


class Worker:
    """A running worker and the events it has said."""

    def __init__(self, script: Path, job: Any, python: tuple[str, ...] = (sys.executable,)) -> None:
        self.process = subprocess.Popen(
            [*python, "-s", "-u", "-X", "utf8", str(script)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
        self.send(job if isinstance(job, str) else json.dumps(job))

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def until(self, kind: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event: dict[str, Any] = json.loads(line)
            if event["event"] == kind:
                return event
        raise AssertionError(f"no {kind}")

    def end(self, timeout: float = 20) -> tuple[int, list[dict[str, Any]], str]:
        """Exit status, the events not yet read, standard error. Standard input stays open."""
        stdin, self.process.stdin = self.process.stdin, None
        out, err = self.process.communicate(timeout=timeout)
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], err


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package with stand-in jobs; returns the worker's script."""
    core = tmp_path / "plugins" / "s2sr_qgis" / "core"
    core.mkdir(parents=True)
    (core.parent / "__init__.py").write_text("")
    for name in (
        "__init__.py",
        "errors.py",
        "leaving.py",
        "outputs.py",
        "processors.py",
        "progress.py",
        "redaction.py",
        "variables.py",
        "worker.py",
    ):
        shutil.copy(CORE / name, core / name)
    (core / "jobs.py").write_text(JOBS.replace("\\\\n", "\\n"))
    return core / "worker.py"


@pytest.fixture
def working(package: Path, tmp_path: Path) -> Iterator[Any]:
    """Starts a job that has a half-done file; the worker is killed at the end, whatever it does."""
    started: list[Worker] = []

    def start(does: str) -> Worker:
        started.append(Worker(package, {"does": does, "part": str(tmp_path / "part")}))
        assert started[-1].until("log")["text"] == "working"
        assert (tmp_path / "part").exists()
        return started[-1]

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()


def run(script: Path, job: Any, **options: Any) -> tuple[int, list[dict[str, Any]], str]:
    return Worker(script, job, **options).end()


def test_events_alone_are_on_standard_output(package: Path) -> None:
    status, events, errors = run(package, {"does": "speak"})
    assert status == 0
    assert [event.pop("event") for event in events] == ["started", "progress", "log", "metric", "artifact", "result"]
    started, progress, log, metric, artifact, result = events
    assert started["protocol"] == 1
    assert started["python"] == ".".join(map(str, sys.version_info[:3]))
    assert progress == {"percent": 12.35, "text": "tile"} or progress == {"percent": 12.34, "text": "tile"}
    assert log == {"level": "warning", "text": "careful"}
    assert metric == {"epoch": 1, "loss": 0.5}
    assert artifact == {"name": "output", "path": "/a/ü.tif"}
    missing = result["outputs"].pop("missing")
    assert missing != missing
    assert result["outputs"] == {"number": 1.5, "count": 3, "path": "/a/b"}
    assert "printed" in errors
    assert "written by native code" in errors


def test_only_the_package_itself_is_added_to_what_can_be_imported(package: Path) -> None:
    _, events, _ = run(package, {"does": "paths"})
    found = events[-1]["outputs"]
    assert found["package"] == str(package.parents[1] / "__init__.py")
    assert found["name"] == "s2sr_qgis.core.jobs"
    assert str(package.parent) not in found["path"], "core/jobs.py is no top-level module"
    assert str(package.parents[2]) not in found["path"], "QGIS's plugin folder holds other packages"


@pytest.mark.parametrize(
    ("does", "kind", "message"),
    [
        ("input error", "input", "The scene is upside down."),
        ("import", "environment", "lacks the package 'a_package_that_is_not_there'"),
        ("memory", "memory", "not enough memory"),
    ],
)
def test_errors_are_told(package: Path, does: str, kind: str, message: str) -> None:
    status, events, _ = run(package, {"does": does})
    assert status == 1
    assert events[-1]["event"] == "error"
    assert events[-1]["kind"] == kind
    assert message in events[-1]["message"]


def test_a_bug_ends_with_a_traceback(package: Path) -> None:
    status, events, errors = run(package, {"does": "bug"})
    assert status == 1
    assert [event["event"] for event in events] == ["started"]
    assert "RuntimeError: a bug" in errors


def test_a_line_that_is_no_job(package: Path) -> None:
    status, events, _ = run(package, "super-resolve please")
    assert status == 1
    assert events[-1]["kind"] == "input"
    assert "no job" in events[-1]["message"]


def test_cancel_by_message(working: Any, tmp_path: Path) -> None:
    worker = working("check")
    worker.send("nonsense")
    worker.send('{"cmd": "cancel"}')
    status, events, _ = worker.end(5)
    assert (status, events) == (1, [{"event": "cancelled"}])
    assert not (tmp_path / "part").exists()


def test_the_end_of_standard_input_cancels(working: Any, tmp_path: Path) -> None:
    worker = working("check")
    worker.process.stdin.close()
    assert worker.process.wait(timeout=5) == 1
    assert not (tmp_path / "part").exists()


def test_terminate_interrupts_and_cleans_up(working: Any, tmp_path: Path) -> None:
    worker = working("sleep")
    worker.process.terminate()
    status, events, _ = worker.end(5)
    assert (status, events) == (1, [{"event": "cancelled"}])
    assert not (tmp_path / "part").exists()


def test_interrupts_of_the_terminal_are_the_parents_business(working: Any) -> None:
    worker = working("check")
    worker.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert worker.process.poll() is None
    worker.send('{"cmd": "cancel"}')
    assert worker.end(5)[0] == 1


def test_an_orphan_that_does_not_look_is_interrupted(working: Any, tmp_path: Path) -> None:
    worker = working("sleep")
    worker.process.stdin.close()
    assert worker.process.wait(timeout=8) == 1
    assert not (tmp_path / "part").exists()


@pytest.mark.slow
def test_an_orphan_that_will_not_stop_is_stopped(working: Any) -> None:
    worker = working("never stop")
    worker.process.stdin.close()
    assert worker.process.wait(timeout=20) == 3


def test_a_parent_killed_outright_leaves_no_worker(package: Path, tmp_path: Path) -> None:
    job = json.dumps({"does": "check", "part": str(tmp_path / "part")})
    code = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, {str(package)!r}], stdin=subprocess.PIPE, start_new_session=True)\n"
        f"p.stdin.write({job!r}.encode() + b'\\n'); p.stdin.flush(); print(p.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    waited = time.monotonic() + 10
    while not (tmp_path / "part").exists():
        assert time.monotonic() < waited
        time.sleep(0.05)
    parent.kill()
    parent.communicate()
    while (tmp_path / "part").exists():
        assert time.monotonic() < waited + 10
        time.sleep(0.05)
    time.sleep(0.5)
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    assert os.getpid() != pid


def test_a_python_that_is_too_old_is_told_so(package: Path) -> None:
    text = package.read_text().replace("OLDEST = (3, 10)", "OLDEST = (99, 1)")
    package.write_text(text)
    status, events, _ = run(package, {"does": "speak"})
    assert status == 1
    assert events[0]["kind"] == "environment"
    assert "too old" in events[0]["message"]
    assert "99.1 or newer" in events[0]["hint"]


def test_the_real_worker_refuses_what_is_no_job() -> None:
    status, events, _ = run(CORE / "worker.py", {"job": "super_resolve", "scene": "a", "output": "b", "colour": 1})
    assert status == 1
    assert events[-1]["kind"] == "input"
    assert "colour" in events[-1]["message"]


def test_the_real_worker_checks_its_environment() -> None:
    status, events, errors = run(CORE / "worker.py", {"job": "check_environment"})
    assert status == 0, errors
    found = events[-1]["outputs"]
    assert found["executable"] == sys.executable
    assert found["devices"][-1] == "cpu"
    assert found["packages"]["numpy"][0].isdigit()
    assert isinstance(found["training"], bool)
    assert ("cpu" in found["training_devices"]) == found["training"]
