"""Create a sharpening dataset: training pairs out of Sentinel-2 scenes."""

from __future__ import annotations

from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterString,
)

from ..runner.text import tr
from .base import SCENE_HELP, S2SRAlgorithm
from .checks import filled, output_problem, scene_problem


class CreateSharpeningDataset(S2SRAlgorithm):
    NAME = "createsharpeningdataset"
    TITLE = "Create a sharpening dataset"
    GROUP = "Dataset"
    SUMMARY = "Cuts training pairs for a sharpening network out of Sentinel-2 scenes."
    HELP = (
        "Makes the patches that a sharpening network learns from. By Wald's protocol the scene is degraded, and its "
        "original bands are the target: what the network learns between 40 m and 20 m it then does between 20 m and "
        "10 m. Invalid and saturated pixels are left out; training, validation and test patches lie apart.\n\n"
        "The result is a folder with one stacked GeoTIFF for each source and split, and dataset.yaml, which says what "
        "they are."
    )
    TAGS = "training data,patches,samples,wald"
    SCENES, TASK, PATCH_SIZE, STEP, SCALES = "SCENES", "TASK", "PATCH_SIZE", "STEP", "SCALES"
    SPLIT, VALID, TEST, BLOCK_SIZE = "SPLIT", "VALID", "TEST", "BLOCK_SIZE"
    CLOUDS, TEACHER = "CLOUDS", "TEACHER"
    TEACHER_VARIANTS = "TEACHER_VARIANTS"
    SIGMA, SENSOR_MTF, LICENCE, SEED, OUTPUT = "SIGMA", "SENSOR_MTF", "LICENCE", "SEED", "OUTPUT"
    COUNTS = (("TRAIN_PATCHES", "n_train"), ("VALID_PATCHES", "n_valid"), ("TEST_PATCHES", "n_test"))

    def initAlgorithm(self, configuration=None) -> None:
        # Files, not rasters: QGIS cannot load a SAFE folder or a zip as a layer, and this takes any path.
        files = QgsProcessing.SourceType.TypeFile
        self.add(QgsProcessingParameterMultipleLayers(self.SCENES, tr("Sentinel-2 scenes"), files),
                 "One or more scenes. " + SCENE_HELP)  # fmt: skip
        self.add_enum(self.TASK, "Bands to sharpen", ["20m", "60m"], "20m",
                      "20m: the six bands B05, B06, B07, B8A, B11, B12; 60m: B01 and B09.")  # fmt: skip
        self.add_extent()
        self.add_number(self.PATCH_SIZE, "Patch size (target pixels)", None, 6, 1024,
                        "Side of a patch on the target grid; empty: 32 for 20m, 96 for 60m.")  # fmt: skip
        self.add_number(self.STEP, "Distance between patches (target pixels)", None, 1, 4096,
                        "Smaller than the patch size: patches overlap. Empty: the patch size.",
                        advanced=True)  # fmt: skip
        self.add_number(self.SCALES, "Scales", 1, 1, 4,
                        "1: the scene as it is; 2: also the scene reduced by 2; and so on.", advanced=True)  # fmt: skip
        self.add_number(self.CLOUDS, "Copies under simulated clouds", 0, 0, 8,
                        "Also each scene as often under simulated clouds, so that the network meets bright soft edges.",
                        advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterFile(self.TEACHER, tr("Teacher"), QgsProcessingParameterFile.Behavior.Folder,
                                            optional=True),
                 "Folder of a model, usually a larger one, whose result on the scenes as they are is a further target.",
                 advanced=True)  # fmt: skip
        self.add_number(self.TEACHER_VARIANTS, "Recoloured copies for the teacher", 0, 0, 64,
                        "How often the teacher is asked about each scene in other colours too.",
                        advanced=True)  # fmt: skip
        self.add_number("MIXTURES", "Mixtures", 0, 0, 1000000,
                        "Further training pairs in which two places are mixed, in other light and perhaps under "
                        "clouds.", advanced=True)  # fmt: skip
        self.add_enum(self.SPLIT, "Split", ["auto", "blocks", "scenes"], "auto",
                      "How patches are set apart: by blocks in space with a buffer between, or by scene. auto: by "
                      "scene where there are three or more.", advanced=True)  # fmt: skip
        self.add_number(self.VALID, "Share for validation", 0.1, 0.0, 0.9,
                        "Part of the patches that training is watched with.", advanced=True)  # fmt: skip
        self.add_number(self.TEST, "Share for the test", 0.1, 0.0, 0.9,
                        "Part of the patches that only the finished model is scored with.", advanced=True)  # fmt: skip
        self.add_number(self.BLOCK_SIZE, "Block size (patches)", 8, 1, 1024,
                        "Side of the blocks in space that are split.", advanced=True)  # fmt: skip
        self.add_number(self.SIGMA, "Blur before reduction (pixels)", None, 0.01, 20.0,
                        "Sigma of the Gaussian in fine pixels; empty: 1 / factor, as in DSen2.",
                        advanced=True)  # fmt: skip
        self.add_boolean(self.SENSOR_MTF, "Blur with the sensor's MTF", False,
                         "Blur each band with its own measured point spread instead of one sigma.",
                         advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterString(self.LICENCE, tr("Licence of the scenes"), optional=True),
                 "Written into the dataset's card and on into models trained from it.", advanced=True)  # fmt: skip
        self.add_number(self.SEED, "Seed", 0, 0, 2147483647, "Same seed, same dataset.", advanced=True)
        self.add_scene_options()
        self.add(QgsProcessingParameterFolderDestination(self.OUTPUT, tr("Dataset")),
                 "Folder of the dataset: new, or empty.")  # fmt: skip
        for name, key in self.COUNTS:
            self.addOutput(QgsProcessingOutputNumber(name, tr("Patches: {}").format(key[2:])))

    def checkParameterValues(self, parameters, context):
        for source in self.parameterAsFileList(parameters, self.SCENES, context):
            if scene_problem(source):
                return False, scene_problem(source)
        if sum(self.parameterAsDouble(parameters, name, context) for name in (self.VALID, self.TEST)) >= 1:
            return False, tr("The shares for validation and test leave nothing to train with; lower them.")
        output = self.parameterAsString(parameters, self.OUTPUT, context)
        if output and output != "TEMPORARY_OUTPUT" and output_problem(output):
            return False, output_problem(output)
        return super().checkParameterValues(parameters, context)

    def job(self, parameters, context) -> dict:
        valid, test = (self.parameterAsDouble(parameters, name, context) for name in (self.VALID, self.TEST))
        return {
            "job": "create_sharpening_dataset",
            "scenes": self.parameterAsFileList(parameters, self.SCENES, context),
            "output": self.parameterAsString(parameters, self.OUTPUT, context),
            "scene_options": self.scene_options(parameters, context),
            "train": round(1 - valid - test, 6),
            "valid": valid,
            "test": test,
            "sensor_mtf": self.parameterAsBool(parameters, self.SENSOR_MTF, context),
            **filled(
                roi=self.roi(parameters, context),
                task=self.text(parameters, self.TASK, context),
                patch_size=self.number(parameters, self.PATCH_SIZE, context),
                step=self.number(parameters, self.STEP, context),
                scales=self.number(parameters, self.SCALES, context),
                clouds=self.number(parameters, self.CLOUDS, context) or None,
                teacher=self.text(parameters, self.TEACHER, context),
                teacher_variants=self.number(parameters, self.TEACHER_VARIANTS, context) or None,
                mixtures=self.number(parameters, "MIXTURES", context) or None,
                sigma=self.number(parameters, self.SIGMA, context),
                split=self.text(parameters, self.SPLIT, context),
                block_size=self.number(parameters, self.BLOCK_SIZE, context),
                licence=self.text(parameters, self.LICENCE, context),
                seed=self.number(parameters, self.SEED, context),
            ),
        }

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        job = self.job(parameters, context)
        done = self.run_job(job, feedback)
        return {self.OUTPUT: job["output"], **{name: done[key] for name, key in self.COUNTS}}
