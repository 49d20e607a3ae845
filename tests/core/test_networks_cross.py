"""The networks of the cross-sensor task: what they compute, and a training with each, exported and at work."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_cross import BANDS, COUNTS, cross_dataset, scene
from tiny_training import Recorder, train

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import DatasetError, InputError
from s2sr_qgis.core.inference.card import read_card
from s2sr_qgis.core.inference.model import load_model
from s2sr_qgis.core.raster.degradation import degrade
from s2sr_qgis.core.raster.resample import upsample

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")

from s2sr_qgis.core.networks import NETWORKS, build_network, element_spec, options_text  # noqa: E402
from s2sr_qgis.core.training.behaviour import measure_radius  # noqa: E402
from s2sr_qgis.core.training.export import as_run  # noqa: E402
from s2sr_qgis.core.training.run_card import read_run_card  # noqa: E402

SMALL = {"blocks": 1, "features": 8}
BOTH = pytest.mark.parametrize("name", ["srresnet", "crossnet"])


def network(name: str, **options):
    """A network whose kernels are all well away from zero, as after a training."""
    built = build_network(name, element_spec({"input_lr": 4}, {"target": 4}), {**SMALL, **options})
    rng = np.random.default_rng(0)
    for weight in built.model.weights:
        if weight.path.endswith("kernel"):
            weight.assign(rng.normal(0, (1 / np.prod(weight.shape[:3])) ** 0.5, weight.shape))
    return built


def image(height: int, width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(500, 4000, (1, height, width, 4)).astype(np.float32)


def run(model, low: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_on_batch({"input_lr": low})["sharpened"])


@pytest.mark.parametrize(("name", "ratio"), [("srresnet", 2), ("srresnet", 8), ("crossnet", 3), ("crossnet", 1)])
def test_the_ratio_is_an_option(name, ratio) -> None:
    assert run(network(name, ratio=ratio).model, image(12, 20)).shape == (1, 12 * ratio, 20 * ratio, 4)


@BOTH
def test_the_ratio_is_the_datasets_where_its_sizes_are_known(name) -> None:
    sizes = {"input_lr": 16, "target": 32}
    spec = element_spec({"input_lr": 4}, {"target": 4}, sizes)
    built = build_network(name, spec, SMALL)
    assert built.ratio == 2
    assert built.model.inputs[0].shape == (None, None, None, 4)
    with pytest.raises(InputError, match="ratio is 2, not 4"):
        build_network(name, spec, {"ratio": 4})


@BOTH
def test_contract_with_reflectance_and_crops(name) -> None:
    built = network(name)
    names = ["sharpened", "reflectance"]
    crops = (16, 32, 64, 96, 128)
    wanted = {*names, *(f"{output}_crop{crop}" for output in names for crop in crops)}
    assert set(built.serving_model().output_names) == wanted
    assert built.model.output_names == ["sharpened"]
    served = network(name, inference_cropping=[16]).serving_model()({"input_lr": image(16, 24)})
    whole = served["sharpened"].numpy()
    assert whole.shape == (1, 64, 96, 4)
    np.testing.assert_array_equal(served["sharpened_crop16"].numpy(), whole[:, 16:-16, 16:-16])
    np.testing.assert_allclose(served["reflectance"].numpy(), whole * 1e-4, rtol=1e-6)
    np.testing.assert_array_equal(served["reflectance_crop16"].numpy(), served["reflectance"][:, 16:-16, 16:-16])


def test_srresnet_computes_what_the_tutorial_says() -> None:
    """Its layers one by one in NumPy, on one row of blocks."""
    built = network("srresnet", ratio=2, features=3)
    low = image(9, 8)

    def conv(x: np.ndarray, name: str) -> np.ndarray:
        kernel, bias = built.model.get_layer(name).get_weights()
        reach = kernel.shape[0] // 2
        padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
        height, width = x.shape[:2]
        parts = [
            padded[i : i + height, j : j + width] @ kernel[i, j]
            for i in range(kernel.shape[0])
            for j in range(kernel.shape[1])
        ]
        return np.sum(parts, axis=0) + bias

    def transposed(x: np.ndarray) -> np.ndarray:
        kernel, bias = built.model.get_layer("up0").get_weights()  # (4, 4, out, in)
        height, width = x.shape[:2]
        out = np.zeros((2 * height + 2, 2 * width + 2, kernel.shape[2]))
        for row in range(height):
            for col in range(width):
                out[2 * row : 2 * row + 4, 2 * col : 2 * col + 4] += kernel @ x[row, col]
        return np.maximum(out[1:-1, 1:-1] + bias, 0)

    first = np.maximum(conv(low[0] * 1e-4, "first"), 0)
    x = first + conv(np.maximum(conv(first, "block0_a"), 0), "block0_b") + first
    x = x.repeat(2, axis=0).repeat(2, axis=1) + transposed(x)
    np.testing.assert_allclose(run(built.model, low)[0], 1e4 * conv(x, "last"), rtol=1e-3, atol=0.5)


def test_crossnet_is_invariant_to_brightness_and_bilinear_without_detail() -> None:
    built = network("crossnet")
    low = image(24, 24)
    once, twice = run(built.model, low), run(built.model, 2 * low)
    base = upsample(low.transpose(0, 3, 1, 2), 4, "bilinear").transpose(0, 2, 3, 1)
    detail = np.abs(once - base).mean()
    assert detail > 100
    assert np.abs(twice - 2 * once).mean() < 0.01 * detail
    for weight in built.model.get_layer("last").weights:
        weight.assign(np.zeros(weight.shape))
    np.testing.assert_allclose(run(built.model, low), base, atol=0.05)


def test_crossnet_needs_fewer_operations() -> None:
    """In their usual sizes. By hand: kernels times the pixels that they are moved over, for one output pixel."""
    spec = element_spec({"input_lr": 4}, {"target": 4})
    ours, tutorials = build_network("crossnet", spec), build_network("srresnet", spec)
    trunk = 49 * 4 * 64 + 16 * 2 * 9 * 64 * 64
    stages = 16 * 64 * 64 / 16 + 16 * 64 * 64 / 4 + 49 * 64 * 4
    assert tutorials.mflop_per_pixel() == pytest.approx(2e-6 * (trunk / 16 + stages))
    assert ours.mflop_per_pixel() == pytest.approx(2e-6 * 9 * (8 * 64 + 16 * 64 * 64 + 64 * 64) / 16)
    assert ours.mflop_per_pixel() < 0.5 * tutorials.mflop_per_pixel()


def test_the_receptive_radius_counts_input_pixels() -> None:
    # 3 of the first kernel and 2 of the block. Then pixel p reaches 2p - 1 to 2p + 2 of the first finer grid, 4p - 3 to
    # 4p + 6 of the second, and the last kernel makes that 4p - 6 to 4p + 9: in all 2 pixels of the input.
    assert measure_radius(*as_run(network("srresnet").model), {"input_lr": 1}) == 5 + 2
    # Local statistics 8; first, block and last convolution 4.
    assert measure_radius(*as_run(network("crossnet").model), {"input_lr": 1}) == 8 + 4


@pytest.mark.parametrize(
    ("name", "inputs", "options", "words"),
    [
        ("srresnet", {"input_lr": 4}, {"ratio": 6}, r"ratio is 2, 4 or 8, not 6; take the network crossnet"),
        ("crossnet", {"input_lr": 3}, {}, r"3 bands in its input and 4 in its target; take the network srresnet"),
        (
            "crossnet",
            {"input_lr": 4},
            {"ratio": 2.5},
            r"does not take ratio=2.5; its options .*ratio=null",
        ),
        ("coarsenet", {"input_lr": 4}, {}, "takes input_10m and input_20m, but .* input_lr; .* are srresnet, crossnet"),
        ("crossnet", {"input_10m": 4, "input_20m": 6}, {}, "takes input_lr, but .* are coarsenet, dsen2, vdsen2"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(name, inputs, options, words) -> None:
    with pytest.raises(InputError, match=words) as caught:
        build_network(name, element_spec(inputs, {"target": 4}), options)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    return cross_dataset(tmp_path_factory.mktemp("cross") / "d")


@pytest.fixture(scope="module", params=["srresnet", "crossnet"])
def trained(request, dataset, tmp_path_factory) -> tuple[str, Path, Path, dict]:
    """Name, run, model folder and outputs of a short training."""
    folder = tmp_path_factory.mktemp(request.param)
    outputs = train(dataset, folder / "r", network=request.param, learning_rate=2e-3, steps_per_epoch=6)
    jobs.run(jobs.ExportJob(run=folder / "r", output=folder / "m"))
    return request.param, folder / "r", folder / "m", outputs


def test_a_training_is_logged_and_scored(trained) -> None:
    _, run_folder, _, outputs = trained
    test = outputs["test"]
    assert test["patches"] == COUNTS["test"]
    assert list(test["rmse"]) == BANDS
    for figures in (test, test["bicubic"]):
        assert figures["l1"] <= figures["l2"] ** 0.5
        assert 0 < figures["ssim"] < 1
        assert 0 <= figures["sam"] < 45
    with (run_folder / "log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    shown = events.Images("patch_0")[0]
    assert (shown.height, shown.width) == (64, 4 * 64)


def test_the_score_is_that_of_the_saved_model(trained, dataset) -> None:
    import keras

    from s2sr_qgis.core.dataset.card import read_dataset

    _, run_folder, _, outputs = trained
    arrays = {name: array[:] for name, array in read_dataset(dataset).arrays("test").items()}
    model = keras.saving.load_model(run_folder / "model.keras", compile=False)
    difference = np.asarray(model.predict_on_batch({"input_lr": arrays["input_lr"]})["sharpened"]) - arrays["target"]
    assert outputs["test"]["l1"] == pytest.approx(float(np.abs(difference).mean()), rel=1e-4)
    assert outputs["test"]["l2"] == pytest.approx(float(np.square(difference).mean()), rel=1e-4)


def test_the_card_of_an_exported_model(trained) -> None:
    name, _, folder, _ = trained
    card = read_card(folder)
    assert (card.task, card.network, card.processing_levels) == ("cross-sensor", name, ["L2A"])
    assert [(t.name, t.bands, t.resolution) for t in card.inputs] == [("input_lr", BANDS, 6.0)]
    assert [(t.name, t.bands, t.resolution) for t in card.outputs] == [("sharpened", BANDS, 1.5)]
    assert (card.scale, card.multiple) == (4, 1)
    assert max(card.metrics["parity"].values()) < 2e-5
    assert set(card.metrics["parity"]) == {"random", "real", "saved_model"}
    assert "6 m to 1.5 m" in card.title
    assert card.metrics["test_split"]["bicubic"]["rmse_mean"] > 0
    assert (folder / "saved_model").is_dir()
    assert card.upsampling.startswith({"srresnet": "none", "crossnet": "bilinear"}[name])


def test_the_saved_model_gives_what_onnx_gives(trained) -> None:
    import tensorflow as tf

    _, _, folder, _ = trained
    served = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
    low = image(72, 80)
    result = {name: value.numpy() for name, value in served(input_lr=tf.constant(low)).items()}
    assert result["sharpened"].shape == (1, 288, 320, 4)
    np.testing.assert_array_equal(result["sharpened_crop128"], result["sharpened"][:, 128:-128, 128:-128])
    np.testing.assert_allclose(result["reflectance"], result["sharpened"] * 1e-4, rtol=1e-5)
    bands = {band: low[0, :, :, place] * np.float32(1e-4) for place, band in enumerate(BANDS)}
    for place, found in enumerate(load_model(folder, device="cpu").infer(bands).values()):
        np.testing.assert_allclose(found, result["reflectance"][0, :, :, place], atol=2e-5)


@pytest.mark.parametrize("tile_size", [5, 17])
def test_prediction_does_not_depend_on_the_tile_size(trained, tile_size) -> None:
    _, _, folder, _ = trained
    model = load_model(folder, device="cpu", threads=1)
    fine = scene(160, 9) + np.random.default_rng(2).normal(0, 50, (4, 160, 160)).astype(np.float32)
    low = degrade(fine, 4)[:, :39, :34] * np.float32(1e-4)
    bands = dict(zip(BANDS, low, strict=True))
    bands["B03"][10:14, 20:] = np.nan
    whole, tiled = model.predict(bands), model.predict(bands, tile_size=tile_size)
    for band, found in whole.items():
        assert found.shape == (156, 136)
        np.testing.assert_allclose(tiled[band], found, atol=2e-6)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(bands[band]).repeat(4, axis=0).repeat(4, axis=1))


def test_a_training_is_resumed(trained, dataset) -> None:
    name, run_folder, _, _ = trained
    before = yaml.safe_load((run_folder / "run.yaml").read_text())["epochs"]
    more = train(dataset, run_folder, network=name, learning_rate=2e-3, steps_per_epoch=6, epochs=4, resume=True)
    assert (before, more["epochs"]) == (3, 4)


def test_crossnet_learns_edges_that_bicubic_blurs(dataset, tmp_path) -> None:
    progress = Recorder()
    options = {"epochs": 6, "steps_per_epoch": 12, "batch_size": 8, "learning_rate": 1e-2, "images": 0, "ema": 0}
    outputs = train(dataset, tmp_path / "r", progress, network="crossnet", **options)
    test = outputs["test"]
    assert test["rmse_mean"] < 0.9 * test["bicubic"]["rmse_mean"]
    assert test["ssim"] > test["bicubic"]["ssim"]


def test_datasets_of_two_ratios_are_refused(dataset, tmp_path) -> None:
    other = cross_dataset(tmp_path / "d2", ratio=2, counts={"train": 2, "valid": 1, "test": 1})
    with pytest.raises(DatasetError, match=r"is 4 and that of .*d2 2; train on datasets of one ratio\."):
        jobs.run(jobs.TrainJob(datasets=[dataset, other], output=tmp_path / "r", network="crossnet"))
    with pytest.raises(InputError, match="networks for it are srresnet, crossnet"):
        jobs.run(jobs.TrainJob(datasets=[dataset], output=tmp_path / "r", network="coarsenet"))
    assert not (tmp_path / "r").exists()


def test_datasets_made_with_other_options_are_refused(dataset, tmp_path) -> None:
    made = []
    for name, changes in (
        ("plain", {}),
        ("moved", {"xs": "/elsewhere/xs.tif", "seed": 5, "strategy": "all", "coregister": True}),
        ("harmonized", {"harmonize": True, "interpolation": "linear"}),
    ):
        folder = cross_dataset(tmp_path / name, counts={"train": 2, "valid": 1, "test": 1})
        job = jobs.CreateCrossSensorDatasetJob(**{"xs": "xs.tif", "output": folder, **changes})
        card = yaml.safe_load((folder / "dataset.yaml").read_text())
        (folder / "dataset.yaml").write_text(yaml.safe_dump({**card, "job": job.model_dump(mode="json")}))
        made.append(folder)
    plain, moved, changed = made
    options = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "images": 0, "network_options": SMALL}
    with pytest.raises(DatasetError, match=r"\(interpolation: bicubic and linear; harmonize: False and True\); make"):
        jobs.run(jobs.TrainJob(datasets=[plain, changed], output=tmp_path / "r", **options))
    jobs.run(jobs.TrainJob(datasets=[plain, moved, dataset], output=tmp_path / "r", **options))  # the last: an old card


def test_the_default_network_follows_the_task(dataset, tmp_path) -> None:
    options = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "images": 0, "network_options": {"blocks": 1}}
    jobs.run(jobs.TrainJob(datasets=[dataset], output=tmp_path / "r", **options))
    assert read_run_card(tmp_path / "r").network == "crossnet"


@pytest.mark.parametrize("name", NETWORKS)
def test_help_lists_the_options_of_every_network(name) -> None:
    assert re.search(rf"\b{name} {re.escape(options_text(name))}[;.]", jobs.NETWORK_OPTIONS)
