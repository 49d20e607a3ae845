"""The plugin's entries under Options > Processing > Providers > s2sr."""

from __future__ import annotations

from qgis.core import QgsProcessingException

from .text import tr

GROUP = "s2sr"
PYTHON = "S2SR_PYTHON"
VARIABLES = "S2SR_VARIABLES"


def register(icon) -> None:
    """Add the settings to the options page."""
    from processing.core.ProcessingConfig import ProcessingConfig, Setting

    ProcessingConfig.settingIcons[GROUP] = icon
    ProcessingConfig.addSetting(
        Setting(
            GROUP, PYTHON, tr("Worker Python (empty: the environment made by this plugin)"), "", valuetype=Setting.FILE
        )
    )
    ProcessingConfig.addSetting(
        Setting(
            GROUP,
            VARIABLES,
            tr("Environment variables for the worker (NAME=value; NAME=value)"),
            "",
            valuetype=Setting.STRING,
        )
    )
    ProcessingConfig.readSettings()


def unregister() -> None:
    """Remove the settings from the options page."""
    from processing.core.ProcessingConfig import ProcessingConfig

    ProcessingConfig.removeSetting(PYTHON)
    ProcessingConfig.removeSetting(VARIABLES)


def worker_python() -> str:
    """The Python that the user set on the options page, or an empty text."""
    return _read(PYTHON)


def variables() -> dict[str, str]:
    """The environment variables that the user wants the worker to see. Raises on text that names none."""
    found = {}
    for part in filter(None, (part.strip() for part in _read(VARIABLES).split(";"))):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise QgsProcessingException(
                tr("The s2sr setting of environment variables has '{}', which is not NAME=value.").format(part)
            )
        found[name.strip()] = value.strip()
    return found


def _read(name: str) -> str:
    from processing.core.ProcessingConfig import ProcessingConfig

    # Outside a running Processing framework (tests, scripts) the setting was never registered.
    return str((ProcessingConfig.getSetting(name) if name in ProcessingConfig.settings else "") or "").strip()
