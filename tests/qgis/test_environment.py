"""The set-up of the worker's environment, without network: a wheel made here stands for the packages."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
import time
import zipfile
from pathlib import Path

import pytest
from qgis.core import QgsProcessingException

from s2sr_qgis.runner import environment, interpreter
from s2sr_qgis.runner.environment import create_environment, find_base_python

PYTHON = "/usr/bin/python3"


def make_wheel(folder: Path, name: str) -> str:
    """A wheel with one module; returns its SHA-256."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "VALUE = 1\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text)}")
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*rows, f"{info}/RECORD,,"]) + "\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    return tmp_path / "wheels"


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wheels: Path, worker) -> Path:
    """Requirements of one package, a home of its own, no uv, and a worker that finds everything in order."""
    path = tmp_path / "requirements.txt"
    path.write_text(f"tinypackage==1.0 --hash=sha256:{make_wheel(wheels, 'tinypackage')}\n")
    for module in (environment, interpreter):
        monkeypatch.setattr(module, "requirements", lambda training: path)
    monkeypatch.setenv("S2SR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("S2SR_PYTHON")
    monkeypatch.setattr(environment.shutil, "which", lambda name, **k: None if name == "uv" else REAL_WHICH(name, **k))
    return path


REAL_WHICH = shutil.which


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: Path) -> Path:
    """A stand-in for uv: it notes what it is asked for and makes the environment without packages."""
    program = tmp_path / "uv"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        f'if [ "$1" = venv ]; then for last; do :; done; exec {PYTHON} -m venv --without-pip "$last"; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(environment.shutil, "which", lambda name, **k: str(program) if name == "uv" else None)
    return program


def create(feedback, wheels: Path, **options) -> Path:
    return create_environment(feedback, base_python=PYTHON, wheels=str(wheels), **options)


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "home").iterdir())


def test_an_environment_is_made_stamped_and_found(qgis_app, pinned, wheels, feedback, tmp_path) -> None:
    folder = create(feedback, wheels)
    assert folder == tmp_path / "home" / "environment"
    assert (folder / "lib").is_dir()
    assert list(folder.glob("lib/python3*/site-packages/tinypackage.py"))
    assert json.loads((folder / interpreter.STAMP).read_text()) == interpreter.stamp(training=False)
    assert interpreter.find_python(feedback) == str(folder / "bin" / "python")
    assert left(tmp_path) == ["environment"]
    assert feedback.said["warning"] == ["some warning"], "only what the worker said"


def test_a_current_environment_is_left_alone_and_an_old_one_replaced(
    qgis_app, pinned, uv, wheels, feedback, tmp_path
) -> None:
    folder = create(feedback, wheels)
    mark = folder / "mark"
    mark.write_text("")
    create(feedback, wheels)
    assert mark.exists()
    assert "is up to date" in feedback.said["info"][-1]
    create(feedback, wheels, training=True)
    assert not mark.exists(), "training was asked for and the old one had none"
    mark.write_text("")
    pinned.write_text(pinned.read_text() + "# newer\n")
    assert not interpreter.is_current(folder)
    create(feedback, wheels, training=True)
    assert not mark.exists()
    mark.write_text("")
    create(feedback, wheels, force=True)
    assert not mark.exists()
    assert left(tmp_path) == ["environment"]


def test_a_wrong_hash_is_refused_and_the_old_environment_stays(qgis_app, pinned, wheels, feedback, tmp_path) -> None:
    folder = create(feedback, wheels)
    (folder / "mark").write_text("")
    pinned.write_text("tinypackage==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(QgsProcessingException, match=r"nothing was changed(?s:.*)HASHES"):
        create(feedback, wheels)
    assert (folder / "mark").exists()
    assert left(tmp_path) == ["environment"]


def test_an_environment_that_does_not_work_is_not_kept(qgis_app, uv, wheels, feedback, worker, tmp_path) -> None:
    worker.behave("error")
    with pytest.raises(QgsProcessingException, match="upside down"):
        create(feedback, wheels)
    assert left(tmp_path) == []


def test_cancel_leaves_nothing(qgis_app, pinned, wheels, feedback, tmp_path) -> None:
    slow = tmp_path / "slow_python"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *venv\\ /*) sleep 60;; esac\nexec {PYTHON} "$@"\n')
    slow.chmod(0o755)
    threading.Timer(1.5, feedback.cancel).start()
    began = time.monotonic()
    with pytest.raises(QgsProcessingException, match="Canceled"):
        create_environment(feedback, base_python=str(slow), wheels=str(wheels))
    assert time.monotonic() - began < 10
    assert left(tmp_path) == []


def test_a_base_python_that_is_none_is_refused(qgis_app, pinned, wheels, feedback, tmp_path) -> None:
    with pytest.raises(QgsProcessingException, match=r"from 3\.10 to 3\.13.*/bin/true is no such Python"):
        create_environment(feedback, base_python="/bin/true", wheels=str(wheels))
    assert left(tmp_path) == []


def test_a_machine_without_python_says_what_to_install(qgis_app, pinned, wheels, feedback, monkeypatch) -> None:
    monkeypatch.setattr(environment, "find_base_python", lambda: "")
    with pytest.raises(QgsProcessingException, match=r"None was found.*python3-venv"):
        create_environment(feedback, wheels=str(wheels))


def test_uv_is_used_where_it_is(qgis_app, uv, wheels, feedback, tmp_path) -> None:
    create(feedback, wheels)
    venv, install = (tmp_path / "asked").read_text().splitlines()
    assert venv.startswith(f"venv --quiet --allow-existing --python {PYTHON} ")
    assert "--require-hashes --only-binary :all: --no-index" in install
    assert left(tmp_path) == ["environment"]


def test_the_python_found_is_real_and_new_enough(qgis_app) -> None:
    found = find_base_python()
    assert found
    assert environment._version(found) >= (3, 10)
    assert environment._version("/bin/true") is None


def test_the_home_can_be_moved_and_cannot_be_a_file(qgis_app, pinned, wheels, feedback, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("S2SR_HOME", str(tmp_path / "file"))
    with pytest.raises(QgsProcessingException, match="cannot be used for the environment"):
        create(feedback, wheels)


def test_the_shipped_requirements_are_pinned_with_hashes() -> None:
    for name in ("requirements.txt", "requirements-train.txt"):
        text = (interpreter.ROOT / name).read_text()
        entries = text.split("\n    --hash")[0], text.count("=="), text.count("\n    --hash=sha256:")
        assert entries[1] > 30
        assert entries[2] >= entries[1]
        assert "://" not in text, "no index and no direct links"
        named = "tensorflow-cpu==" in text
        assert named == ("train" in name)
