"""Make a model folder of a network that another tool trained."""

from __future__ import annotations

import os

from qgis.core import QgsProcessingParameterFile, QgsProcessingParameterFolderDestination, QgsProcessingParameterString

from ..runner.text import tr
from .base import S2SRAlgorithm
from .checks import filled, output_problem

WEIGHTS = "Networks (*.onnx *.keras *.h5 *.hdf5 saved_model.pb)"


class ImportModel(S2SRAlgorithm):
    NAME = "importmodel"
    TITLE = "Import a model"
    GROUP = "Training"
    SUMMARY = "Makes a model folder of a network of OTBTF, Keras or ONNX, or of published DSen2 weights."
    HELP = (
        "Turns a network that another tool trained into a model folder, which goes into 'Super-resolve a Sentinel-2 "
        "image' and 'Evaluate a model'. The network must be fully convolutional. It is run on random images, and the "
        "result must be that of its own library; scale and radius are measured.\n\n"
        "A file does not say everything: name the bands in the order of the channels, the scaling and the processing "
        "level. For published DSen2 weights these are known.\n\n"
        "Files that may run code or read other files are not opened: Lambda layers, custom layers and operations, "
        "pickled networks, external data. This needs TensorFlow in the worker's environment: run 'Set up the "
        "environment' with training."
    )
    TAGS = "otbtf,tensorflow,keras,onnx,dsen2,savedmodel"
    INPUT, BANDS, OUTPUT_BANDS, OUTPUT_NAME = "INPUT", "BANDS", "OUTPUT_BANDS", "OUTPUT_NAME"
    SCALING, OUTPUT_SCALING, RESOLUTION, LEVEL = "SCALING", "OUTPUT_SCALING", "RESOLUTION", "PROCESSING_LEVEL"
    LICENCE, TRANSPOSE, SAVED_MODEL, MODEL_NAME, OUTPUT = "LICENCE", "TRANSPOSE", "SAVED_MODEL", "NAME", "OUTPUT"

    def initAlgorithm(self, configuration=None) -> None:
        self.add(
            QgsProcessingParameterFile(self.INPUT, tr("Network"), fileFilter=tr(WEIGHTS) + ";;" + tr("All files (*)")),
            "The folder of a SavedModel (or the saved_model.pb inside it), a Keras file (.keras, .h5), an ONNX file, "
            "or an HDF5 file of published DSen2 weights.",
        )
        self.add_text(self.BANDS, "Bands of the input", "In the order of its channels: B04,B03,B02,B08. For several "
                      "inputs their names too: input_10m=B04,B03,B02,B08,input_20m=B05,B06 ...")  # fmt: skip
        self.add_text(self.OUTPUT_BANDS, "Bands of the output", "In the order of its channels.")
        self.add_number(self.SCALING, "Scaling", None, 1e-9, 1e6,
                        "A value of the network times this is reflectance: 0.0001 for a network that takes DN "
                        "(reflectance times 10000), 1 for one that takes reflectance.")  # fmt: skip
        self.add_number(self.RESOLUTION, "Pixel size of the input (metres)", None, 0.01, 10000.0,
                        "Where the output is finer than the input: what the network was trained for.")  # fmt: skip
        self.add_enum(self.LEVEL, "Processing level", ["L1C", "L2A"], None, "What the network was trained on.")
        self.add_text(self.OUTPUT_NAME, "Output", "Which output, where the network has several.", advanced=True)
        self.add_number(self.OUTPUT_SCALING, "Scaling of the output", None, 1e-9, 1e6,
                        "Where it is another than the input's.", advanced=True)  # fmt: skip
        self.add_text(self.MODEL_NAME, "Name", "Name in the model's card; empty: the folder's.", advanced=True)
        self.add_text(self.LICENCE, "Licence", "Licence of the weights, for the model's card.", advanced=True)
        self.add_boolean(self.TRANSPOSE, "DSen2 weights trained on transposed images", False,
                         "UP42's were; it turns the kernels.", advanced=True)  # fmt: skip
        self.add_boolean(self.SAVED_MODEL, "Also write a TensorFlow SavedModel", False,
                         "With the cropped outputs that OTBTF needs.", advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterFolderDestination(self.OUTPUT, tr("Model")), "The model folder to write.")

    def add_text(self, name: str, label: str, text: str, advanced: bool = False) -> None:
        self.add(QgsProcessingParameterString(name, tr(label), optional=True), text, advanced)

    def source(self, parameters, context) -> str:
        """The network's path; that of its folder for the file of a SavedModel."""
        path = self.text(parameters, self.INPUT, context) or ""
        return os.path.dirname(path) if os.path.basename(path) == "saved_model.pb" else path

    def checkParameterValues(self, parameters, context):
        source = self.source(parameters, context)
        if source and not os.path.exists(source):
            return False, tr("There is no network at {}.").format(source)
        output = self.parameterAsString(parameters, self.OUTPUT, context)
        if output and output_problem(output):
            return False, output_problem(output)
        return super().checkParameterValues(parameters, context)

    def job(self, parameters, context) -> dict:
        def bands(name: str) -> list[str]:
            given = (self.text(parameters, name, context) or "").split(",")
            return [band.strip() for band in given if band.strip()]

        return {
            "job": "import_model",
            "source": self.source(parameters, context),
            "output": self.parameterAsString(parameters, self.OUTPUT, context),
            "transpose": self.parameterAsBool(parameters, self.TRANSPOSE, context),
            "saved_model": self.parameterAsBool(parameters, self.SAVED_MODEL, context),
            **filled(
                bands=bands(self.BANDS),
                output_bands=bands(self.OUTPUT_BANDS),
                output_name=self.text(parameters, self.OUTPUT_NAME, context),
                scaling=self.number(parameters, self.SCALING, context),
                output_scaling=self.number(parameters, self.OUTPUT_SCALING, context),
                resolution=self.number(parameters, self.RESOLUTION, context),
                processing_level=self.text(parameters, self.LEVEL, context),
                licence=self.text(parameters, self.LICENCE, context),
                name=self.text(parameters, self.MODEL_NAME, context),
            ),
        }

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        job = self.job(parameters, context)
        self.run_job(job, feedback)
        return {self.OUTPUT: job["output"]}
