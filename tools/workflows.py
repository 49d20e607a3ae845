"""Write the processing models that come with the plugin, as the modeler would save them: run with QGIS's Python.

QT_QPA_PLATFORM=offscreen PYTHONPATH=.:/usr/share/qgis/python/plugins /usr/bin/python3 tools/workflows.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterDateTime,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)
from qgis.PyQt.QtCore import QPointF

FOLDER = Path(__file__).resolve().parents[1] / "s2sr_qgis" / "workflows"
Source = QgsProcessingModelChildParameterSource


class Workflow:
    """A model that is being put together, its steps one below the other."""

    def __init__(self, name: str, title: str, text: str) -> None:
        self.path = FOLDER / f"{name}.model3"
        self.model = QgsProcessingModelAlgorithm(title, "Workflows")
        self.model.setHelpContent({"ALG_DESC": text})
        self.place = 0

    def input(self, parameter: Any) -> Source:
        part = QgsProcessingModelParameter(parameter.name())
        part.setPosition(QPointF(120 + 220 * len(self.model.parameterComponents()), 60))
        self.model.addModelParameter(parameter, part)
        return Source.fromModelParameter(parameter.name())

    def step(self, algorithm: str, outputs: dict[str, tuple[str, str]] | None = None, **values: Any) -> None:
        """Add an algorithm; ``outputs``: of its destinations, those that are the model's, with name and label."""
        name = algorithm.split(":")[1]
        child = QgsProcessingModelChildAlgorithm(algorithm)
        child.setChildId(name)
        child.setDescription(QgsApplication.processingRegistry().algorithmById(algorithm).displayName())
        child.setPosition(QPointF(340, 200 + 130 * self.place))
        self.place += 1
        for key, value in values.items():
            child.addParameterSources(key, [value if isinstance(value, Source) else Source.fromStaticValue(value)])
        results = {}
        for key, (final, label) in (outputs or {}).items():
            output = QgsProcessingModelOutput(final, label)
            output.setChildId(name)
            output.setChildOutputName(key)
            output.setMandatory(False)
            output.setPosition(QPointF(640, 200 + 130 * self.place))
            results[final] = output
        child.setModelOutputs(results)
        self.model.addChildAlgorithm(child)

    def save(self) -> None:
        self.model.updateDestinationParameters()
        FOLDER.mkdir(exist_ok=True)
        if not self.model.toFile(str(self.path)):
            raise SystemExit(f"{self.path} could not be written")
        print(self.path)


def cross_sensor() -> None:
    """Search, dataset, training, super-resolution: OTBTF's tutorial as one model."""
    flow = Workflow(
        "cross_sensor",
        "Cross-sensor super-resolution",
        "From a finer image to a super-resolved Sentinel-2 scene: finds the clearest scene over the image, cuts pairs "
        "out of both, trains a network on them and applies it to the scene. The result's grid is the finer image's.",
    )
    xs = flow.input(QgsProcessingParameterFile("XS", "Multispectral image (XS)"))
    pan = flow.input(QgsProcessingParameterFile("PAN", "Panchromatic image (PAN)", optional=True))
    day = QgsProcessingParameterDateTime.Type.Date
    start = flow.input(QgsProcessingParameterDateTime("START", "First day", day))
    end = flow.input(QgsProcessingParameterDateTime("END", "Last day", day))
    catalog = flow.input(QgsProcessingParameterString("CATALOG_URL", "Address of another catalogue", optional=True))
    bands = flow.input(QgsProcessingParameterString("BANDS", "Sentinel-2 bands", "B04,B03,B02,B08"))
    size = flow.input(QgsProcessingParameterNumber("PATCH_SIZE", "Patch size", defaultValue=32, minValue=4))
    epochs = flow.input(QgsProcessingParameterNumber("EPOCHS", "Epochs", defaultValue=100, minValue=1))
    flow.step(
        "s2sr:searchscenes",
        {"OUTPUT": ("scenes", "Scenes found")},
        EXTENT=xs, START=start, END=end, CATALOG_URL=catalog, KEEP=1,
    )  # fmt: skip
    scene = Source.fromChildOutput("searchscenes", "OUTPUT")
    flow.step(
        "s2sr:createcrosssensordataset",
        {"OUTPUT": ("dataset", "Dataset")},
        XS=xs, PAN=pan, INPUT=scene, BANDS=bands, PATCH_SIZE=size,
    )  # fmt: skip
    flow.step(
        "s2sr:trainmodel",
        {"MODEL": ("model", "Model")},
        DATASET=Source.fromChildOutput("createcrosssensordataset", "OUTPUT"),
        NETWORK="crossnet",
        EPOCHS=epochs,
        SAVED_MODEL=False,
    )
    flow.step(
        "s2sr:superresolve",
        {"OUTPUT": ("result", "Super-resolved image")},
        INPUT=scene, MODEL_FOLDER=Source.fromChildOutput("trainmodel", "MODEL"), EXTENT=xs,
    )  # fmt: skip
    flow.save()


def main() -> None:
    application = QgsApplication([], False)
    application.initQgis()
    from s2sr_qgis.provider import S2SRProvider

    provider = S2SRProvider()
    QgsApplication.processingRegistry().addProvider(provider)
    cross_sensor()
    QgsApplication.processingRegistry().removeProvider(provider)
    application.exitQgis()


if __name__ == "__main__":
    main()
