"""Outputs of runs that were killed, and of several runs at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from s2sr_qgis.core import outputs
from s2sr_qgis.core.errors import OutputError
from s2sr_qgis.core.outputs import atomic, discard_all, write_text

ROOT = Path(__file__).resolve().parents[2]
WRITE = """
import sys
from s2sr_qgis.core.outputs import atomic
with atomic(sys.argv[1], folder=len(sys.argv) > 2) as path:
    (path / "part" if path.is_dir() else path).write_text("half of it")
    print("written", flush=True)
    sys.stdin.readline()
"""


def writing(path: Path, *folder: str) -> subprocess.Popen[str]:
    """A process in the middle of writing an output."""
    command = [sys.executable, "-c", WRITE, str(path), *folder]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout
    assert process.stdout.readline() == "written\n"
    return process


@pytest.mark.parametrize("folder", [(), ("folder",)])
def test_the_next_run_removes_what_a_killed_one_left(tmp_path, folder):
    target = tmp_path / "out.d"
    process = writing(target, *folder)
    process.kill()
    process.communicate()
    assert len(os.listdir(tmp_path)) == 1
    with atomic(target, folder=bool(folder)) as temporary:
        (temporary / "a" if folder else temporary).write_text("whole")
    assert os.listdir(tmp_path) == ["out.d"]


def test_what_a_living_run_writes_is_left_alone(tmp_path):
    process = writing(tmp_path / "out.tif")
    for name in ("out.tif", "out.json", "out"):
        write_text(tmp_path / name, "mine")
    assert len(os.listdir(tmp_path)) == 4
    process.communicate("go on\n")
    assert process.returncode == 0
    assert (tmp_path / "out.tif").read_text() == "half of it"
    assert sorted(os.listdir(tmp_path)) == ["out", "out.json", "out.tif"]


def test_an_output_of_the_same_stem_is_another_output(tmp_path):
    """Neither a living run's nor a killed one's: the next run of that output removes it."""
    process = writing(tmp_path / "out.json")
    process.kill()
    process.communicate()
    write_text(tmp_path / "out.tif", "mine")
    assert len(os.listdir(tmp_path)) == 2
    write_text(tmp_path / "out.json", "mine")
    assert sorted(os.listdir(tmp_path)) == ["out.json", "out.tif"]


def test_the_temporary_place_is_new_and_private(tmp_path, monkeypatch):
    names = iter(["aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr(outputs.uuid, "uuid4", lambda: type("U", (), {"hex": next(names)}))
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / ".o.tif-aaaaaaaa.part").symlink_to(outside)
    with atomic(tmp_path / "o.tif") as temporary:
        assert temporary.parent.name == ".o.tif-bbbbbbbb.part"
        assert stat.S_IMODE(temporary.parent.stat().st_mode) == 0o700 or sys.platform == "win32"
        temporary.write_text("x")
    assert list(outside.iterdir()) == []


def test_all_unfinished_outputs_go_before_a_hard_exit(tmp_path):
    with pytest.raises(OutputError), atomic(tmp_path / "a.tif") as path, atomic(tmp_path / "b", folder=True):  # noqa: PT012
        path.write_text("half")
        discard_all()
        assert os.listdir(tmp_path) == []


def test_a_folder_that_vanishes_is_named(tmp_path):
    folder = tmp_path / "usb"
    folder.mkdir()
    with pytest.raises(OutputError, match=r"The folder .*usb is gone"), atomic(folder / "a.json") as path:  # noqa: PT012
        outputs.shutil.rmtree(folder)
        path.write_text("x")


def test_a_cleaning_up_that_fails_spoils_no_complete_output(tmp_path, monkeypatch):
    def fails(*_, **options):
        if not options.get("ignore_errors"):
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(outputs.shutil, "rmtree", fails)
    write_text(tmp_path / "a.json", "{}")
    assert (tmp_path / "a.json").read_text() == "{}"


def test_an_error_of_another_file_is_not_of_the_output(tmp_path):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a.json"):
        (tmp_path / "elsewhere" / "input").read_text()
