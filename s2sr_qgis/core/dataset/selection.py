"""Where patches are cut: corners on the coarse grid with a split each, and OTBTF's PatchesSelection point for point.

`select_patches` is what datasets are made with. `otbtf_selection` reproduces OTBTF 4.3.1 (app/otbPatchesSelection.cxx
of https://github.com/remicres/otbtf) with its peculiarities, for those who go on with OTBTF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..progress import Progress
from ..raster.grid import Grid, Window
from ..raster.image import Image
from .card import SPLITS, Split
from .otbtf_split import otbtf_labels
from .points import Points
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
    progress: Progress | None = None,
) -> dict[Split, Points]:
    """What OTBTF's PatchesSelection gives: points of each of the ``outputs`` that the strategy has, with their ids.

    ``proportions``: of train, valid, test; ``offset``: (x, y) of the grid. As there, the image's own nodata is ignored,
    a pixel lacks a value when all its bands equal ``nodata``, windows of even patches are a pixel too large, and a mask
    without nodata takes only points whose own pixel is exactly 1. Raises `InputError` as `select_patches` does.
    """
    radius, grid = patch_size // 2, image.grid
    check_size(image, 2 * radius + 1)
    check_mask(image, mask, place=False)
    padded = nodata is not None  # OTBTF then works on an image with one more pixel on each side
    columns, across = _otbtf_positions(grid.width, radius, step, offset[0] + padded, padded)
    rows, down = _otbtf_positions(grid.height, radius, step, offset[1] + padded, padded)
    accepted = _otbtf_accepted(image, rows, columns, radius, mask, nodata, progress or Progress())
    row, column = np.nonzero(accepted)
    if strategy == "chessboard":
        groups = np.fmod(down[row] + across[column], 2)
    else:
        shares = [p if split in outputs else 0.0 for p, split in zip(proportions, SPLITS, strict=True)]
        total = (grid.width // step + 1) * (grid.height // step + 1)
        labels = otbtf_labels(total, (1, 0, 0) if strategy == "all" else shares, random)
        groups = labels[: len(row)]
    x = _otbtf_coordinates(grid.x, grid.spacing, columns, patch_size, padded)[column]
    y = _otbtf_coordinates(grid.y, -grid.pixel_height, rows, patch_size, padded)[row]
    found: dict[Split, Points] = {}
    for number, split in enumerate(_OTBTF_SPLITS[strategy]):
        if split in outputs:
            ids = np.flatnonzero(groups == number)
            found[split] = Points(x[ids], y[ids], ids, grid.crs)
    return found


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


def _otbtf_positions(length: int, radius: int, step: int, offset: int, padded: bool) -> tuple[Integers, Integers]:
    """Pixels along one axis that may become points, and their places in the chessboard; `%` and `/` are C++'s."""
    pixels = np.arange(radius, length - radius)
    from_start = pixels + padded - (radius + 1)
    taken = np.fmod(from_start, step) == int(np.fmod(offset, step))
    return pixels[taken], np.trunc(from_start[taken] / step).astype(np.int64)


def _otbtf_accepted(
    image: Image,
    rows: Integers,
    columns: Integers,
    radius: int,
    mask: Image | None,
    nodata: float | None,
    progress: Progress,
) -> Mask:
    """Which of the positions become points, (rows, columns)."""
    if nodata is None and mask is None:
        return np.ones((len(rows), len(columns)), bool)
    size = 1 if nodata is None else 2 * radius + 1

    def valid(window: Window) -> Mask:
        masked = None if mask is None else np.clip(mask.read(window)[0], 0, 255).astype(np.uint8)
        if nodata is None and masked is not None:
            one: Mask = masked == 1
            return one
        good: Mask = (image.read(window).astype(np.float32) != np.float32(nodata or 0)).any(axis=0)
        return good if masked is None else good & (masked != 0)

    reach = size // 2
    parts = [
        all_within(strip, part - part[0], columns - reach, size)
        for part, strip in strips(rows - reach, size, image.grid, len(image.bands), valid, progress)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(columns)), bool)


def _otbtf_coordinates(corner: float, spacing: float, pixels: Integers, size: int, padded: bool) -> NDArray[np.float64]:
    """In ITK's order of operations, since the last bit decides which pixel PatchesExtraction finds."""
    first = corner + 0.5 * spacing
    index = pixels.astype(np.float64)
    centres = (first - spacing) + spacing * (index + 1) if padded else first + spacing * index
    return centres if size % 2 else centres - 0.5 * abs(spacing)
