"""Which ground is for training, which for validation, which for the test: by scene or by spatial blocks.

A piece of ground has one split, whatever the scene and the scale that show it. Scenes that overlap therefore share
their split (by scene) or their blocks. A patch is used when all the ground that it depends on has the same split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from ..errors import InputError
from ..progress import Progress
from .card import SPLITS, Split

Bounds = tuple[float, float, float, float]
SMALLEST_BLOCK = 2
MOST_BLOCKS_NEEDED = 20


@dataclass(frozen=True)
class Region:
    """The part of a scene that patches come from: ``bounds`` (xmin, ymin, xmax, ymax) and ``patch`` in CRS units."""

    crs: CRS | None
    bounds: Bounds
    patch: float

    @property
    def area(self) -> float:
        """In patches, so that regions of different units compare."""
        xmin, ymin, xmax, ymax = self.bounds
        return (xmax - xmin) * (ymax - ymin) / self.patch**2


@dataclass(frozen=True)
class Partition:
    """The ground of one scene cut by ``columns`` (x) and ``rows`` (y, both ascending) into blocks with a split each."""

    columns: NDArray[np.float64]
    rows: NDArray[np.float64]
    table: NDArray[np.intp]

    def split_of(self, bounds: Bounds) -> Split | None:
        """The split of all the ground within ``bounds``, or None where it has more than one."""
        xmin, ymin, xmax, ymax = bounds
        left, right = np.searchsorted(self.columns, xmin, "right"), np.searchsorted(self.columns, xmax, "left")
        low, high = np.searchsorted(self.rows, ymin, "right"), np.searchsorted(self.rows, ymax, "left")
        found = np.unique(self.table[low : high + 1, left : right + 1])
        return SPLITS[int(found[0])] if found.size == 1 else None

    def splits_of(self, bounds: NDArray[np.float64]) -> NDArray[np.intp]:
        """`split_of` for many: index into `SPLITS` for each row (xmin, ymin, xmax, ymax), -1 where there is none."""
        xmin, ymin, xmax, ymax = bounds.T
        left, right = np.searchsorted(self.columns, xmin, "right"), np.searchsorted(self.columns, xmax, "left") + 1
        low, high = np.searchsorted(self.rows, ymin, "right"), np.searchsorted(self.rows, ymax, "left") + 1
        found = np.full(len(bounds), -1, np.intp)
        for split in range(len(SPLITS)):
            sums = np.pad(self.table == split, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
            blocks = sums[high, right] - sums[low, right] - sums[high, left] + sums[low, left]
            found[blocks == (high - low) * (right - left)] = split
        return found


@dataclass(frozen=True)
class Plan:
    """``method`` as carried out, ``block_size`` in patches as used, and the partition of each scene, in their order."""

    method: str
    block_size: int
    partitions: list[Partition]


def check_shares(shares: Sequence[float]) -> None:
    """Raise `InputError` unless the shares of train, valid and test sum to 1."""
    if abs(sum(shares) - 1) > 1e-6:
        listed = " + ".join(f"{share:g}" for share in shares)
        raise InputError(f"The proportions of train, valid and test must sum to 1; {listed} is {sum(shares):g}.")


def plan_splits(
    regions: Sequence[Region],
    proportions: Sequence[float],
    method: str,
    block_size: int,
    seed: int,
    progress: Progress,
) -> Plan:
    """Give every piece of ground its split.

    ``proportions``: of train, valid, test, summing to 1, held by the area of scenes or blocks as nearly as these
    allow. ``method``: auto (by scene from three separate scenes on), blocks, scenes. Blocks are made smaller, down to
    two patches a side, where the scenes hold too few of them; that is said in the log.
    """
    groups = _overlapping(regions)
    wanted = sum(p > 0 for p in proportions)
    if method == "auto":
        method = "scenes" if len(groups) >= 3 else "blocks"
    random = np.random.default_rng(seed)
    if method == "scenes":
        if len(groups) < wanted:
            progress.log(
                f"There are {len(groups)} separate scenes for {wanted} splits, so a split stays empty; "
                "split by blocks or add scenes.",
                "warning",
            )
        splits = assign([sum(regions[i].area for i in group) for group in groups], proportions, random)
        one = np.empty(0)
        of_scene = {i: split for group, split in zip(groups, splits, strict=True) for i in group}
        tables = [np.full((1, 1), of_scene[i], np.intp) for i in range(len(regions))]
        return Plan(method, block_size, [Partition(one, one, table) for table in tables])

    used = _block_size([[regions[i] for i in group] for group in groups], proportions, block_size)
    edges = [_edges([regions[i] for i in group], used) for group in groups]
    areas = [_areas([regions[i] for i in group], *cut) for group, cut in zip(groups, edges, strict=True)]
    total = sum(area.size for area in areas)
    if used != block_size:
        progress.log(f"Blocks of {used} x {used} patches are used instead of {block_size}: the scenes are small.")
    if total < wanted:
        progress.log(f"The scenes hold {total} blocks for {wanted} splits, so a split stays empty.", "warning")
    splits = assign(np.concatenate([area.ravel() for area in areas]), proportions, random)
    partitions: dict[int, Partition] = {}
    first = 0
    for group, (columns, rows), area in zip(groups, edges, areas, strict=True):
        table = np.array(splits[first : first + area.size], np.intp).reshape(area.shape)
        first += area.size
        partitions.update((i, Partition(columns, rows, table)) for i in group)
    return Plan(method, used, [partitions[i] for i in range(len(regions))])


def assign(
    areas: Sequence[float] | NDArray[np.float64], proportions: Sequence[float], random: np.random.Generator
) -> list[int]:
    """The split (0, 1, 2) of each piece, so that the areas come near the proportions; large pieces are placed first.

    Every split with a proportion gets a piece where there are enough of them.
    """
    areas = np.asarray(areas, np.float64)
    shuffled = random.permutation(len(areas))
    order = sorted(shuffled, key=lambda i: -round(math.log2(areas[i])))
    missing = np.asarray(proportions, np.float64) * areas.sum()
    missing[np.asarray(proportions) <= 0] = -np.inf
    splits = np.zeros(len(areas), np.intp)
    for piece in order:
        splits[piece] = int(np.argmax(missing))
        missing[splits[piece]] -= areas[piece]
    for split, proportion in enumerate(proportions):
        counts = np.bincount(splits, minlength=len(proportions))
        if proportion > 0 and counts[split] == 0 and counts.max() > 1:
            richest = [i for i in shuffled if splits[i] == int(np.argmax(counts))]
            splits[min(richest, key=lambda i: areas[i])] = split
    return [int(split) for split in splits]


def _overlapping(regions: Sequence[Region]) -> list[list[int]]:
    """Indices of the regions, those that overlap (also by way of another) together."""
    groups: list[list[int]] = []
    for i, region in enumerate(regions):
        near = [g for g in groups if any(_overlap(region, regions[j]) for j in g)]
        groups = [g for g in groups if g not in near]
        groups.append(sorted([i, *(j for g in near for j in g)]))
    return sorted(groups)


def _overlap(a: Region, b: Region) -> bool:
    first, second = a.bounds, b.bounds
    if a.crs != b.crs:
        if not a.crs or not b.crs:
            return False
        first, second = (transform_bounds(r.crs, "EPSG:4326", *r.bounds) for r in (a, b))
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def _block_size(groups: Sequence[Sequence[Region]], proportions: Sequence[float], block_size: int) -> int:
    """The largest block size not above ``block_size`` with which the smallest proportion gets a block."""
    smallest = min(p for p in proportions if p > 0)
    needed = min(math.ceil(1 / smallest - 1e-9), MOST_BLOCKS_NEEDED)
    for size in range(block_size, SMALLEST_BLOCK, -1):
        cuts = [_edges(group, size) for group in groups]
        if sum((len(x) + 1) * (len(y) + 1) for x, y in cuts) >= needed:
            return size
    return min(block_size, SMALLEST_BLOCK)


def _edges(group: Sequence[Region], block_size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the ground of overlapping regions is cut, in x and in y, ascending.

    Nearly equal blocks, cut through the middle of the patches of a grid that starts at the upper-left corner: a cut
    then costs the one row of patches that lies across it instead of the two that touch it.
    """
    if any(region.crs != group[0].crs for region in group):
        return np.empty(0), np.empty(0)
    patch = max(region.patch for region in group)
    xmin, ymin, xmax, ymax = _union(group)

    def cuts(length: float) -> NDArray[np.float64]:
        count = max(1, round(length / (block_size * patch)))
        return np.array([(math.floor(i * length / (count * patch)) + 0.5) * patch for i in range(1, count)])

    return xmin + cuts(xmax - xmin), (ymax - cuts(ymax - ymin))[::-1]


def _areas(group: Sequence[Region], columns: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of each block, in patches, (rows, columns)."""
    if not columns.size and not rows.size:
        return np.array([[sum(region.area for region in group)]])
    xmin, ymin, xmax, ymax = _union(group)
    patch = max(region.patch for region in group)
    widths, heights = np.diff([xmin, *columns, xmax]), np.diff([ymin, *rows, ymax])
    return np.maximum(np.outer(heights, widths) / patch**2, 1e-3)


def _union(group: Sequence[Region]) -> Bounds:
    corners = np.array([region.bounds for region in group])
    (xmin, ymin), (xmax, ymax) = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    return float(xmin), float(ymin), float(xmax), float(ymax)
