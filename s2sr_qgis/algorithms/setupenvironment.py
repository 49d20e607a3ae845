"""Set up the environment: the Python environment that the worker runs in."""

from __future__ import annotations

from qgis.core import (
    QgsProcessingOutputFolder,
    QgsProcessingOutputString,
    QgsProcessingParameterFile,
    QgsProcessingParameterString,
)

from ..runner.environment import create_environment
from ..runner.interpreter import environment_folder, environment_python
from ..runner.text import tr
from .base import S2SRAlgorithm


class SetUpEnvironment(S2SRAlgorithm):
    NAME = "setupenvironment"
    TITLE = "Set up the environment"
    GROUP = "Environment"
    SUMMARY = "Creates the Python environment that the other algorithms run in."
    HELP = (
        "Downloads the packages that super-resolution needs (about 200 MB; with training about 500 MB) into an "
        "environment in your own data folder. QGIS and its Python are not touched. Run it once, and again after an "
        "update of the plugin if it says that the environment is out of date.\n\n"
        "It uses uv if that is installed, otherwise a Python from 3.10 to 3.13 found on this machine. All packages are "
        "pinned, and checked by their hashes. Nothing changes if it fails or is canceled."
    )
    TAGS = "install,python,packages,dependencies,setup"
    NEEDS_WORKER = False
    TRAINING, BASE_PYTHON, INDEX_URL, WHEELS, FORCE = "TRAINING", "BASE_PYTHON", "INDEX_URL", "WHEELS", "FORCE"
    PYTHON, FOLDER = "PYTHON", "ENVIRONMENT"

    def initAlgorithm(self, configuration=None) -> None:
        self.add_boolean(self.TRAINING, "Also install TensorFlow for training", False,
                         "Needed by 'Train a model' alone.")  # fmt: skip
        self.add(QgsProcessingParameterFile(self.BASE_PYTHON, tr("Base Python"), optional=True),
                 "The Python to build the environment upon; empty: one is searched. Never the Python of a QGIS "
                 "installer.", advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterString(self.INDEX_URL, tr("Package index URL"), optional=True),
                 "A mirror to download from, where the usual index cannot be reached. Put no password here: it would "
                 "be kept in the history; pip and uv have configuration files for that.", advanced=True)  # fmt: skip
        self.add_folder(self.WHEELS, "Folder of wheels",
                        "Install from the wheels in this folder, without any network.",
                        advanced=True, optional=True)  # fmt: skip
        self.add_boolean(self.FORCE, "Make it anew", False,
                         "Replace the environment even if it is up to date.", advanced=True)  # fmt: skip
        self.addOutput(QgsProcessingOutputString(self.PYTHON, tr("Python of the environment")))
        self.addOutput(QgsProcessingOutputFolder(self.FOLDER, tr("Environment")))

    def checkParameterValues(self, parameters, context):
        if self.text(parameters, self.INDEX_URL, context) and self.text(parameters, self.WHEELS, context):
            return False, tr("Give either a package index URL or a folder of wheels, not both.")
        return super().checkParameterValues(parameters, context)

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        create_environment(
            feedback,
            training=self.parameterAsBool(parameters, self.TRAINING, context),
            base_python=self.text(parameters, self.BASE_PYTHON, context) or "",
            index_url=self.text(parameters, self.INDEX_URL, context) or "",
            wheels=self.text(parameters, self.WHEELS, context) or "",
            force=self.parameterAsBool(parameters, self.FORCE, context),
        )
        folder = environment_folder()
        return {self.PYTHON: str(environment_python(folder)), self.FOLDER: str(folder)}
