"""TensorBoard logs with image summaries, for every backend: written with TensorBoard's own event writer."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import keras
import matplotlib.image
import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from ..dataset.card import TARGET
from ..networks.base import OUTPUT
from .batches import Arrays

TRUE_COLOUR = ("B04", "B03", "B02")


class TensorBoard(keras.callbacks.Callback):
    """Scalars of every epoch, and for some patches a strip: input, output, target, absolute error.

    Args:
        folder: where the event files go.
        patches: tensors of the patches to show, DN; none: scalars alone.
        low: name of the low-resolution input.
        bands: which of the target's bands are red, green and blue, see `shown_bands`.
    """

    def __init__(self, folder: Path, patches: Arrays, low: str, bands: list[int]) -> None:
        super().__init__()
        self.writer = EventFileWriter(str(folder))
        self.patches, self.low, self.bands = patches, low, bands

    def _add(self, step: int, value: Any) -> None:
        self.writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        for name, value in {**(logs or {}), "learning_rate": rate}.items():
            self._add(epoch + 1, Summary.Value(tag=name, simple_value=float(value)))
        count = len(self.patches[TARGET]) if self.patches else 0
        if count:
            inputs = {name: array for name, array in self.patches.items() if name != TARGET}
            output = self.model.predict_on_batch(inputs)[OUTPUT]
            for index in range(count):
                picture = strip(self.patches[self.low][index], output[index], self.patches[TARGET][index], self.bands)
                self._add(epoch + 1, Summary.Value(tag=f"patch_{index}", image=_image(picture)))
        self.writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self.writer.close()


def shown_bands(names: list[str]) -> list[int]:
    """Places of the bands to show as red, green, blue: true colour where it is there, else last, middle, first."""
    if all(name in names for name in TRUE_COLOUR):
        return [names.index(name) for name in TRUE_COLOUR]
    return [len(names) - 1, len(names) // 2, 0]


def strip(
    low: NDArray[np.float32], output: NDArray[np.float32], target: NDArray[np.float32], bands: list[int]
) -> NDArray[np.float32]:
    """Input (nearest), output, target and absolute error side by side, (h, 4·w, 3) in 0 to 1.

    All three images share the target's 1st to 99th percentile; the error is shown on a tenth of that range.
    """
    factor = target.shape[0] // low.shape[0]
    nearest = low.repeat(factor, axis=0).repeat(factor, axis=1)
    images = [image[..., bands] for image in (nearest, output, target)]
    first, last = np.percentile(images[2], (1, 99), axis=(0, 1))
    span = np.maximum(last - first, 1.0)
    error = np.abs(images[1] - images[2]) / (0.1 * span)
    shown = [(image - first) / span for image in images]
    picture: NDArray[np.float32] = np.clip(np.concatenate([*shown, error], axis=1), 0, 1).astype(np.float32)
    return picture


def _image(picture: NDArray[np.float32]) -> Any:
    stream = io.BytesIO()
    matplotlib.image.imsave(stream, picture, format="png")
    height, width = picture.shape[:2]
    return Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=stream.getvalue())
