"""Simulate a Sentinel-2 image out of a finer one."""

from __future__ import annotations

from qgis.core import (
    QgsProcessingParameterFile,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterString,
)

from ..runner.text import tr
from .base import S2SRAlgorithm
from .checks import filled, output_problem, scene_problem


class SimulateScene(S2SRAlgorithm):
    NAME = "simulatescene"
    TITLE = "Simulate a Sentinel-2 image"
    GROUP = "Dataset"
    SUMMARY = "Makes a Sentinel-2 image out of a finer one: the sensor's blur, its sampling, its noise."
    HELP = (
        "Blurs each band so that Sentinel-2's published modulation transfer (MTF) is met at the Nyquist frequency, "
        "samples it on a grid that starts at the image's upper-left corner, and adds the noise that the instrument was "
        "specified for. With the image it was made from, the result is a pair without a shift and of one date: "
        "something to train and test cross-sensor super-resolution with.\n\n"
        "The image must be in a projected coordinate system, and its pixels half as wide as the result's at most."
    )
    TAGS = "degrade,MTF,noise,downsample,training data"
    INPUT, BANDS, SPACING, GAIN, NOISE, SEED, OUTPUT = (
        "INPUT", "BANDS", "SPACING", "GAIN", "NOISE", "SEED", "OUTPUT",
    )  # fmt: skip

    def initAlgorithm(self, configuration=None) -> None:
        self.add(QgsProcessingParameterFile(self.INPUT, tr("Finer image"), fileFilter=tr("All files (*)")),
                 "A raster of reflectance or radiance, in any unit.")  # fmt: skip
        self.add(QgsProcessingParameterString(self.BANDS, tr("Sentinel-2 bands"), "B04,B03,B02,B08"),
                 "What each band of the image stands for, in file order; '-' for one to leave out.")  # fmt: skip
        self.add_number(self.SPACING, "Pixel size (metres)", 10.0, 0.01, 10000.0,
                        "Of the simulated image; 20 for bands that Sentinel-2 records at 20 m.")  # fmt: skip
        self.add_number(self.GAIN, "Gain", 1.0, 1e-6, 1e6,
                        "The image's values times this are reflectance times 10000.")  # fmt: skip
        self.add_boolean(self.NOISE, "Noise", True, "Add the instrument's noise.")
        self.add_number(self.SEED, "Seed", 0, 0, 2147483647, "Same seed, same noise.", advanced=True)
        self.add(QgsProcessingParameterRasterDestination(self.OUTPUT, tr("Simulated image")),
                 "The GeoTIFF to write; its bands have Sentinel-2's names.")  # fmt: skip

    def checkParameterValues(self, parameters, context):
        image = self.text(parameters, self.INPUT, context)
        if image and scene_problem(image):
            return False, tr("There is no image at {}.").format(image)
        output = self.parameterAsOutputLayer(parameters, self.OUTPUT, context) if parameters.get(self.OUTPUT) else ""
        if output and output_problem(output):
            return False, output_problem(output)
        if output and not output.lower().endswith((".tif", ".tiff")):
            return False, tr("The result is a GeoTIFF: {} must end in .tif.").format(output)
        return super().checkParameterValues(parameters, context)

    def job(self, parameters, context) -> dict:
        bands = (self.text(parameters, self.BANDS, context) or "").split(",")
        return {
            "job": "simulate",
            "image": self.text(parameters, self.INPUT, context),
            "output": self.parameterAsOutputLayer(parameters, self.OUTPUT, context),
            "noise": self.parameterAsBool(parameters, self.NOISE, context),
            **filled(
                bands=[band.strip() for band in bands if band.strip()],
                spacing=self.number(parameters, self.SPACING, context),
                gain=self.number(parameters, self.GAIN, context),
                seed=self.number(parameters, self.SEED, context),
            ),
        }

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        job = self.job(parameters, context)
        self.run_job(job, feedback)
        return {self.OUTPUT: job["output"]}
