"""The marker `otb`: tests that need real Orfeo ToolBox, and those that need an application of OTBTF."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this Python has no application for, with a reason."""
    marked = [(item, mark) for item in items for mark in item.iter_markers("otb")]
    if not marked:
        return
    # Environments without such tests lack what the core needs.
    from s2sr_qgis.core.raster.otb import applications, otb_available

    there = applications() if otb_available() else ()
    for item, mark in marked:
        for application in mark.args or ["Superimpose"]:
            if not there:
                item.add_marker(pytest.mark.skip(reason="Orfeo ToolBox is absent; 'make test-otb' sets it up"))
            elif application not in there:
                item.add_marker(pytest.mark.skip(reason=f"this Orfeo ToolBox has no {application} (OTBTF)"))
