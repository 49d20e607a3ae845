"""Evaluate a model: Wald's protocol on a real scene, beside bicubic interpolation."""

from __future__ import annotations

from qgis.core import QgsProcessingOutputNumber

from ..runner.text import tr
from .base import S2SRAlgorithm
from .checks import bundled_models, filled, model_problem, output_problem, scene_problem
from .imagesimilarity import MEASURES, measure_title


class EvaluateModel(S2SRAlgorithm):
    NAME = "evaluatemodel"
    TITLE = "Evaluate a model"
    GROUP = "Inference"
    SUMMARY = "Scores a sharpening model on a real scene by Wald's protocol."
    HELP = (
        "Degrades the scene, sharpens it back and compares the result with the original bands, beside bicubic "
        "interpolation. Less is better of RMSE (digital numbers, 10000 being reflectance 1), SAM (spectral angle, "
        "degrees), ERGAS and the spatial shift (pixels); more is better of PSNR and SRE (dB), SSIM, FSIM, ISSM, UIQ, "
        "Q2n and the spectral correlation, of which 1 is perfect. Figures over all bands are outputs that a model can "
        "branch on, empty where they are infinite; the report shows them band by band, with maps and histograms."
    )
    TAGS = "accuracy,quality,rmse,psnr,ssim,sre,sam,uiq,ergas,q2n,wald,validation"
    INPUT, EXTENT, MODEL, MODEL_FOLDER = "INPUT", "EXTENT", "MODEL", "MODEL_FOLDER"
    BORDER, SIGMA, OUTPUT_JSON, OUTPUT_HTML = "BORDER", "SIGMA", "OUTPUT_JSON", "OUTPUT_HTML"
    FILES = (("json_file", OUTPUT_JSON), ("report", OUTPUT_HTML))

    def initAlgorithm(self, configuration=None) -> None:
        self.add_scene()
        self.add_extent()
        models = bundled_models()
        self.add_enum(self.MODEL, "Bundled model", models, models[0] if models else None,
                      "The model to score, of those that come with the plugin.")  # fmt: skip
        self.add_folder(self.MODEL_FOLDER, "Model folder (in place of the bundled one)",
                        "A model of your own, as 'Train a model' writes it; it replaces the bundled one.",
                        optional=True)  # fmt: skip
        self.add_number(self.BORDER, "Border (pixels)", 6, 0, 1000,
                        "Pixels along the scene's edge that are not counted, in the bands' own resolution.",
                        advanced=True)  # fmt: skip
        self.add_number(self.SIGMA, "Blur before reduction (pixels)", None, 0.01, 20.0,
                        "Sigma of the Gaussian in fine pixels; empty: 1 / factor, as in DSen2.",
                        advanced=True)  # fmt: skip
        self.add_device()
        self.add_scene_options()
        self.add_figures()
        for name in MEASURES:
            for end, label in (("", tr("{} of the model")), ("_BICUBIC", tr("{} of bicubic interpolation"))):
                self.addOutput(QgsProcessingOutputNumber(name.upper() + end, label.format(tr(measure_title(name)))))

    def checkParameterValues(self, parameters, context):
        outputs = [self.file(parameters, name, context) for _, name in self.FILES]
        problems = [
            scene_problem(self.text(parameters, self.INPUT, context) or ""),
            model_problem(self.text(parameters, self.MODEL_FOLDER, context)),
            *(output_problem(path) for path in outputs if path),
        ]
        if not self.model(parameters, context):
            problems.append(tr("Choose a bundled model or a model folder."))
        for problem in filter(None, problems):
            return False, problem
        return super().checkParameterValues(parameters, context)

    def model(self, parameters, context) -> str | None:
        return self.text(parameters, self.MODEL_FOLDER, context) or self.text(parameters, self.MODEL, context)

    def file(self, parameters, name, context) -> str:
        return self.parameterAsFileOutput(parameters, name, context) if parameters.get(name) else ""

    def job(self, parameters, context) -> dict:
        return {
            "job": "evaluate",
            "scene": self.text(parameters, self.INPUT, context),
            "model": self.model(parameters, context),
            "scene_options": self.scene_options(parameters, context),
            **filled(
                roi=self.roi(parameters, context),
                border=self.number(parameters, self.BORDER, context),
                sigma=self.number(parameters, self.SIGMA, context),
                **{field: self.file(parameters, name, context) or None for field, name in self.FILES},
            ),
            **self.device_options(parameters, context),
        }

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        job = self.job(parameters, context)
        done = self.run_job(job, feedback)
        outputs = {name: job.get(field) for field, name in self.FILES}
        for name in MEASURES:
            for way, end in (("model", ""), ("bicubic", "_BICUBIC")):
                outputs[name.upper() + end] = done["mean"][way].get(name)
        return outputs
