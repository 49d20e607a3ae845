"""Choosing patches: valid, inside the mask, apart by split; and OTBTF's choice, point for point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from array_image import ArrayImage, utm
from golden_windows import GOLDEN, runs
from otbtf_golden import golden_image, needs_golden, run
from rasterio.crs import CRS

from s2sr_qgis.core.dataset import validity
from s2sr_qgis.core.dataset.card import SPLITS
from s2sr_qgis.core.dataset.otbtf_rules import _shuffle, labels
from s2sr_qgis.core.dataset.points import Points, read_points, write_points
from s2sr_qgis.core.dataset.selection import otbtf_selection, select_patches
from s2sr_qgis.core.errors import Cancelled, InputError, MissingPackageError, OutputError
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster import otb

DEFAULTS = (50, 25, 25)


class Log(Progress):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def log(self, text: str, level: str = "info") -> None:
        if level == "warning":
            self.warnings.append(text)


def flat(width: int, height: int, bands: int = 2, nodata: float | None = 0) -> ArrayImage:
    return ArrayImage(np.ones((bands, height, width), np.float32), utm(width, height, 6), nodata)


def covered(selection, split: str, buffer: int = 0) -> np.ndarray:
    """How many patches of a split show each pixel."""
    counts = np.zeros((selection.grid.height, selection.grid.width), int)
    for row, column in selection.corners[selection.splits == SPLITS.index(split)]:
        rows = slice(max(row - buffer, 0), row + selection.patch_size + buffer)
        counts[rows, max(column - buffer, 0) : column + selection.patch_size + buffer] += 1
    return counts


# Real OTBTF


@pytest.mark.parametrize("name", runs("sel_"))
def test_point_for_point_as_otbtf(name):
    given, arguments = run(name)["args"], golden_arguments(name)
    found = otbtf_selection(golden_image(given["in"]), **arguments)
    assert list(found) == arguments["outputs"]
    for split, points in found.items():
        wanted = read_points(GOLDEN / "patches" / Path(given[f"out{split}"]).name)
        np.testing.assert_array_equal(points.ids, wanted.ids)
        np.testing.assert_array_equal(points.x, wanted.x)
        np.testing.assert_array_equal(points.y, wanted.y)
        assert points.crs == wanted.crs


@needs_golden
def test_geojson_says_the_same_as_otbtfs(tmp_path):
    theirs = GOLDEN / "patches" / "sel_qb_split_s16_p16_geojson_train.geojson"
    write_points(read_points(theirs), tmp_path / "ours.geojson")
    assert json.loads((tmp_path / "ours.geojson").read_text()) == json.loads(theirs.read_text())


# What OTBTF's sources say, where its outputs are absent


def test_upstream_vectors():
    """3 x 3 grid of OTBTF's own test (test/data/vector_*.geojson), 50 / 25 / 25."""
    found = otbtf_selection(flat(13, 13), patch_size=3, step=4, strategy="split")
    assert [list(found[split].ids) for split in SPLITS] == [[0, 3, 4, 7, 8], [1, 5], [2, 6]]


@pytest.mark.parametrize(
    ("count", "first", "digest"),
    [(11, [3, 0, 4, 10], 63640922), (361, None, 104822956), (46341, None, 670219088)],
)
def test_shuffle_is_libstdcxxs(count, first, digest):
    """Against std::shuffle of g++ 12 on 0, 1, 2 …; the last is too long for its two swaps a number."""
    items = list(range(count))
    _shuffle(items)
    value = 0
    for item in items:
        value = (value * 1000003 + item) % 1000000007
    assert value == digest
    assert first is None or items[: len(first)] == first


def test_labels_follow_quotas():
    assert "".join("TVS"[i] for i in labels(8, DEFAULTS, False)) == "TVSTTVST"
    assert "".join("TVS"[i] for i in labels(6, (50, 25, 0), False)) == "TVTTVT"
    mixed = labels(400, DEFAULTS, True)
    assert list(np.bincount(mixed)) == [200, 100, 100]
    assert list(mixed[:8]) != list(labels(8, DEFAULTS, False))


def test_otbtf_nodata_means_all_bands_and_mask_means_one():
    image = flat(40, 40)
    image.pixels[0, 10, 10] = 0  # one band only
    kwargs = {"patch_size": 8, "step": 4, "strategy": "all"}
    whole = otbtf_selection(image, **kwargs)["train"]
    assert len(otbtf_selection(image, nodata=0, **kwargs)["train"]) == len(whole)
    image.pixels[1, 10, 10] = 0
    assert len(otbtf_selection(image, nodata=0, **kwargs)["train"]) < len(whole)
    mask = ArrayImage(np.full((1, 40, 40), 255, np.uint8), image.grid)
    assert len(otbtf_selection(image, mask=mask, **kwargs)["train"]) == 0
    mask.pixels[:, :20] = 1
    half = otbtf_selection(image, mask=mask, **kwargs)["train"]
    assert 0 < len(half) < len(whole)


def test_otbtf_reads_strips(monkeypatch):
    image = flat(60, 200)
    image.pixels[:, 90:100, 20:30] = 0
    once = otbtf_selection(image, patch_size=8, step=4, strategy="all", nodata=0)["train"]
    image.windows.clear()
    monkeypatch.setattr(validity, "STRIP", 60 * 20 * 2 * 4)
    again = otbtf_selection(image, patch_size=8, step=4, strategy="all", nodata=0)["train"]
    np.testing.assert_array_equal(once.y, again.y)
    assert max(w.height for w in image.windows) == 17  # four rows of windows of 9
    assert len(image.windows) > 10


def golden_arguments(name: str) -> dict:
    given = run(name)["args"]
    return {
        "patch_size": given["grid.psize"],
        "step": given["grid.step"],
        "strategy": given["strategy"],
        "proportions": [given.get(f"strategy.split.{s}prop", p) for s, p in zip(SPLITS, DEFAULTS, strict=True)],
        "random": given.get("strategy.split.random") == "true",
        "offset": (given.get("grid.offsetx", 0), given.get("grid.offsety", 0)),
        "mask": golden_image(given["mask"]) if "mask" in given else None,
        "nodata": given.get("nodata"),
        "outputs": [split for split in SPLITS if f"out{split}" in given],
    }


def test_engine_otb_gives_otbtf_its_parameters(monkeypatch):
    """OTBTF is replaced by what it would write: the parameters must say all that it needs."""
    image = flat(60, 50)
    mask = ArrayImage(np.ones((1, 50, 60), np.uint8), image.grid)
    asked = []

    def application(image, mask, parameters):
        asked.append(dict(parameters))
        x = image.grid.x + np.arange(3) / 3
        for number, split in enumerate(SPLITS):
            if f"out{split}" in parameters:
                write_points(Points(x, x, np.arange(3) + 10 * number, image.grid.crs), parameters[f"out{split}"])

    monkeypatch.setattr(otb, "otbtf_patches_selection", application)
    given = {"patch_size": 8, "step": 4, "offset": (1, 2), "engine": "otb"}
    found = otbtf_selection(
        image, strategy="split", proportions=(80, 10, 10), random=True, nodata=0, mask=mask, **given
    )
    assert [list(found[split].ids) for split in SPLITS] == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    np.testing.assert_array_equal(found["test"].x, image.grid.x + np.arange(3) / 3)
    assert {key: value for key, value in asked[0].items() if not key.startswith("out")} == {
        "grid.psize": 8,
        "grid.step": 4,
        "grid.offsetx": 1,
        "grid.offsety": 2,
        "strategy": "split",
        "strategy.split.trainprop": 80,
        "strategy.split.validprop": 10,
        "strategy.split.testprop": 10,
        "strategy.split.random": True,
        "nodata": 0,
    }
    assert list(otbtf_selection(image, strategy="chessboard", **given)) == ["train", "valid"]
    assert "nodata" not in asked[1]
    assert not any(key.startswith(("strategy.", "outtest")) for key in asked[1])
    assert not Path(asked[0]["outtrain"]).exists()


@pytest.mark.skipif(otb.otbtf_available(), reason="OTBTF is there")
def test_engine_otb_without_otbtf_says_how_to_get_it():
    with pytest.raises(MissingPackageError, match=r"orfeo-toolbox\.org|mdl4eo/otbtf"):
        otbtf_selection(flat(60, 50), patch_size=8, step=4, engine="otb")


@pytest.mark.otb("PatchesSelection")
@pytest.mark.parametrize("name", runs("sel_"))
def test_engines_agree(name):
    if "southup" in name:
        pytest.skip("an input that the engines do not take")
    image, given = golden_image(run(name)["args"]["in"]), golden_arguments(name)
    native, real = (otbtf_selection(image, engine=engine, **given) for engine in ("native", "otb"))
    for split, points in native.items():
        np.testing.assert_array_equal(points.ids, real[split].ids)
        np.testing.assert_array_equal(points.x, real[split].x)
        np.testing.assert_array_equal(points.y, real[split].y)


# Points on disk


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg"])
def test_points_come_back_bit_for_bit(tmp_path, suffix):
    random = np.random.default_rng(0)
    points = Points(random.uniform(3e5, 4e5, 50), random.uniform(4e6, 5e6, 50), np.arange(50) * 3, CRS.from_epsg(32631))
    write_points(points, tmp_path / f"points{suffix}")
    found = read_points(tmp_path / f"points{suffix}")
    for ours, theirs in ((points.x, found.x), (points.y, found.y), (points.ids, found.ids)):
        np.testing.assert_array_equal(ours, theirs)
    assert found.crs == points.crs
    assert [path.name for path in tmp_path.iterdir()] == [f"points{suffix}"]


def test_no_points_come_back_as_none(tmp_path):
    none = np.empty(0)
    write_points(Points(none, none, none.astype(int)), tmp_path / "none.geojson")
    assert len(read_points(tmp_path / "none.geojson")) == 0


def test_bad_points(tmp_path):
    points = Points(np.zeros(1), np.zeros(1), np.zeros(1, int))
    with pytest.raises(OutputError, match=r"\.geojson or \.gpkg"):
        write_points(points, tmp_path / "points.csv")
    write_points(points, tmp_path / "points.geojson")
    with pytest.raises(InputError, match="no field 'class'; it has id"):
        read_points(tmp_path / "points.geojson", "class")
    with pytest.raises(InputError, match="cannot be read as a vector file"):
        read_points(tmp_path / "absent.gpkg")
    text = (tmp_path / "points.geojson").read_text()
    (tmp_path / "line.geojson").write_text(
        text.replace('"Point", "coordinates": [0.0, 0.0]', '"LineString", "coordinates": [[0, 0], [1, 1]]')
    )
    with pytest.raises(InputError, match="other geometries than points"):
        read_points(tmp_path / "line.geojson")
    (tmp_path / "words.geojson").write_text(text.replace('{"id": 0}', '{"id": "forest"}'))
    with pytest.raises(InputError, match="must hold a number"):
        read_points(tmp_path / "words.geojson")


# The right way


@pytest.mark.parametrize("strategy", ["split", "chessboard"])
@pytest.mark.parametrize(("step", "buffer"), [(8, 5), (4, 3), (8, 0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_ground_is_shared_between_splits(strategy, step, buffer, seed):
    """Nor within the buffer: two interpolations that reach so far see no pixel of the other's split."""
    image = flat(203, 187, 1)
    chosen = select_patches(image, patch_size=8, step=step, strategy=strategy, buffer=buffer, seed=seed)
    seen = [covered(chosen, split, buffer) > 0 for split in SPLITS]
    assert sum(s.any() for s in seen) == {"split": 3, "chessboard": 2}[strategy]
    assert np.sum(seen, axis=0).max() == 1
    assert len(chosen) + chosen.across + chosen.invalid == (195 // step + 1) * (179 // step + 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("patch", "proportions"), [(16, (0.6, 0.2, 0.2)), (32, (0.8, 0.1, 0.1))])
def test_shares_are_held(patch, proportions, seed):
    """Of the patches that are left, though small splits lose more of theirs at the borders of their blocks."""
    side = patch * 40
    chosen = select_patches(flat(side, side, 1), patch_size=patch, proportions=proportions, seed=seed)
    shares = np.array([chosen.counts[split] for split in SPLITS]) / len(chosen)
    assert shares == pytest.approx(proportions, abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_shares_are_of_patches_not_of_ground(seed):
    """Three quarters of the image are nodata; each split still gets its part of what is left."""
    image = flat(400, 400, 1)
    image.pixels[:, :, 100:] = 0
    chosen = select_patches(image, patch_size=8, proportions=(0.6, 0.2, 0.2), seed=seed, buffer=2)
    shares = np.array([chosen.counts[split] for split in SPLITS]) / len(chosen)
    assert shares == pytest.approx((0.6, 0.2, 0.2), abs=0.08)


def test_seed_decides_the_blocks():
    first, again, other = (select_patches(flat(160, 160, 1), patch_size=8, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.splits, again.splits)
    assert first.splits.shape != other.splits.shape or (first.splits != other.splits).any()


def test_chessboard_takes_turns_and_all_takes_all():
    board = select_patches(flat(192, 192, 1), patch_size=8, strategy="chessboard", block_size=4, buffer=2)
    assert board.counts["train"] == pytest.approx(board.counts["valid"], abs=2)
    assert board.counts["test"] == 0
    image = flat(160, 160, 1)
    everything = select_patches(image, patch_size=8, strategy="all", proportions=(9, 9, 9))
    assert everything.counts == {"train": 400, "valid": 0, "test": 0}
    np.testing.assert_array_equal(everything.corners[:21], [*((0, 8 * i) for i in range(20)), (8, 0)])


@pytest.mark.parametrize("value", [0, np.nan])
def test_every_pixel_of_a_patch_has_every_band(value):
    random = np.random.default_rng(1)
    image = flat(120, 110)
    bad = random.random((2, 110, 120)) < 0.004
    image.pixels[bad] = value
    chosen = select_patches(image, patch_size=7, step=3, strategy="all")
    good = ~bad.any(axis=0)
    wanted = [(r, c) for r in range(0, 104, 3) for c in range(0, 114, 3) if good[r : r + 7, c : c + 7].all()]
    np.testing.assert_array_equal(chosen.corners, wanted)
    assert 0 < chosen.invalid == 35 * 38 - len(wanted)


def test_nodata_can_be_said():
    image = flat(40, 40, nodata=None)
    image.pixels[:, 5, 5] = 9
    assert len(select_patches(image, patch_size=10, strategy="all")) == 16
    assert len(select_patches(image, patch_size=10, strategy="all", nodata=9)) == 15


def test_patches_lie_inside_the_mask():
    mask = ArrayImage(np.zeros((1, 60, 80), np.uint8), utm(80, 60, 6), 7)
    mask.pixels[0, 10:50, 15:70] = 255
    mask.pixels[0, 30, 30] = 7
    chosen = select_patches(flat(80, 60), patch_size=6, step=2, strategy="all", mask=mask)
    assert (chosen.corners >= (10, 16)).all()
    assert (chosen.corners.max(axis=0) == (44, 64)).all()
    seen = covered(chosen, "train") > 0
    assert not seen[30, 30]
    assert not seen[mask.pixels[0] == 0].any()


def test_a_mask_of_another_size_or_place_is_refused():
    image = flat(40, 40)
    small = ArrayImage(np.ones((1, 40, 30), np.uint8), utm(30, 40, 6))
    for choose in (select_patches, otbtf_selection):
        with pytest.raises(InputError, match=r"has 30 x 40 pixels, but the image has 40 x 40; give a mask on the"):
            choose(image, patch_size=8, step=8, mask=small)
    away = ArrayImage(np.ones((1, 40, 40), np.uint8), utm(40, 40, 6, x=600600))
    with pytest.raises(InputError, match="lies elsewhere"):
        select_patches(image, patch_size=8, mask=away)


def test_an_image_without_a_patch_is_refused():
    with pytest.raises(InputError, match="has 40 x 7 pixels, less than one patch of 8 x 8"):
        select_patches(flat(40, 7), patch_size=8)
    with pytest.raises(InputError, match="less than one patch of 9 x 9"):
        otbtf_selection(flat(40, 8), patch_size=8, step=8)
    nothing = flat(40, 40)
    nothing.pixels[:] = 0
    with pytest.raises(InputError, match="no pixel with a value, so there is nothing"):
        select_patches(nothing, patch_size=8)
    nothing.pixels[:, ::5] = 1
    with pytest.raises(InputError, match="no 8 x 8 pixels without nodata; choose smaller patches"):
        select_patches(nothing, patch_size=8)
    with pytest.raises(InputError, match="no pixel with a value inside the mask"):
        select_patches(flat(40, 40), patch_size=8, mask=ArrayImage(np.zeros((1, 40, 40), np.uint8), utm(40, 40, 6)))


def test_bad_shares_are_refused():
    with pytest.raises(InputError, match=r"sum to 1; they are 0.8, 0.8, 0.1"):
        select_patches(flat(40, 40), patch_size=8, proportions=(0.8, 0.8, 0.1))
    with pytest.raises(InputError, match="positive"):
        select_patches(flat(40, 40), patch_size=8, proportions=(1.5, -0.5, 0))


def test_a_split_without_patches_is_said():
    log = Log()
    chosen = select_patches(flat(16, 16), patch_size=8, progress=log)
    assert chosen.counts["test"] == 0
    assert any("No patch is left for test" in text for text in log.warnings)


def test_strips_give_what_the_whole_gives(monkeypatch):
    random = np.random.default_rng(2)
    image = flat(90, 300)
    image.pixels[:, random.random((300, 90)) < 0.002] = 0
    once = select_patches(image, patch_size=12, step=5)
    image.windows.clear()
    monkeypatch.setattr(validity, "STRIP", 90 * 40 * 2 * 4)
    again = select_patches(image, patch_size=12, step=5)
    np.testing.assert_array_equal(once.corners, again.corners)
    np.testing.assert_array_equal(once.splits, again.splits)
    assert max(w.height for w in image.windows) <= 40
    assert sum(w.height for w in image.windows) < 300 * 1.5


def test_points_of_a_selection_are_the_middles():
    chosen = select_patches(flat(40, 40), patch_size=8, strategy="all")
    points = chosen.points("train")
    assert (points.x[0], points.y[0]) == (600000 + 24, 4900020 - 24)
    assert (points.x[1], points.y[1]) == (600000 + 72, 4900020 - 24)
    assert len(points) == 25
    assert len(chosen.points("valid")) == 0


def test_can_be_cancelled():
    class Stop(Progress):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        select_patches(flat(40, 40), patch_size=8, progress=Stop())
    with pytest.raises(Cancelled):
        otbtf_selection(flat(40, 40), patch_size=8, step=8, nodata=0, progress=Stop())
