"""Published DSen2 and VDSen2 weights as a model folder.

The authors (https://github.com/lanha/DSen2, `models/*.hdf5`) and those who trained their network again publish what
Keras 2 writes: an HDF5 file whose attribute ``layer_names`` lists the layers in the network's order, one group a layer
with its own ``weight_names``, convolution kernels as (height, width, in, out) whatever the graph's channel order, and
biases. A whole model saved by Keras 2 has the same below its group ``model_weights``.

These weights divide DN by 2000 and take the 10 m bands in the order of the product's subdatasets, B04 B03 B02 B08
(`matlab_demo/DSen2.m`, issue 29), though docstrings there say otherwise; then B05 B06 B07 B8A B11 B12, then B01 B09.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..dataset.card import layout
from ..errors import InputError, ModelError
from ..inference.card import sha256
from ..progress import Progress
from .export import check_folder, describe, write_model
from .run_card import RunCard
from .untrusted import check_hdf5

if TYPE_CHECKING:
    from pathlib import Path

    from ..jobs import ImportModelJob

TEN = ["B04", "B03", "B02", "B08"]
"""The 10 m bands in the order of the published weights."""

TASKS = {(10, 6): "20m", (12, 2): "60m"}
"""The task, from the channels that go in and out."""

SHAPES = {(6, 128): "dsen2", (32, 256): "vdsen2"}
"""The networks of the paper, from residual blocks and features."""

PAPER = "Lanaras et al. 2018, doi:10.1016/j.isprsjprs.2018.09.018"

Convolution = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Kernel (height, width, in, out) and bias (out,)."""


def import_dsen2(job: ImportModelJob, progress: Progress) -> dict[str, Any]:
    """Write a model folder from published weights: ONNX with parity check, card, and the SavedModel if wanted.

    Bands and scaling are those of the paper. Returns the folder, the network's name, its task, the receptive radius and
    the parity figures. Raises `InputError` (options that these weights decide), `ModelError`, `OutputError`.
    """
    check_folder(job.output)
    convolutions = read_convolutions(job.source)
    task, blocks, features = _architecture(convolutions, job.source)
    for name in ("bands", "output_bands", "output_name", "scaling", "output_scaling", "resolution"):
        if getattr(job, name):
            raise InputError(f"{job.source} holds published DSen2 weights, whose {name} is known; leave it out.")
    if not job.processing_level:
        progress.log(
            "The weights are taken for L1C, as the authors' are; name the level where it is another.", "warning"
        )
    tensors = layout(task, 6)
    tensors[0].bands = TEN
    name = SHAPES.get((blocks, features), "dsen2")
    run = RunCard(
        network=name,
        network_options={} if (blocks, features) in SHAPES else {"blocks": blocks, "features": features},
        task=task,
        scaling=1e-4,
        tensors=tensors,
        sources=[],
        backend="",
        precision="float32",
    )
    network = run.build()
    names = ["first", *(f"block{index}_{part}" for index in range(blocks) for part in "ab"), "last"]
    for layer, (kernel, bias) in zip(names, convolutions, strict=True):
        # Turning every kernel makes the network give on an image what it gave on the transposed one.
        kernel = kernel.transpose(1, 0, 2, 3) if job.transpose else kernel
        network.model.get_layer(layer).set_weights([kernel, bias])
    title = f"DSen2 with published weights ({PAPER}), {task.replace('m', ' m')} bands to 10 m"
    card = describe(network, run, name=job.name or job.output.name, title=title)
    card.processing_levels = [job.processing_level or "L1C"]
    card.training = {
        "weights": job.source.name,
        "sha256": sha256(job.source),
        "transposed": job.transpose,
        "network_options": run.network_options,
    }
    card.licence, card.source = job.licence, f"published weights, {job.source.name}"
    parity = write_model(network, card, job.output, saved_model=job.saved_model, patches=None, progress=progress)
    progress.artifact("model", str(job.output))
    return {"output": str(job.output), "network": name, "task": task, "radius": card.radius, "parity": parity}


def is_dsen2(path: Path) -> bool:
    """Whether an HDF5 file is to be read as DSen2's weights: it has no network, or DSen2's, whose scaling is code.

    DSen2 multiplies its residuals in a Lambda layer, which Keras cannot load without running what the file says.
    """
    check_hdf5(path, path)
    with h5py.File(path, "r") as file:
        network = file.attrs.get("model_config")
    if network is not None and "Lambda" not in _text(network):
        return False
    try:
        _architecture(read_convolutions(path), path)
    except ModelError:
        return network is None
    return True


def read_convolutions(path: Path) -> list[Convolution]:
    """Kernel and bias of each layer that has weights, in the network's order. Raises `InputError`, `ModelError`."""
    if not path.is_file():
        raise InputError(f"There is no weights file {path}; name an HDF5 file of published DSen2 weights.")
    try:
        check_hdf5(path, path)
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            names = [_text(name) for name in group.attrs["layer_names"]]
            return [_convolution(group[name]) for name in names if len(group[name].attrs["weight_names"])]
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(
            f"{path} is no weights file of Keras 2 (HDF5 with the layers' names, convolutions with bias); "
            "take the file as its authors publish it."
        ) from error


def _convolution(group: Any) -> Convolution:
    first, second = (np.asarray(group[_text(name)], np.float32) for name in group.attrs["weight_names"])
    return (first, second) if first.ndim == 4 else (second, first)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _architecture(convolutions: list[Convolution], path: Path) -> tuple[str, int, int]:
    """Task, residual blocks and features; the shapes must be DSen2's to the last layer. Raises `ModelError`."""
    kernels = [kernel.shape for kernel, _ in convolutions]
    blocks = len(kernels) // 2 - 1
    ends = [(shape[2], shape[3]) for shape in (kernels[0], kernels[-1])] if blocks > 0 else [(0, 0), (0, 0)]
    features, task = ends[0][1], TASKS.get((ends[0][0], ends[1][1]))
    width = [ends[0][0], *[features] * (2 * blocks + 1), ends[1][1]]
    wanted = [(3, 3, before, after) for before, after in pairwise(width)]
    biases = [bias.shape for _, bias in convolutions]
    if task is None or kernels != wanted or biases != [(shape[3],) for shape in kernels]:
        found = ", ".join(dict.fromkeys("x".join(map(str, shape)) for shape in kernels)) or "none"
        raise ModelError(
            f"{path} does not hold DSen2: it has {len(kernels)} convolutions with kernels of {found}; wanted are 3x3 "
            "kernels from 10 to 6 (20 m) or from 12 to 2 (60 m) channels, with pairs of equal width between."
        )
    return task, blocks, features
