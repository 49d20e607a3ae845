"""A dataset on disk: its card (`dataset.yaml`), its layout, and lazy access to its patches.

Layout, that of OTBTF's patch images (PatchesExtraction): for every split that has patches and every tensor one GeoTIFF
`{split}_{tensor}.tif`, as wide as a patch, patch i in the rows [i * size, (i + 1) * size), every band, float32 DN
without offset (reflectance / scaling). A split without patches has no files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from ..errors import DatasetError
from ..redaction import yaml_text
from ..scene.bands import bands_at

CARD_NAME = "dataset.yaml"
Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_CHUNK = 256
"""Patches read at a time where all are looked at."""
TARGET = "target"
FACTOR: dict[str, int] = {"20m": 2, "60m": 6}
"""By how much a scene is degraded for each sharpening task: the ratio between the sharpened bands and 10 m."""
CROSS_SENSOR = "cross-sensor"
"""The task of a finer sensor's image as the target: tensors ``input_lr`` and ``target``."""

Index = int | slice | Sequence[int] | NDArray[np.integer[Any]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PatchCard(_Part):
    """One tensor of a pair: ``size`` is the patch's side in pixels."""

    name: str
    bands: list[str]
    resolution: float = Field(description="Pixel size in metres that this tensor has in a scene of full resolution.")
    size: int

    def coarser(self, spacing: float = 10) -> int:
        """How many pixels of this size, in metres, one pixel of this tensor is wide."""
        return round(self.resolution / spacing)


class SourceCard(_Part):
    """One scene that patches come from."""

    name: str
    source: str = ""
    level: Literal["L1C", "L2A"] | None = None
    platform: str | None = None
    acquired: str | None = None
    licence: str | None = None
    patches: dict[Split, int] = Field(default_factory=dict)
    assumptions: list[str] = Field(default_factory=list, description="What was assumed about the scene.")


class DatasetCard(_Part):
    """What a dataset is made of.

    ``factor``: how much coarser the pairs are than a scene of full resolution; of the cross-sensor task, how much
    coarser the input is than the target. ``sigma``: Gaussian blur of each band before the reduction, in pixels of the
    finer grid; empty where nothing was degraded. ``scaling``: stored value times this is reflectance.
    ``scales``: 2 means that pairs of the scene reduced by 2 are there too, and so on. ``clouds``: how often each scene
    is there once more, under simulated clouds. ``teacher``: model whose result at full resolution is a target too,
    ``teacher_variants``: how often on recoloured copies of each scene. ``mixtures``: how many pairs
    of two mixed places were asked for. ``job``: the whole job that made the dataset, empty in cards of earlier
    versions. ``pair``: what was measured of a pair, shifts in pixels of the low-resolution image and in metres.
    """

    task: Literal["20m", "60m", "cross-sensor"]
    factor: int
    tensors: list[PatchCard]
    counts: dict[Split, int]
    patch_size: int
    step: int
    scales: int = 1
    clouds: int = 0
    teacher: str | None = None
    teacher_variants: int = 0
    mixtures: int = 0
    sigma: dict[str, float] = Field(default_factory=dict)
    sensor_mtf: bool = False
    scaling: float = 1e-4
    split: Literal["blocks", "scenes", "chessboard", "all", "otbtf"] = Field(
        description="How patches were shared out: spatial blocks, whole scenes, OTBTF's strategies."
    )
    proportions: dict[Split, float] = Field(default_factory=dict)
    block_size: int = Field(1, description="Side of a spatial block, in patches.")
    seed: int
    sources: list[SourceCard]
    s2sr: str = Field("", description="Version that wrote the dataset.")
    job: dict[str, Any] = Field(default_factory=dict)
    pair: dict[str, Any] = Field(default_factory=dict)

    def tensor(self, name: str) -> PatchCard:
        """The tensor of this name: an input's, or ``target``."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise DatasetError(f"The dataset has no tensor '{name}'; it has {', '.join(t.name for t in self.tensors)}.")

    @property
    def inputs(self) -> list[PatchCard]:
        """Every tensor but the target."""
        return [tensor for tensor in self.tensors if tensor.name != TARGET]


def layout(task: str, patch_size: int) -> list[PatchCard]:
    """The tensors of a task, with patches of this side on the target grid (a multiple of 2 or 6)."""
    coarse = {"20m": 20, "60m": 60}[task]
    inputs = [r for r in (10, 20, 60) if r <= coarse]
    cards = [
        PatchCard(name=f"input_{r}m", bands=list(bands_at(r)), resolution=r, size=patch_size * 10 // r) for r in inputs
    ]
    return [*cards, PatchCard(name=TARGET, bands=list(bands_at(coarse)), resolution=10, size=patch_size)]


def patch_file(split: str, tensor: str) -> str:
    """File name of one tensor of one split."""
    return f"{split}_{tensor}.tif"


class PatchArray:
    """Patches of one tensor, read from the file when indexed: shape (N, size, size, bands), float32.

    Takes an index, a slice or a list of indices, as an array would; `numpy.asarray` reads everything. May be read from
    several threads at once. Raises `DatasetError` where the file is damaged or a value is not finite.
    """

    dtype = np.dtype(np.float32)
    ndim = 4

    def __init__(self, path: Path | None, shape: tuple[int, int, int, int]) -> None:
        self.path = path
        self.shape = shape
        self._open = threading.local()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> NDArray[np.float32]:
        if isinstance(index, int | np.integer):
            return self._read(range(len(self))[index], 1).reshape(self.shape[1:])
        if isinstance(index, slice):
            chosen = range(len(self))[index]
            if chosen.step == 1 and chosen:
                return self._read(chosen.start, len(chosen))
        else:
            chosen = [range(len(self))[int(i)] for i in index]  # type: ignore[assignment]
        if not len(chosen):
            return np.empty((0, *self.shape[1:]), np.float32)
        return np.concatenate([self._read(i, 1) for i in chosen])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole: NDArray[Any] = np.asarray(self[:], dtype=dtype)
        return whole

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "shape": self.shape}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["shape"])  # type: ignore[misc]

    def _read(self, first: int, count: int) -> NDArray[np.float32]:
        _, height, width, bands = self.shape
        try:
            if not hasattr(self._open, "file"):
                self._open.file = rasterio.open(self.path)
            data = self._open.file.read(window=RasterWindow(0, first * height, width, count * height))
        except RasterioError as error:
            raise DatasetError(
                f"{self.path} is damaged: patches {first} to {first + count - 1} cannot be read; "
                "make the dataset again."
            ) from error
        patches = data.reshape(bands, count, height, width).transpose(1, 2, 3, 0)
        finite = np.isfinite(patches).all(axis=(1, 2, 3))
        if not finite.all():
            raise DatasetError(
                f"{self.path}: patch {first + int(np.argmin(finite))} has values that are not finite (NaN, as nodata "
                "has); make the dataset again without nodata."
            )
        return np.ascontiguousarray(patches, dtype=np.float32)


@dataclass(frozen=True)
class Dataset:
    """A checked dataset folder."""

    folder: Path
    card: DatasetCard

    def count(self, split: Split) -> int:
        """How many patches a split has."""
        return self.card.counts.get(split, 0)

    def arrays(self, split: Split) -> dict[str, PatchArray]:
        """The tensors of a split by name (``input_10m`` …, ``target``), lazily read, (N, size, size, bands) float32.

        Values are DN without offset: times ``card.scaling`` they are reflectance.
        """
        count = self.count(split)
        return {
            tensor.name: PatchArray(
                self.folder / patch_file(split, tensor.name) if count else None,
                (count, tensor.size, tensor.size, len(tensor.bands)),
            )
            for tensor in self.card.tensors
        }

    def check_values(self, check: Callable[[], None] = lambda: None) -> None:
        """Read every patch once. ``check`` may raise to stop. Raises `DatasetError` as `PatchArray` does."""
        for split in SPLITS:
            for array in self.arrays(split).values():
                for start in range(0, len(array), _CHUNK):
                    check()
                    array[start : start + _CHUNK]


def read_dataset(folder: str | Path, task: str | None = None) -> Dataset:
    """Read a dataset folder and check every file against the card.

    Raises `DatasetError` when the folder is no dataset, is of another task than ``task``, or has a file that is
    missing, truncated, or of another size, patch count or band set than the card says.
    """
    folder = Path(folder)
    dataset = Dataset(folder, _read_card(folder))
    if task is not None and dataset.card.task != task:
        raise DatasetError(
            f"{folder} is a dataset of the {dataset.card.task} task, but the {task} task is asked for; "
            f"name a dataset made with the task {task}."
        )
    for split in SPLITS:
        if dataset.count(split):
            for tensor in dataset.card.tensors:
                _check_file(folder / patch_file(split, tensor.name), tensor, dataset.count(split))
            for array in dataset.arrays(split).values():
                array[-1]  # a truncated file opens well and lacks its end
    return dataset


def recorded(job: BaseModel) -> dict[str, Any]:
    """The job that makes a dataset, for its card. Its output is ``.``, the card's own folder, wherever that goes."""
    return {**job.model_dump(mode="json"), "output": "."}


def write_card(card: DatasetCard, folder: Path) -> Path:
    """Write a card beside its files."""
    path = folder / CARD_NAME
    text = yaml_text(card.model_dump(mode="json"))
    path.write_text(text, encoding="utf-8")
    return path


def _read_card(folder: Path) -> DatasetCard:
    path = folder / CARD_NAME
    if not path.is_file():
        raise DatasetError(f"{folder} is no dataset folder: it has no {CARD_NAME}; make one with 's2sr dataset'.")
    try:
        return DatasetCard.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not readable YAML; make the dataset again.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "card"
        raise DatasetError(f"{path} is no valid card: {where}: {first['msg']}; make the dataset again.") from error


def _check_file(path: Path, tensor: PatchCard, count: int) -> None:
    if not path.is_file():
        raise DatasetError(f"The dataset lacks {path.name} in {path.parent}; make the dataset again.")
    try:
        with rasterio.open(path) as file:
            found = (file.width, file.height, file.count)
            names = [text for text in file.descriptions if text]
    except RasterioError as error:
        raise DatasetError(f"{path} is damaged and cannot be opened; make the dataset again.") from error
    wanted = (tensor.size, tensor.size * count, len(tensor.bands))
    if found != wanted or (names and names != tensor.bands):
        raise DatasetError(
            f"{path} does not match its card: it holds {found[0]} x {found[1]} pixels of "
            f"{' '.join(names) or f'{found[2]} bands'}, the card says {count} patches of "
            f"{tensor.size} x {tensor.size} pixels of {' '.join(tensor.bands)}; make the dataset again."
        )


def software_version() -> str:
    """The installed version of this package; empty where it is not installed."""
    try:
        return version("s2sr")
    except PackageNotFoundError:
        return ""
