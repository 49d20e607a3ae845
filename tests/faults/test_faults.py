"""Random faults at random moments: signals, full disks, limits, closed pipes, folders that go, servers that lie.

`make test-faults FAULTS=300 SEED=7` runs them. Whatever happens to a job, it holds that

- it ends in time, and no process is left;
- no damaged file has a final name;
- status 0 means the result of an undisturbed run; any other comes with a sentence, and without a traceback;
- after the next run of the same job, nothing unfinished is left.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from products import L1C_BANDS, make_band_folder, make_stac_item, make_stack
from rasterio.transform import from_origin
from small_disk import resize, small_disk
from stac_server import running_server

COUNT = int(os.environ.get("FAULTS", "0"))
SEED = int(os.environ.get("SEED", "0") or random.SystemRandom().randrange(10**6))
ROOT = Path(__file__).resolve().parents[2]
START = [sys.executable, "-m", "training_cli.start"]
LIMIT = 150.0
"""Seconds that any job may take, on a busy machine."""

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(COUNT == 0, reason="`make test-faults` runs them"),
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits"),
]


@dataclass(frozen=True)
class Job:
    """A command whose outputs go to one folder; ``seconds``: about how long it takes on an idle machine."""

    words: Callable[[Path], list[str]]
    outputs: tuple[str, ...]
    seconds: float = 3.0


@dataclass
class World:
    """The inputs of all jobs, and what undisturbed runs gave."""

    jobs: dict[str, Job]
    servers: dict[str, Job]
    server: Liar
    expected: dict[str, dict[str, Any]] = field(default_factory=dict)


class Liar(ThreadingHTTPServer):
    """Serves the files of a folder, truly or as ``mode`` says: stall, reset, short, html, error."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Liar)
        self.folder, self.mode, self.after = folder, "", 0
        self.requests = 0
        self.release = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went."""


class _Liar(BaseHTTPRequestHandler):
    server: Liar

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server = self.server
        server.requests += 1
        mode = server.mode if server.requests > server.after else ""
        path = server.folder / self.path.lstrip("/").partition("?")[0]
        if mode == "stall":
            server.release.wait(LIMIT)
            return
        if mode == "reset":
            self.connection.close()
            return
        if mode == "error":
            self.send_error(500)
            return
        data = path.read_bytes() if path.is_file() else b""
        if mode == "html":
            data = b"<html><body>Please log in.</body></html>"
        span = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
        start, end = int(span[0] or 0), min(int(span[2] or len(data) - 1), len(data) - 1)
        part = data[start : end + 1]
        self.send_response(206 if span[0] else 200)
        if span[0]:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
        self.send_header("Content-Length", str(len(part) + (5000 if mode == "short" else 0)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(part)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("inputs")
    scene = make_band_folder(folder / "scene", size=240, bands=L1C_BANDS)
    level = ["--processing-level", "L1C"]
    for name, shift in (("a", 0.0), ("b", 40.0)):
        image = np.random.default_rng(0).normal(3000, 500, (4, 260, 260)) + shift
        profile = {"width": 260, "height": 260, "count": 4, "dtype": "float32", "crs": "EPSG:32631"}
        with rasterio.open(folder / f"{name}.tif", "w", transform=from_origin(6e5, 5.4e6, 2.5, 2.5), **profile) as file:
            file.write(image.astype(np.float32))
    a, b = str(folder / "a.tif"), str(folder / "b.tif")
    stack = make_stack(folder / "stack.tif", size=360)
    with ExitStack() as stack_of:
        stac = stack_of.enter_context(running_server())
        for number in range(3):
            stac.add_scene(f"S{number}", np.full((100, 100), 4, np.uint8), folder=folder)
        liar = Liar(folder / "remote")
        stack_of.callback(liar.shutdown)
        remote = make_stac_item(folder / "remote", size=240, href=f"{liar.url}/{{file}}")
        data = folder / "data"
        small = ["--licence", "CC0-1.0", "--patch-size", "16", "--block-size", "2", *level]
        undisturbed(["dataset", "sharpening", str(stack), "-o", str(data), *small])
        area = "600100,5398500,601500,5399900 [EPSG:32631]"
        dates = ["--start", "2023-08-01", "--end", "2023-08-30"]
        tiny = ["--epochs", "2", "--steps-per-epoch", "3", "--batch-size", "2", "--images", "0"]
        tiny += ["--network-option", "blocks=1", "--network-option", "features=8"]
        sharp = ["--model", "sharpen_20m_fast", "--threads", "2"]
        yield World(
            {
                "super-resolve": Job(
                    lambda to: ["super-resolve", str(scene), "-o", str(to / "o.tif"), *sharp, *level], ("o.tif",)
                ),
                "evaluate": Job(
                    lambda to: [
                        *("evaluate", "sharpen_20m_fast", str(scene), *level),
                        *("--json", str(to / "o.json"), "--report", str(to / "o.html")),
                    ],
                    ("o.json", "o.html"),
                ),
                "similarity": Job(
                    lambda to: ["similarity", a, b, "--map", str(to / "o.tif"), "--json", str(to / "o.json")],
                    ("o.tif", "o.json"),
                ),
                "simulate": Job(lambda to: ["simulate", a, "-o", str(to / "o.tif")], ("o.tif",), 2.0),
                "sharpening": Job(
                    lambda to: ["dataset", "sharpening", str(stack), "-o", str(to / "data"), *small], ("data",)
                ),
                "search": Job(
                    lambda to: ["search", area, *dates, "--catalog", stac.url, "-o", str(to / "o.geojson")],
                    ("o.geojson",),
                    2.0,
                ),
                "train": Job(lambda to: ["train", str(data), "-o", str(to / "run"), *tiny], ("run",), 15.0),
            },
            {
                "remote": Job(
                    lambda to: ["super-resolve", str(remote), "-o", str(to / "o.tif"), *sharp], ("o.tif",), 4.0
                ),
            },
            liar,
        )


def undisturbed(words: list[str]) -> None:
    done = subprocess.run([*START, *words], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr


def content(path: Path) -> Any:
    """What a complete output holds; raises where it is damaged."""
    if path.is_dir():
        return {child.name: content(child) for child in sorted(path.iterdir()) if child.name != "tensorboard"}
    if path.suffix == ".tif":
        with rasterio.open(path) as dataset:
            for level in range(len(dataset.overviews(1))):
                with rasterio.open(path, OVERVIEW_LEVEL=level) as overview:
                    overview.read()
            return dataset.read()
    if path.suffix in (".json", ".geojson"):
        return json.loads(path.read_text())
    if path.suffix == ".yaml":
        return yaml.safe_load(path.read_text())
    if path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")
    assert path.stat().st_size, f"{path} is empty"
    return None


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    return True


def unfinished(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob(".*")] if folder.is_dir() else []


@dataclass
class Fault:
    """A fault and the means that it needs: of the start, of the time while the job runs."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    act: Callable[[subprocess.Popen[str]], None] = lambda process: None
    may_abort: bool = False


def limited(which: str, value: int) -> Callable[[], None]:
    def limit() -> None:
        import resource

        resource.setrlimit(getattr(resource, which), (value, value))

    return limit


def make_fault(rng: random.Random, job: Job, folder: Path, disk: bool) -> Fault:
    """Any fault of a machine, drawn by the generator."""
    kinds = ["signal"] * 8 + ["file size"] * 3 + ["memory"] * 3 + ["files"] * 2 + ["pipe"] * 2 + ["vanish"] * 2
    kinds += ["disk"] * 6 + ["readonly"] * 2 if disk else []
    kind = rng.choice(kinds)
    moment = rng.uniform(0, job.seconds * 1.6)
    if kind == "signal":
        number = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])

        def send(process: subprocess.Popen[str]) -> None:
            time.sleep(moment)
            process.send_signal(number)

        return Fault(f"{number.name} after {moment:.2f} s", act=send)
    if kind == "pipe":
        stream = rng.choice(["stdout", "stderr"])

        def close(process: subprocess.Popen[str]) -> None:
            time.sleep(moment)
            getattr(process, stream).close()

        return Fault(f"{stream} closed after {moment:.2f} s", act=close)
    if kind == "vanish":

        def rename(process: subprocess.Popen[str]) -> None:
            time.sleep(moment)
            with suppress(OSError):
                shutil.rmtree(folder, ignore_errors=True)

        return Fault(f"folder removed after {moment:.2f} s", act=rename)
    if kind == "readonly":

        def remount(process: subprocess.Popen[str]) -> None:
            time.sleep(moment)
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=False, capture_output=True)

        return Fault(f"folder read-only after {moment:.2f} s", act=remount)
    size = int(2 ** rng.uniform(2, 12.5))
    if kind == "disk":
        return Fault(f"disk of {size} kB", act=lambda process: None, options={"disk": size})
    if kind == "file size":
        return Fault(f"files of {size} kB", options={"preexec_fn": limited("RLIMIT_FSIZE", size * 1024)})
    if kind == "files":
        count = rng.randrange(8, 80)
        return Fault(f"{count} open files", options={"preexec_fn": limited("RLIMIT_NOFILE", count)})
    space = int(rng.uniform(0.15, 4) * 2**30)
    limit = {"preexec_fn": limited("RLIMIT_AS", space)}
    # std::bad_alloc in a thread of a library ends a process; nobody can catch it.
    return Fault(f"{space / 2**30:.2f} GB of memory", options=limit, may_abort=True)


def make_server_fault(rng: random.Random, server: Liar) -> Fault:
    mode, after = rng.choice(["stall", "stall", "reset", "short", "html", "error"]), rng.randrange(12)
    server.mode, server.after, server.requests = mode, after, 0
    server.release.clear()
    if mode != "stall" and rng.random() < 0.7:
        return Fault(f"server: {mode} after {after} requests")
    number = rng.choice([signal.SIGINT, signal.SIGTERM])
    moment = rng.uniform(2, 8)

    def send(process: subprocess.Popen[str]) -> None:
        time.sleep(moment)
        process.send_signal(number)

    return Fault(f"server: {mode} after {after} requests, {number.name} after {moment:.1f} s", act=send)


def follow(fault: Fault, words: list[str]) -> tuple[int, str]:
    """Run a job with its fault; returns its status and what it wrote to standard error."""
    options = {key: value for key, value in fault.options.items() if key != "disk"}
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    process = subprocess.Popen([*START, *words], cwd=ROOT, start_new_session=True, **piped, **options)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(_all(process.stderr)), daemon=True)
    if not fault.name.startswith(("stderr", "stdout")):
        reader.start()
        threading.Thread(target=lambda: _all(process.stdout), daemon=True).start()
    try:
        fault.act(process)
        status = process.wait(timeout=LIMIT)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if reader.ident:
        reader.join(10)
    return status, "".join(said)


def _all(stream: Any) -> str:
    with suppress(ValueError, OSError):
        return str(stream.read())
    return ""


@pytest.mark.parametrize("number", range(COUNT))
def test_fault(world: World, tmp_path: Path, number: int) -> None:
    rng = random.Random(SEED * 100_003 + number)
    root = hasattr(os, "geteuid") and os.geteuid() == 0 and sys.platform.startswith("linux")
    names = [name for name in world.jobs if name != "train"] * 5 + ["train"] + ["remote"] * 4
    name = rng.choice(names)
    job = world.jobs.get(name) or world.servers[name]
    out = tmp_path / "out"
    with ExitStack() as stack:
        out.mkdir()
        if root:
            stack.enter_context(small_disk(out, 200_000))
        if name not in world.expected:
            world.server.mode = ""
            undisturbed(job.words(tmp_path))
            world.expected[name] = {output: content(tmp_path / output) for output in job.outputs}
        older = rng.random() < 0.3 and name not in ("sharpening", "train")
        if older:
            for output in job.outputs:
                shutil.copy(tmp_path / output, out / output)
        fault = make_server_fault(rng, world.server) if name == "remote" else make_fault(rng, job, out, root)
        if "disk" in fault.options:
            resize(out, fault.options["disk"] + (4000 if older else 0))
        print(f"seed {SEED}, fault {number}: {name}, {fault.name}{', over older outputs' if older else ''}")
        status, said = follow(fault, job.words(out))
        print(f"status {status}: {said[-1500:]}")
        world.server.mode = ""
        world.server.release.set()
        check(world, name, job, fault, out, status, said)
        if root:
            subprocess.run(["mount", "-o", "remount,rw", str(out)], check=True)
            resize(out, 200_000)
        out.mkdir(exist_ok=True)
        if unfinished(out) or status < 0 or rng.random() < 0.1:
            again(job, name, out)
            assert same(world.expected[name], {output: content(out / output) for output in job.outputs})
        assert not unfinished(out)


def again(job: Job, name: str, out: Path) -> None:
    """The next run of the same job, undisturbed."""
    words = job.words(out)
    if name == "sharpening":
        shutil.rmtree(out / "data", ignore_errors=True)
    if name == "train" and (out / "run" / "config.yaml").exists():
        words.append("--resume")
    undisturbed(words)


def check(world: World, name: str, job: Job, fault: Fault, out: Path, status: int, said: str) -> None:
    found = {output: content(out / output) for output in job.outputs if (out / output).exists()}
    if status == 0:
        if not fault.name.startswith("folder removed"):
            assert same(world.expected[name], found), f"status 0 with another result: {sorted(found)}"
        return
    if status < 0:
        own = any(word in fault.name for word in ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"))
        assert own or fault.may_abort, f"ended by signal {-status}"
        return
    if "SIG" in fault.name:
        assert status in (1, 129, 130, 143)
    if not fault.name.startswith(("stderr", "stdout")) and status != 130:
        assert said.strip(), "no sentence"
    if not fault.may_abort and "open files" not in fault.name:
        # Python itself cannot be loaded in so little, which it tells in its own way.
        assert "Traceback" not in said
    assert "report it" not in said
