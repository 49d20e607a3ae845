"""Train a model, and export it so that 'Super-resolve a Sentinel-2 image' can use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessing,
    QgsProcessingMultiStepFeedback,
    QgsProcessingOutputHtml,
    QgsProcessingOutputNumber,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterString,
)

from ..runner.text import tr
from .base import S2SRAlgorithm
from .checks import filled, output_problem

CARD = "dataset.yaml"
OPTIONS = (
    "coarsenet guides=null, guide_radius=5, guide_kernel=null, consistent=false, blocks=8, features=64, context=8, "
    "spectrum=true, hidden=null; dsen2 blocks=6, features=128; vdsen2 blocks=32, features=256; "
    "srresnet blocks=16, features=64, ratio=null; "
    "crossnet ratio=null, blocks=8, features=64, context=8, spectrum=true, hidden=null."
)
"""Options and defaults of the networks, as `core/jobs.py` has them."""


def options_of(text: str) -> dict[str, Any]:
    """Options of a network by name, from ``blocks=4; features=32``. Raises `ValueError` with the wrong part."""
    options = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, value = part.partition("=")
        try:
            options[name.strip()] = json.loads(value)
        except ValueError:
            raise ValueError(part) from None
    return options


class TrainModel(S2SRAlgorithm):
    NAME = "trainmodel"
    TITLE = "Train a model"
    GROUP = "Training"
    SUMMARY = "Trains a network on a dataset and exports it as a model folder."
    HELP = (
        "Trains a neural network on a dataset for sharpening or cross-sensor super-resolution, scores it on its test "
        "patches beside bicubic interpolation, and exports it: the model folder goes into 'Super-resolve a Sentinel-2 "
        "image' and 'Evaluate a model'.\n\n"
        "This needs TensorFlow in the worker's environment: run 'Set up the environment' with training. Long "
        "trainings are better run with the command line tool (s2sr train) on a machine with a graphics card."
    )
    TAGS = "neural network,cnn,tensorflow,keras,fit"
    DATASET, MORE_DATASETS, NETWORK, EPOCHS = "DATASET", "MORE_DATASETS", "NETWORK", "EPOCHS"
    BATCH_SIZE, LEARNING_RATE, MAX_MINUTES, LOSS = "BATCH_SIZE", "LEARNING_RATE", "MAX_MINUTES", "LOSS"
    OPTIMIZER, SCHEDULE, EARLY_STOPPING, WEIGHTS = "OPTIMIZER", "SCHEDULE", "EARLY_STOPPING", "INITIAL_WEIGHTS"
    DIHEDRAL, GAIN, BAND_GAIN = "DIHEDRAL", "GAIN", "BAND_GAIN"
    PRECISION, SEED, RESUME, SAVED_MODEL, RUN, MODEL = (
        "MIXED_PRECISION", "SEED", "RESUME", "SAVED_MODEL", "RUN", "MODEL",
    )  # fmt: skip
    NETWORK_OPTIONS = "NETWORK_OPTIONS"
    RMSE, RMSE_BICUBIC, REPORT = "RMSE", "RMSE_BICUBIC", "REPORT"

    def initAlgorithm(self, configuration=None) -> None:
        self.add_folder(self.DATASET, "Dataset", "Folder made by one of the dataset algorithms (it has dataset.yaml).")
        self.add_enum(self.NETWORK, "Network", ["auto", "coarsenet", "dsen2", "vdsen2", "crossnet", "srresnet"], "auto",
                      "auto: coarsenet for sharpening, crossnet for a cross-sensor dataset. "
                      "For sharpening, coarsenet: works on the coarse grid, fast; dsen2 and vdsen2: the published "
                      "networks of Lanaras et al. (2018), several times slower. For a cross-sensor dataset, crossnet: "
                      "works on the coarse grid; srresnet: the network of OTBTF's tutorial.")  # fmt: skip
        self.add_number(self.EPOCHS, "Epochs", 100, 1, 100000, "Passes over the training patches.")
        self.add_number(self.MAX_MINUTES, "Time limit (minutes)", None, 0.05, 100000.0,
                        "Training ends within this time, with the learning rate; empty: no limit.")  # fmt: skip
        self.add_number(self.BATCH_SIZE, "Batch size", 16, 1, 4096,
                        "Patches in one step; memory grows with it.", advanced=True)  # fmt: skip
        self.add_number(self.LEARNING_RATE, "Learning rate", 0.001, 1e-8, 1.0,
                        "The highest learning rate, after the warm-up.", advanced=True)  # fmt: skip
        self.add_enum(self.LOSS, "Loss", ["l1", "l2"], "l1", "l1: mean absolute error; l2: mean squared error.",
                      advanced=True)  # fmt: skip
        self.add_enum(self.OPTIMIZER, "Optimizer", ["adamw", "nadam"], "adamw", "Rule by which the weights follow.",
                      advanced=True)  # fmt: skip
        self.add_enum(self.SCHEDULE, "Learning rate schedule", ["cosine", "plateau"], "cosine",
                      "cosine: falls all along; plateau: falls when validation no longer improves.",
                      advanced=True)  # fmt: skip
        self.add_number(self.EARLY_STOPPING, "Early stopping (epochs)", 20, 0, 100000,
                        "Epochs without improvement after which training stops; 0: never.", advanced=True)  # fmt: skip
        self.add_boolean(self.DIHEDRAL, "Turn and mirror patches", True,
                         "Show every patch in eight orientations.", advanced=True)  # fmt: skip
        self.add_number(self.GAIN, "Brightness jitter", 0.25, 0.0, 2.0,
                        "Sigma of the random gain common to all bands; 0: none.", advanced=True)  # fmt: skip
        self.add_number(self.BAND_GAIN, "Brightness jitter by band", 0.15, 0.0, 2.0,
                        "Sigma of the random gain of each band; 0: none.", advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterString(self.NETWORK_OPTIONS, tr("Network options"), optional=True),
                 "With semicolons: blocks=4; features=32. Empty: the network's defaults. They are: " + OPTIONS,
                 advanced=True)  # fmt: skip
        self.add_enum(self.PRECISION, "Mixed precision", ["auto", "off", "float16", "bfloat16"], "auto",
                      "auto: where the graphics card is faster with it.", advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterMultipleLayers(self.MORE_DATASETS, tr("More datasets"),
                                                      QgsProcessing.SourceType.TypeFile, optional=True),
                 "The dataset.yaml of further datasets of the same task, mixed with the first.",
                 advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterFile(self.WEIGHTS, tr("Initial weights"), extension="h5", optional=True),
                 "Weights file (.weights.h5) of the same network to start from.", advanced=True)  # fmt: skip
        self.add_boolean(self.RESUME, "Resume the run", False,
                         "Go on with an interrupted run in the run folder.", advanced=True)  # fmt: skip
        self.add_boolean(self.SAVED_MODEL, "Also export a TensorFlow SavedModel", True,
                         "For OTBTF and TensorFlow; the plugin itself uses the ONNX file.", advanced=True)  # fmt: skip
        self.add_number(self.SEED, "Seed", 0, 0, 2147483647, "Seed of weights, order and augmentation.",
                        advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterFolderDestination(self.RUN, tr("Run")),
                 "Folder for configuration, logs, checkpoints, test figures, report.html.")  # fmt: skip
        self.add(QgsProcessingParameterFolderDestination(self.MODEL, tr("Model")),
                 "Folder for the finished model: model.onnx and card.yaml.")  # fmt: skip
        self.addOutput(QgsProcessingOutputNumber(self.RMSE, tr("RMSE on the test patches (DN)")))
        self.addOutput(QgsProcessingOutputNumber(self.RMSE_BICUBIC, tr("The same for bicubic interpolation (DN)")))
        self.addOutput(QgsProcessingOutputHtml(self.REPORT, tr("Report of the training (HTML)")))

    def checkParameterValues(self, parameters, context):
        for folder in self.datasets(parameters, context):
            if not (Path(folder) / CARD).is_file():
                return False, tr("{} is no dataset: it has no {}.").format(folder, CARD)
        try:
            options_of(self.text(parameters, self.NETWORK_OPTIONS, context) or "")
        except ValueError as error:
            return False, tr("Network options: '{}' is not a name, = and a value (blocks=4).").format(error)
        for name in (self.RUN, self.MODEL):
            output = self.parameterAsString(parameters, name, context)
            if output and output != "TEMPORARY_OUTPUT" and output_problem(output):
                return False, output_problem(output)
        return super().checkParameterValues(parameters, context)

    def datasets(self, parameters, context) -> list[str]:
        more = self.parameterAsFileList(parameters, self.MORE_DATASETS, context)  # [""] for none
        paths = [self.text(parameters, self.DATASET, context) or "", *filter(None, more)]
        return [str(Path(path).parent) if Path(path).name == CARD else path for path in paths]

    def jobs(self, parameters, context) -> tuple[dict, dict]:
        run = self.parameterAsString(parameters, self.RUN, context)
        train = {
            "job": "train",
            "datasets": self.datasets(parameters, context),
            "output": run,
            "dihedral": self.parameterAsBool(parameters, self.DIHEDRAL, context),
            "resume": self.parameterAsBool(parameters, self.RESUME, context),
            **filled(initial_weights=self.text(parameters, self.WEIGHTS, context)),
            **filled(network_options=options_of(self.text(parameters, self.NETWORK_OPTIONS, context) or "") or None),
        }
        words = (self.NETWORK, self.LOSS, self.OPTIMIZER, self.SCHEDULE, self.PRECISION)
        numbers = (self.EPOCHS, self.MAX_MINUTES, self.BATCH_SIZE, self.LEARNING_RATE, self.EARLY_STOPPING, self.GAIN,
                   self.BAND_GAIN, self.SEED)  # fmt: skip
        train.update(filled(**{name.lower(): self.text(parameters, name, context) for name in words}))
        train.update(filled(**{name.lower(): self.number(parameters, name, context) for name in numbers}))
        export = {
            "job": "export",
            "run": run,
            "output": self.parameterAsString(parameters, self.MODEL, context),
            "saved_model": self.parameterAsBool(parameters, self.SAVED_MODEL, context),
        }
        return train, export

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        train, export = self.jobs(parameters, context)
        steps = QgsProcessingMultiStepFeedback(2, feedback)
        scored = self.run_job(train, steps)
        steps.setCurrentStep(1)
        self.run_job(export, steps)
        return {
            self.RUN: train["output"],
            self.MODEL: export["output"],
            self.RMSE: scored["rmse"],
            self.RMSE_BICUBIC: scored["rmse_bicubic"],
            **filled(**{self.REPORT: scored.get("report")}),
        }
