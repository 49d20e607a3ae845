"""Trainings end to end: what a run folder holds, what reproduces and resumes it, and what stops it."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from small_disk import resize, small_disk
from tiny_training import NETWORK, Recorder, train

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import Cancelled, DatasetError, InputError, OutputError, TrainingError
from s2sr_qgis.core.leaving import resource_sentence

pytestmark = pytest.mark.train
pytest.importorskip("tensorflow")


def log(run: Path) -> list[dict[str, float]]:
    """The rows of a run's ``log.csv``."""
    with (run / "log.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copy(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder)
    return folder


def options(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


@pytest.mark.parametrize("name", ["run20", "run60"])
def test_a_run_folder_is_complete(name, request) -> None:
    run = request.getfixturevalue(name)
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "run.yaml", "log.csv", "tensorboard", "best.weights.h5", "last.weights.h5", "state.json",
        "model.keras", "report.html",
    }  # fmt: skip
    card = yaml.safe_load((run / "run.yaml").read_text())
    assert card["task"] == {"run20": "20m", "run60": "60m"}[name]
    assert card["network_options"] == NETWORK
    assert card["epochs"] == 3
    assert card["sources"][0]["licence"] == "CC0-1.0"
    bands = {"run20": ["B05", "B06", "B07", "B8A", "B11", "B12"], "run60": ["B01", "B09"]}[name]
    for figures in (card["test"], card["test"]["bicubic"]):
        assert list(figures["rmse"]) == bands
        assert np.mean(list(figures["rmse"].values())) == pytest.approx(figures["rmse_mean"])
        assert figures["l1"] <= figures["l2"] ** 0.5
    state = json.loads((run / "state.json").read_text())
    assert (state["epoch"], state["step"]) == (3, 12)
    best = min(range(3), key=lambda epoch: log(run)[epoch]["val_rmse"])
    assert (state["best_epoch"], state["best_rmse"]) == (best, pytest.approx(log(run)[best]["val_rmse"]))


def test_the_loss_falls_and_the_log_says_so(dataset20, tmp_path) -> None:
    progress = Recorder()
    steady = {"dihedral": False, "gain": 0, "band_gain": 0, "learning_rate": 1e-2}
    train(dataset20, tmp_path / "r", progress, epochs=4, steps_per_epoch=10, batch_size=8, **steady)
    rows = log(tmp_path / "r")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1]["loss"] < 0.97 * rows[0]["loss"]
    assert rows[-1]["val_rmse"] < rows[0]["val_rmse"]
    last = progress.metrics[-1]
    assert last["epoch"] == 4
    assert last["valid_rmse"] == pytest.approx(rows[-1]["val_rmse"])
    seen = {name for values in progress.metrics for name in values}
    assert seen >= {"epoch", "loss", "valid_rmse", "samples_per_s", "seconds_left"}
    assert progress.artifacts == {"run": str(tmp_path / "r"), "report": str(tmp_path / "r" / "report.html")}


def test_tensorboard_has_scalars_and_images(run20) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run20 / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["scalars"]) >= {"loss", "val_loss", "val_rmse", "learning_rate"}
    shown = [event.value for event in events.Scalars("loss")]
    assert shown == pytest.approx([row["loss"] for row in log(run20)], rel=1e-5)
    assert events.Tags()["images"] == ["patch_0", "patch_1"]
    images = events.Images("patch_1")
    assert [image.step for image in images] == [1, 2, 3]
    assert (images[0].height, images[0].width) == (16, 4 * 16)  # input, output, target, absolute error
    assert images[0].encoded_image_string != images[2].encoded_image_string
    rates = [event.value for event in events.Scalars("learning_rate")]
    assert rates == sorted(rates, reverse=True)


def test_the_configuration_reproduces_the_run(run20, tmp_path) -> None:
    assert set(options(run20)) == set(jobs.TrainJob.model_fields)
    jobs.run(jobs.parse({**options(run20), "output": str(tmp_path / "again")}))
    for first, second in zip(log(run20), log(tmp_path / "again"), strict=True):
        assert second == pytest.approx(first, rel=1e-5)
    other = {**options(run20), "output": str(tmp_path / "other"), "seed": 2, "epochs": 1}
    jobs.run(jobs.parse(other))
    assert log(tmp_path / "other")[0]["loss"] != pytest.approx(log(run20)[0]["loss"], rel=1e-3)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(run20, dataset20, tmp_path) -> None:
    run = tmp_path / "r"
    with pytest.raises(Cancelled, match="--resume"):
        train(dataset20, run, Recorder(stop_after=18))  # nine files read, then in the third of three epochs
    state = json.loads((run / "state.json").read_text())
    assert (state["epoch"], state["step"]) == (2, 8)
    assert not (run / "run.yaml").exists()
    result = train(dataset20, run, resume=True)
    assert result["epochs"] == 3
    assert json.loads((run / "state.json").read_text())["step"] == 12
    assert [row["epoch"] for row in log(run)] == [0, 1, 2]
    for first, second in zip(log(run20), log(run), strict=True):
        assert second == pytest.approx(first, rel=1e-4)


def test_best_weights_are_those_that_validation_chose(run20) -> None:
    """Scored again from the file alone, the best weights give the validation RMSE that the run states."""
    from s2sr_qgis.core.dataset.card import read_dataset
    from s2sr_qgis.core.training.run_card import read_run_card
    from s2sr_qgis.core.training.train import load_network

    model = load_network(run20, read_run_card(run20))[0].model
    arrays = {name: array[:] for name, array in read_dataset(options(run20)["datasets"][0]).arrays("valid").items()}
    target = arrays.pop("target")
    rmse = float(np.sqrt(np.mean((np.asarray(model.predict_on_batch(arrays)["sharpened"]) - target) ** 2)))
    assert rmse == pytest.approx(read_run_card(run20).valid_rmse, rel=1e-3)


def test_random_relations_keep_the_pair_true(dataset60) -> None:
    """What is added to the target is a mixture of the fine bands as optics show it, its means to the coarse ones."""
    from s2sr_qgis.core.dataset.card import TARGET, read_dataset
    from s2sr_qgis.core.training.batches import OPTICS, related, softened

    assert OPTICS.sum() == pytest.approx(1)
    batch = {name: np.asarray(array[:3]) for name, array in read_dataset(dataset60).arrays("train").items()}
    batch = {name: np.concatenate([array] * 4) for name, array in batch.items()}
    found = related(batch, "input_60m", 0.3, np.random.default_rng(4))
    added, fine = found[TARGET] - batch[TARGET], softened(softened(batch["input_10m"], 1), 2)
    assert fine.std() < 0.99 * batch["input_10m"].std()
    n, h, w, bands = added.shape
    means = added.reshape(n, h // 6, 6, w // 6, 6, bands).mean(axis=(2, 4))
    np.testing.assert_allclose(found["input_60m"] - batch["input_60m"], means, atol=0.05)
    changed = np.abs(added).max(axis=(1, 2, 3)) > 0
    assert 0 < changed.sum() < n
    for patch in np.flatnonzero(changed):
        shares, *_ = np.linalg.lstsq(fine[patch].reshape(-1, 4), added[patch].reshape(-1, bands), rcond=None)
        np.testing.assert_allclose(fine[patch].reshape(-1, 4) @ shares, added[patch].reshape(-1, bands), atol=0.5)
        assert 0.02 < np.abs(shares).mean() < 1
    np.testing.assert_array_equal(found["input_20m"], batch["input_20m"])


def test_blocks_can_start_narrower_than_they_were(run20, dataset20, tmp_path) -> None:
    """The channels that are left out are those that did least."""
    from s2sr_qgis.core.training.run_card import read_run_card
    from s2sr_qgis.core.training.train import load_network

    options = read_run_card(run20).network_options
    job = {"initial_weights": run20, "network_options": {**options, "hidden": 4}, "learning_rate": 1e-12, "ema": 0}
    train(dataset20, tmp_path / "run", epochs=1, **job)
    wide = load_network(run20, read_run_card(run20))[0].model.get_layer("block0_a").get_weights()
    narrow = (
        load_network(tmp_path / "run", read_run_card(tmp_path / "run"))[0].model.get_layer("block0_a").get_weights()
    )
    kept = [
        next(index for index in range(wide[0].shape[-1]) if np.allclose(wide[0][..., index], kernel, atol=1e-6))
        for kernel in np.moveaxis(narrow[0], -1, 0)
    ]
    assert len(kept) == 4
    assert kept == sorted(kept)
    with pytest.raises(InputError, match="differs from this one in its layer first"):
        train(dataset20, tmp_path / "other", epochs=1, **{**job, "network_options": {**options, "features": 6}})


def test_a_network_can_start_with_fewer_blocks(tmp_path) -> None:
    """The last ones are left out."""
    from s2sr_qgis.core.networks import build_network, element_spec
    from s2sr_qgis.core.training.narrow import take_weights

    spec = element_spec({"input_10m": 4, "input_20m": 6}, {"target": 6})
    more, fewer = (build_network("coarsenet", spec, {"blocks": n, "features": 8}).model for n in (3, 2))
    take_weights(fewer, more, {}, tmp_path)
    for name in ("first", "block0_a", "block0_b", "block1_a", "block1_b", "last"):
        for taken, given in zip(fewer.get_layer(name).get_weights(), more.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(taken, given)


def test_early_stopping_and_initial_weights(run20, dataset20, tmp_path) -> None:
    """So small a learning rate changes nothing: the second epoch without a better RMSE is the last."""
    still = {"learning_rate": 1e-30, "weight_decay": 0, "ema": 0, "images": 0}
    start = {"initial_weights": run20 / "best.weights.h5"}
    result = train(dataset20, tmp_path / "r", epochs=30, steps_per_epoch=1, early_stopping=2, **still, **start)
    assert result["epochs"] == 3
    rmse = [row["val_rmse"] for row in log(tmp_path / "r")]
    assert rmse == pytest.approx([min(row["val_rmse"] for row in log(run20))] * 3, rel=1e-4)


def test_plateau_halves_the_learning_rate(dataset20, tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    flat = {"learning_rate": 1e-30, "weight_decay": 0, "ema": 0, "images": 0, "warmup_steps": 0}
    train(dataset20, tmp_path / "r", epochs=8, steps_per_epoch=1, schedule="plateau", early_stopping=0, **flat)
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard")).Reload()
    rates = [event.value for event in events.Scalars("learning_rate")]
    assert rates[0] == pytest.approx(1e-30)
    assert rates[-1] == pytest.approx(5e-31)


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_weights(run20, tmp_path) -> None:
    run = copy(run20, tmp_path / "r")
    before = {name: digest(run / name) for name in ("best.weights.h5", "last.weights.h5", "state.json")}
    spoiled = {**options(run), "output": str(run), "resume": True, "epochs": 9, "learning_rate": 1e30}
    with pytest.raises(TrainingError, match=r"no longer a number; .*best\.weights\.h5") as caught:
        jobs.run(jobs.parse(spoiled))
    assert "\n" not in str(caught.value)
    assert {name: digest(run / name) for name in before} == before
    # A sensible learning rate goes on from there.
    result = jobs.run(jobs.parse({**spoiled, "epochs": 4, "learning_rate": 1e-3}))
    assert result["epochs"] == 4
    assert np.isfinite(result["rmse"])


def test_a_poisoned_patch_is_found_before_the_training(dataset20, tmp_path) -> None:
    bad = copy(dataset20, tmp_path / "bad")
    with rasterio.open(bad / "train_target.tif", "r+") as file:
        file.write(np.full((file.count, file.height, file.width), np.nan, np.float32))
    with pytest.raises(DatasetError, match=r"train_target\.tif: patch \d+ has values that are not finite"):
        train(bad, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_weights_spoiled_by_the_last_step_reach_no_checkpoint(dataset20, tmp_path) -> None:
    """Its loss was still a number: it is that of the weights before the step."""
    with pytest.raises(TrainingError, match=r"(loss is|weights are) no longer a number"):
        train(dataset20, tmp_path / "r", epochs=1, steps_per_epoch=1, learning_rate=1e39, warmup_steps=0)
    assert not list((tmp_path / "r").glob("*.h5"))


def test_cancelled_at_once(dataset20, tmp_path) -> None:
    with pytest.raises(Cancelled):
        train(dataset20, tmp_path / "r", Recorder(stop_after=0))
    assert not list((tmp_path / "r").glob("*.h5"))


def test_datasets_of_one_patch_size_are_mixed_others_refused(dataset20, tmp_path) -> None:
    from tiny_training import make_dataset

    other = make_dataset(tmp_path / "other", "20m", patch_size=16, train=0.8, valid=0.2, test=0)
    job = {**{"epochs": 1, "batch_size": 4, "network_options": NETWORK}, "steps_per_epoch": 8, "images": 1}
    result = jobs.run(jobs.TrainJob(datasets=[dataset20, other], output=tmp_path / "r", **job))
    assert result["test"]["patches"] == 10
    larger = make_dataset(tmp_path / "larger", "20m", patch_size=24, train=0.8, valid=0.2, test=0)
    with pytest.raises(DatasetError, match=r"patches of 16 pixels and .*larger of 24; train on datasets of one patch"):
        jobs.run(jobs.TrainJob(datasets=[dataset20, larger], output=tmp_path / "s", **job))
    assert not (tmp_path / "s").exists()
    blurred = make_dataset(tmp_path / "blurred", "20m", sigma=1.5)
    with pytest.raises(DatasetError, match=r"made in different ways \(sigma: .*0\.5.* and .*1\.5"):
        jobs.run(jobs.TrainJob(datasets=[dataset20, blurred], output=tmp_path / "s", **job))


def test_without_validation_and_test_split(tmp_path, dataset20) -> None:
    bare = copy(dataset20, tmp_path / "d")
    card = yaml.safe_load((bare / "dataset.yaml").read_text())
    card["counts"].update(valid=0, test=0)
    (bare / "dataset.yaml").write_text(yaml.safe_dump(card))
    progress = Recorder()
    result = train(bare, tmp_path / "r", progress, epochs=2)
    assert result["rmse"] is None
    assert [text for level, text in progress.lines if level == "warning"] == [
        "No validation split: the best weights are the last ones, and nothing stops the training early.",
        "The datasets have no test split, so the model is not scored.",
    ]
    assert json.loads((tmp_path / "r" / "state.json").read_text())["best_epoch"] == 1


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"output": "{run}"}, OutputError, "already holds a run"),
        ({"output": "{tmp}/no/r"}, OutputError, "does not exist"),
        ({"datasets": ["{d20}", "{d60}"]}, DatasetError, "20m task and .* 60m task"),
        ({"datasets": ["{tmp}"]}, DatasetError, "is no dataset folder"),
        ({"datasets": ["{damaged}"]}, DatasetError, "train_input_10m.tif"),
        ({"network": "unet"}, InputError, "no network 'unet'"),
        ({"network_options": {"depth": 3}}, InputError, "has no option 'depth'; its options .* blocks=8, features=64"),
        ({"network_options": {"blocks": "many"}}, InputError, "does not take blocks=many; its options and defaults"),
        ({"network_options": {"blocks": 1.5}}, InputError, "does not take blocks=1.5"),
        ({"network_options": {"blocks": -1}}, InputError, "does not take blocks=-1"),
        ({"network_options": {"features": 0}}, InputError, "cannot be built with these options: .*; its options"),
        ({"initial_weights": "{tmp}/no.weights.h5"}, InputError, "no.weights.h5 cannot be loaded"),
        ({"initial_weights": "{run}/best.weights.h5", "network_options": {}}, InputError, "cannot be loaded"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_run(
    change, error, words, run20, dataset20, dataset60, tmp_path
) -> None:
    damaged = copy(dataset20, tmp_path / "damaged")
    whole = (damaged / "train_input_10m.tif").read_bytes()
    (damaged / "train_input_10m.tif").write_bytes(whole[: len(whole) // 2])
    places = {"run": run20, "tmp": tmp_path, "d20": dataset20, "d60": dataset60, "damaged": damaged}

    def fill(value):
        if isinstance(value, list):
            return [fill(part) for part in value]
        return value.format(**places) if isinstance(value, str) else value

    data = {**options(run20), "output": str(tmp_path / "r"), **{key: fill(value) for key, value in change.items()}}
    with pytest.raises(error, match=words) as caught:
        jobs.run(jobs.parse(data))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    assert not (tmp_path / "r").exists()


def test_resume_with_another_network_is_refused(run20, tmp_path) -> None:
    run = copy(run20, tmp_path / "r")
    before = {name: digest(run / name) for name in ("best.weights.h5", "config.yaml")}
    wider = {**options(run), "output": str(run), "resume": True, "epochs": 5, "network_options": {"features": 16}}
    with pytest.raises(TrainingError, match="damaged or of another network"):
        jobs.run(jobs.parse(wider))
    assert {name: digest(run / name) for name in before} == before


@pytest.mark.parametrize(
    ("missing", "job"),
    [
        ("tensorflow", {"job": "train", "datasets": ["d"], "output": "r"}),
        ("keras", {"job": "export", "run": "r", "output": "m"}),
        ("h5py", {"job": "import_model", "source": "w.hdf5", "output": "m"}),
    ],
)
def test_without_a_package_of_training_one_sentence_says_what_to_install(missing, job) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import MissingPackageError
try:
    jobs.run(jobs.parse({job!r}))
except MissingPackageError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert len(done.stdout.splitlines()) == 1, done.stderr
    assert f"need the package {missing}" in done.stdout
    assert "pip install 's2sr[train]'" in done.stdout
    assert "'Set up the environment'" in done.stdout


def test_a_disk_that_gets_full_spoils_no_run(dataset20, tmp_path) -> None:
    """Each file is whole, the error names the disk, and with more space the training goes on."""
    with small_disk(tmp_path / "disk", 4000) as disk:
        train(dataset20, disk / "whole", images=0)
        size = sum(path.stat().st_size for path in (disk / "whole").rglob("*")) // 1024
        shutil.rmtree(disk / "whole")
        for share in (0.2, 0.7):
            run = disk / f"run_{share}"
            resize(disk, max(int(size * share), 8))
            with pytest.raises(Exception) as caught:  # noqa: PT011
                train(dataset20, run, images=0)
            assert "disk is full" in str(caught.value) or (resource_sentence(caught.value) or "").startswith("The disk")
            for path in run.glob("*.json"):
                json.loads(path.read_text())
            assert not list(run.glob(".*"))
            resize(disk, 4000)
            train(dataset20, run, images=0, resume=(run / "config.yaml").exists())
            assert json.loads((run / "state.json").read_text())["epoch"] == 3
            shutil.rmtree(run)


def test_units_early_stopping_and_the_epoch_in_use_are_logged(dataset20, tmp_path) -> None:
    progress = Recorder()
    train(dataset20, tmp_path / "r", progress, learning_rate=1e-12, ema=0, epochs=9, early_stopping=1, images=0)
    state = json.loads((tmp_path / "r" / "state.json").read_text())
    text = "\n".join(line for _, line in progress.lines)
    assert "loss: mean absolute error (DN), divided by" in text
    assert "valid RMSE: root mean squared error in DN" in text
    assert f"Epoch {state['best_epoch'] + 1} is kept (valid RMSE {state['best_rmse']:.1f} DN)." in text
    if state["epoch"] < 9:
        assert f"Stopped early after epoch {state['epoch']}: no better validation RMSE for 1 epochs." in text


def test_the_running_mean_holds_no_initial_weights() -> None:
    """The first step's mean is the first step's weights; afterwards each decay is the smaller of n/(9+n) and ema."""
    import keras

    from s2sr_qgis.core.training.fit import compile_model

    inputs = keras.Input((2,))
    outputs = {"sharpened": keras.layers.Dense(1, name="sharpened")(inputs)}
    model = keras.Model(inputs, outputs)
    job = jobs.TrainJob(datasets=["d"], output="r", ema=0.999, learning_rate=0.1)
    compile_model(model, job)
    rng = np.random.default_rng(0)
    mean = None
    for step in range(6):
        model.train_on_batch(rng.normal(size=(4, 2)), {"sharpened": rng.normal(size=(4, 1))})
        kernel = model.get_weights()[0]
        decay = step / (9 + step)
        mean = kernel if mean is None else decay * mean + (1 - decay) * kernel
    model.optimizer.finalize_variable_values(model.trainable_variables)
    np.testing.assert_allclose(model.get_weights()[0], mean, rtol=1e-4)


def test_raw_weights_or_their_mean_are_best_and_never_worse_than_the_start(dataset20, tmp_path) -> None:
    result = train(dataset20, tmp_path / "r", ema=0.999)
    state = json.loads((tmp_path / "r" / "state.json").read_text())
    rows = log(tmp_path / "r")
    assert all(row["val_rmse"] == min(row["val_rmse_raw"], row["val_rmse_mean"]) for row in rows)
    assert state["weights"] == yaml.safe_load((tmp_path / "r" / "run.yaml").read_text())["weights"]
    if state["weights"] != "start":
        row = rows[state["best_epoch"]]
        assert row["val_rmse"] == row[f"val_rmse_{state['weights']}"]
    progress = Recorder()
    bad = train(dataset20, tmp_path / "bad", progress, ema=0.999, learning_rate=1.0, clip_norm=1e3, warmup_steps=0)
    state = json.loads((tmp_path / "bad" / "state.json").read_text())
    assert (state["weights"], state["best_epoch"]) == ("start", -1)
    assert state["best_rmse"] < min(row["val_rmse"] for row in log(tmp_path / "bad"))
    for one in (result, bad):
        worse = one["rmse"] >= one["rmse_bicubic"]
        card = yaml.safe_load((Path(one["output"]) / "run.yaml").read_text())
        assert (card["warning"] is not None) == worse


def test_a_model_worse_than_bicubic_is_warned_of() -> None:
    from s2sr_qgis.core.training.score import worse_than_bicubic

    assert worse_than_bicubic({"rmse_mean": 151.1, "bicubic": {"rmse_mean": 132.6}}) == (
        "The model is worse than bicubic on the test patches (RMSE 151.1 and 132.6 DN): do not use it."
    )
    assert worse_than_bicubic({"rmse_mean": 57.7, "bicubic": {"rmse_mean": 132.6}}) is None
    assert worse_than_bicubic({}) is None
