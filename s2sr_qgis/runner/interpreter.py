"""Which Python runs the worker, and with which environment variables."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from qgis.core import QgsProcessingException

from . import settings
from .text import tr

PROTOCOL = 1
STAMP = "s2sr-environment.json"
ROOT = Path(__file__).resolve().parent
WORKER = ROOT.parent / "core" / "worker.py"
# QGIS bundles set these for its own Python, Qt, GDAL and PROJ; another Python fails or misbehaves with them.
_DROPPED = (
    "PYTHON", "QGIS_", "QT_", "CONDA_", "VIRTUAL_ENV", "GDAL_DATA", "GDAL_DRIVER_PATH", "PROJ_LIB", "PROJ_DATA",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_",
)  # fmt: skip


def home() -> Path:
    """The per-user folder of the plugin's data: S2SR_HOME, or the platform's own place for such data."""
    if os.environ.get("S2SR_HOME"):
        return Path(os.environ["S2SR_HOME"]).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "s2sr"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "s2sr"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "s2sr"


def environment_folder() -> Path:
    """Where 'Set up the environment' puts the worker's environment."""
    return home() / "environment"


def environment_python(folder: Path) -> Path:
    """The interpreter inside a virtual environment."""
    return folder / "Scripts" / "python.exe" if sys.platform == "win32" else folder / "bin" / "python"


def requirements(training: bool) -> Path:
    """The pinned packages of an environment."""
    return ROOT / ("requirements-train.txt" if training else "requirements.txt")


def stamp(training: bool) -> dict[str, object]:
    """What a finished environment is marked with, so that a newer plugin can tell that it is out of date."""
    digest = hashlib.sha256(requirements(training).read_bytes()).hexdigest()
    return {"protocol": PROTOCOL, "training": training, "requirements": digest}


def read_stamp(folder: Path) -> dict[str, object] | None:
    """The mark of a finished environment; None where there is none."""
    try:
        found = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_current(folder: Path) -> bool:
    """Whether the environment was made from this plugin's pinned packages."""
    found = read_stamp(folder)
    return found is not None and found == stamp(bool(found.get("training")))


def find_python(feedback=None) -> str:
    """The worker's interpreter: the setting, S2SR_PYTHON, the plugin's own environment. Raises when there is none."""
    chosen = settings.worker_python()
    if chosen:
        return _existing(chosen, tr("the setting 'Worker Python'"))
    chosen = os.environ.get("S2SR_PYTHON", "").strip()
    if chosen:
        return _existing(chosen, tr("the variable S2SR_PYTHON"))
    folder = environment_folder()
    if read_stamp(folder) is None or not environment_python(folder).is_file():
        raise QgsProcessingException(
            tr(
                "s2sr has no Python to work with. Either run the algorithm 'Set up the environment' once, or set "
                "'Worker Python' in Settings > Options > Processing > Providers > s2sr, or set the variable "
                "S2SR_PYTHON."
            )
        )
    if feedback is not None and not is_current(folder):
        feedback.pushWarning(
            tr("The environment in {} is out of date; run the algorithm 'Set up the environment' again.").format(folder)
        )
    return str(environment_python(folder))


def _existing(python: str, where: str) -> str:
    if not Path(python).expanduser().is_file():
        raise QgsProcessingException(tr("There is no Python at {}, which {} names.").format(python, where))
    return str(Path(python).expanduser())


def clean_environment() -> dict[str, str]:
    """The variables of QGIS without those that break another Python, plus what the user set for the worker."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
    variables["TF_CPP_MIN_LOG_LEVEL"] = "2"
    variables.setdefault("ORT_DISABLE_TELEMETRY", "1")
    variables.update(settings.variables())
    return variables
