"""Check the environment: what the worker runs on."""

from __future__ import annotations

from qgis.core import QgsProcessingOutputBoolean, QgsProcessingOutputString

from ..runner.interpreter import find_python
from ..runner.text import tr
from .base import S2SRAlgorithm


class CheckEnvironment(S2SRAlgorithm):
    NAME = "checkenvironment"
    TITLE = "Check the environment"
    GROUP = "Environment"
    SUMMARY = "Shows the Python, packages, devices and models that the other algorithms work with."
    HELP = (
        "Starts the worker once and shows which Python it runs on, the versions of its packages, the devices that "
        "networks can run on, whether it can train, and the bundled models with their figures."
    )
    TAGS = "version,gpu,cuda,device,diagnose,python"
    PYTHON, VERSION, DEVICES, TRAINING, MODELS = "PYTHON", "PYTHON_VERSION", "DEVICES", "TRAINING", "MODELS"

    def initAlgorithm(self, configuration=None) -> None:
        self.addOutput(QgsProcessingOutputString(self.PYTHON, tr("Worker Python")))
        self.addOutput(QgsProcessingOutputString(self.VERSION, tr("Version of the worker Python")))
        self.addOutput(QgsProcessingOutputString(self.DEVICES, tr("Devices, best first")))
        self.addOutput(QgsProcessingOutputBoolean(self.TRAINING, tr("Can train")))
        self.addOutput(QgsProcessingOutputString(self.MODELS, tr("Bundled models")))

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        found = self.run_job({"job": "check_environment"}, feedback)
        feedback.pushInfo(tr("Worker: Python {} at {}").format(found["python"], find_python()))
        for name, version in found["packages"].items():
            feedback.pushInfo(f"  {name}: {version or tr('not installed')}")
        feedback.pushInfo(tr("Devices: {}").format(", ".join(found["devices"])))
        if found["training"]:
            feedback.pushInfo(tr("Devices for training: {}").format(", ".join(found["training_devices"])))
        else:
            feedback.pushInfo(tr("No TensorFlow: this environment cannot train."))
        for model in found["models"]:
            feedback.pushInfo(f"  {model['name']}: {model['title']} ({', '.join(model['levels'])})")
            for name, value in model["metrics"].items():
                feedback.pushInfo(f"    {name}: {value}")
        return {
            self.PYTHON: found["executable"],
            self.VERSION: found["python"],
            self.DEVICES: ", ".join(found["devices"]),
            self.TRAINING: bool(found["training"]),
            self.MODELS: ", ".join(model["name"] for model in found["models"]),
        }
