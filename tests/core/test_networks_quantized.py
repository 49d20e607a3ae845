"""Networks that round to 8 bits while they are trained."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.train
keras = pytest.importorskip("keras")

from s2sr_qgis.core.errors import InputError  # noqa: E402
from s2sr_qgis.core.networks import build_network, element_spec  # noqa: E402
from s2sr_qgis.core.networks.quantized import QuantizedConv2D, calibrate, quantized, ranges, take_back  # noqa: E402

SPEC = element_spec({"input_10m": 4, "input_20m": 6}, {"target": 6})
OPTIONS = {"blocks": 2, "features": 12, "hidden": 8, "guides": [[0, 1, 2, 3]] * 6, "guide_kernel": 3}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    network = build_network("coarsenet", SPEC, OPTIONS)
    for layer in network.model.layers:
        if layer.get_weights():  # away from the near-zero start, so that every layer counts
            layer.set_weights(
                [
                    weight + np.float32(0.02) * np.random.default_rng(1).normal(size=weight.shape)
                    for weight in layer.get_weights()
                ]
            )
    return network.model


@pytest.fixture(scope="module")
def patches() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "input_10m": rng.uniform(500, 3000, (4, 32, 32, 4)).astype(np.float32),
        "input_20m": rng.uniform(500, 3000, (4, 16, 16, 6)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def copy(model, patches):
    rounding = quantized(model)
    calibrate(rounding, model, patches)
    return rounding


def result(network, patches: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(network.predict_on_batch(patches)["sharpened"])


def test_the_copy_is_near_the_plain_network_but_not_equal(model, copy, patches) -> None:
    detail = result(model, patches).std()
    difference = np.abs(result(copy, patches) - result(model, patches)).mean()
    assert 0 < difference < 0.02 * detail


def test_zero_points_follow_the_relus(copy) -> None:
    found = ranges(copy)
    assert list(found) == ["first", "block0_a", "block0_b", "block1_a", "block1_b", "last"]
    assert {name: (r.input_zero, r.output_zero) for name, r in found.items()} == {
        "first": (128, 128),
        "block0_a": (128, 0),
        "block0_b": (0, 128),
        "block1_a": (128, 0),
        "block1_b": (0, 128),
        "last": (128, 128),
    }


def test_a_layer_computes_what_its_ranges_say(copy) -> None:
    """By whole numbers, as QLinearConv does it."""
    layer, own = copy.get_layer("block0_a"), ranges(copy)["block0_a"]
    x = np.random.default_rng(5).normal(0, 40 * own.input_scale, (1, 6, 7, 12)).astype(np.float32)
    stored = np.clip(np.rint(x / own.input_scale) + own.input_zero, 0, 255).astype(np.int64) - own.input_zero
    padded = np.pad(stored, [(0, 0), (1, 1), (1, 1), (0, 0)])
    sums = sum(padded[:, i : i + 6, j : j + 7] @ own.kernel[i, j].astype(np.int64) for i in range(3) for j in range(3))
    real = sums * own.kernel_scales + np.asarray(layer.bias)
    wanted = np.clip(np.rint(real / own.output_scale) + own.output_zero, 0, 255) - own.output_zero
    found = np.asarray(layer(x)) / own.output_scale
    assert len(np.unique(wanted)) > 20
    # A sum that lies halfway between two steps may fall either way.
    assert np.abs(found - wanted).max() <= 1.001
    assert np.mean(np.abs(found - wanted) > 0.01) < 0.01


def test_scales_learn(copy, patches) -> None:
    """Gradients reach kernels, biases and scales."""
    learner = keras.models.clone_model(copy)
    learner.set_weights(copy.get_weights())
    learner.compile(keras.optimizers.Adam(1e-2), loss={"sharpened": "mae"})
    before = [np.asarray(variable) for variable in learner.trainable_variables]
    target = result(copy, patches) + 50
    learner.train_on_batch(patches, {"sharpened": target})
    still = [
        variable.path
        for variable, old in zip(learner.trainable_variables, before, strict=True)
        if np.array_equal(np.asarray(variable), old)
    ]
    assert not still


def test_weights_come_back_from_a_file(model, copy, patches, tmp_path) -> None:
    copy.save_weights(tmp_path / "some.weights.h5")
    other = quantized(model)
    other.load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_array_equal(result(other, patches), result(copy, patches))
    for layer in other.layers:
        if isinstance(layer, QuantizedConv2D):
            layer.kernel.assign(layer.kernel * 0.5)
    again = build_network("coarsenet", SPEC, OPTIONS).model
    take_back(again, other, rounded=False)
    np.testing.assert_array_equal(
        again.get_layer("guide_filter").get_weights()[0], model.get_layer("guide_filter").get_weights()[0]
    )
    np.testing.assert_array_equal(again.get_layer("first").kernel, other.get_layer("first").kernel)
    take_back(again, other, rounded=True)
    own = ranges(other)["first"]
    steps = np.asarray(again.get_layer("first").kernel) * own.input_scale[:, np.newaxis] / own.kernel_scales
    np.testing.assert_allclose(steps, own.kernel, atol=1e-3)
    assert not np.allclose(again.get_layer("first").kernel, other.get_layer("first").kernel, rtol=1e-4, atol=0)


def test_networks_with_activations_inside_are_refused() -> None:
    with pytest.raises(InputError, match="dsen2 cannot be trained with 8 bits in the loop"):
        quantized(build_network("dsen2", SPEC, {"blocks": 1, "features": 4}).model)
