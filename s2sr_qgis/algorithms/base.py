"""What the algorithms share: parameters with help, values read back for a job, the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    NULL,
    QgsCoordinateReferenceSystem,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtGui import QIcon

from ..runner.interpreter import find_python
from ..runner.job import run_job
from ..runner.text import tr
from .checks import filled

ICON = Path(__file__).parents[1] / "icons" / "s2sr.svg"
HELP_URL = "https://github.com/s2sr/s2sr#readme"
SCENE_FILES = "Sentinel-2 (*MTD_*.xml *.zip *.tif *.tiff *.json *.geojson *.gpkg)"
SCENE_HELP = (
    "A Sentinel-2 product of level 1C or 2A: the SAFE folder or the MTD_MSIL*.xml inside it, the product's zip, a "
    "folder of single-band files (B02.tif ...), a GeoTIFF whose band descriptions name the bands, a STAC item (JSON "
    "file or URL), or the result of 'Find Sentinel-2 scenes', whose best scene is taken. Choose a file, or type or "
    "paste the path of a folder."
)


class S2SRAlgorithm(QgsProcessingAlgorithm):
    """Base of the provider's algorithms; the class attributes say what QGIS shows."""

    NAME = ""
    TITLE = ""
    GROUP = ""
    SUMMARY = ""
    HELP = ""
    TAGS = ""
    NEEDS_WORKER = True

    def createInstance(self):
        return type(self)()

    def name(self) -> str:
        return self.NAME

    def displayName(self) -> str:
        return tr(self.TITLE)

    def group(self) -> str:
        return tr(self.GROUP)

    def groupId(self) -> str:
        return self.GROUP.lower()

    def tags(self) -> list[str]:
        return tr("sentinel-2,super-resolution,sharpening,deep learning," + self.TAGS).split(",")

    def shortDescription(self) -> str:
        return tr(self.SUMMARY)

    def shortHelpString(self) -> str:
        return tr(self.HELP)

    def helpUrl(self) -> str:
        return HELP_URL

    def icon(self) -> QIcon:
        return QIcon(str(ICON))

    def svgIconPath(self) -> str:
        return str(ICON)

    def canExecute(self) -> tuple[bool, str]:
        if self.NEEDS_WORKER:
            try:
                find_python()
            except QgsProcessingException as error:
                return False, str(error)
        return True, ""

    # Parameters

    def add(self, parameter: QgsProcessingParameterDefinition, text: str, advanced: bool = False) -> None:
        parameter.setHelp(tr(text))
        if advanced:
            parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced)
        self.addParameter(parameter)

    def add_enum(
        self, name: str, label: str, options: list[str], default: str | None, text: str,
        advanced: bool = False, multiple: bool = False,
    ) -> None:  # fmt: skip
        # Static strings: models, history and command lines hold the word, not its place in a list.
        parameter = QgsProcessingParameterEnum(
            name, tr(label), options=options, allowMultiple=multiple, defaultValue=default, optional=default is None,
            usesStaticStrings=True,
        )  # fmt: skip
        self.add(parameter, text, advanced)

    def add_number(
        self, name: str, label: str, default: float | None, lowest: float, highest: float, text: str,
        advanced: bool = False,
    ) -> None:  # fmt: skip
        whole = all(isinstance(value, int) for value in (lowest, highest))
        kind = QgsProcessingParameterNumber.Type.Integer if whole else QgsProcessingParameterNumber.Type.Double
        parameter = QgsProcessingParameterNumber(name, tr(label), kind, default, default is None, lowest, highest)
        self.add(parameter, text, advanced)

    def add_boolean(self, name: str, label: str, default: bool, text: str, advanced: bool = False) -> None:
        self.add(QgsProcessingParameterBoolean(name, tr(label), default), text, advanced)

    def add_folder(self, name: str, label: str, text: str, advanced: bool = False, optional: bool = False) -> None:
        folder = QgsProcessingParameterFile.Behavior.Folder
        self.add(QgsProcessingParameterFile(name, tr(label), folder, optional=optional), text, advanced)

    def add_scene(self) -> None:
        # One parameter for files and folders: a File parameter also takes a folder's path, the reverse it does not.
        # The filter "All files (*)", not "(*.*)": QGIS tests values against it, and folder names may have no dot.
        parameter = QgsProcessingParameterFile(
            "INPUT", tr("Sentinel-2 scene"), QgsProcessingParameterFile.Behavior.File,
            fileFilter=tr(SCENE_FILES) + ";;" + tr("All files (*)"),
        )  # fmt: skip
        self.add(parameter, SCENE_HELP)

    def add_extent(self) -> None:
        self.add(
            QgsProcessingParameterExtent("EXTENT", tr("Extent"), optional=True),
            "Only this area is worked on; it grows to the 60 m grid of the scene. Empty: the whole scene.",
        )

    def add_scene_options(self) -> None:
        self.add(
            QgsProcessingParameterString("BAND_NAMES", tr("Names of the bands of a GeoTIFF"), optional=True),
            "Names of a stacked GeoTIFF's bands in file order, with commas: B02,B03,B04,B08 ... Only needed where "
            "the file's band descriptions do not name them.",
            advanced=True,
        )
        self.add_enum("PROCESSING_LEVEL", "Processing level", ["L1C", "L2A"], None,
                      "Level of the scene, where neither metadata nor name says it.", advanced=True)  # fmt: skip
        self.add_number("RADIOMETRIC_OFFSET", "Radiometric offset", None, -10000, 10000,
                        "Added to the stored values before scaling, where the scene does not say it itself: -1000 for "
                        "products from baseline 04.00 (January 2022) on, 0 before.", advanced=True)  # fmt: skip
        self.add_number("QUANTIFICATION", "Quantification value", None, 0.001, 1000000.0,
                        "The stored value that means reflectance 1, where the scene does not say it: 10000 for digital "
                        "numbers, 100 for percent, 1 for reflectance.",
                        advanced=True)  # fmt: skip

    def add_device(self) -> None:
        self.add_enum("DEVICE", "Device", ["auto", "cpu", "cuda", "directml", "coreml"], "auto",
                      "Where the network runs. auto: a graphics card if one can be used, the processor otherwise.",
                      advanced=True)  # fmt: skip
        self.add_number("THREADS", "Threads", None, 1, 1024,
                        "Threads of the processor; empty: all of them.", advanced=True)  # fmt: skip
        self.add_enum("PRECISION", "Precision", ["auto", "float32", "float16", "int8"], "auto",
                      "Number format of the network, where the model has a file for it.", advanced=True)  # fmt: skip
        self.add_boolean("ALLOW_OTHER_LEVEL", "Allow a model of the other processing level", False,
                         "Use a model trained on L1C with an L2A scene, or the reverse, with a warning.",
                         advanced=True)  # fmt: skip

    def add_figures(self) -> None:
        for name, label, types, by_default in (
            ("OUTPUT_JSON", "Figures (JSON)", "JSON files (*.json)", False),
            ("OUTPUT_HTML", "Report (HTML)", "HTML files (*.html)", True),
        ):
            parameter = QgsProcessingParameterFileDestination(name, tr(label), tr(types), None, True)
            parameter.setCreateByDefault(by_default)
            self.add(parameter, "Every figure for every band, as a file.")

    # Values

    def number(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> float | int | None:
        """A number, or None where the user left it empty."""
        if parameters.get(name) in (None, NULL, "") and self.parameterDefinition(name).defaultValue() is None:
            return None
        if self.parameterDefinition(name).dataType() == QgsProcessingParameterNumber.Type.Integer:
            return self.parameterAsInt(parameters, name, context)
        return self.parameterAsDouble(parameters, name, context)

    def text(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> str | None:
        """A text, path or enum word, or None where the user left it empty."""
        if name in parameters and parameters[name] in (None, NULL):  # NULL: an empty cell of a batch, "0" as a string
            return None
        read = self.parameterAsString
        if isinstance(self.parameterDefinition(name), QgsProcessingParameterEnum):
            read = self.parameterAsEnumString
        return read(parameters, name, context).strip() or None

    def words(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> list[str]:
        """The chosen words of a multiple enum; QGIS gives [""] for none."""
        if parameters.get(name) in (None, NULL):
            return []
        return [word for word in self.parameterAsEnumStrings(parameters, name, context) if word]

    def roi(self, parameters: dict[str, Any], context: QgsProcessingContext) -> str | None:
        """The extent as a job's region of interest, or None where there is none."""
        crs = self.parameterAsExtentCrs(parameters, "EXTENT", context)
        if crs.isValid() and not crs.authid().startswith("EPSG:"):
            crs = QgsCoordinateReferenceSystem("EPSG:4326")
        extent = self.parameterAsExtent(parameters, "EXTENT", context, crs)
        if parameters.get("EXTENT") in (None, NULL, "") or extent.isNull():
            return None
        sides = (extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum())
        return ",".join(map(repr, sides)) + (f" {crs.authid()}" if crs.isValid() else "")

    def scene_options(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        names = [name.strip() for name in (self.text(parameters, "BAND_NAMES", context) or "").split(",")]
        return filled(
            band_names=[name for name in names if name],
            processing_level=self.text(parameters, "PROCESSING_LEVEL", context),
            radiometric_offset=self.number(parameters, "RADIOMETRIC_OFFSET", context),
            quantification=self.number(parameters, "QUANTIFICATION", context),
        )

    def device_options(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        return filled(
            device=self.text(parameters, "DEVICE", context),
            threads=self.number(parameters, "THREADS", context),
            precision=self.text(parameters, "PRECISION", context),
            allow_other_level=self.parameterAsBool(parameters, "ALLOW_OTHER_LEVEL", context),
        )

    def run_job(self, job: dict[str, Any], feedback: QgsProcessingFeedback) -> dict[str, Any]:
        return run_job(job, feedback)
