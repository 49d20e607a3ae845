"""qgis_process with a profile of its own, the plugin in it, and the real worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def worker_python() -> Path:
    return Path(os.environ.get("S2SR_PYTHON") or ROOT / ".venv" / "bin" / "python")


class QgisProcess:
    """Starts qgis_process; every process that comes of it carries a mark in its environment."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"S2SR_TEST={uuid.uuid4()}"
        name, value = self.mark.split("=")
        self.environment = {
            **os.environ,
            name: value,
            "QGIS_CUSTOM_CONFIG_PATH": str(folder),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "QT_QPA_PLATFORM": "offscreen",
            "S2SR_PYTHON": str(worker_python()),
            "S2SR_HOME": str(folder / "home"),
        }
        plugin = folder / "profiles" / "default" / "python" / "plugins" / "s2sr_qgis"
        plugin.mkdir(parents=True)
        (folder / "run").mkdir(mode=0o700)
        for path in [*(ROOT / "s2sr_qgis").iterdir(), ROOT / "metadata.txt"]:
            if not (plugin / path.name).exists():
                (plugin / path.name).symlink_to(path)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["qgis_process", *arguments], env=self.environment, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def __call__(self, *arguments: str, given: str = "", timeout: float = 300) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(given, timeout)
        return process.returncode, out, err

    def run(self, algorithm: str, inputs: dict[str, Any], timeout: float = 300) -> tuple[int, dict[str, Any], str]:
        """Exit status, results, standard error of a run with its inputs as JSON."""
        status, out, err = self("run", algorithm, "-", given=json.dumps({"inputs": inputs}), timeout=timeout)
        return status, json.loads(out)["results"] if status == 0 else {}, err

    def processes(self) -> list[str]:
        """Command lines of the processes that still run."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return [line for line in found if line]


@pytest.fixture(scope="session")
def qgis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QgisProcess]:
    if shutil.which("qgis_process") is None:
        pytest.skip("qgis_process is not installed")
    if not worker_python().is_file():
        pytest.skip(f"the worker's environment is missing: {worker_python()}")
    started = QgisProcess(tmp_path_factory.mktemp("profile"))
    status, _, err = started("plugins", "enable", "s2sr_qgis")
    assert status == 0, err
    yield started
    waited = time.monotonic() + 5
    while started.processes() and time.monotonic() < waited:
        time.sleep(0.1)
    assert started.processes() == []


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, qgis_process: QgisProcess) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    script = Path(__file__).with_name("make_inputs.py")
    done = subprocess.run([worker_python(), script, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder
