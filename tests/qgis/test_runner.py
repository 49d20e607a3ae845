"""The runner, with a worker of the standard library alone."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from qgis.core import QgsProcessingException

from s2sr_qgis.runner import interpreter, process, settings
from s2sr_qgis.runner.job import run_job


def gone(pid: int) -> bool:
    """Whether a process is no more, or a zombie that only awaits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def cancel_soon(feedback, after: float = 0.7) -> None:
    threading.Timer(after, feedback.cancel).start()


def test_outputs_and_events_come_through(qgis_app, worker, feedback) -> None:
    worker.behave("ok", {"output": "/a/b.tif", "figure": 1.5})
    assert run_job({"job": "check_environment", "text": "ü"}, feedback) == {"output": "/a/b.tif", "figure": 1.5}
    assert worker.job() == {"job": "check_environment", "text": "ü"}
    assert feedback.percents == [40]
    assert feedback.said["progress"] == ["tile 1 of 2"]
    assert feedback.said["info"] == ["some information", "epoch 1, loss 0.12346", "output: /a/b.tif"]
    assert feedback.said["warning"] == ["some warning"]
    assert feedback.said["console"] == ["noise on standard output", '{"event": "unheard of"}', '["no event"]']
    assert "fake_worker.py" in feedback.said["command"][0]


def test_an_error_is_raised_with_its_hint(qgis_app, worker, feedback) -> None:
    worker.behave("error")
    with pytest.raises(QgsProcessingException, match=r"^The scene is upside down\. Turn it\.$"):
        run_job({}, feedback)


def test_a_crash_shows_what_went_before_and_leaves_no_file(qgis_app, worker, feedback, tmp_path) -> None:
    worker.behave("crash")
    (tmp_path / "out").mkdir()
    with pytest.raises(QgsProcessingException, match=r"stopped unexpectedly \(exit status -11\)") as caught:
        run_job({"output": str(tmp_path / "out" / "a.tif")}, feedback)
    assert "native code says goodbye" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bug_is_to_be_reported(qgis_app, worker, feedback) -> None:
    worker.behave("bug")
    with pytest.raises(QgsProcessingException, match=r"please report it(?s:.*)RuntimeError: a bug"):
        run_job({}, feedback)


def test_a_worker_without_result_is_an_error(qgis_app, worker, feedback) -> None:
    worker.behave("no result")
    with pytest.raises(QgsProcessingException, match="exit status 0"):
        run_job({}, feedback)


def test_another_protocol_is_refused(qgis_app, worker, feedback) -> None:
    worker.behave("other protocol")
    with pytest.raises(QgsProcessingException, match="speaks protocol 2, the plugin 1"):
        run_job({}, feedback)


def test_cancel_is_asked_for_first(qgis_app, worker, feedback) -> None:
    worker.behave("obedient")
    cancel_soon(feedback)
    began = time.monotonic()
    with pytest.raises(QgsProcessingException, match="Canceled"):
        run_job({}, feedback)
    assert time.monotonic() - began < process.ASK


def test_cancel_is_certain_for_the_whole_group(qgis_app, worker, feedback, monkeypatch) -> None:
    monkeypatch.setattr(process, "ASK", 0.5)
    monkeypatch.setattr(process, "TERMINATE", 1.0)
    worker.behave("stubborn")
    cancel_soon(feedback)
    began = time.monotonic()
    with pytest.raises(QgsProcessingException, match="Canceled"):
        run_job({}, feedback)
    assert time.monotonic() - began < 4
    pids = [int(word) for word in feedback.said["info"][0].split()[1:]]
    time.sleep(0.2)
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_a_pipe_held_by_a_grandchild_does_not_hold_the_job(qgis_app, worker, feedback) -> None:
    worker.behave("orphan holds the pipe")
    began = time.monotonic()
    assert run_job({}, feedback) == {"a": 1}
    assert time.monotonic() - began < 6


def test_without_any_python_the_three_ways_are_named(qgis_app, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("S2SR_PYTHON", raising=False)
    monkeypatch.setenv("S2SR_HOME", str(tmp_path))
    with pytest.raises(QgsProcessingException, match=r"Set up the environment.*Worker Python.*S2SR_PYTHON"):
        interpreter.find_python()


def test_a_python_that_is_not_there_is_named(qgis_app, monkeypatch, feedback) -> None:
    monkeypatch.setenv("S2SR_PYTHON", "/no/such/python")
    with pytest.raises(QgsProcessingException, match=r"no Python at /no/such/python, which the variable S2SR_PYTHON"):
        run_job({}, feedback)


def test_a_python_that_cannot_be_started_is_named(qgis_app, monkeypatch, feedback, tmp_path) -> None:
    (tmp_path / "python").write_text("no program")
    monkeypatch.setenv("S2SR_PYTHON", str(tmp_path / "python"))
    with pytest.raises(QgsProcessingException, match=r"python cannot be started \(Permission denied\)"):
        run_job({}, feedback)


def test_a_python_that_is_too_old_says_so(qgis_app, monkeypatch, feedback, tmp_path) -> None:
    """The real worker in a Python that claims to be old: an interpreter of that age need not be on the machine."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.version_info = (3, 8, 10, 'final', 0)")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec /usr/bin/python3 "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("S2SR_PYTHON", str(python))
    with pytest.raises(QgsProcessingException, match=r"too old\. Python 3\.10 or newer is needed"):
        run_job({"job": "check_environment"}, feedback)


def test_a_python_without_the_packages_says_which(qgis_app, monkeypatch, feedback, tmp_path) -> None:
    import subprocess

    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setenv("S2SR_PYTHON", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(QgsProcessingException, match=r"lacks the package 'pydantic'\. Run 'Set up the environment'"):
        run_job({"job": "check_environment"}, feedback)


def test_the_setting_goes_before_the_variable(qgis_app, monkeypatch, tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("")
    monkeypatch.setenv("S2SR_PYTHON", str(tmp_path / "b"))
    assert interpreter.find_python() == str(tmp_path / "b")
    monkeypatch.setattr(settings, "worker_python", lambda: str(tmp_path / "a"))
    assert interpreter.find_python() == str(tmp_path / "a")


def test_an_old_environment_is_used_with_a_warning(qgis_app, monkeypatch, tmp_path, feedback) -> None:
    import json

    monkeypatch.delenv("S2SR_PYTHON", raising=False)
    monkeypatch.setenv("S2SR_HOME", str(tmp_path))
    folder = interpreter.environment_folder()
    python = interpreter.environment_python(folder)
    python.parent.mkdir(parents=True)
    python.write_text("")
    (folder / interpreter.STAMP).write_text(json.dumps(interpreter.stamp(training=False)))
    assert interpreter.find_python(feedback) == str(python)
    assert not feedback.said
    (folder / interpreter.STAMP).write_text(json.dumps({**interpreter.stamp(training=False), "requirements": "old"}))
    assert interpreter.find_python(feedback) == str(python)
    assert "is out of date" in feedback.said["warning"][0]


def test_the_worker_sees_nothing_of_qgis_and_what_the_user_set(qgis_app, monkeypatch) -> None:
    for name in ("PYTHONHOME", "PYTHONPATH", "QGIS_PREFIX_PATH", "PROJ_LIB", "GDAL_DATA", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "bad")
    monkeypatch.setenv("GDAL_HTTP_PROXY", "kept")
    monkeypatch.setattr(settings, "_read", lambda name: "OTB_ROOT=/opt/otb; LD_LIBRARY_PATH=/opt/lib=a ;")
    found = interpreter.clean_environment()
    assert "bad" not in {found.get(name) for name in os.environ}
    assert found["GDAL_HTTP_PROXY"] == "kept"
    assert found["OTB_ROOT"] == "/opt/otb"
    assert found["LD_LIBRARY_PATH"] == "/opt/lib=a"


def test_variables_that_are_none_are_refused(qgis_app, monkeypatch) -> None:
    monkeypatch.setattr(settings, "_read", lambda name: "OTB_ROOT")
    with pytest.raises(QgsProcessingException, match="'OTB_ROOT', which is not NAME=value"):
        interpreter.clean_environment()
