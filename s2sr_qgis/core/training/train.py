"""Training of a network on datasets: the job `train`."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import yaml

from ..dataset.card import CROSS_SENSOR, TARGET, Dataset, DatasetCard, Split, read_dataset
from ..errors import DatasetError, InputError, MissingPackageError, OutputError, TrainingError, first_line
from ..networks import default_network
from ..networks.quantized import calibrate, quantized, take_back
from ..outputs import atomic, reserve, write_text
from ..progress import Progress
from .batches import Arrays, Batches, PlainBatches
from .fit import BEST, compile_model, fit
from .logs import TensorBoard, shown_bands
from .narrow import take_weights
from .report import write_report
from .run_card import CONFIG, RunCard, read_run_card, write_run_card
from .score import score_test, worse_than_bicubic

if TYPE_CHECKING:
    from ..jobs import TrainJob

IN_MEMORY = 6e9
"""Training patches up to this many bytes are held in memory; more are read from the dataset's files."""

MODEL = "model.keras"

FIRST = 8
"""Batches that 8-bit ranges start from, and that the channels of a wider network are judged by."""

MATTERS = ("bands", "interpolation", "pansharpening", "compat", "harmonize")
"""Options of the jobs that make datasets: where they differ, a network learns two mappings at once."""

RECORDED = {
    "factor",
    "counts",
    "patch_size",
    "step",
    "scales",
    "clouds",
    "teacher",
    "teacher_variants",
    "mixtures",
    "seed",
}
"""What a run's card keeps of each dataset's."""


def train(job: TrainJob, progress: Progress) -> dict[str, Any]:
    """Train a network, then load the saved model and score it on the test split.

    The run folder holds ``config.yaml`` (every option of the job: `s2sr train --config` reproduces the run),
    ``run.yaml``, ``log.csv``, ``tensorboard/``, ``best.weights.h5`` (raw weights or their running mean, best on the
    validation split), ``last.weights.h5`` and ``state.json`` (for a resume), ``model.keras`` and ``report.html``
    (curves, figures and pictures).

    Returns the folder, the figures on the test split and those of bicubic, and the report's path (none: not written).
    """
    datasets = [read_dataset(folder) for folder in job.datasets]
    for dataset in datasets:
        dataset.check_values(progress.check)  # now, and not in an epoch's end
    task = _same_task(datasets)
    if job.network == "auto":
        job = job.model_copy(update={"network": default_network(task)})
    _check_output(job)
    keras.utils.set_random_seed(job.seed)
    precision = _precision(job.mixed_precision)
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(precision)
    try:
        card, state = _fit(job, datasets, task, precision, progress)
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    model = _save(job.output, card)
    card.epochs, card.minutes = state["epoch"], round(state["seconds"] / 60, 1)
    card.valid_rmse, card.weights = state["best_rmse"], state["weights"]
    card.test = score_test(model, card, datasets, progress)
    if card.test:
        progress.log(
            f"Test split, {card.test['patches']} patches: RMSE {card.test['rmse_mean']:.1f} DN, "
            f"bicubic {card.test['bicubic']['rmse_mean']:.1f} DN."
        )
    else:
        progress.log("The datasets have no test split, so the model is not scored.", "warning")
    card.warning = worse_than_bicubic(card.test)
    write_run_card(card, job.output)
    progress.artifact("run", str(job.output))
    report = write_report(job, card, datasets, model, progress)
    if card.warning:
        progress.log(card.warning, "warning")
    rmse = card.test.get("rmse_mean")
    bicubic = card.test["bicubic"]["rmse_mean"] if card.test else None
    return {
        "output": str(job.output),
        "rmse": rmse,
        "rmse_bicubic": bicubic,
        "test": card.test,
        "epochs": card.epochs,
        "report": report,
    }


def load_network(
    folder: Path, card: RunCard, weights: str = BEST, *, rounded: bool = False
) -> tuple[Any, keras.Model | None]:
    """The network of a run with its weights, as a `core.networks.ModelBase`, float32, and its rounding copy.

    The copy (`core.networks.quantized`) is there where the run was trained with 8 bits in the loop. ``rounded``: the
    network then has the kernels as its copy rounds them, which is what a model folder holds.
    """
    network = card.build()
    copy = quantized(network.model) if card.quantized else None
    try:
        (copy or network.model).load_weights(folder / weights)
    except (OSError, ValueError) as error:
        raise TrainingError(f"The weights {folder / weights} are missing or damaged; train again.") from error
    if copy is not None:
        take_back(network.model, copy, rounded=rounded)
    return network, copy


def _fit(
    job: TrainJob, datasets: list[Dataset], task: str, precision: str, progress: Progress
) -> tuple[RunCard, dict[str, Any]]:
    first = datasets[0].card
    card = RunCard(
        network=job.network,
        network_options=job.network_options,
        task=task,
        scaling=first.scaling,
        tensors=first.tensors,
        sources=[source for dataset in datasets for source in dataset.card.sources],
        datasets=[dataset.card.model_dump(mode="json", include=RECORDED) for dataset in datasets],
        backend=keras.backend.backend(),
        precision=precision,
        quantized=job.quantized,
    )
    low = card.tensors[-2].name
    network = card.build().model  # before any patch is read: what is wrong with its options is said at once
    batches = Batches.of(job, _arrays(datasets, "train"), low)
    model = _started(network, job, batches)
    compile_model(model, job)
    held = _arrays(datasets, "valid")
    valid = PlainBatches(held, job.batch_size) if held else None
    if valid is None:
        progress.log(
            "No validation split: the best weights are the last ones, and nothing stops the training early.", "warning"
        )
    shown = held or batches.sets
    examples: Arrays = {name: np.asarray(array[: job.images]) for name, array in shown[0].items()} if job.images else {}
    progress.log(
        f"{job.network}: {model.count_params():,} parameters, {keras.backend.backend()} backend, {precision}; "
        f"{sum(len(arrays[TARGET]) for arrays in batches.sets)} patches, {len(batches)} batches an epoch."
    )
    error = "absolute error (DN)" if job.loss == "l1" else "squared error (DN squared)"
    divided = ", divided by each patch's mean absolute detail (DN; --balance)" if job.balance else ""
    progress.log(
        f"loss: mean {error}{divided}; valid RMSE: root mean squared error in DN (1 DN: reflectance {card.scaling:g})."
    )
    # The options of a resume replace the run's own only once they have led somewhere.
    resumed = job.resume and (job.output / CONFIG).exists()
    if not resumed:
        _write_config(job)
    board = TensorBoard(job.output / "tensorboard", examples, low, shown_bands(card.tensors[-1].bands))
    state = fit(model, batches, valid, job, progress, [board])
    if resumed:
        _write_config(job)
    if (
        job.early_stopping
        and state["epoch"] < job.epochs
        and state["epoch"] - 1 - state["best_epoch"] >= job.early_stopping
    ):
        progress.log(
            f"Stopped early after epoch {state['epoch']}: no better validation RMSE for {job.early_stopping} epochs."
        )
    if valid is not None:
        progress.log(f"Epoch {state['best_epoch'] + 1} is kept (valid RMSE {state['best_rmse']:.1f} DN).")
    del model, network
    gc.collect()
    return card, state


def _started(model: keras.Model, job: TrainJob, batches: Batches) -> keras.Model:
    """The network with the weights to start from, or the copy of it that rounds."""
    some = [batches[index][0] for index in range(min(FIRST, len(batches)))]
    patches = {name: np.concatenate([batch[name] for batch in some]) for name in some[0]}
    if job.initial_weights:
        _start_from(job.initial_weights, model, patches, job.network)
    if not job.quantized:
        return model
    copy = quantized(model)
    calibrate(copy, model, patches)
    return copy


def _start_from(weights: Path, model: keras.Model, patches: Arrays, network: str) -> None:
    """Load a weights file, or take the weights of a run's network."""
    if weights.is_dir():
        source, _ = load_network(weights, read_run_card(weights))
        take_weights(model, source.model, patches, weights)
        return
    try:
        model.load_weights(weights)
    except (OSError, ValueError) as error:
        raise InputError(
            f"The initial weights {weights} cannot be loaded into {network}: {first_line(error)}; name a "
            ".weights.h5 file of the same network and options, or the folder of a run."
        ) from error


def _save(folder: Path, card: RunCard) -> Any:
    network, copy = load_network(folder, card)
    path = folder / MODEL
    model = copy or network.model
    with atomic(path) as temporary:
        reserve(temporary, 5 * model.count_params() + 2**20)
        model.save(temporary)
    return keras.saving.load_model(path, compile=False)


def _check_output(job: TrainJob) -> None:
    folder = job.output
    if (folder / CONFIG).exists() and not job.resume:
        raise OutputError(f"{folder} already holds a run; go on with it (--resume) or name another folder.")
    if not folder.parent.is_dir():
        raise OutputError(f"The folder {folder.parent} does not exist; create it first.")


def _write_config(job: TrainJob) -> None:
    folder = job.output
    try:
        folder.mkdir(exist_ok=True)
        text = yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
        write_text(folder / CONFIG, text)
    except OSError as error:
        raise OutputError(f"The run folder {folder} cannot be written: {error.strerror}.") from error


def _same_task(datasets: list[Dataset]) -> str:
    first = datasets[0]
    for other in datasets[1:]:
        same = [(t.name, t.bands) for t in first.card.tensors] == [(t.name, t.bands) for t in other.card.tensors]
        if other.card.task != first.card.task or not same:
            raise DatasetError(
                f"{first.folder} is a dataset of the {first.card.task} task and {other.folder} of the "
                f"{other.card.task} task; train on datasets of one task with the same bands."
            )
        if other.card.factor != first.card.factor and first.card.task == CROSS_SENSOR:
            raise DatasetError(
                f"The ratio of {first.folder} is {first.card.factor} and that of {other.folder} {other.card.factor}; "
                "train on datasets of one ratio."
            )
        if other.card.patch_size != first.card.patch_size:
            raise DatasetError(
                f"{first.folder} has patches of {first.card.patch_size} pixels and {other.folder} of "
                f"{other.card.patch_size}; train on datasets of one patch size."
            )
        differences = _differences(first.card, other.card)
        if differences:
            raise DatasetError(
                f"{first.folder} and {other.folder} were made in different ways ({'; '.join(differences)}); make them "
                "with the same options, or train on one of them."
            )
    if not any(dataset.count("train") for dataset in datasets):
        raise DatasetError(f"{first.folder} has no training patches; make the dataset with a larger training share.")
    return first.card.task


def _differences(first: DatasetCard, other: DatasetCard) -> list[str]:
    """What differs in how pixels were made; options that an earlier version did not record are not compared."""
    names = ["factor", "scaling", "sensor_mtf"]
    if not first.sensor_mtf:  # else the blur follows the satellite
        names.append("sigma")
    pairs = {name: (getattr(first, name), getattr(other, name)) for name in names}
    if first.job and other.job:
        options = [name for name in MATTERS if name in first.job or name in other.job]
        if not (first.job.get("pan") and other.job.get("pan")):  # nothing was pansharpened
            options = [name for name in options if name != "pansharpening"]
        pairs |= {name: (first.job.get(name), other.job.get(name)) for name in options}
    return [f"{name}: {one} and {two}" for name, (one, two) in pairs.items() if one != two]


def _arrays(datasets: list[Dataset], split: Split) -> list[Arrays]:
    """Tensors of a split; joined in memory unless they are too large for that."""
    lazy = [dataset.arrays(split) for dataset in datasets if dataset.count(split)]
    size = sum(4 * int(np.prod(array.shape)) for arrays in lazy for array in arrays.values())
    if size > IN_MEMORY or not lazy:
        return lazy  # type: ignore[return-value]
    return [{name: np.concatenate([np.asarray(arrays[name]) for arrays in lazy]) for name in lazy[0]}]


def _precision(wanted: str) -> str:
    if wanted == "off":
        return "float32"
    if wanted != "auto":
        return f"mixed_{wanted}"
    backend = keras.backend.backend()
    # bfloat16 needs no loss scaling; GPUs have it from compute capability 8 on.
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if not gpus:
            return "float32"
        major = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))[0]
        return "mixed_bfloat16" if major >= 8 else "mixed_float16"
    if backend == "torch":
        import torch

        if not torch.cuda.is_available():
            return "float32"
        return "mixed_bfloat16" if torch.cuda.is_bf16_supported() else "mixed_float16"
    if backend == "jax":
        import jax

        return "float32" if jax.default_backend() == "cpu" else "mixed_bfloat16"
    raise MissingPackageError(f"The Keras backend '{backend}' cannot train; use tensorflow, jax or torch.")
