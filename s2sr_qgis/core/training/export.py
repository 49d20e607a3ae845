"""From a finished run to a model folder: SavedModel (OTBTF contract), ONNX with a parity check, card."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from ..dataset.card import CROSS_SENSOR, TARGET, Split
from ..errors import MissingPackageError, ModelError, OutputError
from ..inference.card import SAVED_MODEL, ModelCard, ModelFile, TensorCard, sha256, write_card
from ..networks.base import OUTPUT
from ..outputs import atomic
from ..progress import Progress
from ..raster.serve import CROPS, narrowest_crop
from .behaviour import Run, measure_radius
from .fit import BEST, LAST
from .parity import PARITY, check_parity, check_saved_model, random_patches
from .run_card import RunCard, read_run_card
from .score import score_test, worse_than_bicubic
from .stored import pack_kernels, round_kernels
from .train import load_network
from .variants import Variants, run_datasets

if TYPE_CHECKING:
    from ..jobs import ExportJob

OPSET = 17
"""ONNX operator set: taken by ONNX Runtime from 1.12 on and by DirectML."""

ONNX = "model.onnx"


def export(job: ExportJob, progress: Progress) -> dict[str, Any]:
    """Write a model folder from a run. Returns the folder, the receptive radius and the parity figures.

    Raises `ModelError` when ONNX Runtime's result differs from Keras' by more than `PARITY`.
    """
    check_folder(job.output)
    run = read_run_card(job.run)
    network, copy = load_network(job.run, run, BEST if job.checkpoint == "best" else LAST, rounded=True)
    title = job.title or f"{_what(run)}, {run.network}"
    card = describe(network, run, name=job.name or job.output.name, title=title)
    if job.checkpoint == "last":
        card.metrics = metrics_of(_of_last(run, job.run, network, progress))
    card.orientations = job.orientations
    card.mflop_per_pixel = round(card.mflop_per_pixel * job.orientations, 3)

    def more(folder: Path) -> None:
        variants = Variants(job.run, card, folder, progress)
        variants.add_float16(network.model)
        if job.quantize:
            variants.add_int8(network.model, copy)

    patches = _patches(job.run)
    parity = write_model(
        network, card, job.output, saved_model=job.saved_model, patches=patches, progress=progress, more=more
    )
    progress.artifact("model", str(job.output))
    if "warning" in card.metrics:
        progress.log(card.metrics["warning"], "warning")
    figures = {file.precision: file.metrics for file in card.files if file.metrics}
    return {"output": str(job.output), "radius": card.radius, "parity": parity, "variants": figures}


def describe(network: Any, run: RunCard, *, name: str, title: str) -> ModelCard:
    """The card of a network, its receptive radius measured; without the files, which `write_model` adds."""
    inputs = [TensorCard(name=t.name, bands=t.bands, resolution=t.resolution) for t in run.tensors[:-1]]
    levels = sorted({source.level for source in run.sources if source.level})
    finest = min(tensor.resolution for tensor in inputs)
    factors = {tensor.name: tensor.coarser(finest) for tensor in inputs}
    return ModelCard(
        name=name,
        title=title,
        task=run.task,  # type: ignore[arg-type]
        network=run.network,
        processing_levels=levels or ["L1C", "L2A"],
        inputs=inputs,
        outputs=[TensorCard(name=OUTPUT, bands=run.tensors[-1].bands, resolution=run.tensors[-1].resolution)],
        scaling=run.scaling,
        upsampling=network.upsampling,
        radius=measure_radius(*as_run(network.model), factors),
        multiple=max(factors.values()),
        parameters=network.model.count_params(),
        mflop_per_pixel=round(network.mflop_per_pixel(), 3),
        files=[],
        training={
            "sources": _once(
                source.model_dump(mode="json", exclude_none=True, exclude={"source"}) for source in run.sources
            ),
            "datasets": _once(run.datasets),
            "network_options": run.network_options,
            "epochs": run.epochs,
            "minutes": run.minutes,
            "backend": run.backend,
            "precision": run.precision,
        },
        metrics=metrics_of(run),
    )


def _of_last(run: RunCard, folder: Path, network: Any, progress: Progress) -> RunCard:
    """The run's card with the test figures of its last weights; without figures where its datasets are gone."""
    test = score_test(network.model, run, run_datasets(folder), progress)
    return run.model_copy(update={"test": test, "warning": worse_than_bicubic(test)})


def metrics_of(run: RunCard) -> dict[str, Any]:
    """The figures of a run's best weights on its test split, and the warning where bicubic is better."""
    if not run.test:
        return {}
    return {"test_split": run.test, **({"warning": run.warning} if run.warning else {})}


def write_model(
    network: Any,
    card: ModelCard,
    folder: Path,
    *,
    saved_model: bool,
    patches: dict[str, np.ndarray[Any, Any]] | None,
    progress: Progress,
    more: Callable[[Path], None] | None = None,
) -> dict[str, float]:
    """Write ``model.onnx``, ``card.yaml`` and the SavedModel; the folder appears complete or not at all.

    ``more``: writes further variants into the folder that it is given, and into the card.

    Returns the largest difference in reflectance between ONNX Runtime and Keras on random and on real patches, and
    between ONNX Runtime and the SavedModel in a session such as OTBTF's. Raises `ModelError` where one is too large.
    """
    check_folder(folder)
    with atomic(folder, folder=True) as part:
        round_kernels(network.model)
        progress.progress(10, "ONNX")
        write_onnx(network.model, part / ONNX)
        card.files = [ModelFile(file=ONNX, precision="float32", sha256=sha256(part / ONNX))]
        write_card(card, part)
        progress.check()
        progress.progress(40, "parity check")
        parity = {"random": check_parity(network.model, part, card, random_patches(card))}
        if patches:
            parity["real"] = check_parity(network.model, part, card, patches)
        if saved_model:
            progress.check()
            progress.progress(50, "SavedModel")
            write_saved_model(network, card, part / SAVED_MODEL)
            parity["saved_model"] = check_saved_model(part, card, patches or random_patches(card))
        for kind, value in parity.items():
            if not value <= PARITY:
                what = "ONNX Runtime and " + ("the SavedModel" if kind == "saved_model" else f"Keras on {kind} patches")
                raise ModelError(
                    f"{what} differ by {value:.2g} in reflectance (at most {PARITY:g} is allowed); the model was not "
                    "written."
                )
        card.metrics["parity"] = {kind: float(f"{value:.2g}") for kind, value in parity.items()}
        if more:
            progress.check()
            progress.progress(70, "variants")
            more(part)
        write_card(card, part)
    progress.log(
        f"{folder}: ONNX equals Keras within {max(parity.values()):.1e} reflectance, radius {card.radius} pixels."
    )
    return parity


def _what(run: RunCard) -> str:
    """What a run's network does, for a card's title."""
    low, target = run.tensors[-2], run.tensors[-1]
    if run.task == CROSS_SENSOR:
        return f"Sentinel-2 to a finer sensor, {low.resolution:g} m to {target.resolution:g} m"
    return f"Sentinel-2 {run.task.replace('m', ' m')} bands to 10 m"


def _once(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each of several items once, in their order: datasets that were drawn from more often are named more often."""
    found: list[dict[str, Any]] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def check_folder(folder: Path) -> None:
    """Raise `OutputError` when a model folder cannot be made there."""
    if folder.exists():
        raise OutputError(f"{folder} already exists; name another folder for the model.")
    if not folder.parent.is_dir():
        raise OutputError(f"The folder {folder.parent} does not exist; create it first.")


def write_onnx(model: keras.Model, path: Path) -> None:
    """Write the network as ONNX: tensors named as Keras', NHWC, free batch, height and width."""
    tf = require_tensorflow()
    import onnx
    import tf2onnx

    function, signature = _serving(tf, model)
    converted, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
    _name(onnx, converted, [tensor.name for tensor in signature])
    pack_kernels(converted)
    onnx.save(converted, path)


def write_saved_model(network: Any, card: ModelCard, folder: Path) -> None:
    """Write the SavedModel that OTBTF's TensorflowModelServe takes, cropped outputs included.

    It computes what inference computes with the card: where that has two orientations, their mean is part of the graph.
    """
    tf = require_tensorflow()
    widest = narrowest_crop(card.radius * card.scale, card.scale * card.multiple)
    model = network.serving_model(crops=[*CROPS, widest], orientations=card.orientations)
    function, _ = _serving(tf, model)
    module = tf.Module()
    # Not the Keras model: saving it doubles each variable, and a session fills one of the two and reads the other.
    module.weights = [weight.value for weight in model.weights]
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})


def _patches(run: Path) -> dict[str, np.ndarray[Any, Any]] | None:
    """A few real patches of the run's own datasets, where they are still there."""
    for dataset in run_datasets(run):
        split: Split = "test" if dataset.count("test") else "train"
        return {name: array[:4] for name, array in dataset.arrays(split).items() if name != TARGET}
    return None


def as_run(model: keras.Model) -> tuple[Run, dict[str, int]]:
    """A Keras network as `behaviour` takes it, and the channels of its inputs."""
    channels = {tensor.name: int(tensor.shape[-1]) for tensor in model.inputs}
    return lambda tensors: np.asarray(model.predict_on_batch(tensors)[OUTPUT]), channels


def require_tensorflow() -> Any:
    """TensorFlow, which export needs. Raises `MissingPackageError` under another backend."""
    if keras.backend.backend() != "tensorflow":
        raise MissingPackageError(
            f"Export needs Keras on TensorFlow, not on {keras.backend.backend()}; run it with KERAS_BACKEND=tensorflow "
            "where tensorflow is installed (weights trained under any backend load there)."
        )
    import tensorflow as tf

    return tf


def _serving(tf: Any, model: keras.Model) -> tuple[Any, list[Any]]:
    signature = [
        tf.TensorSpec((None, None, None, tensor.shape[-1]), tf.float32, name=tensor.name) for tensor in model.inputs
    ]

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def serve(*tensors: Any) -> Any:
        named = {spec.name: tensor for spec, tensor in zip(signature, tensors, strict=True)}
        return dict(model(named, training=False))

    return serve, signature


def _name(onnx: Any, converted: Any, inputs: list[str]) -> None:
    """Name the graph's inputs and its output as Keras' tensors, whatever the converter called them."""
    graph = converted.graph
    names = {value.name: name for value, name in zip(graph.input, inputs, strict=True)}
    names[graph.output[0].name] = OUTPUT
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]
        for axis, label in enumerate(("n", "h", "w")):
            # Each tensor has its own free sizes: the inputs' heights differ by their resolutions.
            value.type.tensor_type.shape.dim[axis].dim_param = label if axis == 0 else f"{value.name}_{label}"
    onnx.checker.check_model(converted)
