"""The walls of the house: which room may import which package, and which other room.

Held twice: by reading every import of every file, however deep inside a function, and by importing the rooms in a
process where the others' packages cannot be imported.
"""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "s2sr_qgis" / "core"
QGIS_SIDE = ("plugin.py", "provider.py", "algorithms", "runner")

OWNERS: dict[str, set[str]] = {
    "tensorflow": {"networks", "training"},
    "keras": {"networks", "training"},
    "otbtf": {"networks"},
    "tf2onnx": {"training"},
    "onnxruntime": {"inference"},
    "pyotb": {"raster"},
    "otbApplication": set(),
    "qgis": set(),
    "PyQt5": set(),
    "PyQt6": set(),
    "typer": set(),
    "rich": set(),
}
"""Packages that only some rooms of the core may import."""

BELOW: dict[str, set[str]] = {
    "errors": set(),
    "redaction": set(),
    "variables": set(),
    "processors": set(),
    "progress": {"errors"},
    "outputs": {"errors"},
    "leaving": {"outputs"},
    "similarity": {"errors", "outputs", "processors", "progress", "jobs", "raster", "scene", "redaction"},
    "networks": {"errors"},
    "jobs": {"errors", "progress"},
    "raster": {"errors", "outputs", "processors", "progress", "variables", "redaction"},
    "scene": {"errors", "outputs", "progress", "jobs", "raster", "redaction"},
    "dataset": {
        "errors",
        "outputs",
        "processors",
        "progress",
        "jobs",
        "raster",
        "scene",
        "inference",
        "similarity",
        "redaction",
    },
    "inference": {"errors", "outputs", "processors", "progress", "jobs", "raster", "scene", "similarity", "redaction"},
    "training": {
        "errors",
        "outputs",
        "processors",
        "progress",
        "jobs",
        "raster",
        "dataset",
        "networks",
        "inference",
        "redaction",
        "similarity",
    },
    "environment": {"errors", "progress", "inference", "training"},
    "worker": {"errors", "leaving", "processors", "progress", "variables", "jobs", "redaction"},
}
"""What each room may import of the others. `jobs` is below its rooms: it opens them only when a job runs."""

Import = tuple[str, int, bool]
"""Absolute name of what is imported, line, whether at the module's top level."""


def files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in ([folder] if folder.suffix else folder.rglob("*.py")))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[Import]:
    """Every import statement of a file, relative ones made absolute."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, id(node) in top
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            for alias in node.names:
                yield ".".join([*base, *filter(None, [node.module]), alias.name]), node.lineno, id(node) in top


def room(path: Path) -> str:
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def core_files() -> list[Path]:
    return [path for path in files(CORE) if path != CORE / "__init__.py"]


def test_the_reader_of_imports_sees_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall that nobody can see would hold nothing."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "s2sr_qgis" / "core" / "scene" / "a.py"
    path.parent.mkdir(parents=True)
    path.write_text("import keras.ops as k\ndef f():\n    from ..networks import x\n    from . import b\n")
    assert list(imports(path)) == [
        ("keras.ops", 1, True),
        ("s2sr_qgis.core.networks.x", 3, False),
        ("s2sr_qgis.core.scene.b", 4, False),
    ]


def test_packages_stay_in_their_rooms() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in core_files()
        for name, line, _ in imports(path)
        if room(path) not in OWNERS.get(name.partition(".")[0], {room(path)})
    ]
    assert not wrong, "\n".join(wrong)


def test_arrows_go_down_only() -> None:
    assert {room(path) for path in core_files()} <= set(BELOW), "a room that DESIGN does not know"
    wrong = []
    for path in core_files():
        for name, line, at_top in imports(path):
            if not name.startswith("s2sr_qgis."):
                continue
            parts = name.split(".")
            other = parts[2] if len(parts) > 2 and parts[1] == "core" else parts[1]
            opened_by_jobs = room(path) == "jobs" and not at_top
            if other != room(path) and other not in BELOW[room(path)] and not opened_by_jobs:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_core_knows_no_command_line() -> None:
    wrong = [p for p in files(ROOT / "s2sr_qgis") for name, *_ in imports(p) if name.startswith("training_cli")]
    assert not wrong


def test_the_qgis_side_imports_only_qgis_and_the_standard_library() -> None:
    wrong = []
    for path in files(*(ROOT / "s2sr_qgis" / name for name in QGIS_SIDE), ROOT / "s2sr_qgis" / "__init__.py"):
        for name, line, _ in imports(path):
            package = name.partition(".")[0]
            inside = package == "s2sr_qgis" and not name.startswith("s2sr_qgis.core")
            if not inside and package not in {"qgis", "processing"} and package not in sys.stdlib_module_names:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_qgis_side_is_python_3_9() -> None:
    """QGIS 3.22 on Windows carries Python 3.9."""
    for path in files(*(ROOT / "s2sr_qgis" / name for name in QGIS_SIDE)):
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 9))
        annotated = any(isinstance(n, ast.AnnAssign | ast.FunctionDef) for n in ast.walk(tree))
        future = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
        assert future or not annotated, f"{path.relative_to(ROOT)} lacks 'from __future__ import annotations'"


IMPORT_ALL = """
import importlib, sys
blocked = set(sys.argv[1].split(","))
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"the wall: {name}")
sys.meta_path.insert(0, Wall())
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def import_without(blocked: set[str], rooms: set[str]) -> None:
    """Import every module of some rooms in a process where the blocked packages cannot be imported."""
    names = [module_name(path) for path in core_files() if room(path) in rooms and room(path) != "worker"]
    assert names
    command = [sys.executable, "-c", IMPORT_ALL, ",".join(sorted(blocked)), *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_wall_itself_stops_an_import() -> None:
    with pytest.raises(AssertionError, match="the wall: rasterio"):
        import_without({"rasterio"}, {"raster"})


def test_rooms_import_without_tensorflow_and_qgis() -> None:
    trained = {"networks", "training"}
    blocked = {name for name, owners in OWNERS.items() if not owners or owners <= trained}
    import_without(blocked | {"jax", "torch", "pyotb"}, set(BELOW) - trained)


@pytest.mark.parametrize("name", ["similarity", "raster", "scene", "dataset"])
def test_rooms_import_without_what_is_above_them(name: str) -> None:
    import_without({owned for owned, owners in OWNERS.items() if name not in owners}, {name})


@pytest.mark.train
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
def test_training_imports_without_onnxruntime_and_qgis() -> None:
    import_without({"onnxruntime", "qgis", "PyQt5", "pyotb", "typer"}, {"networks", "training"})


def test_the_command_line_reaches_the_core_by_its_door() -> None:
    """Jobs, errors, redaction, progress, process set-up, the list of bundled models; no feature beside the jobs."""
    doors = ("jobs", "errors", "leaving", "redaction", "progress", "processors", "variables", "environment.bundled")
    wrong = []
    for path in files(ROOT / "training_cli"):
        for name, line, _ in imports(path):
            if name.startswith("s2sr_qgis.") and not name.removeprefix("s2sr_qgis.core.").startswith(doors):
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)
