"""The search of blocks: what it compares costs the same, and a folded network is the one that was trained."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")

from s2sr_qgis.core.networks import element_spec  # noqa: E402

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
blocks = pytest.importorskip("block_kinds")

SPEC = element_spec({"input_10m": 4, "input_20m": 6}, {"target": 6})


def test_the_kinds_cost_the_same() -> None:
    costs = {}
    for kind, (network, options) in blocks.KINDS.items():
        folded = {"folded": True} if network is blocks.Reparameterised else {}
        costs[kind] = network(SPEC, **options, **folded, **blocks.GUIDES).mflop_per_pixel()
    assert costs == {kind: pytest.approx(costs["residual"], rel=0.03) for kind in blocks.KINDS}


@pytest.mark.parametrize("residual", [False, True])
def test_a_folded_network_is_the_trained_one(residual: bool) -> None:
    options = {"blocks": 2, "features": 8, "hidden": 4, "residual": residual}
    trained = blocks.Reparameterised(SPEC, **options).model
    folded = blocks.Reparameterised(SPEC, **options, folded=True).model
    rng = np.random.default_rng(0)
    for weight in trained.weights:
        weight.assign(rng.normal(0, 0.1, weight.shape))
    blocks.fold(trained, folded)
    assert len(folded.weights) < len(trained.weights)
    patch = {
        "input_10m": rng.uniform(200, 4000, (1, 24, 24, 4)).astype(np.float32),
        "input_20m": rng.uniform(200, 4000, (1, 12, 12, 6)).astype(np.float32),
    }
    want, found = (np.asarray(model.predict_on_batch(patch)["sharpened"]) for model in (trained, folded))
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=0.05)
    trained.get_layer("block1_point" if not residual else "block1_a_point").bias.assign(np.full(8 - 4 * residual, 0.3))
    assert np.abs(np.asarray(trained.predict_on_batch(patch)["sharpened"]) - found).max() > 1


def test_each_channel_alone_is_a_convolution_of_groups() -> None:
    import keras

    tensor = keras.Input((None, None, 3))
    layer = blocks.depthwise(tensor, "own")._keras_history.operation
    rng = np.random.default_rng(0)
    kernel, image = rng.normal(size=(3, 3, 1, 3)), rng.normal(size=(1, 5, 5, 3)).astype(np.float32)
    layer.set_weights([kernel, np.zeros(3)])
    found = np.asarray(layer(image))
    assert found[0, 2, 2] == pytest.approx((image[0, 1:4, 1:4] * kernel[:, :, 0]).sum(axis=(0, 1)), rel=1e-4)
