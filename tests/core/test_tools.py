"""What the recipes of the bundled models do beside jobs: the fitted filter of the guides, the share that is kept."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_training import make_dataset, train

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import fit_filter  # noqa: E402
import shrink  # noqa: E402

from s2sr_qgis.core.dataset.card import TARGET, read_dataset  # noqa: E402
from s2sr_qgis.core.networks import build_network, element_spec  # noqa: E402
from s2sr_qgis.core.networks.coarsenet import Symmetric  # noqa: E402
from s2sr_qgis.core.training.run_card import read_run_card  # noqa: E402
from s2sr_qgis.core.training.train import load_network  # noqa: E402

OPTIONS = {"blocks": 1, "features": 8, "guides": [[0, 1], [3, 7]], "guide_kernel": 3, "consistent": True}
CHANNELS = {"input_10m": 4, "input_20m": 6, "input_60m": 2}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "pairs", "60m", patch_size=36)


def test_a_filter_that_made_the_targets_is_found_again(dataset: Path, tmp_path: Path, monkeypatch) -> None:
    made = build_network("coarsenet", element_spec(CHANNELS, {TARGET: 2}), {**OPTIONS, "consistent": False}).model
    last, layer = made.get_layer("last"), made.get_layer("guide_filter")
    last.set_weights([np.zeros_like(weight) for weight in last.get_weights()])
    kernel = np.asarray(Symmetric()(np.random.default_rng(0).normal(0.1, 0.1, (3, 3, 2, 1)).astype(np.float32)))
    layer.set_weights([kernel])
    arrays = dict(read_dataset(dataset).arrays("train"))
    inputs = {name: arrays[name] for name in CHANNELS}
    arrays[TARGET] = np.asarray(made.predict(inputs, verbose=0)["sharpened"])

    class Known:
        card = read_dataset(dataset).card

        def arrays(self, split: str) -> dict[str, np.ndarray]:
            return arrays

    monkeypatch.setattr(fit_filter, "read_dataset", lambda folder: Known())
    fit_filter.start([dataset], "coarsenet", OPTIONS, tmp_path / "start.weights.h5")
    found = build_network("coarsenet", element_spec(CHANNELS, {TARGET: 2}), OPTIONS).model
    found.load_weights(tmp_path / "start.weights.h5")
    np.testing.assert_allclose(found.get_layer("guide_filter").get_weights()[0], kernel, atol=0.02)
    assert not any(weight.any() for weight in found.get_layer("last").get_weights())


def test_a_share_of_what_was_learned_is_kept(dataset: Path, tmp_path: Path) -> None:
    begin, run = tmp_path / "start.weights.h5", tmp_path / "run"
    fit_filter.start([dataset], "coarsenet", OPTIONS, begin)
    train(dataset, run, network_options=OPTIONS, initial_weights=begin, quantized=True, learning_rate=0.01)
    before = build_network("coarsenet", element_spec(CHANNELS, {TARGET: 2}), OPTIONS).model
    before.load_weights(begin)
    card = read_run_card(run)
    learned, _ = load_network(run, card)
    shrink.main(run, 0.25, begin)
    kept, _ = load_network(run, card)
    for name in ("last", "guide_filter"):
        old, new, now = (model.get_layer(name).get_weights()[0] for model in (before, learned.model, kept.model))
        assert np.abs(new - old).max() > 1e-4
        np.testing.assert_allclose(now, old + 0.25 * (new - old), atol=1e-6)
    shrink.main(run, 0.25, begin)  # once is enough
    np.testing.assert_array_equal(load_network(run, card)[0].model.get_weights()[-1], kept.model.get_weights()[-1])


def test_the_weights_between_two_runs_are_taken(dataset: Path, tmp_path: Path) -> None:
    options = {"blocks": 1, "features": 8, "guides": [[0, 1], [3, 7]]}
    train(dataset, tmp_path / "first", network_options=options)
    train(dataset, tmp_path / "second", network_options=options, initial_weights=tmp_path / "first", quantized=True)
    card = read_run_card(tmp_path / "second")
    before = load_network(tmp_path / "first", read_run_card(tmp_path / "first"))[0].model.get_weights()
    learned, trained = load_network(tmp_path / "second", card)
    shrink.main(tmp_path / "second", 0.5, tmp_path / "first")
    kept, copy = load_network(tmp_path / "second", card)
    for old, new, now in zip(before, learned.model.get_weights(), kept.model.get_weights(), strict=True):
        np.testing.assert_allclose(now, (old + new) / 2, atol=1e-6)
    assert any(np.abs(new - old).max() > 1e-5 for old, new in zip(before, learned.model.get_weights(), strict=True))
    for name in ("first", "last"):
        np.testing.assert_array_equal(copy.get_layer(name).input_scale, trained.get_layer(name).input_scale)


def test_each_recipe_names_datasets_that_it_has() -> None:
    recipes = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob("tools/recipes/*.yaml")
    }
    assert len(recipes) == 4
    for recipe in recipes.values():
        have = recipes[recipe["starts_from"]] if "starts_from" in recipe else recipe
        named = {key for stage in recipe["stages"] for key in stage["datasets"]} | set(recipe.get("filter", []))
        assert named <= set(have["datasets"])
