"""Image similarity: how alike two rasters are, by twelve measures."""

from __future__ import annotations

from qgis.core import (
    QgsProcessingOutputNumber,
    QgsProcessingParameterFile,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProviderRegistry,
)

from ..runner.text import tr
from .base import SCENE_HELP, S2SRAlgorithm
from .checks import filled, output_problem, scene_name, scene_problem
from .style import style_measure_when_loaded

MEASURES = ("rmse", "psnr", "ssim", "fsim", "issm", "sre", "sam", "uiq", "ergas", "q2n", "spectral_correlation",
            "spatial_shift")  # fmt: skip


def measure_title(name: str) -> str:
    return name.replace("_", " ").capitalize() if "_" in name else name.upper()


class ImageSimilarity(S2SRAlgorithm):
    NAME = "imagesimilarity"
    TITLE = "Image similarity"
    GROUP = "Inference"
    SUMMARY = "Says how alike two images are: RMSE, PSNR, SSIM, FSIM, ISSM, SRE, SAM, UIQ and more, band by band."
    HELP = (
        "Compares an image with a reference, block by block, whatever their size. Less is better of RMSE (in the "
        "image's values), SAM (spectral angle, degrees), ERGAS and the spatial shift (pixels); more is better of PSNR "
        "and SRE (dB), SSIM, FSIM, ISSM, UIQ, Q2n and the spectral correlation, of which 1 is perfect. Bands belong "
        "together by their Sentinel-2 names, else by position. Pixels that are nodata in either image do not count.\n\n"
        "Each figure is an output that a model can branch on; it is empty where it is infinite, as PSNR and SRE of "
        "equal images are. The report shows figures of each band, maps and histograms.\n\n"
        "For a super-resolved image: with 'Consistency' it is degraded by the sensor's blur and compared with its "
        "source, which a hallucination does not pass; with a source and a reference, opensr-test's quantities are "
        "added."
    )
    TAGS = "accuracy,quality,comparison,validation,rmse,psnr,ssim,fsim,issm,sre,sam,uiq,ergas,q2n,hallucination"
    REFERENCE, IMAGE, MASK, SOURCE, CONSISTENCY = "REFERENCE", "IMAGE", "MASK", "SOURCE", "CONSISTENCY"
    MEASURES, DEFINITION, BANDS, RESAMPLE, RATIO = "MEASURES", "DEFINITION", "BANDS", "RESAMPLE", "RATIO"
    NODATA, DATA_RANGE, THREADS, MAP_MEASURE = "NODATA", "DATA_RANGE", "THREADS", "MAP_MEASURE"
    OUTPUT_JSON, OUTPUT_HTML, OUTPUT = "OUTPUT_JSON", "OUTPUT_HTML", "OUTPUT"
    FILES = (("json_file", OUTPUT_JSON), ("report", OUTPUT_HTML), ("map", OUTPUT))

    def initAlgorithm(self, configuration=None) -> None:
        self.add(QgsProcessingParameterRasterLayer(self.REFERENCE, tr("Reference"), optional=True),
                 "The raster to compare with. Only for 'Consistency' it may be empty.")  # fmt: skip
        self.add(QgsProcessingParameterRasterLayer(self.IMAGE, tr("Image")), "The raster to judge.")
        self.add_enum(self.MEASURES, "Measures", list(MEASURES), None,
                      "None: all that the definition has.", multiple=True)  # fmt: skip
        self.add_enum(self.DEFINITION, "Definition", ["reference", "up42"], "reference",
                      "reference: the papers' formulas. up42: those of the package image-similarity-measures, for "
                      "figures that were made with it; the eight measures that it has.")  # fmt: skip
        self.add(QgsProcessingParameterString(self.BANDS, tr("Bands"), optional=True),
                 "By name or number, with commas: B02,B03 or 1,2. Empty: all.")  # fmt: skip
        self.add_enum(self.RESAMPLE, "Resampling", ["none", "nearest", "linear", "bicubic"], "none",
                      "How the image is brought to the reference's grid. none: images on different grids are refused, "
                      "with both grids in the message.")  # fmt: skip
        self.add(QgsProcessingParameterRasterLayer(self.MASK, tr("Mask"), optional=True),
                 "A raster on the reference's grid: only pixels where it is not 0 count.")  # fmt: skip
        self.add(QgsProcessingParameterFile(self.SOURCE, tr("Source"), optional=True,
                                            fileFilter=tr("All files (*)")),
                 "What a super-resolved image was made from: a raster, or a scene. " + SCENE_HELP)  # fmt: skip
        self.add_boolean(self.CONSISTENCY, "Consistency with the source", False,
                         "Degrade the image by the sensor's blur and compare it with the source, instead of comparing "
                         "it with the reference.")  # fmt: skip
        self.add_number(self.RATIO, "Ratio of super-resolution", 1.0, 0.01, 1000.0,
                        "How many times finer the image is than what it was made from; ERGAS alone uses it.",
                        advanced=True)  # fmt: skip
        self.add_number(self.NODATA, "Nodata", None, -999999999.0, 999999999.0,
                        "Of both rasters, where the files do not say it.", advanced=True)  # fmt: skip
        self.add_number(self.DATA_RANGE, "Data range", None, 1e-9, 9e9,
                        "Largest minus smallest value that the images can have; empty: by the reference's type and "
                        "scale, as the log says.", advanced=True)  # fmt: skip
        self.add_number(self.THREADS, "Threads", None, 1, 1024,
                        "Threads of the processor, some 100 MB each; empty: all of them, 4 at most.",
                        advanced=True)  # fmt: skip
        self.add_enum(self.MAP_MEASURE, "Measure of the map", ["uiq", "ssim", "sam"], "uiq",
                      "What the map shows in every place.", advanced=True)  # fmt: skip
        self.add_figures()
        parameter = QgsProcessingParameterRasterDestination(
            self.OUTPUT, tr("Map"), optional=True, createByDefault=False
        )
        self.add(parameter, "A GeoTIFF of one measure in every place, no data where it has none.")
        for name in MEASURES:
            self.addOutput(QgsProcessingOutputNumber(name.upper(), tr(measure_title(name))))
        self.addOutput(QgsProcessingOutputNumber("DATA_RANGE_USED", tr("Data range")))
        self.addOutput(QgsProcessingOutputNumber("PIXELS", tr("Pixels compared")))

    def checkParameterValues(self, parameters, context):
        source = self.text(parameters, self.SOURCE, context)
        consistency = self.parameterAsBool(parameters, self.CONSISTENCY, context)
        rasters = {name: self.raster(parameters, name, context) for name in (self.REFERENCE, self.IMAGE, self.MASK)}
        problems = [tr("There is no image at {}.").format(path) for path in rasters.values()
                    if path and scene_problem(path)]  # fmt: skip
        if source and scene_problem(source):
            problems.append(scene_problem(source))
        if consistency and not (source or rasters[self.REFERENCE]):
            problems.append(tr("Consistency needs the source that the image was made from."))
        if not consistency and not rasters[self.REFERENCE]:
            problems.append(tr("Choose a reference to compare with."))
        outputs = {name: self.output(parameters, name, context) for _, name in self.FILES}
        problems += [output_problem(path) for path in outputs.values() if path]
        if outputs[self.OUTPUT] and not outputs[self.OUTPUT].lower().endswith((".tif", ".tiff")):
            problems.append(tr("The map is a GeoTIFF: {} must end in .tif.").format(outputs[self.OUTPUT]))
        for problem in filter(None, problems):
            return False, problem
        return super().checkParameterValues(parameters, context)

    def raster(self, parameters, name, context) -> str | None:
        """A raster's file: of a layer of the project, or as the user typed it."""
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            return self.text(parameters, name, context)
        uri = QgsProviderRegistry.instance().decodeUri(layer.providerType(), layer.source())
        return layer.source() if uri.get("layerName") else uri.get("path") or layer.source()

    def output(self, parameters, name, context) -> str:
        if not parameters.get(name):
            return ""
        read = self.parameterAsOutputLayer if name == self.OUTPUT else self.parameterAsFileOutput
        return read(parameters, name, context)

    def job(self, parameters, context) -> dict:
        consistency = self.parameterAsBool(parameters, self.CONSISTENCY, context)
        reference, source = (
            self.raster(parameters, self.REFERENCE, context),
            self.text(parameters, self.SOURCE, context),
        )
        if consistency:
            reference, source = source or reference, None
        bands = (self.text(parameters, self.BANDS, context) or "").split(",")
        return {
            "job": "similarity",
            "reference": reference,
            "image": self.raster(parameters, self.IMAGE, context),
            "consistency": consistency,
            **filled(
                source=source,
                measures=self.words(parameters, self.MEASURES, context),
                definition=self.text(parameters, self.DEFINITION, context),
                bands=[band.strip() for band in bands if band.strip()],
                mask=self.raster(parameters, self.MASK, context),
                resample=self.text(parameters, self.RESAMPLE, context),
                ratio=self.number(parameters, self.RATIO, context),
                nodata=self.number(parameters, self.NODATA, context),
                data_range=self.number(parameters, self.DATA_RANGE, context),
                threads=self.number(parameters, self.THREADS, context),
                map_measure=self.text(parameters, self.MAP_MEASURE, context),
                **{field: self.output(parameters, name, context) or None for field, name in self.FILES},
            ),
        }

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        job = self.job(parameters, context)
        done = self.run_job(job, feedback)
        for name, entry in (done.get("measures") or {}).items():
            value = entry.get("note") if entry["total"] is None else f"{entry['total']:.6g} {entry['unit']}"
            feedback.pushInfo(tr("{}: {}").format(entry.get("title", name), value))
        if job.get("map"):
            name = f"{job['map_measure'].upper()} {scene_name(job['image'])}"
            style_measure_when_loaded(self.id(), self.OUTPUT, job["map"], name, job["map_measure"], context)
        figures = {name.upper(): done.get(name) for name in MEASURES}
        figures |= {"DATA_RANGE_USED": done.get("data_range"), "PIXELS": done.get("pixels")}
        return {**{name: job.get(field) for field, name in self.FILES}, **figures}
