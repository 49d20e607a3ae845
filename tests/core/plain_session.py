"""Run SavedModels as OTBTF does: a session of plain TensorFlow, none of this project's code.

`python -I plain_session.py FOLDER`: for each ``FOLDER/NAME.npz`` of input tensors run the SavedModel ``FOLDER/NAME``
and write all of its outputs to ``FOLDER/NAME.out.npz``.
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf

if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).glob("*.npz")):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path.with_suffix("")))
            signature = loaded.signature_def["serving_default"]
            tensors = dict(np.load(path))
            assert set(tensors) == set(signature.inputs)
            feed = {signature.inputs[name].name: value for name, value in tensors.items()}
            outputs = session.run({name: tensor.name for name, tensor in signature.outputs.items()}, feed)
        np.savez(path.with_suffix(".out.npz"), **outputs)
    assert not [name for name in sys.modules if name.startswith(("s2sr_qgis", "training_cli"))]
