"""Evaluate a model: Wald's protocol on a real scene, beside bicubic interpolation."""

from __future__ import annotations

from qgis.core import QgsProcessingOutputNumber, QgsProcessingParameterFileDestination

from ..runner.text import tr
from .base import S2SRAlgorithm
from .checks import bundled_models, filled, model_problem, output_problem, scene_problem
from .report import write_report


class EvaluateModel(S2SRAlgorithm):
    NAME = "evaluatemodel"
    TITLE = "Evaluate a model"
    GROUP = "Inference"
    SUMMARY = "Scores a sharpening model on a real scene by Wald's protocol."
    HELP = (
        "Degrades the scene, sharpens it back and compares the result with the original bands. For each band, and over "
        "all of them: RMSE (digital numbers, 10000 being reflectance 1; less is better), SRE (signal to reconstruction "
        "error, dB; more is better), SAM (spectral angle, degrees; less is better) and UIQ (universal image quality; 1 "
        "is perfect), with bicubic interpolation beside them."
    )
    TAGS = "accuracy,quality,rmse,sre,sam,uiq,wald,validation"
    INPUT, EXTENT, MODEL, MODEL_FOLDER = "INPUT", "EXTENT", "MODEL", "MODEL_FOLDER"
    BORDER, SIGMA, OUTPUT_JSON, OUTPUT_HTML = "BORDER", "SIGMA", "OUTPUT_JSON", "OUTPUT_HTML"
    FIGURES = ("RMSE", "RMSE_BICUBIC", "SRE", "SRE_BICUBIC", "SAM", "SAM_BICUBIC", "UIQ", "UIQ_BICUBIC")

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
        for name, label, types in (
            (self.OUTPUT_JSON, "Figures (JSON)", "JSON files (*.json)"),
            (self.OUTPUT_HTML, "Report (HTML)", "HTML files (*.html)"),
        ):
            parameter = QgsProcessingParameterFileDestination(name, tr(label), tr(types), None, True)
            parameter.setCreateByDefault(name == self.OUTPUT_HTML)
            self.add(parameter, "Every figure for every band, as a file.")
        for name in self.FIGURES:
            metric, _, other = name.partition("_")
            label = tr("{} of bicubic interpolation") if other else tr("{} of the model")
            self.addOutput(QgsProcessingOutputNumber(name, label.format(metric)))

    def checkParameterValues(self, parameters, context):
        outputs = [self.file(parameters, name, context) for name in (self.OUTPUT_JSON, self.OUTPUT_HTML)]
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
                json_file=self.file(parameters, self.OUTPUT_JSON, context) or None,
            ),
            **self.device_options(parameters, context),
        }

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        job = self.job(parameters, context)
        done = self.run_job(job, feedback)
        outputs = {self.OUTPUT_JSON: job.get("json_file")}
        html = self.file(parameters, self.OUTPUT_HTML, context)
        if html:
            write_report(html, done)
        outputs[self.OUTPUT_HTML] = html or None
        for name in self.FIGURES:
            metric, _, other = name.lower().partition("_")
            outputs[name] = done["mean"][other or "model"][metric]
        return outputs
