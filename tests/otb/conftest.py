"""Tests against real Orfeo ToolBox: `make test-otb` installs it and runs them. pyotb and rasterio share the process."""

from __future__ import annotations

import pytest

from s2sr_qgis.core.raster.otb import otb_available


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if otb_available():
        return
    absent = pytest.mark.skip(reason="Orfeo ToolBox and pyotb are not there; 'make test-otb' sets them up on Debian 12")
    for item in items:
        if "otb" in item.path.parent.parts[-1:]:
            item.add_marker(absent)
