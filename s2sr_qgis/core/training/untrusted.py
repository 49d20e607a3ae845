"""Whether a model file of somebody else can only compute: checks that run before anything in it is opened for use.

TensorFlow, Keras and HDF5 files may hold code, or names of other files that reading them opens. What a network for
images needs is listed here; a file with anything else is refused.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py

from ..errors import ModelError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TENSORFLOW_OPERATIONS = _words("""
    Abs Add AddN AddV2 ArgMax ArgMin AvgPool BatchMatMulV2 BatchNormWithGlobalNormalization BatchToSpaceND BiasAdd
    BroadcastTo Cast Ceil ClipByValue Concat ConcatV2 Const Conv2D Conv2DBackpropInput Conv3D Cumsum DepthToSpace
    DepthwiseConv2dNative DepthwiseConv2dNativeBackpropInput DisableCopyOnRead Div DivNoNan Einsum Elu Equal Erf Exp
    ExpandDims Fill Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 Gather GatherNd GatherV2
    Greater GreaterEqual Identity IdentityN L2Loss LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot
    LogicalOr MatMul Max MaxPool MaxPoolV2 Maximum Mean Min Minimum MirrorPad Mul Neg NoOp NotEqual OnesLike Pack Pad
    PadV2 PartitionedCall Placeholder PlaceholderWithDefault Pow PreventGradient Prod Range Rank
    ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear
    ResizeNearestNeighbor Reverse ReverseV2 Roll Round Rsqrt Select SelectV2 Selu Shape ShapeN Sigmoid Sign Sin Cos Size
    Slice Snapshot Softmax Softplus Softsign SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square SquaredDifference
    Squeeze StatefulPartitionedCall StopGradient StridedSlice Sub Sum Switch Merge Tan Tanh Tile Transpose Unpack
    VarHandleOp VarIsInitializedOp Variable VariableV2 ZerosLike
    """)
"""Operations that only compute."""

FORBIDDEN = re.compile(
    "PyFunc|ReadFile|WriteFile|MatchingFiles|Reader|Dataset|Iterator|ImmutableConst|LMDB|Summary|Print|Debug|Remote|Rpc|"
    "DecodeProto|EncodeProto|LoadAndRemap|TextFile|Bigtable|Sqlite|TPU|Xla|Custom"
)
"""Parts of the names of operations that may run code or reach files: they must stand nowhere in a SavedModel."""

RESTORING = _words("Assign AssignVariableOp RestoreV2")
"""Further ones of the part of a SavedModel that fills its variables."""

STARTING = _words("Assign AssignVariableOp")
"""Further ones of the part that a SavedModel runs once it is loaded."""

KERAS_CLASSES = _words("""
    Functional Model Sequential InputLayer Input Activation ReLU LeakyReLU PReLU ELU Softmax Conv2D Convolution2D
    Conv2DTranspose Convolution2DTranspose DepthwiseConv2D SeparableConv2D Dense BatchNormalization LayerNormalization
    GroupNormalization UnitNormalization Add Subtract Multiply Average Maximum Minimum Concatenate UpSampling2D
    ZeroPadding2D Cropping2D MaxPooling2D AveragePooling2D GlobalAveragePooling2D GlobalMaxPooling2D Rescaling
    Normalization Dropout SpatialDropout2D GaussianNoise GaussianDropout Reshape Permute Identity Resizing
    DTypePolicy Policy __keras_tensor__ __tuple__ slice __slice__ __ellipsis__ __numpy__ __tensor__
    """)
"""Layers and values of a Keras configuration that only compute."""

KERAS_PARTS = re.compile(r"keras(\.src)?\.(initializers|regularizers|constraints|dtype_policies)(\.\w+)*")
KERAS_OPERATIONS = re.compile(r"keras\.src\.ops\.(numpy|nn|image)")
KERAS_MODULES = re.compile(r"keras(\.(src\.)?(layers|models|engine)(\.\w+)*)?|builtins")
KERAS_FILES = {"config.json", "metadata.json", "model.weights.h5"}

MICROSOFT_OPERATIONS = _words("""
    DequantizeLinear QuantizeLinear QLinearAdd QLinearMul QLinearConcat QLinearConv QLinearLeakyRelu QLinearSigmoid
    QLinearAveragePool QLinearGlobalAveragePool FusedConv FusedMatMul FusedGemm Gelu BiasGelu FastGelu NhwcConv
    NhwcMaxPool
    """)
"""Operations of ONNX Runtime's own that only compute."""

ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


def check_links(folder: Path) -> None:
    """Raise `ModelError` where a link in a folder leads out of it."""
    top = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(top):
            raise ModelError(f"{path} is a link that leads out of the model's folder; copy the model without links.")


def check_hdf5(path: Path | BytesIO, name: Path) -> None:
    """Raise `ModelError` where an HDF5 file takes something from other files, or `OSError` where it is none."""
    with h5py.File(path, "r") as file:
        for where, problem in _outside(file, set()):
            raise ModelError(
                f"{name} is not opened: its entry '{where}' {problem}, from another file; take a file that holds all "
                "of its weights."
            )


def _outside(group: Any, seen: set[Any]) -> Iterator[tuple[str, str]]:
    for key in group:
        where = f"{group.name.rstrip('/')}/{key}"
        link = group.get(key, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            yield where, "is an external link"
            continue
        if isinstance(link, h5py.SoftLink):
            continue  # to an entry of this file, which is looked at where it lies
        item = group[key]
        if isinstance(item, h5py.Dataset):
            if item.external:
                yield where, "has external storage"
            elif item.is_virtual:
                yield where, "is a virtual dataset"
        elif isinstance(item, h5py.Group) and item.id not in seen:
            seen.add(item.id)
            yield from _outside(item, seen)


def check_keras_zip(path: Path) -> dict[str, Any]:
    """The configuration of a `.keras` file that only computes. Raises `ModelError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if not {"config.json", "model.weights.h5"} <= names <= KERAS_FILES:
                other = ", ".join(sorted(names - KERAS_FILES)) or "no network and weights"
                raise ModelError(f"{path} is not opened: a Keras file of a network for images does not hold {other}.")
            config = json.loads(archive.read("config.json"))
            check_hdf5(BytesIO(archive.read("model.weights.h5")), path)
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is damaged; save the network again with Keras.") from error
    check_keras(config, path)
    return dict(config)


def check_keras(config: Any, path: Path) -> None:
    """Raise `ModelError` where a Keras configuration names what may run code or open files."""
    try:
        for kind in _keras_problems(config):
            what = "a Lambda layer" if kind in ("Lambda", "__lambda__") else f"'{kind}'"
            raise ModelError(
                f"{path} is not opened: it has {what}, which may run code or is defined elsewhere; write it "
                "with Keras' own layers, or save the network as a SavedModel (model.export) and import that folder."
            )
    except RecursionError as error:
        raise ModelError(f"{path} is damaged; save the network again with Keras.") from error


def _keras_problems(value: Any) -> Iterator[str]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _keras_problems(item)
        return
    if not isinstance(value, dict):
        return
    kind, module, config = value.get("class_name"), value.get("module"), value.get("config")
    if kind is not None and not _harmless(str(kind), module, config, value.get("registered_name")):
        yield str(kind)
    for key, item in value.items():
        # How the network was trained: nothing of it is opened.
        if key not in ("compile_config", "training_config"):
            yield from _keras_problems(item)


def _harmless(kind: str, module: Any, config: Any, registered: Any) -> bool:
    if isinstance(registered, str) and ">" in registered:
        return False
    if kind == "function":
        return module == "builtins" and isinstance(config, str) and config.isidentifier()
    if module is None:
        # Keras 2 writes no modules; initializers and their like then stand below a layer, by names of their own.
        return kind in KERAS_CLASSES or _is_part(kind)
    module = str(module)
    if module == "keras.src.ops.core":
        return kind == "Cast"
    if KERAS_OPERATIONS.fullmatch(module):
        return re.fullmatch(r"[A-Z]\w*", kind) is not None
    if KERAS_PARTS.fullmatch(module):
        return _is_part(kind)
    return kind in KERAS_CLASSES and KERAS_MODULES.fullmatch(module) is not None


def _is_part(kind: str) -> bool:
    """Whether Keras itself has an initializer, regularizer, constraint or number format of that name."""
    import keras

    places = (keras.initializers, keras.regularizers, keras.constraints, keras.dtype_policies)
    return any(isinstance(getattr(place, kind, None), type) for place in places)


def check_saved_model(folder: Path) -> Any:
    """The `MetaGraphDef` of a SavedModel that only computes. Raises `ModelError`.

    Looked at: all that the signature ``serving_default`` runs, all that loading runs, and all that Keras' objects may.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    check_links(folder)
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's own class is not public
        raise ModelError(f"{folder / 'saved_model.pb'} is damaged; save the network again.") from error
    graphs = [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags]
    if len(graphs) != 1 or "serving_default" not in graphs[0].signature_def:
        raise ModelError(f"{folder} has no signature 'serving_default', which is what would be imported.")
    (graph,) = graphs
    for item in graph.object_graph_def.nodes:
        if item.saveable_objects or item.registered_saver or item.WhichOneof("kind") in ("resource", "asset"):
            raise ModelError(f"{folder} is not opened: it has tables, assets or ways of its own to load weights.")
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    nodes = {node.name: node for node in graph.graph_def.node}
    signature = graph.signature_def["serving_default"]
    starting = [
        node.partition(":")[0]
        for name in ("saved_model_main_op", "legacy_init_op", "saved_model_init_op")
        for node in graph.collection_def[name].node_list.value
    ] + [info.name for info in graph.signature_def["__saved_model_init_op"].outputs.values()]
    roots = [info.name for info in signature.outputs.values()]
    every = {node.op for part in functions.values() for node in part.node_def} | {node.op for node in nodes.values()}
    for operation in sorted(every):
        if FORBIDDEN.search(operation):
            raise ModelError(_refusal(folder, operation))
    _check_part(folder, nodes, functions, roots, TENSORFLOW_OPERATIONS)
    _check_part(folder, nodes, functions, starting, TENSORFLOW_OPERATIONS | STARTING)
    if not graph.object_graph_def.nodes:  # TensorFlow 1: the graph itself says how its variables are filled
        restoring = [graph.saver_def.restore_op_name]
        _check_part(folder, nodes, functions, restoring, TENSORFLOW_OPERATIONS | RESTORING)
        prefix = graph.saver_def.filename_tensor_name.partition(":")[0]
        for node in nodes.values():
            if node.op == "RestoreV2" and _plain_source(nodes, node.input[0]) != prefix:
                raise ModelError(f"{folder} is not opened: it reads weights from a file of another name.")
    return graph


def _check_part(folder: Path, nodes: Any, functions: Any, roots: list[str], allowed: frozenset[str]) -> None:
    for operation in sorted(_operations(nodes, functions, roots)):
        if operation not in allowed and operation not in functions:
            raise ModelError(_refusal(folder, operation))


def _refusal(folder: Path, operation: str) -> str:
    return (
        f"{folder} is not opened: it has the TensorFlow operation '{operation}', which may run code or reach files, or "
        "is none that networks for images need."
    )


def _operations(nodes: Any, functions: Any, roots: list[str]) -> set[str]:
    """The operations that some nodes of a graph depend on, bodies of functions included."""
    found: set[str] = set()
    seen_nodes: set[str] = set()
    seen_functions: set[str] = set()
    todo = [_node(name) for name in roots if name]
    bodies: list[str] = []

    def visit(node: Any) -> None:
        found.add(node.op)
        bodies.extend([node.op] if node.op in functions else [])
        for value in node.attr.values():
            names = [value.func.name] if value.HasField("func") else [item.name for item in value.list.func]
            bodies.extend(name for name in names if name)

    while todo:
        name = todo.pop()
        if name in seen_nodes or name not in nodes:
            continue
        seen_nodes.add(name)
        visit(nodes[name])
        todo.extend(_node(other) for other in nodes[name].input)
    while bodies:
        name = bodies.pop()
        if name in seen_functions:
            continue
        seen_functions.add(name)
        if name not in functions:
            found.add(name)
            continue
        for node in functions[name].node_def:
            visit(node)
    return found


def _plain_source(nodes: Any, name: str) -> str:
    """The node that a tensor comes from, behind copies."""
    name = _node(name)
    while name in nodes and nodes[name].op == "Identity":
        name = _node(nodes[name].input[0])
    return name


def _node(name: str) -> str:
    return name.lstrip("^").partition(":")[0]


def check_onnx(model: Any, path: Path) -> None:
    """Raise `ModelError` where an ONNX model takes weights from other files or has operations of its own."""
    import onnx

    for graph in [model.graph, *model.functions]:
        for node, tensors in _onnx_parts(graph):
            if node is not None and not (
                node.domain in ONNX_DOMAINS
                or (node.domain == "com.microsoft" and node.op_type in MICROSOFT_OPERATIONS)
                or any((node.domain, node.op_type) == (own.domain, own.name) for own in model.functions)
            ):
                raise ModelError(
                    f"{path} is not opened: its operation '{node.op_type}' of '{node.domain}' is none of ONNX's own; "
                    "export the network without custom operations."
                )
            for tensor in tensors:
                if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                    raise ModelError(
                        f"{path} is not opened: its weights '{tensor.name}' are in another file; export the network "
                        "into one file, without external data."
                    )


def _onnx_parts(graph: Any) -> Iterator[tuple[Any, list[Any]]]:
    """Each node with its constant tensors, inner graphs included; a graph's own constants come with None."""
    if hasattr(graph, "initializer"):
        sparse = [part for tensor in graph.sparse_initializer for part in (tensor.values, tensor.indices)]
        yield None, [*graph.initializer, *sparse]
    for node in graph.node:
        tensors = []
        for item in node.attribute:
            sparse = [*item.sparse_tensors, *([item.sparse_tensor] if item.HasField("sparse_tensor") else [])]
            tensors += [item.t, *item.tensors, *(part for each in sparse for part in (each.values, each.indices))]
            for inner in [*([item.g] if item.HasField("g") else []), *item.graphs]:
                yield from _onnx_parts(inner)
        yield node, tensors
