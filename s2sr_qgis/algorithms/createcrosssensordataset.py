"""Create a cross-sensor dataset: pairs of a Sentinel-2 scene and a finer sensor's image."""

from __future__ import annotations

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingParameterFile,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterString,
)

from ..runner.text import tr
from .base import SCENE_HELP, S2SRAlgorithm
from .checks import filled, output_problem, scene_problem


class CreateCrossSensorDataset(S2SRAlgorithm):
    NAME = "createcrosssensordataset"
    TITLE = "Create a cross-sensor dataset"
    GROUP = "Dataset"
    SUMMARY = "Cuts training pairs out of a Sentinel-2 scene and a finer image of the same ground."
    HELP = (
        "Makes the patches that a network learns from to turn Sentinel-2's bands into a finer sensor's, such as the "
        "1.5 m of a pansharpened SPOT-6/7 image. The scene is superimposed on the grid of the multispectral image, "
        "which is pansharpened where a panchromatic one is given; patches of both cover exactly the same ground. "
        "Without a scene the clearest one over the image is searched on the internet.\n\n"
        "Before patches are cut, the pair is checked: overlap, dates, shift, radiometry and clouds. A report, "
        "pair_report.html, lies in the dataset's folder; a pair beyond the limits is refused unless forced."
    )
    TAGS = "training data,patches,SPOT,pansharpening,superimpose,OTBTF"
    XS, PAN, SCENE, BANDS, RATIO, OUTPUT = "XS", "PAN", "INPUT", "BANDS", "RATIO", "OUTPUT"
    START, END, CATALOG, MAX_AREA_CLOUD = "START", "END", "CATALOG", "MAX_AREA_CLOUD"
    INTERPOLATION, PANSHARPENING, ENGINE, COMPAT = "INTERPOLATION", "PANSHARPENING", "ENGINE", "COMPAT"
    PATCH_SIZE, STEP, STRATEGY, VALID, TEST = "PATCH_SIZE", "STEP", "STRATEGY", "VALID", "TEST"
    BLOCK_SIZE, MASK, NODATA, COREGISTER, HARMONIZE = "BLOCK_SIZE", "MASK", "NODATA", "COREGISTER", "HARMONIZE"
    MAX_SHIFT, MAX_DAYS, MIN_CORRELATION, FORCE = "MAX_SHIFT", "MAX_DAYS", "MIN_CORRELATION", "FORCE"
    LICENCE, SEED = "LICENCE", "SEED"
    COUNTS = (("TRAIN_PATCHES", "n_train"), ("VALID_PATCHES", "n_valid"), ("TEST_PATCHES", "n_test"))

    def initAlgorithm(self, configuration=None) -> None:
        self.add(QgsProcessingParameterFile(self.XS, tr("Multispectral image (XS)")),
                 "GeoTIFF, or a DIMAP product's DIM_*.XML; its bands in the order of the Sentinel-2 bands "
                 "below.")  # fmt: skip
        self.add(QgsProcessingParameterFile(self.PAN, tr("Panchromatic image (PAN)"), optional=True),
                 "Of the same acquisition; the target is then the pansharpened image on PAN's grid. Empty: the "
                 "multispectral image itself is the target.")  # fmt: skip
        self.add(QgsProcessingParameterFile(self.SCENE, tr("Sentinel-2 scene (empty: search)"), optional=True,
                                            fileFilter=tr("All files (*)")),
                 SCENE_HELP + " Also the result of 'Search for scenes': its best one. Empty: the clearest scene over "
                 "the image is searched between the days below.")  # fmt: skip
        for name, label in ((self.START, "Search from"), (self.END, "Search to")):
            self.add(QgsProcessingParameterString(name, tr(label), optional=True),
                     "A day such as 2022-06-15; empty: as far from the image's own date as the most days between the "
                     "images allow.")  # fmt: skip
        self.add(QgsProcessingParameterString(self.CATALOG, tr("Catalogue"), "planetary-computer"),
                 "planetary-computer, earth-search, copernicus, or the address of a STAC API.",
                 advanced=True)  # fmt: skip
        self.add_number(self.MAX_AREA_CLOUD, "Most cloud over the image (%)", 5.0, 0.0, 100.0,
                        "Searched scenes with more are left out.", advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterString(self.BANDS, tr("Sentinel-2 bands"), "B04,B03,B02,B08"),
                 "One for each band of the multispectral image, in its order.")  # fmt: skip
        self.add_number(self.RATIO, "Ratio without PAN", None, 1, 32,
                        "How much coarser than the multispectral image the low-resolution patches are; empty: what "
                        "comes nearest to 10 m.", advanced=True)  # fmt: skip
        self.add_enum(self.INTERPOLATION, "Interpolation", ["bicubic", "linear", "nearest"], "bicubic",
                      "How the scene is superimposed.", advanced=True)  # fmt: skip
        self.add_enum(self.PANSHARPENING, "Pansharpening", ["rcs", "lmvm", "bayes"], "rcs",
                      "Method of BundleToPerfectSensor.", advanced=True)  # fmt: skip
        self.add_number(self.PATCH_SIZE, "Patch size (low-resolution pixels)", 32, 4, 1024,
                        "Side of a patch; the target's is that times the ratio.")  # fmt: skip
        self.add_number(self.STEP, "Distance between patches", None, 1, 4096,
                        "In low-resolution pixels; empty: the patch size.", advanced=True)  # fmt: skip
        self.add_enum(self.STRATEGY, "Strategy", ["split", "chessboard", "all"], "split",
                      "split: training, validation and test in blocks with a buffer between; chessboard: training and "
                      "validation in turn; all: everything is for training.", advanced=True)  # fmt: skip
        self.add_number(self.VALID, "Share for validation", 0.1, 0.0, 0.9,
                        "Part of the patches that training is watched with.", advanced=True)  # fmt: skip
        self.add_number(self.TEST, "Share for the test", 0.1, 0.0, 0.9,
                        "Part of the patches that only the finished model is scored with.", advanced=True)  # fmt: skip
        self.add_number(self.BLOCK_SIZE, "Block size (patches)", 4, 1, 1024,
                        "Side of the blocks in space that are split.", advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterFile(self.MASK, tr("Mask"), optional=True),
                 "Raster on the multispectral image's grid: patches only where it is not 0.",
                 advanced=True)  # fmt: skip
        self.add_number(self.NODATA, "Nodata of the image", None, -999999999.0, 999999999.0,
                        "Where the files do not say it.", advanced=True)  # fmt: skip
        self.add_boolean(self.COREGISTER, "Correct the shift", False,
                         "Move the scene by the median shift that was measured.")  # fmt: skip
        self.add_boolean(self.HARMONIZE, "Harmonise the radiometry", False,
                         "Bring each band of the image to the scene's slope and offset.")  # fmt: skip
        self.add_number(self.MAX_SHIFT, "Largest shift (low-resolution pixels)", 1.0, 0.01, 100.0,
                        "A pair that is further apart is refused.", advanced=True)  # fmt: skip
        self.add_number(self.MAX_DAYS, "Most days between the images", 60.0, 0.1, 10000.0,
                        "A pair that is further apart is refused.", advanced=True)  # fmt: skip
        self.add_number(self.MIN_CORRELATION, "Least correlation", 0.3, 0.0, 1.0,
                        "A pair with a band that agrees less is refused.", advanced=True)  # fmt: skip
        self.add_boolean(self.FORCE, "Force", False, "Make the dataset though the pair is beyond its limits.",
                         advanced=True)  # fmt: skip
        self.add_enum(self.ENGINE, "Engine", ["auto", "native", "otb"], "auto",
                      "otb: the Orfeo ToolBox, where it is installed.", advanced=True)  # fmt: skip
        self.add_enum(self.COMPAT, "Compatibility", ["none", "otbtf"], "none",
                      "otbtf: exactly the patches that OTBTF cuts, its shifts between the two images included.",
                      advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterString(self.LICENCE, tr("Licence of the image"), optional=True),
                 "Written into the dataset's card and on into models trained from it.", advanced=True)  # fmt: skip
        self.add_number(self.SEED, "Seed", 0, 0, 2147483647, "Same seed, same dataset.", advanced=True)
        self.add_scene_options()
        self.add(QgsProcessingParameterFolderDestination(self.OUTPUT, tr("Dataset")),
                 "Folder of the dataset: new, or empty.")  # fmt: skip
        for name, key in self.COUNTS:
            self.addOutput(QgsProcessingOutputNumber(name, tr("Patches: {}").format(key[2:])))

    def checkParameterValues(self, parameters, context):
        scene = self.text(parameters, self.SCENE, context)
        if scene and scene_problem(scene):
            return False, scene_problem(scene)
        for name in (self.XS, self.PAN, self.MASK):
            path = self.text(parameters, name, context)
            if path and scene_problem(path):
                return False, tr("There is no image at {}.").format(path)
        if sum(self.parameterAsDouble(parameters, name, context) for name in (self.VALID, self.TEST)) >= 1:
            return False, tr("The shares for validation and test leave nothing to train with; lower them.")
        output = self.parameterAsString(parameters, self.OUTPUT, context)
        if output and output != "TEMPORARY_OUTPUT" and output_problem(output):
            return False, output_problem(output)
        return super().checkParameterValues(parameters, context)

    def job(self, parameters, context) -> dict:
        valid, test = (self.parameterAsDouble(parameters, name, context) for name in (self.VALID, self.TEST))
        bands = (self.text(parameters, self.BANDS, context) or "").split(",")
        texts = {"pan": self.PAN, "scene": self.SCENE, "start": self.START, "end": self.END, "catalog": self.CATALOG,
                 "interpolation": self.INTERPOLATION, "pansharpening": self.PANSHARPENING, "strategy": self.STRATEGY,
                 "mask": self.MASK, "engine": self.ENGINE, "compat": self.COMPAT, "licence": self.LICENCE}  # fmt: skip
        numbers = {"max_area_cloud": self.MAX_AREA_CLOUD, "ratio": self.RATIO, "patch_size": self.PATCH_SIZE,
                   "step": self.STEP, "block_size": self.BLOCK_SIZE, "nodata": self.NODATA,
                   "max_shift": self.MAX_SHIFT, "max_days": self.MAX_DAYS, "min_correlation": self.MIN_CORRELATION,
                   "seed": self.SEED}  # fmt: skip
        return {
            "job": "create_cross_sensor_dataset",
            "xs": self.text(parameters, self.XS, context),
            "output": self.parameterAsString(parameters, self.OUTPUT, context),
            "scene_options": self.scene_options(parameters, context),
            "train": round(1 - valid - test, 6),
            "valid": valid,
            "test": test,
            "coregister": self.parameterAsBool(parameters, self.COREGISTER, context),
            "harmonize": self.parameterAsBool(parameters, self.HARMONIZE, context),
            "force": self.parameterAsBool(parameters, self.FORCE, context),
            **filled(
                bands=[band.strip() for band in bands if band.strip()],
                **{field: self.text(parameters, name, context) for field, name in texts.items()},
                **{field: self.number(parameters, name, context) for field, name in numbers.items()},
            ),
        }

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        job = self.job(parameters, context)
        done = self.run_job(job, feedback)
        return {self.OUTPUT: job["output"], **{name: done[key] for name, key in self.COUNTS}}
