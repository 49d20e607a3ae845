"""Networks of other tools, read without running any code of theirs: SavedModels, Keras files, ONNX files.

A SavedModel of otbtf's Python API (`otbtf.ModelBase`) has inputs and outputs by name, NHWC, normalisation inside, and
beside each output cropped copies of it (``NAME_crop16`` …), which are of no use here.
"""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx

from ..errors import InputError, ModelError, first_line
from ..networks.base import OUTPUT
from .behaviour import Run
from .export import OPSET, require_tensorflow
from .untrusted import check_hdf5, check_keras, check_keras_zip, check_onnx, check_saved_model

CROPPED = re.compile(r"_crop\d+$")
HOW = "give a SavedModel folder, a Keras file (.keras or .h5) or an ONNX file"


@dataclass(frozen=True)
class Foreign:
    """A network of another tool.

    Attributes:
        kind: what it comes from, for the card.
        inputs: channels of each input tensor, by name.
        outputs: names of the outputs, cropped copies left out.
        to_onnx: output name → an ONNX model with NHWC tensors named as ``inputs`` and `OUTPUT`.
        runner: output name → the network as its own library runs it; None where that is ONNX Runtime.
        serving: output name → a TensorFlow function of tensors in the order of ``inputs``; None without TensorFlow.
    """

    kind: str
    inputs: dict[str, int]
    outputs: list[str]
    to_onnx: Callable[[str], Any]
    runner: Callable[[str], Run] | None = None
    serving: Callable[[str], Callable[..., Any]] | None = None


def read_foreign(path: Path) -> Foreign:
    """Read a network. Raises `InputError` (no such file), `ModelError` (no network, or one that is not safe)."""
    if not path.exists():
        raise InputError(f"There is no {path}; {HOW}.")
    if path.is_dir():
        if not (path / "saved_model.pb").is_file():
            raise ModelError(f"{path} is no SavedModel (it has no saved_model.pb); {HOW}.")
        return _saved_model(path)
    if path.suffix.lower() == ".onnx":
        return _onnx(path)
    if h5py.is_hdf5(path):
        return _keras_hdf5(path)
    if zipfile.is_zipfile(path) and path.suffix.lower() == ".keras":
        return _keras_file(path)
    raise ModelError(
        f"{path} is not opened: it is no file of Keras or ONNX. Pickled networks, such as PyTorch's .pt and .pth, can "
        "run code when they are opened: export them to ONNX."
    )


def _saved_model(folder: Path) -> Foreign:
    graph = check_saved_model(folder)
    tf = require_tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    try:
        with tf.device("/cpu:0"):
            loaded = tf.saved_model.load(str(folder))  # its functions hold no reference to the variables
            frozen = convert_variables_to_constants_v2(loaded.signatures["serving_default"])
    except Exception as error:  # TensorFlow raises errors of many kinds for a damaged folder
        raise ModelError(f"{folder} cannot be loaded by TensorFlow: {first_line(error)[:200]}.") from error
    signature = graph.signature_def["serving_default"]
    keys = {info.name.partition(":")[0]: key for key, info in signature.inputs.items()}
    names = [tensor.name.partition(":")[0] for tensor in frozen.inputs]
    # TensorFlow 2 names a function's arguments by their keys, TensorFlow 1 has the graph's own names.
    names = [name if name in signature.inputs else keys.get(name, name) for name in names]
    outputs = sorted(signature.outputs)
    if set(names) != set(signature.inputs) or len(frozen.outputs) != len(outputs):
        raise ModelError(f"{folder}: its signature 'serving_default' does not fit its graph; save the network again.")
    tensors = dict(zip(outputs, frozen.outputs, strict=True))
    shapes = {
        name: _nhwc(name, tensor.shape, tensor.dtype.name) for name, tensor in zip(names, frozen.inputs, strict=True)
    }

    def serving(output: str) -> Callable[..., Any]:
        index = outputs.index(output)
        return lambda *given: tf.nest.flatten(frozen(*given))[index]

    def to_onnx(output: str) -> Any:
        import tf2onnx

        with _quiet():
            model, _ = tf2onnx.convert.from_graph_def(
                frozen.graph.as_graph_def(),
                input_names=[tensor.name for tensor in frozen.inputs],
                output_names=[tensors[output].name],
                opset=OPSET,
            )
        own = {tensor.name: name for tensor, name in zip(frozen.inputs, names, strict=True)}
        return renamed(model, {**own, tensors[output].name: OUTPUT})

    return Foreign("SavedModel", shapes, _proper(outputs), to_onnx, _tensorflow(tf, names, serving), serving)


def _keras_file(path: Path) -> Foreign:
    check_keras_zip(path)
    return _keras(path)


def _keras_hdf5(path: Path) -> Foreign:
    import json

    try:
        check_hdf5(path, path)
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
        if config is None:
            raise ModelError(f"{path} holds weights without their network; save the whole network (model.save).")
        check_keras(json.loads(config), path)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path} is damaged; save the network again with Keras.") from error
    return _keras(path)


def _keras(path: Path) -> Foreign:
    tf = require_tensorflow()
    import keras

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        shapes = {tensor.name: _nhwc(tensor.name, tensor.shape, str(tensor.dtype)) for tensor in model.inputs}
        outputs = list(model.output_names)
    except ModelError:
        raise
    except Exception as error:  # Keras raises errors of many kinds for a file of another version
        raise ModelError(
            f"Keras {keras.__version__} cannot load {path}: {first_line(error)[:200]}; save the network as a "
            "SavedModel (model.export) and import that folder."
        ) from error

    def serving(output: str) -> Callable[..., Any]:
        index = outputs.index(output)
        return lambda *given: keras.tree.flatten(
            model(keras.tree.pack_sequence_as(model.input, list(given)), training=False)
        )[index]

    def to_onnx(output: str) -> Any:
        import tf2onnx

        specs = [tf.TensorSpec((None, None, None, count), tf.float32, name=name) for name, count in shapes.items()]
        one = serving(output)

        @tf.function(input_signature=specs)  # type: ignore[untyped-decorator]
        def serve(*given: Any) -> Any:
            return one(*given)

        with _quiet():
            found, _ = tf2onnx.convert.from_function(serve, input_signature=specs, opset=OPSET)
        own = {value.name: name for value, name in zip(found.graph.input, shapes, strict=True)}
        return renamed(found, {**own, found.graph.output[0].name: OUTPUT})

    return Foreign("Keras", shapes, _proper(outputs), to_onnx, _tensorflow(tf, list(shapes), serving), serving)


def _onnx(path: Path) -> Foreign:
    try:
        model = onnx.load(path, load_external_data=False)
        check_onnx(model, path)
        onnx.checker.check_model(model)
    except ModelError:
        raise
    except Exception as error:  # protobuf's own class is private
        raise ModelError(f"{path} is no ONNX model, or damaged: {first_line(error)[:200]}.") from error
    constant = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constant]
    first = {value.name: _channels_first(value) for value in [*inputs, *model.graph.output]}
    kinds = {
        value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name for value in inputs
    }
    shapes = {value.name: _nhwc(value.name, _shape(value, first[value.name]), kinds[value.name]) for value in inputs}

    def to_onnx(output: str) -> Any:
        chosen = onnx.ModelProto()
        chosen.CopyFrom(model)
        (kept,) = [value for value in model.graph.output if value.name == output]
        del chosen.graph.output[:]
        chosen.graph.output.append(kept)
        # Where the output does not say where its channels are, they are where the input's are.
        turned = [value.name for value in inputs if first[value.name]]
        known = _shape(kept, False)[1:]
        last = first[output] if any(side is not None for side in known) else bool(turned)
        return channels_last(chosen, turned, output if last else None, [value.name for value in inputs])

    return Foreign("ONNX", shapes, _proper([value.name for value in model.graph.output]), to_onnx)


def _shape(value: Any, first: bool) -> list[int | None]:
    """A tensor's shape as NHWC, None where free."""
    sides = [side.dim_value or None for side in value.type.tensor_type.shape.dim]
    return [sides[0], *sides[2:], sides[1]] if first and len(sides) == 4 else sides


def _channels_first(value: Any) -> bool:
    """Whether a tensor is NCHW: the second side is known, or as small as a number of bands, and the last is not."""
    sides = [side.dim_value or None for side in value.type.tensor_type.shape.dim]
    if len(sides) != 4:
        return False
    return sides[1] is not None and (sides[3] is None or sides[3] > sides[1])


def _nhwc(name: str, shape: Any, kind: str) -> int:
    """The number of channels of an input (n, h, w, channels) that is free in height and width. Raises `ModelError`."""
    sides = list(shape)
    if kind != "float32":
        raise ModelError(f"The input '{name}' takes {kind} numbers; save the network with float32 inputs.")
    if len(sides) != 4:
        raise ModelError(f"The input '{name}' has {len(sides)} axes and not the 4 of a batch of images.")
    if sides[0] not in (None, 1):
        raise ModelError(f"The input '{name}' takes {sides[0]} images at once; save it with a free batch, or with 1.")
    if sides[1] is not None or sides[2] is not None:
        raise ModelError(
            f"The input '{name}' is fixed to {sides[1] or 'any'} x {sides[2] or 'any'} pixels; save the network fully "
            "convolutional, with free height and width."
        )
    if not sides[3]:
        raise ModelError(f"The input '{name}' does not state its number of channels; save the network with it.")
    return int(sides[3])


def _proper(outputs: list[str]) -> list[str]:
    return [name for name in outputs if not CROPPED.search(name)]


def _tensorflow(tf: Any, names: list[str], serving: Callable[[str], Callable[..., Any]]) -> Callable[[str], Run]:
    def runner(output: str) -> Run:
        function = serving(output)
        return lambda tensors: np.asarray(function(*(tf.constant(tensors[name]) for name in names)))

    return runner


def renamed(model: Any, names: dict[str, str]) -> Any:
    """An ONNX model with other names of its tensors; its batch, heights and widths free."""
    graph = model.graph
    rename_in_nodes(graph, names)
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
        for axis, label in enumerate(("n", "h", "w")):
            value.type.tensor_type.shape.dim[axis].dim_param = label if axis == 0 else f"{value.name}_{label}"
    onnx.checker.check_model(model)
    return model


def rename_in_nodes(graph: Any, names: dict[str, str]) -> None:
    """Give tensors other names in the nodes of an ONNX graph; its own inputs and outputs stay as they are."""
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)


def channels_last(model: Any, turned: list[str], output: str | None, inputs: list[str]) -> Any:
    """An ONNX model whose NCHW inputs ``turned`` and NCHW ``output`` are NHWC; the output is named `OUTPUT`."""
    helper, graph = onnx.helper, model.graph
    old = graph.output[0].name
    names = {name: f"{name}_nchw" for name in turned} | {old: f"{OUTPUT}_own"}
    rename_in_nodes(graph, names)
    before = [helper.make_node("Transpose", [name], [names[name]], perm=[0, 3, 1, 2]) for name in turned]
    own = names[old]
    last = helper.make_node("Transpose", [own], [OUTPUT], perm=[0, 2, 3, 1])
    after = last if output else helper.make_node("Identity", [own], [OUTPUT])
    nodes = [*before, *graph.node, after]
    del graph.node[:]
    graph.node.extend(nodes)
    shapes = {value.name: _shape(value, value.name in turned) for value in graph.input}
    kept = [value for value in graph.input if value.name not in inputs]
    del graph.input[:]
    number = onnx.TensorProto.FLOAT
    graph.input.extend(
        helper.make_tensor_value_info(name, number, ["n", f"{name}_h", f"{name}_w", shapes[name][3]]) for name in inputs
    )
    graph.input.extend(kept)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, number, ["n", f"{OUTPUT}_h", f"{OUTPUT}_w", "bands"]))
    onnx.checker.check_model(model)
    return model


class _quiet:  # noqa: N801
    """tf2onnx' log is for its own users."""

    def __enter__(self) -> None:
        self.level = logging.getLogger("tf2onnx").level
        logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("tf2onnx").setLevel(self.level)
