"""Translation of the QGIS side's texts."""

from __future__ import annotations

from qgis.PyQt.QtCore import QCoreApplication

CONTEXT = "s2sr"


def tr(text: str) -> str:
    """The text in the user's language, if there is a translation."""
    return QCoreApplication.translate(CONTEXT, text)
