"""The command line when it is stopped, cut off from its terminal, or short of memory, threads, files and disk."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rasterio

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples" / "S2_MSIL1C_T18SVG_extract.SAFE"
START = [sys.executable, "-m", "training_cli.start"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")


def start(*words: str | Path, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*START, *map(str, words)], text=True, env=environment, **piped)  # type: ignore[call-overload,no-any-return]


def decoded(path: Path) -> bool:
    with rasterio.open(path) as dataset:
        return bool(dataset.read().any())


@pytest.fixture
def stalled() -> Iterator[str]:
    """The address of a server that takes every request and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def take() -> None:
            while True:
                try:
                    kept.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@posix
@pytest.mark.parametrize("after", [0.15, 0.4, 0.8])
def test_ctrl_c_while_the_packages_are_loaded(after, tmp_path):
    process = start("simulate", "none.tif", "-o", tmp_path / "o.tif")
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    # An error may have been quicker; Python's own start, before any of our lines, is not ours.
    assert process.returncode in (130, 2, 1, -signal.SIGINT), errors
    if process.returncode == 130:
        assert "Traceback" not in errors


@posix
@pytest.mark.parametrize(("number", "times", "limit"), [(signal.SIGTERM, 1, 14), (signal.SIGINT, 2, 6)])
def test_a_server_that_stalls_keeps_no_job_alive(tmp_path, stalled, number, times, limit):
    item = {
        "type": "Feature",
        "id": "S2A_33TWL",
        "collection": "sentinel-2-l1c",
        "properties": {"datetime": "2023-08-15T10:00:00Z", "s2:processing_baseline": "05.09"},
        "assets": {band: {"href": f"{stalled}/{band}.tif"} for band in ("B02", "B03", "B04", "B08", "B05")},
    }
    source, output = tmp_path / "item.json", tmp_path / "out" / "o.tif"
    output.parent.mkdir()
    source.write_text(json.dumps(item))
    process = start("super-resolve", source, "-o", output, "--model", "sharpen_20m")
    time.sleep(4)
    assert process.poll() is None, process.communicate()[1]
    begin = time.monotonic()
    for _ in range(times):
        process.send_signal(number)
        time.sleep(0.3)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number, errors
    assert time.monotonic() - begin < limit
    assert "Stopped" in errors
    assert "Traceback" not in errors
    assert os.listdir(output.parent) == []


STUCK = """
import sys, threading
from s2sr_qgis.core import jobs
from s2sr_qgis.core.outputs import atomic
from training_cli.main import app

def run(job, progress):
    # As a reader that waits for a server, in a thread that Python would join.
    threading.Thread(target=threading.Event().wait).start()
    return {}

jobs.run = run
app(["simulate", "a.tif", "-o", "o.tif"])
"""


def test_a_reader_that_hangs_does_not_keep_a_finished_job():
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "Done in" in done.stderr


@posix
@pytest.mark.parametrize("closed", ["2>&- >&- <&-", "2>/dev/full", ">/dev/full"])
def test_the_job_goes_on_without_a_terminal(tmp_path, closed):
    if "/dev/full" in closed and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    output = tmp_path / "o.tif"
    words = " ".join([*START, "super-resolve", str(SAMPLE), "-o", str(output), "--model", "sharpen_20m"])
    done = subprocess.run(["sh", "-c", f"{words} {closed}"], cwd=ROOT, timeout=120, capture_output=True, text=True)
    if closed == ">/dev/full":
        assert done.returncode == 1
        assert "could not be printed (No space left on device)" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
    assert decoded(output)
    assert os.listdir(tmp_path) == ["o.tif"]


@posix
def test_the_job_goes_on_when_its_pipes_are_closed(tmp_path):
    process = start("super-resolve", SAMPLE, "-o", tmp_path / "o.tif", "--model", "sharpen_20m")
    for stream in (process.stdout, process.stderr):
        assert stream
        stream.close()
    assert process.wait(timeout=120) == 0
    assert decoded(tmp_path / "o.tif")


LACKS = """
import errno
from s2sr_qgis.core import jobs
from training_cli.main import app

def run(job, progress):
    raise {error}

jobs.run = run
app(["simulate", "a.tif", "-o", "o.tif"])
"""


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("MemoryError()", "not enough memory"),
        ("RuntimeError('std::bad_alloc')", "not enough memory"),
        ('RuntimeError("can\'t start new thread")', "no thread could be started"),
        ("OSError(errno.ENOSPC, 'No space left on device', '/a/state.json')", r"The disk is full (/a/state.json)"),
        ("OSError(errno.EMFILE, 'Too many open files')", "Too many files are open"),
    ],
)
def test_what_the_machine_lacks_is_one_sentence(error, sentence):
    code = LACKS.format(error=error)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "report it" not in done.stderr


@posix
@pytest.mark.parametrize("gigabytes", [0.7, 1.2, 2])
def test_a_limit_of_the_address_space(tmp_path, gigabytes):
    """GDAL waits for ever for threads that it could not start."""
    import resource

    limit = int(gigabytes * 2**30)
    process = start(
        *("super-resolve", SAMPLE, "-o", tmp_path / "o.tif", "--model", "sharpen_20m"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    _, errors = process.communicate(timeout=100)
    assert "report it" not in errors
    if process.returncode == 0:
        assert decoded(tmp_path / "o.tif")
    else:
        assert os.listdir(tmp_path) == []


@posix
def test_onnx_runtime_sends_and_keeps_nothing(tmp_path):
    """Its wheels make a persistent identifier in the user's cache as soon as they are imported."""
    script = "from s2sr_qgis.core.inference.model import devices; devices(); import time; time.sleep(1)"
    hidden = {"CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
