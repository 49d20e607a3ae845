"""UP42's DSen2 weights, from the TorchScript files they come in to the HDF5 file that `s2sr import-model` takes.

    python tools/torchscript_to_hdf5.py L1C20M.pt L1C20M.hdf5

The files lie in the source distribution of the PyPI package remote_sensing_processor 0.2.2 (GPL-3.0), in
`src/remote_sensing_processor/sentinel2/superres/weights`. Needs h5py, not torch: a TorchScript file is a zip with the
traced network's tensors. These weights were trained on transposed images: import them with `--transpose`.
"""

from __future__ import annotations

import pickle
import sys
import zipfile
from typing import Any

import h5py
import numpy as np

TYPES = {"FloatStorage": np.float32, "DoubleStorage": np.float64, "LongStorage": np.int64}


class Constants(pickle.Unpickler):
    """Reads the table of a traced network's tensors, and makes nothing but arrays."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}constants.pkl"))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._array
        if module == "torch" and name in TYPES:
            return TYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a table of tensors.")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, kind, key, _, size = pid
        return np.frombuffer(self._archive.read(f"{self._root}constants/{key}"), kind)[:size]

    @staticmethod
    def _array(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Any:
        bytes_ = tuple(stride * storage.itemsize for stride in strides)
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, bytes_, writeable=False)


def convolutions(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernel (out, in, height, width) and bias of every convolution, in the network's order."""
    with zipfile.ZipFile(path) as archive:
        table = next(name for name in archive.namelist() if name.endswith("/constants.pkl"))
        tensors = Constants(archive, table.removesuffix("constants.pkl")).load()
    arrays = [tensor for tensor in tensors if tensor.ndim]  # the scalar is the blocks' factor, 0.1
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def main(source: str, target: str) -> None:
    """Write kernel and bias of every convolution, in the network's order, as Keras 2 does."""
    found = convolutions(source)
    with h5py.File(target, "w") as file:
        names = [f"conv2d_{number}" for number in range(1, len(found) + 1)]
        file.attrs["layer_names"] = np.array([name.encode() for name in names])
        for name, (weight, bias) in zip(names, found, strict=True):
            group = file.create_group(name)
            tensors = {f"{name}/kernel:0": weight.transpose(2, 3, 1, 0), f"{name}/bias:0": bias}
            group.attrs["weight_names"] = np.array([key.encode() for key in tensors])
            for key, values in tensors.items():
                group.create_dataset(key, data=values)


if __name__ == "__main__":
    main(*sys.argv[1:])
