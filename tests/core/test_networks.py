"""The networks: layers against independent ones, the OTBTF contract, DSen2 as published, CoarseNet's invariance."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.raster.resample import upsample

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")

import keras  # noqa: E402

from s2sr_qgis.core.networks import NETWORKS, build_network, coarsenet, element_spec  # noqa: E402
from s2sr_qgis.core.networks.layers import (  # noqa: E402
    BilinearUpsampling,
    FromPlanes,
    LocalMean,
    ToCoarserGrid,
    ToFinerGrid,
    ToPlanes,
    places,
)
from s2sr_qgis.core.training.behaviour import measure_radius  # noqa: E402
from s2sr_qgis.core.training.export import as_run  # noqa: E402

CHANNELS = {"20m": {"input_10m": 4, "input_20m": 6}, "60m": {"input_10m": 4, "input_20m": 6, "input_60m": 2}}
FACTORS = {"input_10m": 1, "input_20m": 2, "input_60m": 6}
SMALL = {"blocks": 1, "features": 8}


def network(name: str, task: str = "20m", **options):
    """A network whose kernels are all well away from zero, as after a training."""
    channels = CHANNELS[task]
    built = build_network(name, element_spec(channels, {"target": list(channels.values())[-1]}), options)
    rng = np.random.default_rng(0)
    for weight in built.model.weights:
        if weight.path.endswith("kernel"):
            weight.assign(rng.normal(0, (2 / np.prod(weight.shape[:3])) ** 0.5, weight.shape))
    return built


def inputs(task: str, side: int, low: float = 500, high: float = 4000, batch: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        name: rng.uniform(low, high, (batch, side // FACTORS[name], side // FACTORS[name], count)).astype(np.float32)
        for name, count in CHANNELS[task].items()
    }


def run(model, tensors: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(model.predict_on_batch(tensors)["sharpened"])


def test_from_planes_undoes_to_planes() -> None:
    image = np.random.default_rng(0).random((2, 6, 9, 5)).astype(np.float32)
    planes = ToPlanes(3)(image)
    assert planes.shape == (2, 45, 2, 3)
    for place, part in enumerate(places(planes, 3)):
        np.testing.assert_array_equal(part.numpy().transpose(0, 2, 3, 1), image[:, place // 3 :: 3, place % 3 :: 3])
    np.testing.assert_array_equal(FromPlanes(3)(planes), image)


@pytest.mark.parametrize("factor", [1, 2])
def test_planes_of_a_coarser_grid_are_of_the_same_image(factor) -> None:
    image = np.random.default_rng(0).random((2, 12, 18, 5)).astype(np.float32)
    fine, coarse = ToPlanes(factor)(image), ToPlanes(3 * factor)(image)
    np.testing.assert_array_equal(ToCoarserGrid(factor)(fine), coarse)
    np.testing.assert_array_equal(ToFinerGrid(factor)(coarse), fine)


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_bilinear_upsampling_is_that_of_the_core(factor) -> None:
    image = np.random.default_rng(0).random((2, 5, 7, 3)).astype(np.float32)
    wanted = upsample(image.transpose(0, 3, 1, 2), factor, "bilinear").transpose(0, 2, 3, 1)
    np.testing.assert_allclose(BilinearUpsampling(factor)(image), wanted, atol=1e-5)


@pytest.mark.parametrize(("radius", "shape"), [(2, (9, 12)), (8, (10, 30))])
def test_local_mean_takes_only_pixels_inside(radius, shape) -> None:
    image = np.random.default_rng(0).random((1, *shape, 2)).astype(np.float32)
    size = (2 * radius + 1, 2 * radius + 1)
    inside = uniform_filter(np.ones(shape), size, mode="constant")
    for channel in range(2):
        wanted = uniform_filter(image[0, :, :, channel].astype(float), size, mode="constant") / inside
        np.testing.assert_allclose(LocalMean(radius)(image.transpose(0, 3, 1, 2))[0, channel], wanted, atol=1e-5)


@pytest.mark.parametrize(("name", "task"), [("coarsenet", "20m"), ("coarsenet", "60m"), ("dsen2", "60m")])
def test_contract(name, task) -> None:
    built = network(name, task, **SMALL)
    assert [tensor.name for tensor in built.model.inputs] == list(CHANNELS[task])
    for tensor, count in zip(built.model.inputs, CHANNELS[task].values(), strict=True):
        assert tensor.shape == (None, None, None, count)
    served = built.serving_model()
    crops = (16, 32, 64, 96, 128)
    assert set(served.output_names) == {"sharpened", *(f"sharpened_crop{crop}" for crop in crops)}
    tensors = inputs(task, 72)
    tensors["input_10m"] = np.repeat(tensors["input_10m"], 2, axis=2)  # height and width are free of one another
    for key in list(tensors)[1:]:
        tensors[key] = np.repeat(tensors[key], 2, axis=2)
    served = network(name, task, **SMALL, inference_cropping=[16]).serving_model()  # Keras cuts no more than there is
    whole, cropped = (served(tensors)[key].numpy() for key in ("sharpened", "sharpened_crop16"))
    assert whole.shape == (1, 72, 144, list(CHANNELS[task].values())[-1])
    np.testing.assert_array_equal(cropped, whole[:, 16:-16, 16:-16])
    np.testing.assert_allclose(whole, run(built.model, tensors), rtol=1e-4, atol=0.5)


def test_a_saved_network_loads_alone(tmp_path) -> None:
    built = network("coarsenet", "60m", **SMALL)
    built.model.save(tmp_path / "n.keras")
    tensors = inputs("60m", 36)
    loaded = keras.saving.load_model(tmp_path / "n.keras", compile=False)
    np.testing.assert_allclose(run(loaded, tensors), run(built.model, tensors), atol=0.01)


@pytest.mark.parametrize("task", ["20m", "60m"])
def test_coarsenet_is_invariant_to_brightness(task, monkeypatch) -> None:
    tensors = inputs(task, 48)
    doubled = {name: 2 * tensor for name, tensor in tensors.items()}
    model = network("coarsenet", task, **SMALL).model
    once, twice = run(model, tensors), run(model, doubled)
    low = list(tensors.values())[-1]
    base = upsample(low.transpose(0, 3, 1, 2), once.shape[1] // low.shape[1], "bilinear").transpose(0, 2, 3, 1)
    detail = np.abs(once - base).mean()
    assert detail > 100  # DN that the network adds
    assert np.abs(twice - 2 * once).mean() < 0.01 * detail
    monkeypatch.setattr(coarsenet, "FLOOR", 0.0)
    exact = network("coarsenet", task, **SMALL).model
    np.testing.assert_allclose(run(exact, doubled), 2 * run(exact, tensors), rtol=1e-4, atol=0.5)


def test_coarsenet_without_detail_is_bilinear() -> None:
    model = network("coarsenet", "20m", **SMALL).model
    for weight in model.get_layer("last").weights:
        weight.assign(np.zeros(weight.shape))
    tensors = inputs("20m", 24)
    wanted = upsample(tensors["input_20m"].transpose(0, 3, 1, 2), 2, "bilinear").transpose(0, 2, 3, 1)
    np.testing.assert_allclose(run(model, tensors), wanted, atol=0.05)


@pytest.mark.parametrize(
    ("name", "task", "convolutions", "parameters"),
    [("dsen2", "20m", 14, 1_789_574), ("dsen2", "60m", 14, 1_787_266), ("vdsen2", "20m", 66, 37_802_246)],
)
def test_dsen2_is_as_published(name, task, convolutions, parameters) -> None:
    spec = element_spec(CHANNELS[task], {"target": list(CHANNELS[task].values())[-1]})
    built = build_network(name, spec)
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in built.model.layers) == convolutions
    assert built.model.count_params() == parameters
    if name == "dsen2":
        assert built.mflop_per_pixel() == pytest.approx(3.575, abs=0.01)


def test_dsen2_computes_what_the_paper_says() -> None:
    """Its layers one by one in NumPy: no clipping, residues times 0.1, the upsampled bands added at the end."""
    built = network("dsen2", "20m", blocks=2, features=4)
    tensors = inputs("20m", 12)

    def conv(image: np.ndarray, name: str) -> np.ndarray:
        kernel, bias = built.model.get_layer(name).get_weights()
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
        height, width = image.shape[:2]
        windows = [padded[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)]
        return np.sum(windows, axis=0) + bias

    up = upsample(tensors["input_20m"][0].transpose(2, 0, 1), 2, "bilinear").transpose(1, 2, 0) / 2000
    x = np.maximum(conv(np.concatenate([tensors["input_10m"][0] / 2000, up], axis=-1), "first"), 0)
    for block in range(2):
        x = x + 0.1 * conv(np.maximum(conv(x, f"block{block}_a"), 0), f"block{block}_b")
    np.testing.assert_allclose(run(built.model, tensors)[0], 2000 * (up + conv(x, "last")), rtol=1e-4, atol=0.05)


def test_the_receptive_radius_of_dsen2_is_14() -> None:
    """14 pixels from the 10 m bands; one more from the 20 m bands, which bilinear upsampling spreads."""
    model = network("dsen2", "20m").model
    tensors = inputs("20m", 64)
    before = run(model, tensors)
    tensors["input_10m"][0, 32, 30] += 3000
    rows, columns = np.nonzero((run(model, tensors) != before).any(axis=(0, 3)))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32 - 14, 32 + 14, 30 - 14, 30 + 14)
    assert measure_radius(*as_run(model), {"input_10m": 1, "input_20m": 2}) == 15


def test_what_cannot_be_built_is_one_sentence() -> None:
    spec = element_spec(CHANNELS["20m"], {"target": 6})
    with pytest.raises(
        InputError, match=r"no network 'unet'; the networks are coarsenet, dsen2, vdsen2, srresnet, crossnet\."
    ):
        build_network("unet", spec)
    with pytest.raises(InputError, match=r"'coarsenet' has no option 'depth'; its options and defaults are .*blocks=8"):
        build_network("coarsenet", spec, {"depth": 3})
    assert set(NETWORKS) == {"coarsenet", "dsen2", "vdsen2", "srresnet", "crossnet"}


FAKE_OTBTF = '''
import abc

class ModelBase(abc.ABC):
    """The contract as OTBTF publishes it; what needs Keras 2 fails here as it does under Keras 3."""

    def __init__(self, dataset_element_spec, input_keys=None, inference_cropping=None):
        spec = dataset_element_spec[0]
        self.dataset_input_keys = input_keys or list(spec)
        self.inputs_shapes = {key: spec[key].shape[1:] for key in self.dataset_input_keys}
        self.inference_cropping = inference_cropping or [16, 32, 64, 96, 128]
        self.model = self.create_network()

    def __getattr__(self, name):
        return getattr(self.model, name)

    @abc.abstractmethod
    def get_outputs(self, normalized_inputs):
        raise NotImplementedError

    def get_inputs(self):
        raise RuntimeError("Keras 2")

    def normalize_inputs(self, inputs):
        return inputs

    def postprocess_outputs(self, outputs, inputs, normalized_inputs):
        return {t._keras_history.layer.name: t for t in outputs.values()}

    def create_network(self):
        raise RuntimeError("Keras 2")
'''


def test_networks_derive_from_otbtf_where_it_is_installed(tmp_path) -> None:
    (tmp_path / "otbtf").mkdir()
    (tmp_path / "otbtf" / "__init__.py").write_text(FAKE_OTBTF)
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import otbtf
        from s2sr_qgis.core.networks import NETWORKS, build_network, element_spec
        assert all(issubclass(network, otbtf.ModelBase) for network in NETWORKS.values())
        spec = element_spec({{"input_10m": 4, "input_20m": 6}}, {{"target": 6}})
        for name in ("coarsenet", "dsen2"):
            network = build_network(name, spec, {{"blocks": 1, "features": 8}})
            assert network.count_params() == network.model.count_params() > 0  # forwarded by OTBTF's class
            print(name, *sorted(network.serving_model().output_names))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    crops = "sharpened sharpened_crop128 sharpened_crop16 sharpened_crop32 sharpened_crop64 sharpened_crop96"
    assert done.stdout.splitlines() == [f"coarsenet {crops}", f"dsen2 {crops}"]


def test_an_otbtf_that_cannot_be_imported_is_a_warning_with_the_reason(tmp_path) -> None:
    (tmp_path / "otbtf").mkdir()
    (tmp_path / "otbtf" / "__init__.py").write_text("import a_package_that_is_missing\n")
    code = "from s2sr_qgis.core.networks.base import CONTRACT_PROBLEM; print(CONTRACT_PROBLEM)"
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "otbtf cannot be imported (ModuleNotFoundError: No module named 'a_package_that_is_missing')" in done.stdout
