"""The plugin as QGIS loads and unloads it."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

from s2sr_qgis.runner import interpreter

ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import sys
sys.path[:0] = [sys.argv[1], "/usr/share/qgis/python/plugins", "/usr/share/qgis/python"]
from qgis.core import QgsApplication
app = QgsApplication([], False)
app.initQgis()
from processing.core.ProcessingConfig import ProcessingConfig
from processing.gui.RenderingStyles import RenderingStyles
for name in ("numpy", "pydantic", "yaml", "rasterio", "onnxruntime", "tensorflow", "s2sr_qgis.core"):
    sys.modules[name] = None  # what is imported nevertheless, fails
import s2sr_qgis
registry = QgsApplication.processingRegistry()
plugin = s2sr_qgis.classFactory(None)
plugin.initGui()
print(len(registry.providerById("s2sr").algorithms()), "S2SR_PYTHON" in ProcessingConfig.settings)
plugin.unload()
print(registry.providerById("s2sr"), "S2SR_PYTHON" in ProcessingConfig.settings)
plugin.unload()
"""


def test_the_plugin_loads_without_any_package_and_unloads(tmp_path) -> None:
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "QGIS_CUSTOM_CONFIG_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(ROOT)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.splitlines()[-2:] == ["12 True", "None False"], done.stderr


def test_the_worker_python_of_the_options_page_is_used(provider, monkeypatch, tmp_path) -> None:
    from processing.core.ProcessingConfig import ProcessingConfig

    monkeypatch.setenv("S2SR_PYTHON", "/usr/bin/python3")
    python = tmp_path / "python"
    python.write_text("")
    ProcessingConfig.setSettingValue("S2SR_PYTHON", str(python))
    ProcessingConfig.setSettingValue("S2SR_VARIABLES", "OTB_ROOT=/opt/otb")
    try:
        assert interpreter.find_python() == str(python)
        assert interpreter.clean_environment()["OTB_ROOT"] == "/opt/otb"
    finally:
        ProcessingConfig.setSettingValue("S2SR_PYTHON", "")
        ProcessingConfig.setSettingValue("S2SR_VARIABLES", "")
    assert interpreter.find_python() == "/usr/bin/python3"


def test_metadata() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "metadata.txt", encoding="utf-8")
    metadata = parser["general"]
    assert metadata["qgisMinimumVersion"] == "3.22"
    assert metadata["qgisMaximumVersion"] == "4.99"
    assert metadata["hasProcessingProvider"] == "yes"
    assert "supportsqt6" not in metadata
    assert (ROOT / "s2sr_qgis" / metadata["icon"]).is_file()
    assert f'version = "{metadata["version"]}"' in (ROOT / "pyproject.toml").read_text()
    for name in ("homepage", "tracker", "repository"):
        assert metadata[name].startswith("https://github.com/s2sr/s2sr")
