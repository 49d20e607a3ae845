"""Creates the worker's environment on the user's explicit wish: a virtual environment in the user's own folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qgis.core import QgsApplication, QgsProcessingException, QgsProcessingFeedback

from .interpreter import STAMP, environment_folder, environment_python, is_current, read_stamp, requirements, stamp
from .job import run_job
from .process import Child
from .text import tr

OLDEST, NEWEST = (3, 10), (3, 13)
"""Pythons that the pinned packages have wheels for."""
_NAMES = ("python3.12", "python3.13", "python3.11", "python3.10", "python3", "python")
_PROBE = "import sys, venv, ensurepip; print(*sys.version_info[:2])"


def create_environment(
    feedback: QgsProcessingFeedback,
    training: bool = False,
    base_python: str = "",
    index_url: str = "",
    wheels: str = "",
    force: bool = False,
) -> Path:
    """Make the environment, or leave a current one as it is; returns its folder.

    Built and checked in a folder of its own and then moved into place, so that a failure or a cancel leaves what was
    there before. Raises `QgsProcessingException`.
    """
    folder = environment_folder()
    if not force and is_current(folder) and (not training or (read_stamp(folder) or {}).get("training")):
        feedback.pushInfo(tr("The environment in {} is up to date.").format(folder))
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder.parent)
        work = Path(tempfile.mkdtemp(prefix="environment.new-", dir=str(folder.parent)))
    except OSError as error:
        raise QgsProcessingException(
            tr("The folder {} cannot be used for the environment ({}).").format(folder.parent, error.strerror)
        ) from error
    try:
        _build(work, feedback, training, base_python, index_url, wheels)
        feedback.setProgressText(tr("Checking the environment"))
        run_job({"job": "check_environment"}, feedback, str(environment_python(work)))
        (work / STAMP).write_text(json.dumps(stamp(training)), encoding="utf-8")
        _replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    feedback.setProgress(100)
    return folder


def find_base_python() -> str:
    """A real Python on this machine to build upon; empty where there is none. Never the one inside a QGIS bundle."""
    bundle = os.path.realpath(QgsApplication.prefixPath() or os.curdir)
    for found in _candidates():
        # On Linux, QGIS's prefix is /usr and its Python the system's own, from which an environment may be made.
        if sys.platform != "linux" and _inside_qgis(os.path.realpath(found), bundle):
            continue
        if _version(found) is not None:
            return found
    return ""


def _candidates() -> list[str]:
    """Where a Python may be, best first."""
    if sys.platform == "win32":
        roots = [
            Path(os.environ.get("LOCALAPPDATA", "")) / "Programs" / "Python",
            Path(os.environ.get("PROGRAMFILES", "")),
        ]
        installed = [str(path) for root in roots for path in sorted(root.glob("Python3*/python.exe"), reverse=True)]
        search = os.environ.get("PATH", "")
    else:
        installed = []
        search = os.pathsep.join(["/usr/bin", "/opt/homebrew/bin", "/usr/local/bin", os.environ.get("PATH", "")])
    return [*installed, *filter(None, (shutil.which(name, path=search) for name in _NAMES))]


def _inside_qgis(path: str, bundle: str) -> bool:
    return path.startswith(bundle + os.sep) or "qgis" in path.lower() or "osgeo4w" in path.lower()


def _version(python: str) -> tuple[int, int] | None:
    """The version of an interpreter that can make environments and has wheels; None for any other."""
    try:
        done = subprocess.run(  # noqa: S603  # nosec B603
            [python, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=20, check=True
        )
        major, minor = (int(part) for part in done.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return (major, minor) if OLDEST <= (major, minor) <= NEWEST else None


def _build(
    work: Path, feedback: QgsProcessingFeedback, training: bool, base_python: str, index_url: str, wheels: str
) -> None:
    python = str(environment_python(work))
    source = ["--no-index", "--find-links", wheels] if wheels else (["--index-url", index_url] if index_url else [])
    pinned = ["--require-hashes", "--only-binary", ":all:", *source, "-r", str(requirements(training))]
    uv = shutil.which("uv")
    base = base_python or find_base_python()
    if base_python and _version(base_python) is None:
        raise QgsProcessingException(_no_python(tr("{} is no such Python.").format(base_python)))
    if not base and not uv:
        raise QgsProcessingException(_no_python(tr("None was found.")))
    feedback.setProgressText(tr("Creating the environment in {}").format(work.parent))
    if uv:
        wanted = base or f"{NEWEST[0]}.{NEWEST[1] - 1}"
        _call([uv, "venv", "--quiet", "--allow-existing", "--python", wanted, str(work)], feedback)
        install = [uv, "pip", "install", "--python", python, *pinned]
    else:
        _call([base, "-I", "-m", "venv", str(work)], feedback)
        install = [python, "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *pinned]
    feedback.setProgress(10)
    feedback.setProgressText(tr("Installing the packages; this can take minutes"))
    _call(install, feedback, len(re.findall(r"^[\w.-]+==", requirements(training).read_text("utf-8"), re.MULTILINE)))


def _no_python(reason: str) -> str:
    return tr("A Python from {}.{} to {}.{} with its 'venv' module is needed ({}).").format(
        *OLDEST, *NEWEST, reason.rstrip(".")
    ) + tr(" Install one from python.org or your system's packages (Debian: python3-venv), or install uv.")


def _call(command: list[str], feedback: QgsProcessingFeedback, packages: int = 0) -> None:
    """Run one step of the set-up and show its lines; raises when it fails or is cancelled."""
    feedback.pushCommandInfo(" ".join(command))
    last: list[str] = []
    collected = 0

    def show(line: str) -> None:
        nonlocal collected
        last.append(line.rstrip())
        del last[:-15]
        feedback.pushConsoleInfo(line.rstrip())
        if packages and line.startswith("Collecting "):
            collected += 1
            feedback.setProgress(min(90.0, 10 + 70.0 * collected / packages))

    child = Child(command, merge_errors=True)
    child.send_end()
    if child.follow(feedback, show, child.process.terminate):
        raise QgsProcessingException(
            tr("The environment could not be made; nothing was changed. The last lines were:") + "\n" + "\n".join(last)
        )


def _replace(work: Path, folder: Path) -> None:
    """Put the new environment in the old one's place."""
    old = Path(tempfile.mkdtemp(prefix="environment.old-", dir=str(folder.parent)))
    try:
        if folder.exists():
            os.replace(folder, old / "environment")
        os.replace(work, folder)
    except OSError as error:
        if not folder.exists() and (old / "environment").exists():
            os.replace(old / "environment", folder)
        raise QgsProcessingException(
            tr("The environment in {} cannot be replaced ({}); is a worker running?").format(folder, error.strerror)
        ) from error
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    """Remove what a killed set-up left, once it is old enough not to be one that still runs."""
    for left in [*parent.glob("environment.new-*"), *parent.glob("environment.old-*")]:
        if time.time() - left.stat().st_mtime > 24 * 3600:
            shutil.rmtree(left, ignore_errors=True)
