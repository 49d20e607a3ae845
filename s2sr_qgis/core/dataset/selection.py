"""Where patches are cut: corners on the coarse grid with a split each, and OTBTF's PatchesSelection point for point.

`select_patches` is what datasets are made with. `otbtf_selection` reproduces OTBTF 4.3.1 (app/otbPatchesSelection.cxx
of https://github.com/remicres/otbtf) with its peculiarities, for those who go on with OTBTF.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..progress import Progress
from ..raster.grid import Grid, Window
from ..raster.image import Image
from ..raster.superimpose import Engine
from . import otbtf_rules
from .card import SPLITS, Split
from .points import Points, read_points
from .splits import Partition, Region, assign, plan_splits
from .validity import Integers, Mask, all_within, check_mask, check_size, image_name, strips, valid_pixels

Bounds = NDArray[np.float64]
Strategy = Literal["split", "chessboard", "all"]

BUFFER = 5
"""So many pixels of a 6 m grid does bicubic interpolation of a 10 m image reach."""

_ATTEMPTS = 16

_OTBTF_SPLITS: dict[str, tuple[Split, ...]] = {"split": SPLITS, "chessboard": ("train", "valid"), "all": ("train",)}


@dataclass(frozen=True)
class Selection:
    """Patches on the coarse ``grid``.

    ``corners``: (row, column) of each patch's upper-left pixel, (n, 2), row by row. ``splits``: index into `SPLITS` of
    each, (n,). ``invalid``, ``across``: how many patches were left out for nodata or the mask, and for lying near
    ground of another split. ``block_size`` in patches, as used.
    """

    grid: Grid
    patch_size: int
    step: int
    corners: Integers
    splits: Integers
    block_size: int
    invalid: int = 0
    across: int = 0

    def __len__(self) -> int:
        return len(self.corners)

    @property
    def counts(self) -> dict[Split, int]:
        """How many patches each split has."""
        found = np.bincount(self.splits, minlength=len(SPLITS))
        return {split: int(count) for split, count in zip(SPLITS, found, strict=True)}

    def points(self, split: Split) -> Points:
        """The centres of the patches of a split, numbered as they are in the selection."""
        chosen = np.flatnonzero(self.splits == SPLITS.index(split))
        rows, columns = (self.corners[chosen] + self.patch_size / 2).T
        x = self.grid.x + columns * self.grid.spacing
        return Points(x, self.grid.y - rows * self.grid.pixel_height, chosen, self.grid.crs)


def select_patches(
    image: Image,
    *,
    patch_size: int,
    step: int | None = None,
    strategy: Strategy = "split",
    proportions: Sequence[float] = (0.8, 0.1, 0.1),
    block_size: int = 4,
    buffer: int = BUFFER,
    seed: int = 0,
    mask: Image | None = None,
    nodata: float | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Choose patches of ``patch_size`` pixels every ``step`` pixels whose pixels all have a value, in every band.

    ``strategy``: split gives spatial blocks of ``block_size`` patches to train, valid and test in ``proportions``;
    chessboard gives them to train and valid in turn; all makes everything train. A patch is used when it and the
    ground ``buffer`` pixels around it have one split, so no pixel is shared, nor seen by an interpolation of both.
    ``mask``: patches only where it is not 0. ``nodata`` replaces the image's own. Reads strips of rows.

    Raises `InputError` for an image smaller than a patch, one without a usable patch, a mask that is not on the
    image's grid, or proportions that do not sum to 1.
    """
    progress, step, grid = progress or Progress(), step or patch_size, image.grid
    if strategy == "split" and (abs(sum(proportions) - 1) > 1e-6 or min(proportions) < 0):
        raise InputError(
            "The proportions of train, valid and test must be positive and sum to 1; they are "
            f"{', '.join(f'{p:g}' for p in proportions)}."
        )
    check_size(image, patch_size)
    check_mask(image, mask)
    nodata = image.nodata if nodata is None else nodata
    rows, columns = (np.arange(0, side - patch_size + 1, step) for side in (grid.height, grid.width))

    def valid(window: Window) -> Mask:
        good = valid_pixels(image.read(window), nodata)
        if mask is not None:
            pixels = mask.read(window)[:1]
            good &= valid_pixels(pixels, mask.nodata) & (pixels[0] != 0)
        return good

    whole, some_valid = [], False
    for part, strip in strips(rows, patch_size, grid, len(image.bands), valid, progress):
        some_valid = some_valid or bool(strip.any())
        whole.append(all_within(strip, part - part[0], columns, patch_size))
    usable = np.concatenate(whole)
    if not usable.any():
        raise InputError(_nothing(image, mask, patch_size, some_valid))
    shares = {"split": proportions, "chessboard": (0.5, 0.5, 0.0), "all": (1.0, 0.0, 0.0)}[strategy]
    candidates = np.argwhere(usable) * step
    splits = np.zeros(len(candidates), np.int64)
    if strategy != "all":
        partition, block_size = _blocks(grid, patch_size, shares, block_size, seed, progress)
        ground = _ground(candidates, patch_size, buffer)
        if strategy == "chessboard":
            partition = replace(partition, table=np.indices(partition.table.shape).sum(axis=0) % 2)
        else:
            partition = _balanced(partition, candidates, patch_size, ground, shares, seed)
        splits = partition.splits_of(ground)
    kept = splits >= 0
    if not kept.any():
        raise InputError(
            f"Every patch of {patch_size} x {patch_size} pixels lies near ground of another split; choose smaller "
            "patches, a smaller step or the strategy all."
        )
    left_out = usable.size - len(candidates), int((~kept).sum())
    chosen = Selection(grid, patch_size, step, candidates[kept], splits[kept], block_size, *left_out)
    for split, share in zip(SPLITS, shares, strict=True):
        if share > 0 and not chosen.counts[split]:
            progress.log(f"No patch is left for {split}: the image is too small for its share.", "warning")
    return chosen


def otbtf_selection(
    image: Image,
    *,
    patch_size: int,
    step: int,
    strategy: Strategy = "chessboard",
    proportions: Sequence[float] = (50, 25, 25),
    random: bool = False,
    offset: tuple[int, int] = (0, 0),
    mask: Image | None = None,
    nodata: float | None = None,
    outputs: Sequence[Split] = SPLITS,
    engine: Engine = "native",
    progress: Progress | None = None,
) -> dict[Split, Points]:
    """What OTBTF's PatchesSelection gives: points of each of the ``outputs`` that the strategy has, with their ids.

    ``proportions``: of train, valid, test; ``offset``: (x, y) of the grid. As there, the image's own nodata is ignored,
    a pixel lacks a value when all its bands equal ``nodata``, windows of even patches are a pixel too large, and a mask
    without nodata takes only points whose own pixel is exactly 1. ``engine`` "otb" runs OTBTF itself. Raises
    `InputError` as `select_patches` does, `MissingPackageError` for an engine that is not there.
    """
    radius, grid = patch_size // 2, image.grid
    check_size(image, 2 * radius + 1)
    check_mask(image, mask, place=False)
    written = [split for split in _OTBTF_SPLITS[strategy] if split in outputs]
    if engine == "otb":
        parameters: dict[str, Any] = {
            "grid.step": step,
            "grid.psize": patch_size,
            "grid.offsetx": offset[0],
            "grid.offsety": offset[1],
            "strategy": strategy,
        }
        if strategy == "split":
            parameters |= {f"strategy.split.{s}prop": p for s, p in zip(SPLITS, proportions, strict=True)}
            parameters["strategy.split.random"] = random
        if nodata is not None:
            parameters["nodata"] = nodata
        return _by_otbtf(image, mask, parameters, written)
    padded = nodata is not None  # OTBTF then works on an image with one more pixel on each side
    columns, across = otbtf_rules.positions(grid.width, radius, step, offset[0] + padded, padded)
    rows, down = otbtf_rules.positions(grid.height, radius, step, offset[1] + padded, padded)
    row, column = np.nonzero(otbtf_rules.accepted(image, rows, columns, radius, mask, nodata, progress or Progress()))
    if strategy == "chessboard":
        groups = np.fmod(down[row] + across[column], 2)
    else:
        shares = [p if split in outputs else 0.0 for p, split in zip(proportions, SPLITS, strict=True)]
        total = (grid.width // step + 1) * (grid.height // step + 1)
        groups = otbtf_rules.labels(total, (1, 0, 0) if strategy == "all" else shares, random)[: len(row)]
    x = otbtf_rules.coordinates(grid.x, grid.spacing, columns, patch_size, padded)[column]
    y = otbtf_rules.coordinates(grid.y, -grid.pixel_height, rows, patch_size, padded)[row]
    found: dict[Split, Points] = {}
    for split in written:
        ids = np.flatnonzero(groups == SPLITS.index(split))
        found[split] = Points(x[ids], y[ids], ids, grid.crs)
    return found


def _by_otbtf(
    image: Image, mask: Image | None, parameters: dict[str, Any], outputs: Sequence[Split]
) -> dict[Split, Points]:
    from ..raster.otb import otbtf_patches_selection

    with tempfile.TemporaryDirectory() as folder:
        files = {split: Path(folder) / f"{split}.geojson" for split in outputs}
        names = {f"out{split}": str(path) for split, path in files.items()}
        otbtf_patches_selection(image, mask, parameters | names)
        return {split: read_points(path) for split, path in files.items()}


def _nothing(image: Image, mask: Image | None, size: int, some_valid: bool) -> str:
    where = "" if mask is None else " inside the mask"
    if not some_valid:
        return f"{image_name(image)} has no pixel with a value{where}, so there is nothing to cut patches from."
    return (
        f"{image_name(image)} has no {size} x {size} pixels without nodata{where}; choose smaller patches or a "
        "smaller step."
    )


def _blocks(
    grid: Grid, size: int, shares: Sequence[float], block_size: int, seed: int, progress: Progress
) -> tuple[Partition, int]:
    """Spatial blocks in pixels, y upwards: every number is exact."""
    region = Region(None, (0, -grid.height, grid.width, 0), size)
    plan = plan_splits([region], shares, "blocks", block_size, seed, progress)
    return plan.partitions[0], plan.block_size


def _balanced(
    blocks: Partition, corners: Integers, size: int, ground: Bounds, shares: Sequence[float], seed: int
) -> Partition:
    """The blocks with such splits that the patches, and not the ground, come near the shares.

    Much of an image may be nodata, and a split of few blocks loses most patches at their borders; so the blocks are
    given again, with more for the splits that got too few.
    """
    rows, columns = (corners + size / 2).T
    inside = np.zeros(blocks.table.shape)
    np.add.at(inside, (np.searchsorted(blocks.rows, -rows), np.searchsorted(blocks.columns, columns)), 1)
    some = inside > 0
    aim, asked = np.asarray(shares, np.float64), np.asarray(shares, np.float64)
    best, least = blocks, (len(shares) + 1, np.inf)
    for attempt in range(_ATTEMPTS):
        table = np.zeros(blocks.table.shape, np.intp)
        table[some] = assign(inside[some], asked / asked.sum(), np.random.default_rng((seed, attempt)))
        tried = replace(blocks, table=table)
        counts = np.bincount(tried.splits_of(ground) + 1, minlength=len(shares) + 1)[1:]
        given = counts / max(counts.sum(), 1)
        off = int(((given == 0) & (aim > 0)).sum()), float(abs(given - aim).max())
        if off < least:
            best, least = tried, off
        asked = asked * aim / np.maximum(given, aim / 4)
    return best


def _ground(corners: Integers, size: int, buffer: int) -> Bounds:
    """(xmin, ymin, xmax, ymax) of patches and the ground around them, y upwards, (n, 4)."""
    rows, columns = corners.T.astype(np.float64)
    return np.stack([columns - buffer, -(rows + size + buffer), columns + size + buffer, -(rows - buffer)], axis=1)
