"""UP42's DSen2 weights, from the TorchScript files they come in to the HDF5 file that `s2sr import-dsen2` takes.

    python tools/torchscript_to_hdf5.py L1C20M.pt L1C20M.hdf5

The files lie in the source distribution of the PyPI package remote_sensing_processor 0.2.2 (GPL-3.0), in
`src/remote_sensing_processor/sentinel2/superres/weights`. Needs torch and h5py. These weights were trained on
transposed images: import them with `--transpose`.
"""

from __future__ import annotations

import sys

import h5py
import numpy as np
import torch


def main(source: str, target: str) -> None:
    """Write kernel and bias of every convolution, in the network's order, as Keras 2 does."""
    module = torch.jit.load(source, map_location="cpu")
    nodes = [node for node in module.graph.nodes() if "conv" in node.kind()]
    with h5py.File(target, "w") as file:
        names = [f"conv2d_{number}" for number in range(1, len(nodes) + 1)]
        file.attrs["layer_names"] = np.array([name.encode() for name in names])
        for name, node in zip(names, nodes, strict=True):
            weight, bias = (value.toIValue().numpy() for value in list(node.inputs())[1:3])
            group = file.create_group(name)
            tensors = {f"{name}/kernel:0": weight.transpose(2, 3, 1, 0), f"{name}/bias:0": bias}
            group.attrs["weight_names"] = np.array([key.encode() for key in tensors])
            for key, values in tensors.items():
                group.create_dataset(key, data=values)


if __name__ == "__main__":
    main(*sys.argv[1:])
