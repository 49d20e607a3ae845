"""A network of another tool as a model folder, which inference takes like one of our own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import onnx

from ..errors import InputError, ModelError, first_line
from ..inference.card import SAVED_MODEL, ModelCard, ModelFile, TensorCard, native_resolution, sha256, write_card
from ..inference.model import load_model, onnx_function
from ..networks.base import OUTPUT
from ..outputs import atomic
from ..progress import Progress
from ..raster.serve import CROPS, narrowest_crop
from .behaviour import EQUAL, LARGEST, Run, check_uniform, measure_radius, measure_scale
from .export import ONNX, check_folder, require_tensorflow
from .foreign import Foreign, read_foreign, rename_in_nodes
from .parity import check_saved_model, random_patches
from .published import import_dsen2, is_dsen2
from .stored import constants

if TYPE_CHECKING:
    from ..jobs import ImportModelJob


def import_model(job: ImportModelJob, progress: Progress) -> dict[str, Any]:
    """Write a model folder from a SavedModel, a Keras file, an ONNX file or published DSen2 weights.

    The network is run on random images: it must be fully convolutional, its output a whole number of times finer than
    its finest input, and ONNX Runtime must give what TensorFlow gives. The folder appears complete or not at all.

    Returns ``output``, ``task``, ``scale``, ``radius``, ``multiple``, ``parity`` (reflectance) and ``warnings``. Raises
    `InputError` (an option that is missing or does not fit), `ModelError` (a network that cannot be used, or a file
    that may run code), `OutputError`.
    """
    check_folder(job.output)
    if job.source.is_file() and h5py.is_hdf5(job.source) and is_dsen2(job.source):
        return import_dsen2(job, progress)
    if job.transpose:
        raise InputError("Only published DSen2 weights are transposed; leave 'transpose' out.")
    progress.progress(5, "Reading the network")
    foreign = read_foreign(job.source)
    output = _output(job, foreign)
    card = _card(job, foreign)
    scaling = card.scaling
    with atomic(job.output, folder=True) as part:
        progress.check()
        progress.progress(20, "ONNX")
        model = _onnx(foreign, output, job)
        onnx.save(model, part / ONNX)
        run = onnx_function(part / ONNX, OUTPUT)
        progress.progress(40, "Running it on random images")
        channels = {tensor.name: len(tensor.bands) for tensor in card.inputs}
        factors = {tensor.name: tensor.coarser(card.finest) for tensor in card.inputs}
        scale, card.multiple = measure_scale(run, channels, len(card.output_bands), factors, 1 / scaling)
        _place(job, card, scale)
        progress.check()
        progress.progress(60, "Receptive radius")
        card.radius = measure_radius(run, channels, factors, unit=1 / scaling, multiple=card.multiple, largest=LARGEST)
        side = 96 // card.multiple * card.multiple or card.multiple
        operations, card.parameters = _cost(
            model, part / "shapes.onnx", {name: (side // f, channels[name]) for name, f in factors.items()}
        )
        card.mflop_per_pixel = round(operations / (side * scale) ** 2 / 1e6, 3)
        card.files = [ModelFile(file=ONNX, precision="float32", sha256=sha256(part / ONNX))]
        write_card(card, part)
        parity = _parity(job, foreign, output, run, channels, factors, card)
        warnings = []
        bands = {tensor.name: tensor.bands for tensor in card.inputs}
        if odd := check_uniform(run, bands, factors, card.output_bands, 1 / scaling):
            warnings = [odd]
            progress.log(odd, "warning")
        load_model(part, device="cpu", precision="float32")  # the folder is one that inference takes
        if job.saved_model:
            progress.progress(80, "SavedModel")
            _write_saved_model(job, foreign, output, card, part / SAVED_MODEL)
            parity["saved_model"] = check_saved_model(part, card, random_patches(card))
        for what, value in parity.items():
            if not value <= EQUAL:
                raise ModelError(
                    f"ONNX Runtime gives other numbers than the network's own library ({what}: {value:.2g} in "
                    f"reflectance, at most {EQUAL:g} is allowed); the model was not written."
                )
        card.metrics["parity"] = {what: float(f"{value:.2g}") for what, value in parity.items()}
        card.training["warnings"] = warnings
        write_card(card, part)
    progress.log(
        f"{job.output}: {card.task}, output of {card.outputs[0].resolution:g} m, radius {card.radius} pixels"
        + (f", ONNX equals the source within {max(parity.values()):.1e} reflectance." if parity else ".")
    )
    progress.artifact("model", str(job.output))
    return {
        "output": str(job.output),
        "task": card.task,
        "scale": card.scale,
        "radius": card.radius,
        "multiple": card.multiple,
        "parity": parity,
        "warnings": warnings,
    }


def _output(job: ImportModelJob, foreign: Foreign) -> str:
    """The output to take. Raises `InputError` where it is not clear."""
    names = ", ".join(foreign.outputs)
    if job.output_name:
        if job.output_name not in foreign.outputs:
            raise InputError(f"The network has no output '{job.output_name}'; its outputs are {names}.")
        return job.output_name
    if len(foreign.outputs) != 1:
        raise InputError(f"The network has the outputs {names}; name one of them with output_name.")
    return foreign.outputs[0]


def _card(job: ImportModelJob, foreign: Foreign) -> ModelCard:
    """The card as far as the user's words give it. Raises `InputError` for what is missing."""
    shapes = ", ".join(f"{name} ({count} channels)" for name, count in foreign.inputs.items())
    missing = [
        f"{name} ({what})"
        for name, what in (
            ("bands", f"of the inputs {shapes}"),
            ("output_bands", "in the order of the output's channels"),
            ("scaling", "0.0001 for a network that takes DN, 1 for reflectance"),
            ("processing_level", "that it was trained on"),
        )
        if not getattr(job, name)
    ]
    if missing:
        raise InputError(f"A file does not say everything about a network; pass also {', '.join(missing)}.")
    bands = _bands(job.bands, foreign.inputs, shapes)
    inputs = [TensorCard(name=name, bands=names, resolution=_resolution(name, names)) for name, names in bands.items()]
    inputs.sort(key=lambda tensor: tensor.resolution)
    resolution = native_resolution(job.output_bands)
    if resolution is None:
        raise InputError(
            f"The output bands {', '.join(job.output_bands)} have several resolutions; import one at a time."
        )
    if job.resolution and len(inputs) == 1:
        inputs[0].resolution = job.resolution
    return ModelCard(
        name=job.name or job.output.name,
        title=f"Imported from {job.source.name}",
        task="cross-sensor",
        network=f"imported ({foreign.kind})",
        processing_levels=[job.processing_level] if job.processing_level else [],
        inputs=inputs,
        outputs=[TensorCard(name=OUTPUT, bands=job.output_bands, resolution=resolution)],
        scaling=job.scaling or 1e-4,
        upsampling="its own",
        radius=0,
        multiple=1,
        parameters=0,
        mflop_per_pixel=0.0,
        files=[],
        training={
            "imported": job.source.name,
            **({"sha256": sha256(job.source)} if job.source.is_file() else {}),
        },
        licence=job.licence,
        source=f"imported from {job.source.name}",
    )


def _bands(given: list[str], inputs: dict[str, int], shapes: str) -> dict[str, list[str]]:
    """The bands of each input, from ``B04,B03`` or ``NAME=B04,B03,OTHER=B05``. Raises `InputError`."""
    found: dict[str, list[str]] = {} if any("=" in band for band in given) else {next(iter(inputs)): []}
    for text in given:
        name, equals, band = text.rpartition("=")
        if equals:
            found[name.strip()] = []
        if found:
            found[list(found)[-1]].append(band.strip())
    counts = {name: len(names) for name, names in found.items()}
    if counts != inputs:
        raise InputError(
            f"The bands do not fit the network's inputs {shapes}; write one band for each channel, as NAME=B04,B03,B02 "
            "for each input where there are several."
        )
    return found


def _resolution(name: str, bands: list[str]) -> float:
    resolution = native_resolution(bands)
    if resolution is None:
        raise InputError(
            f"The input '{name}' has bands of several resolutions ({', '.join(bands)}), but inference gives each band "
            "to a network at its own; import a network that takes them so."
        )
    return resolution


def _place(job: ImportModelJob, card: ModelCard, scale: int) -> None:
    """Task and output resolution, now that the scale is known. Raises `InputError` where they do not fit."""
    (output,) = card.outputs
    if scale > 1:
        if len(card.inputs) > 1:
            raise ModelError(
                "The network's output is finer than its finest input, for which inference takes one input only."
            )
        if not job.resolution:
            raise InputError(
                f"The network's output is {scale} times finer than its input; pass the pixel size of the input in "
                "metres that it was trained for as resolution (10 for Sentinel-2's own 10 m grid)."
            )
        output.resolution = job.resolution / scale
        return
    known = card.input_bands
    finest = card.finest
    if job.resolution:
        raise InputError("The network's output is not finer than its input; leave the resolution out.")
    if finest != 10 or output.resolution == 10 or any(band not in known for band in output.bands):
        raise ModelError(
            "The network makes nothing finer that inference could use: that is either 20 m or 60 m bands at 10 m from "
            "inputs that hold them and 10 m bands, or an output of more pixels than its input."
        )
    card.task = "20m" if output.resolution == 20 else "60m"
    output.resolution = 10


def _factor(job: ImportModelJob) -> float:
    """What the network's output is multiplied by, so that one scaling holds for its input and its output."""
    scaling = job.scaling or 1
    return (job.output_scaling or scaling) / scaling


def _onnx(foreign: Foreign, output: str, job: ImportModelJob) -> Any:
    try:
        model = foreign.to_onnx(output)
        factor = _factor(job)
        if factor != 1:
            _multiplied(model, factor)
        onnx.checker.check_model(model)
        domains = {node.domain for node in model.graph.node}
        if foreign.kind != "ONNX" and domains - {"", "ai.onnx"}:
            raise ModelError(f"operations of {', '.join(sorted(domains))}")
    except Exception as error:  # tf2onnx and protobuf raise errors of many kinds
        raise ModelError(f"{job.source} cannot be turned into ONNX: {first_line(error)[:200]}.") from error
    return model


def _multiplied(model: Any, factor: float) -> None:
    """Multiply an ONNX model's output."""
    graph, own = model.graph, f"{OUTPUT}_unscaled"
    rename_in_nodes(graph, {OUTPUT: own})
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(factor, np.float32), f"{OUTPUT}_factor"))
    graph.node.append(onnx.helper.make_node("Mul", [own, f"{OUTPUT}_factor"], [OUTPUT]))


def _parity(
    job: ImportModelJob,
    foreign: Foreign,
    output: str,
    run: Run,
    channels: dict[str, int],
    factors: dict[str, int],
    card: ModelCard,
) -> dict[str, float]:
    """Largest difference (reflectance) between ONNX Runtime and the source's own library, on images of two sizes."""
    if not foreign.runner:
        return {}
    own, found, factor = foreign.runner(output), {}, _factor(job)
    for number, (rows, columns) in enumerate(((3, 5), (6, 4))):
        rng = np.random.default_rng(number)
        step = max(-(-24 // card.multiple), 1) * card.multiple
        tensors = {
            name: (
                rng.uniform(0, 0.6, (1, rows * step // f, columns * step // f, channels[name])) / card.scaling
            ).astype(np.float32)
            for name, f in factors.items()
        }
        difference = np.abs(own(tensors) * factor - run(tensors)).max() * card.scaling
        found[f"random {rows * step} x {columns * step}"] = float(difference)
    return found


def _write_saved_model(job: ImportModelJob, foreign: Foreign, output: str, card: ModelCard, folder: Path) -> None:
    """The network as a SavedModel with the cropped outputs that OTBTF needs. Raises `InputError` for an ONNX file."""
    if not foreign.serving:
        raise InputError("An ONNX file gives no SavedModel; leave 'saved_model' out.")
    tf = require_tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    own, factor = foreign.serving(output), _factor(job)
    crops = sorted({*CROPS, narrowest_crop(card.radius * card.scale, card.scale * card.multiple)})
    specs = [tf.TensorSpec((None, None, None, count), tf.float32, name=name) for name, count in foreign.inputs.items()]

    @tf.function(input_signature=specs)  # type: ignore[untyped-decorator]
    def plain(*tensors: Any) -> Any:
        return own(*tensors) * factor

    # Weights as constants: a session then has no variables to fill.
    frozen = convert_variables_to_constants_v2(plain.get_concrete_function())

    @tf.function(input_signature=specs)  # type: ignore[untyped-decorator]
    def serve(*tensors: Any) -> Any:
        whole = tf.nest.flatten(frozen(*tensors))[0]
        return {OUTPUT: whole, **{f"{OUTPUT}_crop{k}": whole[:, k:-k, k:-k] for k in crops}}

    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": serve})


def _cost(model: Any, path: Path, sizes: dict[str, tuple[int, int]]) -> tuple[float, int]:
    """Operations of an ONNX model's convolutions on an image, and its parameters.

    Args:
        model: the network.
        path: where a copy may be written for a moment.
        sizes: side in pixels and channels of each input of the image.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [node for node in copy.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    shown = {value.name for value in copy.graph.output}
    for name in {node.output[0] for node in nodes} - shown:
        copy.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    onnx.save(copy, path)
    tensors = {name: np.ones((1, side, side, channels), np.float32) for name, (side, channels) in sizes.items()}
    operations = 0.0
    weights = constants(model.graph)
    try:
        for node in nodes:
            image = onnx_function(path, node.output[0])(tensors)
            kernel = weights[node.input[1]].shape if node.input[1] in weights else (0,)
            if node.op_type == "Conv":
                operations += 2 * float(np.prod(kernel[1:])) * image.size
            else:  # the kernel is moved over the pixels that come in
                strides = next((list(item.ints) for item in node.attribute if item.name == "strides"), [1, 1])
                operations += 2 * float(np.prod(kernel)) * float(np.prod(image.shape[2:])) / float(np.prod(strides))
    finally:
        path.unlink()
    parameters = sum(values.size for values in weights.values() if values.ndim > 1)
    return operations, max(int(parameters), 1)
