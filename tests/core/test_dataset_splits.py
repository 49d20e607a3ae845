"""Ground by split: shares, blocks, scenes, what lies across."""

from __future__ import annotations

import numpy as np
import pytest
from rasterio.crs import CRS

from s2sr_qgis.core.dataset.splits import Region, assign, plan_splits
from s2sr_qgis.core.progress import Progress

UTM32, UTM33 = CRS.from_epsg(32632), CRS.from_epsg(32633)
SHARES = (0.8, 0.1, 0.1)
TILE = (600000.0, 4890240.0, 709800.0, 5000040.0)


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str, level: str = "info") -> None:
        self.lines.append(text)


def region(west: float, south: float, side: float, patch: float = 640, crs: CRS | None = UTM32) -> Region:
    return Region(crs, (west, south, west + side, south + side), patch)


def plan(regions, shares=SHARES, method="auto", block_size=8, seed=0, progress=None):
    return plan_splits(regions, shares, method, block_size, seed, progress or Progress())


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_held_to_a_block(seed):
    found = plan([Region(UTM32, TILE, 640)], seed=seed).partitions[0].table
    assert found.shape == (21, 21)
    shares = np.bincount(found.ravel(), minlength=3) / found.size
    assert shares == pytest.approx(SHARES, abs=1.5 / found.size * 2)


def test_seed_chooses_the_blocks():
    tables = [plan([Region(UTM32, TILE, 640)], seed=seed).partitions[0].table for seed in (0, 0, 1)]
    assert (tables[0] == tables[1]).all()
    assert (tables[0] != tables[2]).any()


def test_assign_gives_every_split_something():
    for seed in range(20):
        random = np.random.default_rng(seed)
        assert sorted(assign([1, 1, 1], SHARES, random)) == [0, 1, 2]
        assert set(assign([100, 1, 1, 1], SHARES, random)) == {0, 1, 2}
        assert assign([100, 1, 1, 1], SHARES, random)[0] == 0
        assert set(assign([1] * 10, (0.9, 0.1, 0), random)) == {0, 1}
        assert assign([1], SHARES, random) == [0]
        assert set(assign([1] * 4, (0, 0, 1), random)) == {2}


def test_ground_across_two_splits_has_none():
    partition = plan([Region(UTM32, TILE, 640)], (0.5, 0.3, 0.2)).partitions[0]
    x, y = partition.columns, partition.rows
    across = 0
    for i in range(1, len(x)):
        for j in range(1, len(y)):
            inside = partition.split_of((x[i - 1], y[j - 1], x[i], y[j]))
            assert inside == ("train", "valid", "test")[partition.table[j, i]]
            wider = partition.split_of((x[i - 1], y[j - 1], x[i] + 1, y[j]))
            same = partition.table[j, i] == partition.table[j, i + 1]
            assert wider == (inside if same else None)
            across += not same
    assert across > 50


def test_many_grounds_at_once():
    partition = plan([Region(UTM32, TILE, 640)], (0.5, 0.3, 0.2)).partitions[0]
    random = np.random.default_rng(0)
    corners = random.uniform((TILE[0] - 2000, TILE[1] - 2000), (TILE[2], TILE[3]), (500, 2))
    corners[:20, 0], corners[20:40, 1] = partition.columns[:20], partition.rows[:20]
    bounds = np.hstack([corners, corners + random.choice([640, 3000, 20000], (500, 1))])
    bounds[40:60, 2], bounds[40:60, 0] = partition.columns[:20], partition.columns[:20] - 640
    found = [None if i < 0 else ("train", "valid", "test")[i] for i in partition.splits_of(bounds)]
    assert found == [partition.split_of(tuple(b)) for b in bounds]
    assert len(set(found)) == 4


def test_cuts_go_through_the_middle_of_patches():
    partition = plan([Region(UTM32, TILE, 640)]).partitions[0]
    assert (((partition.columns - TILE[0]) / 640) % 1 == 0.5).all()
    assert (((TILE[3] - partition.rows) / 640) % 1 == 0.5).all()
    assert (np.diff(partition.columns) > 7 * 640).all()


def test_auto_counts_separate_scenes():
    apart = [region(600000 + 50000 * i, 5000000, 20000) for i in range(3)]
    assert plan(apart).method == "scenes"
    assert plan(apart[:2]).method == "blocks"
    assert plan([apart[0]] * 3).method == "blocks"
    assert plan(apart, method="blocks").method == "blocks"


def test_scenes_that_overlap_by_way_of_a_third_share_a_split():
    chain = [region(600000, 5000000, 20000), region(634000, 5000000, 20000), region(617000, 5000000, 20000)]
    others = [region(800000, 5000000, 20000), region(900000, 5000000, 20000)]
    tables = [int(p.table[0, 0]) for p in plan([*chain, *others], method="scenes").partitions]
    assert tables[0] == tables[1] == tables[2]
    assert sorted({*tables[2:]}) == [0, 1, 2]


def test_touching_scenes_do_not_overlap():
    assert plan([region(600000 + 20000 * i, 5000000, 20000) for i in range(3)]).method == "scenes"


def test_overlap_across_zones_is_seen_and_not_cut():
    """The same ground in two UTM zones has blocks that do not coincide."""
    both = [region(720000, 5000000, 40000), region(250000, 5000000, 40000, crs=UTM33)]
    found = plan([*both, region(500000, 4000000, 100000)])
    assert found.method == "blocks"
    assert found.partitions[0].table.shape == found.partitions[1].table.shape == (1, 1)
    assert found.partitions[0].table == found.partitions[1].table
    assert found.partitions[2].table.size > 100


def test_blocks_shrink_where_the_scene_is_small():
    lines = Lines()
    found = plan([region(0, 0, 12 * 640)], progress=lines)
    assert found.block_size < 8
    assert found.partitions[0].table.size >= 10
    assert any("instead of 8" in line for line in lines.lines)
    assert set(found.partitions[0].table.ravel()) == {0, 1, 2}


def test_too_few_scenes_are_told():
    lines = Lines()
    found = plan([region(0, 0, 64000), region(100000, 0, 64000)], method="scenes", progress=lines)
    assert any("2 separate scenes for 3 splits" in line for line in lines.lines)
    assert 0 in {int(p.table[0, 0]) for p in found.partitions}
