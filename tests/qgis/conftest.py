"""The provider in a QGIS without window, and a worker that does as it is told."""
# ruff: noqa: N802 - QGIS's own names

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from qgis.core import QgsApplication, QgsProcessingContext, QgsProcessingFeedback  # noqa: E402

FAKE = Path(__file__).with_name("fake_worker.py")


class Feedback(QgsProcessingFeedback):
    """Remembers what it was told, by kind."""

    def __init__(self) -> None:
        super().__init__(False)
        self.said: dict[str, list[str]] = {}
        self.percents: list[float] = []
        self.progressChanged.connect(self.percents.append)

    def _say(self, kind: str, text: str) -> None:
        self.said.setdefault(kind, []).append(text)

    def pushInfo(self, info: str) -> None:
        self._say("info", info)

    def pushWarning(self, warning: str) -> None:
        self._say("warning", warning)

    def pushDebugInfo(self, info: str) -> None:
        self._say("debug", info)

    def pushConsoleInfo(self, info: str) -> None:
        self._say("console", info)

    def pushCommandInfo(self, info: str) -> None:
        self._say("command", info)

    def setProgressText(self, text: str) -> None:
        self._say("progress", text)


@pytest.fixture
def feedback() -> Feedback:
    return Feedback()


@pytest.fixture
def context() -> QgsProcessingContext:
    return QgsProcessingContext()


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A worker of the standard library alone, in place of the real one; returns how to tell it what to do."""
    from s2sr_qgis.runner import job

    monkeypatch.setattr(job, "WORKER", FAKE)
    monkeypatch.setenv("S2SR_PYTHON", "/usr/bin/python3")
    monkeypatch.setenv("FAKE_JOB", str(tmp_path / "job.json"))

    class Worker:
        def behave(self, how: str, outputs: dict | None = None) -> None:
            monkeypatch.setenv("FAKE_DOES", how)
            monkeypatch.setenv("FAKE_OUTPUTS", json.dumps(outputs or {}))

        def job(self) -> dict:
            return json.loads((tmp_path / "job.json").read_text().splitlines()[-1])

        def jobs(self) -> list[dict]:
            return [json.loads(line) for line in (tmp_path / "job.json").read_text().splitlines()]

    told = Worker()
    told.behave("ok")
    return told


@pytest.fixture(scope="session")
def provider(qgis_app, qgis_processing):
    from s2sr_qgis.provider import S2SRProvider

    added = S2SRProvider()
    QgsApplication.processingRegistry().addProvider(added)
    yield added
    QgsApplication.processingRegistry().removeProvider(added)
