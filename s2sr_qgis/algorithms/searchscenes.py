"""Find Sentinel-2 scenes in a STAC catalogue, those with the least cloud over the area first."""

from __future__ import annotations

from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterDateTime,
    QgsProcessingParameterExtent,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
)

from ..runner.text import tr
from .base import S2SRAlgorithm
from .checks import filled, output_problem


class SearchScenes(S2SRAlgorithm):
    NAME = "searchscenes"
    TITLE = "Find Sentinel-2 scenes"
    GROUP = "Dataset"
    SUMMARY = "Finds the Sentinel-2 scenes of a STAC catalogue that have the least cloud over an area."
    HELP = (
        "Asks a STAC catalogue for the scenes over an area and a period, and reads from each scene's classification "
        "(SCL) how much of the area is under cloud or cloud shadow, or without data. The result is a layer of "
        "footprints, best first, with date, cloud, processing baseline, platform and the addresses of the item and its "
        "files.\n\n"
        "The file, or the output 'Best scene', is a scene for the other algorithms, which read only what they need "
        "over the network.\n\n"
        "Planetary Computer and Earth Search need no account. Copernicus Data Space is searched without one too, but "
        "its pixels want a key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY before QGIS starts."
    )
    TAGS = "stac,catalogue,catalog,search,download,planetary computer,copernicus,cloud cover"
    EXTENT, START, END, CATALOG, CATALOG_URL = "EXTENT", "START", "END", "CATALOG", "CATALOG_URL"
    COLLECTION, MAX_CLOUD, MAX_AREA_CLOUD = "COLLECTION", "MAX_CLOUD", "MAX_AREA_CLOUD"
    LIMIT, KEEP, OUTPUT = "LIMIT", "KEEP", "OUTPUT"
    STRINGS = (("BEST", "best", "Best scene"), ("BEST_ID", "best_id", "Name of the best scene"))
    NUMBERS = (
        ("COUNT", "count", "Scenes"),
        ("CLOUD", "cloud", "Cloud over all of the best scene (%)"),
        ("AREA_CLOUD", "area_cloud", "Cloud and cloud shadow over the area (%)"),
        ("AREA_NODATA", "area_nodata", "Part of the area without data (%)"),
    )

    def initAlgorithm(self, configuration=None) -> None:
        self.add(QgsProcessingParameterExtent(self.EXTENT, tr("Area")),
                 "Where the scenes shall lie: drawn, typed, or a layer's extent, as the finer image's.")  # fmt: skip
        day = QgsProcessingParameterDateTime.Type.Date
        self.add(QgsProcessingParameterDateTime(self.START, tr("First day"), day), "Start of the period, 2022-06-15.")
        self.add(QgsProcessingParameterDateTime(self.END, tr("Last day"), day),
                 "End of the period, 2022-08-15; this day belongs to it.")  # fmt: skip
        self.add_enum(self.CATALOG, "Catalogue", ["planetary-computer", "earth-search", "copernicus"],
                      "planetary-computer", "Where to look: Microsoft Planetary Computer, Earth Search by Element "
                      "84, or Copernicus Data Space.")  # fmt: skip
        self.add_number(self.MAX_CLOUD, "Most cloud over the whole scene (%)", 30.0, 0.0, 100.0,
                        "Scenes that state more are left out.")  # fmt: skip
        self.add_number(self.MAX_AREA_CLOUD, "Most cloud over the area (%)", 100.0, 0.0, 100.0,
                        "Scenes with more cloud, cloud shadow and nodata over the area are left out.")  # fmt: skip
        self.add_number(self.KEEP, "Keep only the best", None, 1, 10000, "How many scenes to keep; empty: all.")
        self.add(QgsProcessingParameterString(self.CATALOG_URL, tr("Address of another catalogue"), optional=True),
                 "A STAC API that can be searched, as https://example.com/stac/v1; it is asked instead.",
                 advanced=True)  # fmt: skip
        self.add(QgsProcessingParameterString(self.COLLECTION, tr("Collection"), "sentinel-2-l2a"),
                 "Collection of the catalogue.", advanced=True)  # fmt: skip
        self.add_number(self.LIMIT, "Most scenes to look at", 100, 1, 10000,
                        "A part of each one's classification is read.", advanced=True)  # fmt: skip
        kind = QgsProcessing.SourceType.TypeVectorPolygon
        self.add(QgsProcessingParameterVectorDestination(self.OUTPUT, tr("Scenes found"), kind),
                 "The GeoPackage (.gpkg) or GeoJSON (.geojson) to write.")  # fmt: skip
        for name, _, label in self.STRINGS:
            self.addOutput(QgsProcessingOutputString(name, tr(label)))
        for name, _, label in self.NUMBERS:
            self.addOutput(QgsProcessingOutputNumber(name, tr(label)))

    def day(self, parameters, name: str, context) -> str:
        return self.parameterAsDateTime(parameters, name, context).date().toString("yyyy-MM-dd")

    def checkParameterValues(self, parameters, context):
        accepted, problem = super().checkParameterValues(parameters, context)
        if not accepted:
            return accepted, problem
        start, end = (self.day(parameters, name, context) for name in (self.START, self.END))
        if start > end:
            return False, tr("The search starts on {} and ends on {}: the wrong way round.").format(start, end)
        address = self.text(parameters, self.CATALOG_URL, context)
        if address and not address.lower().startswith(("http://", "https://")):
            return False, tr("{} is no web address of a catalogue.").format(address)
        output = self.parameterAsOutputLayer(parameters, self.OUTPUT, context)
        if output and output_problem(output):
            return False, output_problem(output)
        if output and not output.lower().endswith((".gpkg", ".geojson", ".json")):
            return False, tr("The result is a GeoPackage or GeoJSON: {} must end in .gpkg or .geojson.").format(output)
        return True, ""

    def job(self, parameters, context) -> dict:
        address = self.text(parameters, self.CATALOG_URL, context)
        return {
            "job": "search_scenes",
            "output": self.parameterAsOutputLayer(parameters, self.OUTPUT, context),
            "area": self.roi(parameters, context),
            "start": self.day(parameters, self.START, context),
            "end": self.day(parameters, self.END, context),
            "catalog": address or self.text(parameters, self.CATALOG, context),
            **filled(
                collection=self.text(parameters, self.COLLECTION, context),
                max_cloud=self.number(parameters, self.MAX_CLOUD, context),
                max_area_cloud=self.number(parameters, self.MAX_AREA_CLOUD, context),
                limit=self.number(parameters, self.LIMIT, context),
                best=self.number(parameters, self.KEEP, context),
            ),
        }

    def processAlgorithm(self, parameters, context, feedback) -> dict:
        job = self.job(parameters, context)
        done = self.run_job(job, feedback)
        values = {name: done.get(key) for name, key, _ in (*self.STRINGS, *self.NUMBERS)}
        return {self.OUTPUT: job["output"], **values}
