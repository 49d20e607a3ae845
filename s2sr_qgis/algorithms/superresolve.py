"""Super-resolve a Sentinel-2 image: every band at 10 m."""

from __future__ import annotations

from qgis.core import QgsProcessingOutputString, QgsProcessingParameterRasterDestination

from ..runner.text import tr
from .base import S2SRAlgorithm
from .checks import bundled_models, filled, model_problem, output_problem, scene_name, scene_problem
from .style import style_when_loaded

BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12"]


class SuperResolve(S2SRAlgorithm):
    NAME = "superresolve"
    TITLE = "Super-resolve a Sentinel-2 image"
    GROUP = "Inference"
    SUMMARY = "Sharpens the 20 m and 60 m bands of a Sentinel-2 product to 10 m with a neural network."
    HELP = (
        "Writes one GeoTIFF with all bands of a Sentinel-2 product at 10 m. The 20 m and 60 m bands are sharpened by "
        "convolutional networks that know the 10 m bands; the 10 m bands are copied unchanged.\n\n"
        "The bundled models are used unless others are chosen. Values are stored as in the product (digital numbers) "
        "or as reflectance. With consistency passes the result, degraded again, gives the original bands.\n\n"
        "With the folder of a cross-sensor model the result is its bands on the finer sensor's grid instead.\n\n"
        "The work is done by a Python environment of its own: see 'Set up the environment'."
    )
    TAGS = "upscale,pansharpen,10 m,SAFE,resolution"
    INPUT, EXTENT, BANDS, MODELS, MODEL_FOLDER = "INPUT", "EXTENT", "BANDS", "MODELS", "MODEL_FOLDER"
    SECOND_MODEL_FOLDER, CONSISTENCY, DATA_TYPE, FORMAT = "SECOND_MODEL_FOLDER", "CONSISTENCY", "DATA_TYPE", "FORMAT"
    COMPRESSION, MEMORY, TILE_SIZE, OUTPUT, SCENE = "COMPRESSION", "MEMORY", "TILE_SIZE", "OUTPUT", "SCENE"
    ADAPT = "ADAPT"

    def initAlgorithm(self, configuration=None) -> None:
        self.add_scene()
        self.add_extent()
        self.add_enum(self.BANDS, "Bands to write (none: all)", BANDS, None,
                      "Bands of the result, in this order; none chosen: all that the scene and the models give. On a "
                      "command line: BANDS=B05,B8A.",
                      multiple=True)  # fmt: skip
        self.add_enum(self.MODELS, "Bundled models (none: what fits the scene)", bundled_models(), None,
                      "Models that come with the plugin, at most one each for the 20 m and the 60 m bands; none "
                      "chosen, and no folder below: those that fit the scene.", multiple=True)  # fmt: skip
        self.add_folder(self.MODEL_FOLDER, "Model folder",
                        "A model of your own, as 'Train a model' writes it: a folder with card.yaml and "
                        "model.onnx. Choose a bundled model too if it shall sharpen the bands that this one does not "
                        "give.",
                        optional=True)  # fmt: skip
        self.add_folder(self.SECOND_MODEL_FOLDER, "Second model folder",
                        "A second model of your own, for the other task (20 m or 60 m bands).",
                        advanced=True, optional=True)  # fmt: skip
        self.add_number(self.CONSISTENCY, "Consistency passes", 0, 0, 2,
                        "Passes of back-projection, which make the result, degraded to the original resolution, agree "
                        "with the original bands. 0: none.")  # fmt: skip
        self.add_enum(self.DATA_TYPE, "Data type", ["uint16", "float32"], "uint16",
                      "uint16: digital numbers as in the product; float32: reflectance.")  # fmt: skip
        self.add_enum(self.FORMAT, "Format", ["gtiff", "cog"], "gtiff",
                      "gtiff: tiled GeoTIFF with overviews; cog: Cloud Optimized GeoTIFF.", advanced=True)  # fmt: skip
        self.add_enum(self.COMPRESSION, "Compression", ["deflate", "zstd"], "deflate",
                      "Lossless compression; zstd is faster, deflate is read everywhere.", advanced=True)  # fmt: skip
        self.add_device()
        self.add_number(self.MEMORY, "Memory (MB)", None, 200, 1000000,
                        "Memory that the work may take; empty: a part of what is free.", advanced=True)  # fmt: skip
        self.add_number(self.TILE_SIZE, "Tile size (10 m pixels)", None, 60, 20000,
                        "Side of the windows that the scene is worked on in; the result does not depend on it. "
                        "Empty: as large as the memory allows.", advanced=True)  # fmt: skip
        self.add_number(self.ADAPT, "Adapt to the scene (minutes)", None, 0.0, 1440.0,
                        "Fine-tunes the models on the scene itself, at reduced scale, for so many minutes before they "
                        "sharpen it; a model that gains nothing on a held-out block of the scene is used as it is. "
                        "Needs TensorFlow: 'Set up the environment' with training. 0 or empty: off.",
                        advanced=True)  # fmt: skip
        self.add_enum("ENGINE", "Engine", ["auto", "native", "otb"], "auto",
                      "otb: serve a cross-sensor model's SavedModel with OTBTF, where that is installed.",
                      advanced=True)  # fmt: skip
        self.add_scene_options()
        self.add(QgsProcessingParameterRasterDestination(self.OUTPUT, tr("Super-resolved image")),
                 "The GeoTIFF to write, in the scene's projection at 10 m.")  # fmt: skip
        self.addOutput(QgsProcessingOutputString(self.SCENE, tr("Name of the scene")))

    def checkParameterValues(self, parameters, context):
        output = self.parameterAsOutputLayer(parameters, self.OUTPUT, context) if parameters.get(self.OUTPUT) else ""
        problems = [
            scene_problem(self.text(parameters, self.INPUT, context) or ""),
            model_problem(self.text(parameters, self.MODEL_FOLDER, context)),
            model_problem(self.text(parameters, self.SECOND_MODEL_FOLDER, context)),
            output_problem(output) if output else "",
        ]
        if output and not output.lower().endswith((".tif", ".tiff")):
            problems.append(tr("The result is a GeoTIFF: {} must end in .tif.").format(output))
        for problem in filter(None, problems):
            return False, problem
        return super().checkParameterValues(parameters, context)

    def job(self, parameters, context) -> dict:
        folders = [self.text(parameters, name, context) for name in (self.MODEL_FOLDER, self.SECOND_MODEL_FOLDER)]
        return {
            "job": "super_resolve",
            "scene": self.text(parameters, self.INPUT, context),
            "output": self.parameterAsOutputLayer(parameters, self.OUTPUT, context),
            "models": self.words(parameters, self.MODELS, context) + list(filter(None, folders)),
            "bands": self.words(parameters, self.BANDS, context),
            "scene_options": self.scene_options(parameters, context),
            **filled(
                roi=self.roi(parameters, context),
                consistency=self.number(parameters, self.CONSISTENCY, context),
                data_type=self.text(parameters, self.DATA_TYPE, context),
                format=self.text(parameters, self.FORMAT, context),
                compression=self.text(parameters, self.COMPRESSION, context),
                memory=self.number(parameters, self.MEMORY, context),
                tile_size=self.number(parameters, self.TILE_SIZE, context),
                adapt=self.number(parameters, self.ADAPT, context) or None,
                engine=self.text(parameters, "ENGINE", context),
            ),
            **self.device_options(parameters, context),
        }

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        job = self.job(parameters, context)
        done = self.run_job(job, feedback)
        scene = str(done.get("scene") or scene_name(job["scene"]))
        style_when_loaded(self.id(), self.OUTPUT, job["output"], scene, context)
        return {self.OUTPUT: job["output"], self.SCENE: scene}
