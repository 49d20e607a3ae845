"""Every network's SavedModel in a session of plain TensorFlow, as OTBTF loads it, against plain ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.train
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

import onnxruntime  # noqa: E402

from s2sr_qgis.core.dataset.card import PatchCard, layout  # noqa: E402
from s2sr_qgis.core.errors import ModelError  # noqa: E402
from s2sr_qgis.core.inference.card import ModelCard, read_card  # noqa: E402
from s2sr_qgis.core.inference.model import load_model  # noqa: E402
from s2sr_qgis.core.networks.base import INFERENCE_CROPPING  # noqa: E402
from s2sr_qgis.core.networks.quantized import calibrate, quantized, take_back  # noqa: E402
from s2sr_qgis.core.progress import Progress  # noqa: E402
from s2sr_qgis.core.raster.serve import CROPS, narrowest_crop  # noqa: E402
from s2sr_qgis.core.training import export  # noqa: E402
from s2sr_qgis.core.training.parity import random_patches  # noqa: E402
from s2sr_qgis.core.training.run_card import RunCard  # noqa: E402

SESSION = Path(__file__).with_name("plain_session.py")
BANDS = ["B04", "B03", "B02", "B08"]
SMALL: dict[str, Any] = {"blocks": 1, "features": 8}
OWN = {**SMALL, "context": 2}
G20 = {"guides": [[0, 1, 2, 3]] * 6, "consistent": True, "guide_radius": 2}
G60 = {"guides": [[0, 1, 4], [3, 7, 9]], "guide_kernel": 3, "consistent": True, "guide_radius": 1}

NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "coarsenet_20m": ("coarsenet", "20m", OWN),
    "coarsenet_20m_guided": ("coarsenet", "20m", {**OWN, **G20}),
    "coarsenet_20m_rotated": ("coarsenet", "20m", {**OWN, **G20}),
    "coarsenet_20m_quantized": ("coarsenet", "20m", {**OWN, **G20}),
    "coarsenet_60m": ("coarsenet", "60m", OWN),
    "coarsenet_60m_guided": ("coarsenet", "60m", {**OWN, **G60}),
    "dsen2_20m": ("dsen2", "20m", SMALL),
    "dsen2_60m": ("dsen2", "60m", SMALL),
    "vdsen2_20m": ("vdsen2", "20m", {"blocks": 2, "features": 8}),
    "crossnet_x2": ("crossnet", "2", OWN),
    "crossnet_x4": ("crossnet", "4", OWN),
    "srresnet_x2": ("srresnet", "2", SMALL),
    "srresnet_x4": ("srresnet", "4", SMALL),
    "srresnet_x4_rotated": ("srresnet", "4", SMALL),
}
"""Name: network, task or ratio, options."""


def run_card(network: str, task: str, options: dict[str, Any]) -> RunCard:
    tensors, kind = [], task
    if task.endswith("m"):
        tensors = layout(task, 6)
    else:
        kind, ratio = "cross-sensor", int(task)
        tensors = [
            PatchCard(name="input_lr", bands=BANDS, resolution=1.5 * ratio, size=8),
            PatchCard(name="target", bands=BANDS, resolution=1.5, size=8 * ratio),
        ]
    return RunCard(
        network=network,
        network_options=options,
        task=kind,
        scaling=1e-4,
        tensors=tensors,
        sources=[],
        backend="tensorflow",
        precision="float32",
    )


def built(name: str) -> tuple[Any, ModelCard]:
    """A network whose every weight counts, and its card."""
    run = run_card(*NETWORKS[name])
    keras.utils.set_random_seed(3)
    network = run.build()
    rng = np.random.default_rng(1)
    for layer in network.model.layers:
        if layer.get_weights():
            layer.set_weights([weight + 0.02 * rng.normal(size=weight.shape) for weight in layer.get_weights()])
    card = export.describe(network, run, name=name, title=name)
    if name.endswith("rotated"):
        card.orientations = 2
    if name.endswith("quantized"):
        copy = quantized(network.model)
        calibrate(copy, network.model, random_patches(card))
        take_back(network.model, copy, rounded=True)
    return network, card


def tensors(card: ModelCard, height: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """DN of each input, (1, h, w, bands); height and width in pixels of the finest."""
    rng = np.random.default_rng(seed)
    return {
        t.name: rng.uniform(200, 4000, (1, height // f, width // f, len(t.bands))).astype(np.float32)
        for t in card.inputs
        for f in [t.coarser(card.finest)]
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Model folders NAME, and in `served` what their SavedModels give for NAME.SIZE.npz."""
    folder = tmp_path_factory.mktemp("models")
    served = folder / "served"
    served.mkdir()
    for name in NETWORKS:
        network, card = built(name)
        export.write_model(network, card, folder / name, saved_model=True, patches=None, progress=Progress())
        for number, (height, width) in enumerate(((36, 60), (420, 12), (72, 24))):
            (served / f"{name}-{number}").symlink_to(folder / name / "saved_model")
            np.savez(served / f"{name}-{number}.npz", **tensors(card, height, width, number))
    subprocess.run([sys.executable, "-I", str(SESSION), str(served)], check=True, timeout=300)
    return folder


@pytest.mark.parametrize("name", NETWORKS)
def test_a_session_gives_what_onnx_runtime_gives(folder, name) -> None:
    card = read_card(folder / name)
    assert set(card.metrics["parity"]) == {"random", "saved_model"}
    session = onnxruntime.InferenceSession(str(folder / name / "model.onnx"), providers=["CPUExecutionProvider"])
    for number in range(3):
        inputs = dict(np.load(folder / "served" / f"{name}-{number}.npz"))
        served = dict(np.load(folder / "served" / f"{name}-{number}.out.npz"))
        (plain,) = session.run(["sharpened"], inputs)
        if card.orientations == 2:
            (other,) = session.run(["sharpened"], {key: value[:, ::-1, ::-1].copy() for key, value in inputs.items()})
            assert np.abs(plain - other[:, ::-1, ::-1]).max() > 1
            plain = (plain + other[:, ::-1, ::-1]) / 2
        finest = inputs[card.inputs[0].name]
        assert plain.shape[1:3] == tuple(side * card.scale for side in finest.shape[1:3])
        assert plain.std() > 100
        np.testing.assert_allclose(served["sharpened"], plain, atol=0.5)  # DN; the parity that an export allows is 2
        for crop in (name for name in served if name.startswith("sharpened_crop")):
            k = int(crop.removeprefix("sharpened_crop"))
            height, width = (max(side - 2 * k, 0) for side in plain.shape[1:3])
            if height and width:
                np.testing.assert_array_equal(served[crop], served["sharpened"][:, k:-k, k:-k])
            assert served[crop].shape[1:3] == (height, width) or not served[crop].size


@pytest.mark.parametrize("name", NETWORKS)
def test_a_crop_holds_the_radius(folder, name) -> None:
    card = read_card(folder / name)
    served = np.load(folder / "served" / f"{name}-0.out.npz")
    crop = narrowest_crop(card.radius * card.scale, card.scale * card.multiple)
    assert crop >= card.radius * card.scale
    assert {f"sharpened_crop{k}" for k in (*CROPS, crop)} == {n for n in served if n.startswith("sharpened_crop")}


def test_a_large_radius_adds_the_crop_that_holds_it() -> None:
    """The tutorial's network, of four times the resolution: 37 pixels of the input are 148 of the output."""
    assert CROPS[:5] == INFERENCE_CROPPING
    assert narrowest_crop(148, 4) == 160
    assert narrowest_crop(161, 4) == 192
    assert narrowest_crop(193, 4) == 224
    assert narrowest_crop(193, 6) == 210
    assert narrowest_crop(50, 7) == 56
    model = run_card("srresnet", "4", SMALL).build().serving_model(crops=[*CROPS, 224])
    assert {name for name in model.output_names if "crop" in name} == {
        f"{output}_crop{k}" for k in (*CROPS, 224) for output in ("sharpened", "reflectance")
    }


def test_a_saved_model_that_does_not_run_is_not_written(tmp_path, monkeypatch) -> None:
    """What Keras' own objects did: the loaded variables are not those that the function reads."""
    network, card = built("crossnet_x2")
    write = export.write_saved_model

    def keras_objects(network: Any, card: ModelCard, folder: Path) -> None:
        import tensorflow as tf

        model = network.serving_model()
        module = tf.Module()
        module.model = model
        tf.saved_model.save(module, str(folder), {"serving_default": export._serving(tf, model)[0]})

    monkeypatch.setattr(export, "write_saved_model", keras_objects)
    with pytest.raises(ModelError, match="does not run in a TensorFlow session") as caught:
        export.write_model(network, card, tmp_path / "m", saved_model=True, patches=None, progress=Progress())
    assert "\n" not in str(caught.value)

    def other_weights(network: Any, card: ModelCard, folder: Path) -> None:
        layer = network.model.get_layer("last")
        layer.set_weights([weight * 2 for weight in layer.get_weights()])
        write(network, card, folder)

    monkeypatch.setattr(export, "write_saved_model", other_weights)
    with pytest.raises(ModelError, match="ONNX Runtime and the SavedModel differ by"):
        export.write_model(network, card, tmp_path / "m", saved_model=True, patches=None, progress=Progress())
    assert not list(tmp_path.iterdir())


def test_two_orientations_are_the_same_in_both_engines(folder) -> None:
    """Native inference, which averages itself, and the SavedModel, which holds the mean."""
    name = "srresnet_x4_rotated"
    model = load_model(folder / name, device="cpu")
    inputs = np.load(folder / "served" / f"{name}-0.npz")["input_lr"]
    bands = {band: inputs[0, :, :, i] * np.float32(1e-4) for i, band in enumerate(BANDS)}
    served = np.load(folder / "served" / f"{name}-0.out.npz")["sharpened"][0]
    for channel, image in enumerate(model.infer(bands).values()):
        np.testing.assert_allclose(image * 1e4, served[:, :, channel], atol=0.5)


@pytest.mark.slow
def test_the_network_of_the_tutorial_exports_in_full_size(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(NETWORKS, "full", ("srresnet", "4", {}))
    network, card = built("full")
    assert card.radius * card.scale == 148
    parity = export.write_model(network, card, tmp_path / "m", saved_model=True, patches=None, progress=Progress())
    assert parity["saved_model"] < 2e-4
