"""Writing patches: collected one by one, then stacked into OTBTF's patch images, and a picture of a few."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.windows import Window as RasterWindow

from ..processors import available_threads
from ..progress import Progress
from ..raster.verify import check_whole_raster, gdal_errors
from .card import SPLITS, TARGET, Dataset, PatchCard, Split, patch_file

Float = NDArray[np.float32]

COMPOSITES: tuple[tuple[str, ...], ...] = (("B12", "B8A", "B05"), ("B09",), ("B01",), ("B04", "B03", "B02"))
"""The pictures of a preview, those whose bands there are: three bands in red, green, blue, or one in grey."""

_AT_ONCE = 64
_SHOWN = 8
_SIDE = 160
_GAP = 4


class PatchWriter:
    """Collects pairs in files of raw numbers, since a GeoTIFF must know its height before its first patch."""

    def __init__(self, folder: Path, tensors: Sequence[PatchCard]) -> None:
        self.folder = folder
        self.tensors = tensors
        self.counts: dict[Split, int] = dict.fromkeys(SPLITS, 0)
        self._stack = ExitStack()
        self._files: dict[tuple[Split, str], IO[bytes]] = {}

    def __enter__(self) -> PatchWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, split: Split, pair: dict[str, Float]) -> None:
        """Append one pair: for each tensor (bands, size, size) float32."""
        for tensor in self.tensors:
            key = (split, tensor.name)
            if key not in self._files:
                self._files[key] = self._stack.enter_context(self._raw(*key).open("wb"))
            self._files[key].write(np.ascontiguousarray(pair[tensor.name], np.float32).tobytes())
        self.counts[split] += 1

    def finish(self, spacing: float, progress: Progress) -> None:
        """Turn what was collected into patch images. ``spacing``: of a 10 m pixel of the scenes, in CRS units."""
        self._stack.close()
        for split, name in self._files:
            tensor = next(t for t in self.tensors if t.name == name)
            self._stack_patches(split, tensor, spacing, progress)
            self._raw(split, name).unlink()

    def _raw(self, split: str, tensor: str) -> Path:
        return self.folder / f"{split}_{tensor}.raw"

    def _stack_patches(self, split: Split, tensor: PatchCard, spacing: float, progress: Progress) -> None:
        bands, size, count = len(tensor.bands), tensor.size, self.counts[split]
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "width": size,
            "height": size * count,
            "count": bands,
            "dtype": "float32",
            "transform": Affine(spacing, 0, 0, 0, -spacing, 0),  # OTBTF keeps the spacing, and no place
            "compress": "deflate",
            "predictor": 3,
            "interleave": "pixel",
            "blockysize": size,  # one strip a patch: any patch is one read
            "bigtiff": "if_safer",
        }
        raw, path = self._raw(split, tensor.name), self.folder / patch_file(split, tensor.name)
        with gdal_errors(path), raw.open("rb") as source, rasterio.open(path, "w", **profile) as file:
            for first in range(0, count, _AT_ONCE):
                progress.check()
                some = np.fromfile(source, np.float32, _AT_ONCE * bands * size * size).reshape(-1, bands, size, size)
                rows = len(some) * size
                stacked = some.transpose(1, 0, 2, 3).reshape(bands, rows, size)
                file.write(stacked, window=RasterWindow(0, first * size, size, rows))
            file.descriptions = tensor.bands
        with gdal_errors(path):
            check_whole_raster(path, available_threads(), progress.check)


def write_preview(dataset: Dataset, split: Split, path: Path) -> None:
    """Picture of some patches of a split, one a row: its low-resolution bands, then the target, for each composite."""
    from skimage.io import imsave

    card, arrays = dataset.card, dataset.arrays(split)
    chosen = sorted({round(i) for i in np.linspace(0, dataset.count(split) - 1, _SHOWN)})
    target = card.tensor(TARGET)
    source = next(t for t in card.inputs if set(target.bands) <= set(t.bands))
    composites = [bands for bands in COMPOSITES if set(bands) <= set(target.bands)] or [tuple(target.bands[:1])]
    rows = []
    for index in chosen:
        low, high = arrays[source.name][index], arrays[TARGET][index]
        low = low.repeat(target.size // source.size, axis=0).repeat(target.size // source.size, axis=1)
        row = []
        for bands in composites:
            fine = high[..., [target.bands.index(band) for band in bands]]
            coarse = low[..., [source.bands.index(band) for band in bands]]
            dark, bright = np.percentile(fine, 2, axis=(0, 1)), np.percentile(fine, 98, axis=(0, 1))
            row += [_picture(image, dark, bright) for image in (coarse, fine)]
        rows.append(np.concatenate(row, axis=1))
    imsave(path, np.concatenate(rows), check_contrast=False)  # type: ignore[no-untyped-call]


def _picture(image: Float, dark: NDArray[Any], bright: NDArray[Any]) -> NDArray[np.uint8]:
    """Stretched to 8 bits between two grey values, enlarged, with a white margin below and beside it."""
    zoom = max(1, _SIDE // image.shape[0])
    scaled = np.clip((image - dark) / np.maximum(bright - dark, 1e-6), 0, 1) * 255
    large = scaled.round().astype(np.uint8).repeat(zoom, axis=0).repeat(zoom, axis=1)
    colour = np.broadcast_to(large, (*large.shape[:2], 3))
    return np.pad(colour, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
