"""The report of an evaluation as a small HTML page, for QGIS's results viewer."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any


def write_report(path: str, done: dict[str, Any]) -> None:
    """Write the report."""
    Path(path).write_text(escape(str(done)), encoding="utf-8")
