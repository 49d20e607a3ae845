"""Processing models that chain the plugin's algorithms, made as the modeler makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterFile,
)

Source = QgsProcessingModelChildParameterSource


def child(model: QgsProcessingModelAlgorithm, algorithm: str, **parameters: Any) -> QgsProcessingModelChildAlgorithm:
    """Add a step; its id is the algorithm's name."""
    name = algorithm.split(":")[1]
    step = QgsProcessingModelChildAlgorithm(algorithm)
    step.setChildId(name)
    step.setDescription(name)
    for key, value in parameters.items():
        step.addParameterSources(key, [value if isinstance(value, Source) else Source.fromStaticValue(value)])
    model.addChildAlgorithm(step)
    return model.childAlgorithm(name)


def result(model: QgsProcessingModelAlgorithm, step: QgsProcessingModelChildAlgorithm) -> None:
    """Make a step's OUTPUT the model's `final`."""
    output = QgsProcessingModelOutput("final", "final")
    output.setChildId(step.childId())
    output.setChildOutputName("OUTPUT")
    step.setModelOutputs({"final": output})
    model.updateChildAlgorithm(step) if hasattr(model, "updateChildAlgorithm") else model.setChildAlgorithm(step)


def empty() -> QgsProcessingModelAlgorithm:
    model = QgsProcessingModelAlgorithm("chain", "tests")
    folder = QgsProcessingParameterFile("scene", "scene", QgsProcessingParameterFile.Behavior.Folder)
    model.addModelParameter(folder, QgsProcessingModelParameter("scene"))
    return model


def saved(model: QgsProcessingModelAlgorithm, path: Path) -> Path:
    model.updateDestinationParameters()
    assert model.toFile(str(path))
    return path


def chain_to_rescale(path: Path, folder: Path) -> Path:
    model = empty()
    scene = Source.fromModelParameter("scene")
    child(model, "s2sr:superresolve", INPUT=scene, MODEL_FOLDER=str(folder), BANDS=["B12"])
    sharpened = Source.fromChildOutput("superresolve", "OUTPUT")
    result(model, child(model, "native:rescaleraster", INPUT=sharpened, BAND=1, MINIMUM=0, MAXIMUM=1))
    return saved(model, path)


def chain_of_training(path: Path) -> Path:
    model = empty()
    scene = Source.fromModelParameter("scene")
    child(
        model, "s2sr:createsharpeningdataset",
        SCENES=scene, PATCH_SIZE=32, BLOCK_SIZE=2, PROCESSING_LEVEL="L2A",
    )  # fmt: skip
    dataset = Source.fromChildOutput("createsharpeningdataset", "OUTPUT")
    child(model, "s2sr:trainmodel", DATASET=dataset, EPOCHS=1, BATCH_SIZE=8, SAVED_MODEL=False)
    trained = Source.fromChildOutput("trainmodel", "MODEL")
    result(model, child(model, "s2sr:superresolve", INPUT=scene, MODEL_FOLDER=trained, PROCESSING_LEVEL="L2A"))
    return saved(model, path)
