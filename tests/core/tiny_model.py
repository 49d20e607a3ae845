"""Model folders with a few hundred parameters and a known receptive radius, and small scenes to feed them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from products import CRS, write_band

from s2sr_qgis.core.inference.card import ModelCard, ModelFile, TensorCard, sha256, write_card

TENS, TWENTIES, SIXTIES = ["B02", "B03", "B04", "B08"], ["B05", "B06", "B07", "B8A", "B11", "B12"], ["B01", "B09"]
RADIUS = {"20m": 4, "60m": 12}
MULTIPLE = {"20m": 2, "60m": 6}
RESOLUTION = {**dict.fromkeys(TENS, 10), **dict.fromkeys(TWENTIES, 20), **dict.fromkeys(SIXTIES, 60)}


def tiny_model(folder: Path, task: str = "20m", levels: tuple[str, ...] = ("L1C", "L2A"), seed: int = 0) -> Path:
    """Write a model: the coarse bands bilinearly resized, plus two 5 x 5 convolutions over the 10 m bands."""
    rng = np.random.default_rng(seed)
    coarse, factor = (TWENTIES, 2) if task == "20m" else (SIXTIES, 6)
    inputs = [TensorCard(name="input_10m", bands=TENS, resolution=10)]
    inputs.append(TensorCard(name="input_20m", bands=TWENTIES, resolution=20))
    if task == "60m":
        inputs.append(TensorCard(name="input_60m", bands=SIXTIES, resolution=60))
    first = rng.normal(0, 0.05, (8, 4, 5, 5)).astype(np.float32)
    second = rng.normal(0, 0.05, (len(coarse), 8, 5, 5)).astype(np.float32)
    weights = {"first": first, "second": second, "scales": np.array([1, 1, factor, factor], np.float32)}
    to_nchw, to_nhwc = {"perm": [0, 3, 1, 2]}, {"perm": [0, 2, 3, 1]}
    nodes = [
        helper.make_node("Transpose", ["input_10m"], ["fine"], **to_nchw),
        helper.make_node("Transpose", [inputs[-1].name], ["coarse"], **to_nchw),
        helper.make_node("Resize", ["coarse", "", "scales"], ["base"], mode="linear"),
        helper.make_node("Conv", ["fine", "first"], ["features"], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("Conv", ["active", "second"], ["detail"], pads=[2, 2, 2, 2]),
        helper.make_node("Add", ["base", "detail"], ["sum"]),
        helper.make_node("Transpose", ["sum"], ["sharpened"], **to_nhwc),
    ]
    if task == "60m":  # a real 60 m network looks at the 20 m bands too
        weights["mix"] = rng.normal(0, 0.02, (len(coarse), len(TWENTIES), 1, 1)).astype(np.float32)
        weights["twice"] = np.array([1, 1, 2, 2], np.float32)
        nodes[-1:] = [
            helper.make_node("Transpose", ["input_20m"], ["middle"], **to_nchw),
            helper.make_node("Resize", ["middle", "", "twice"], ["resized"], mode="linear"),
            helper.make_node("Conv", ["resized", "mix"], ["mixed"]),
            helper.make_node("Add", ["sum", "mixed"], ["all"]),
            helper.make_node("Transpose", ["all"], ["sharpened"], **to_nhwc),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(
                t.name, TensorProto.FLOAT, ["n", f"h{t.resolution}", f"w{t.resolution}", len(t.bands)]
            )
            for t in inputs
        ],
        [helper.make_tensor_value_info("sharpened", TensorProto.FLOAT, ["n", "h", "w", len(coarse)])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    card = ModelCard(
        name=folder.name,
        title="Tiny",
        task=task,
        network="tiny",
        processing_levels=list(levels),
        inputs=inputs,
        outputs=[TensorCard(name="sharpened", bands=coarse, resolution=10)],
        radius=RADIUS[task],
        multiple=MULTIPLE[task],
        parameters=first.size + second.size,
        mflop_per_pixel=2e-6 * (first.size + second.size),
        files=[ModelFile(file="model.onnx", precision="float32", sha256=sha256(folder / "model.onnx"))],
    )
    write_card(card, folder)
    return folder


def scene_numbers(size: int = 240, offset: int = 0, seed: int = 1) -> dict[str, np.ndarray]:
    """DN of twelve bands over ``size`` x ``size`` pixels of 10 m: gratings and noise, each at its own resolution."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[0:size, 0:size]
    pattern = 1500 + 600 * np.sin(rows / 5) * np.cos(cols / 7) + rng.normal(0, 200, (size, size))
    numbers = {}
    for place, (band, resolution) in enumerate(RESOLUTION.items()):
        f = resolution // 10
        image = (pattern * (0.6 + 0.1 * place)).reshape(size // f, f, size // f, f).mean(axis=(1, 3))
        numbers[band] = np.clip(np.rint(image - offset), 1, 65535).astype(np.uint16)
    return numbers


def write_scene(folder: Path, numbers: dict[str, np.ndarray], crs: str | None = CRS) -> Path:
    """A folder of single-band GeoTIFFs."""
    for band, image in numbers.items():
        write_band(folder / f"{band}.tif", image, RESOLUTION[band], crs)
    return folder


def tiny_cross_model(folder: Path, spacing: float = 6.0, ratio: int = 4) -> Path:
    """Write a cross-sensor model: the input bilinearly resized, plus two 5 x 5 convolutions and a pixel shuffle."""
    rng = np.random.default_rng(3)
    bands = ["B04", "B03", "B02", "B08"]
    weights = {
        "first": rng.normal(0, 0.05, (8, 4, 5, 5)).astype(np.float32),
        "second": rng.normal(0, 0.05, (4 * ratio**2, 8, 5, 5)).astype(np.float32),
        "scales": np.array([1, 1, ratio, ratio], np.float32),
    }
    pads = {"pads": [2, 2, 2, 2]}
    nodes = [
        helper.make_node("Transpose", ["input_lr"], ["low"], perm=[0, 3, 1, 2]),
        helper.make_node("Resize", ["low", "", "scales"], ["base"], mode="linear"),
        helper.make_node("Conv", ["low", "first"], ["features"], **pads),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("Conv", ["active", "second"], ["deep"], **pads),
        helper.make_node("DepthToSpace", ["deep"], ["detail"], blocksize=ratio),
        helper.make_node("Add", ["base", "detail"], ["sum"]),
        helper.make_node("Transpose", ["sum"], ["sharpened"], perm=[0, 2, 3, 1]),
    ]
    tensors = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", f"{name}_h", f"{name}_w", 4])
        for name in ("input_lr", "sharpened")
    ]
    initial = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "tiny", tensors[:1], tensors[1:], initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    parameters = sum(value.size for name, value in weights.items() if name != "scales")
    card = ModelCard(
        name=folder.name,
        title="Tiny",
        task="cross-sensor",
        network="tiny",
        processing_levels=["L1C", "L2A"],
        inputs=[TensorCard(name="input_lr", bands=bands, resolution=spacing)],
        outputs=[TensorCard(name="sharpened", bands=bands, resolution=spacing / ratio)],
        radius=5,
        multiple=1,
        parameters=parameters,
        mflop_per_pixel=2e-6 * parameters / ratio**2,
        files=[ModelFile(file="model.onnx", precision="float32", sha256=sha256(folder / "model.onnx"))],
    )
    write_card(card, folder)
    return folder
