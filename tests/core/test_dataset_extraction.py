"""Cutting patches: the same ground from every source; and OTBTF's patches, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from array_image import ArrayImage, utm
from golden_windows import GOLDEN, runs
from otbtf_golden import golden_image, needs_golden, run
from rasterio.crs import CRS

from s2sr_qgis.core.dataset import cutting
from s2sr_qgis.core.dataset.card import SPLITS, PatchCard
from s2sr_qgis.core.dataset.extraction import OtbtfSource, extract_patches, otbtf_extraction, otbtf_patches
from s2sr_qgis.core.dataset.patches import PatchWriter
from s2sr_qgis.core.dataset.points import Points, read_points
from s2sr_qgis.core.dataset.selection import Selection, otbtf_selection, select_patches
from s2sr_qgis.core.errors import Cancelled, InputError, MissingPackageError, OutputError
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster import otb

QUIET = Progress()


def ground(width: int, height: int, spacing: float, x: float = 600000, y: float = 4900020, nodata=None) -> ArrayImage:
    """An image whose two bands are the x and y of its pixels' centres, in metres from (600000, 4900020)."""
    area = utm(width, height, spacing, x, y)
    across = x - 600000 + (np.arange(width) + 0.5) * spacing
    down = 4900020 - y + (np.arange(height) + 0.5) * spacing
    return ArrayImage(np.stack(np.broadcast_arrays(across[None], down[:, None])).astype(np.float32), area, nodata)


class Collector:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, dict[str, np.ndarray]]] = []

    def add(self, split: str, pair: dict[str, np.ndarray]) -> None:
        self.pairs.append((split, {name: patch.copy() for name, patch in pair.items()}))


def everything(image: ArrayImage, size: int = 8, step: int | None = None) -> Selection:
    return select_patches(image, patch_size=size, step=step, strategy="all")


def parts(patch: np.ndarray, ratio: int) -> np.ndarray:
    """Mean of each block of ``ratio`` pixels: the coordinates of coarse pixels from those of fine ones."""
    bands, height, width = patch.shape
    return patch.reshape(bands, height // ratio, ratio, width // ratio, ratio).mean(axis=(2, 4))


# Real OTBTF


def sources_of(found: dict) -> list[OtbtfSource]:
    given = found["args"]
    names = [f"source{n}" for n in range(1, int(found["env"]["OTB_TF_NSOURCES"]) + 1)]
    return [
        OtbtfSource(
            [golden_image(path) for path in given[f"{name}.il"]],
            given[f"{name}.patchsizex"],
            given[f"{name}.patchsizey"],
            given.get(f"{name}.nodata"),
        )
        for name in names
    ]


def outputs_of(found: dict) -> list[tuple[str, str]]:
    """File name and data type of each output; the last one is the labels'."""
    given = found["args"]
    keys = [f"source{n}.out" for n in range(1, int(found["env"]["OTB_TF_NSOURCES"]) + 1)]
    images = [(Path(given[key][0].split("?")[0]).name, (given[key][1:] or ["float32"])[0]) for key in keys]
    return [*images, (Path(given["outlabels"][0]).name, (given["outlabels"][1:] or ["uint8"])[0])]


def assert_same_raster(ours: Path, theirs: Path) -> None:
    with rasterio.open(ours) as one, rasterio.open(theirs) as other:
        assert one.dtypes == other.dtypes
        assert one.transform == other.transform
        assert (one.crs, one.nodata) == (other.crs, other.nodata) == (None, None)
        np.testing.assert_array_equal(one.read(), other.read())


@pytest.mark.parametrize("name", runs("ext_"))
def test_bit_for_bit_as_otbtf(name, tmp_path):
    found = run(name)
    points = read_points(GOLDEN / "patches" / Path(found["args"]["vec"]).name, found["args"]["field"])
    *images, (labels, labels_type) = outputs_of(found)
    count = otbtf_extraction(
        points,
        sources_of(found),
        [tmp_path / file for file, _ in images],
        tmp_path / labels,
        data_type=images[0][1],
        labels_type=labels_type,
    )
    with rasterio.open(GOLDEN / "patches" / labels) as file:
        assert count == file.height
    for file in (*(file for file, _ in images), labels):
        assert_same_raster(tmp_path / file, GOLDEN / "patches" / file)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*(file for file, _ in images), labels])


@needs_golden
def test_nodata_in_one_source_rejects_in_all(tmp_path):
    """A run whose parameters the manifest lacks: train points, two sources, nodata 0 in both."""
    points = read_points(GOLDEN / "patches" / "sel_s2_split_s16_p16_train.geojson")
    fine = OtbtfSource([golden_image("inputs/s2_10m_nonodatatag.tif")], 16, 16, 0)
    coarse = OtbtfSource([golden_image("inputs/s2_20m_nonodatatag.tif")], 8, 8, 0)
    names = [f"ext_s2_s16_p16_2src_nd0_{part}.tif" for part in ("1", "2", "labels")]
    images, labels = [tmp_path / name for name in names[:2]], tmp_path / names[2]
    count = otbtf_extraction(points, [fine, coarse], images, labels, data_type="uint16", labels_type="uint16")
    assert count == 147 < len(points)
    for name in names:
        assert_same_raster(tmp_path / name, GOLDEN / "patches" / name)


@needs_golden
@pytest.mark.parametrize("form", ["geojson", "gpkg", "shp"])
def test_selection_then_extraction_is_otbtfs_chain(form, tmp_path):
    """Points that never were text give the same patches, jitter of 0.6 m pixels and all."""
    image = golden_image("inputs/qb_pan.tif")
    points = otbtf_selection(image, patch_size=16, step=16, strategy="split")["train"]
    name = {"geojson": "ext_qb_s16_p16_pan_1.tif"}.get(form, f"ext_qb_s16_p16_pan_{form}_1.tif")
    otbtf_extraction(points, [OtbtfSource([image], 16, 16)], [tmp_path / name], data_type="int16")
    assert_same_raster(tmp_path / name, GOLDEN / "patches" / name)


# OTBTF's rules, where its outputs are absent


def points_at(*places: tuple[float, float]) -> Points:
    x, y = np.array(places, np.float64).T
    return Points(x, y, np.arange(len(places)) * 100, CRS.from_epsg(32631))


def test_the_nearest_pixel_halves_up():
    image = ground(12, 12, 10)
    inside, corner = (600045, 4900020 - 65), (600050, 4900020 - 70)
    found = [patch[0] for _, patch in otbtf_patches(points_at(inside, corner), [OtbtfSource([image], 2, 2)])]
    assert found[0][:, 0, 0].tolist() == [35, 55]  # pixel (6, 4) is the patch's (1, 1)
    assert found[1][:, 0, 0].tolist() == [45, 65]  # and (7, 5) is the one right of and below a corner


def test_patches_stay_inside_and_keep_their_order():
    image = ground(12, 12, 10)
    places = points_at((600095, 4899925), (600005, 4899925), (600025, 4899995), (600500, 4899925))
    source = OtbtfSource([image], 4, 2)
    found = list(otbtf_patches(places, [source]))
    assert [index for index, _ in found] == [0, 2]
    assert found[0][1][0].shape == (2, 2, 4)
    assert found[0][1][0][:, 1, 2].tolist() == [95, 95]


def test_one_value_of_nodata_is_enough():
    image = ground(12, 12, 10)
    image.pixels[1, 3, 3] = -1
    places = points_at((600025, 4900020 - 25), (600085, 4900020 - 85))
    assert [i for i, _ in otbtf_patches(places, [OtbtfSource([image], 4, 4)])] == [0, 1]
    assert [i for i, _ in otbtf_patches(places, [OtbtfSource([image], 4, 4, -1)])] == [1]


def test_images_of_a_source_are_stacked():
    image = ground(12, 12, 10)
    other = ArrayImage(np.full((1, 12, 12), 7, np.uint8), image.grid)
    patch = next(otbtf_patches(points_at((600055, 4899965)), [OtbtfSource([image, other], 2, 2)]))[1][0]
    assert patch.shape == (3, 2, 2)
    assert (patch[2] == 7).all()
    with pytest.raises(InputError, match=r"has 11 x 12 pixels, but .* has 12 x 12; images of one source"):
        next(otbtf_patches(points_at((600055, 4899965)), [OtbtfSource([image, ground(11, 12, 10)], 2, 2)]))


def test_values_are_clamped_and_cut(tmp_path):
    image = ArrayImage(np.array([-3, 1.9, 70000, 300], np.float32).reshape(1, 2, 2), utm(2, 2, 10))
    places = Points(np.array([600010.0]), np.array([4900010.0]), np.array([300]))
    for data_type, wanted in (
        ("uint16", [0, 1, 65535, 300]),
        ("int16", [-3, 1, 32767, 300]),
        ("uint8", [0, 1, 255, 255]),
    ):
        path, labels = tmp_path / f"{data_type}.tif", tmp_path / f"{data_type}_labels.tif"
        otbtf_extraction(places, [OtbtfSource([image], 2, 2)], [path], labels, data_type=data_type)
        with rasterio.open(path) as file, rasterio.open(labels) as numbers:
            assert file.read().ravel().tolist() == wanted
            assert numbers.read().tolist() == [[[255]]]


def test_points_without_a_patch_leave_nothing(tmp_path):
    source = OtbtfSource([ground(12, 12, 10)], 4, 4)
    with pytest.raises(InputError, match="None of the 1 points gives a patch"):
        otbtf_extraction(points_at((0, 0)), [source], [tmp_path / "a.tif"], tmp_path / "l.tif")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="does not exist"):
        otbtf_extraction(points_at((600055, 4899965)), [source], [tmp_path / "absent" / "a.tif"])


def test_engine_otb_gives_otbtf_its_parameters(monkeypatch, tmp_path):
    """OTBTF is replaced by what it would write: the parameters must say all that it needs."""
    low, high, other = ground(40, 40, 6), ground(160, 160, 1.5), ground(160, 160, 1.5)
    sources = [OtbtfSource([low], 8, 6), OtbtfSource([high, other], 32, 24, -1)]
    places = points_at((600120.1, 4899900.2), (0, 0), (600060.1, 4899960.2))
    asked = []

    def application(stacks, parameters, images, labels):
        asked.append((stacks, dict(parameters)))
        again = [
            OtbtfSource(stack, parameters[f"source{n}.patchsizex"], parameters[f"source{n}.patchsizey"])
            for n, stack in enumerate(stacks, start=1)
        ]
        points = read_points(parameters["vec"], parameters["field"])
        otbtf_extraction(points, again, images, labels, labels_type="int32")

    native = list(otbtf_patches(places, sources))
    monkeypatch.setattr(otb, "otbtf_patches_extraction", application)
    found = list(otbtf_patches(places, sources, engine="otb"))
    assert [index for index, _ in found] == [index for index, _ in native] == [0, 2]
    for (_, ours), (_, theirs) in zip(native, found, strict=True):
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, two)
    stacks, parameters = asked[0]
    assert stacks == [[low], [high, other]]
    assert not Path(parameters.pop("vec")).exists()
    assert parameters == {
        "field": "id",
        "source1.patchsizex": 8,
        "source1.patchsizey": 6,
        "source2.patchsizex": 32,
        "source2.patchsizey": 24,
        "source2.nodata": -1,
    }
    count = otbtf_extraction(
        places, sources, [tmp_path / "1.tif", tmp_path / "2.tif"], tmp_path / "l.tif", engine="otb"
    )
    with rasterio.open(tmp_path / "l.tif") as file:
        assert count == 2
        assert file.read().ravel().tolist() == [0, 200]


def test_otbtf_is_run_with_its_own_names(monkeypatch, tmp_path):
    class App:
        def write(self, outputs, pixel_type):
            asked.append((outputs, pixel_type))
            return True

    asked = []
    monkeypatch.setattr(otb, "run_application", lambda *arguments: asked.append(arguments) or App())
    low, high, labels = ground(9, 9, 6), ground(36, 36, 1.5), tmp_path / "labels.tif"
    otb.otbtf_patches_selection(low, None, {"outtrain": "train.geojson"})
    otb.otbtf_patches_selection(low, low, {"grid.step": 4})
    otb.otbtf_patches_extraction(
        [[low], [high, high]], {"field": "id"}, [tmp_path / "1.tif", tmp_path / "2.tif"], labels
    )
    assert [(call[0], sorted(call[1])) for call in asked[:3]] == [
        ("PatchesSelection", ["in", "outtrain"]),
        ("PatchesSelection", ["grid.step", "in", "mask"]),
        ("PatchesExtraction", ["field", "source1.il", "source2.il"]),
    ]
    assert len(asked[2][1]["source2.il"]) == 2
    assert asked[2][2] == 2
    outputs, types = asked[3]
    wanted = {"source1.out": "1.tif", "source2.out": "2.tif", "outlabels": "labels.tif"}
    assert outputs == {key: str(tmp_path / name) for key, name in wanted.items()}
    assert types == {"source1.out": "float", "source2.out": "float", "outlabels": "int32"}


@pytest.mark.skipif(otb.otbtf_available(), reason="OTBTF is there")
def test_engine_otb_without_otbtf_says_how_to_get_it(tmp_path):
    with pytest.raises(MissingPackageError, match=r"orfeo-toolbox\.org|mdl4eo/otbtf"):
        otbtf_extraction(points_at((0, 0)), [OtbtfSource([ground(9, 9, 6)], 2, 2)], [tmp_path / "a.tif"], engine="otb")
    assert not list(tmp_path.iterdir())


@pytest.mark.otb("PatchesExtraction")
@pytest.mark.parametrize("name", runs("ext_"))
def test_engines_agree(name):
    if "southup" in name:
        pytest.skip("an input that the engines do not take")
    found = run(name)
    points = read_points(GOLDEN / "patches" / Path(found["args"]["vec"]).name, found["args"]["field"])
    native, real = (list(otbtf_patches(points, sources_of(found), engine=engine)) for engine in ("native", "otb"))
    assert [index for index, _ in native] == [index for index, _ in real]
    for (_, ours), (_, theirs) in zip(native, real, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


# The right way


@pytest.mark.parametrize("ratio", [1, 2, 4, 5])
@pytest.mark.parametrize("step", [8, 3])
def test_low_and_high_resolution_cover_the_same_ground(ratio, step):
    low = ground(50, 41, 6)
    high = ground(50 * ratio, 41 * ratio, 6 / ratio)
    chosen = everything(low, step=step)
    writer = Collector()
    done = extract_patches(chosen, {"input_lr": low, "target": high}, writer, QUIET)
    assert done.counts["train"] == len(writer.pairs) == len(chosen)
    for (_, pair), (row, column) in zip(writer.pairs, chosen.corners, strict=True):
        assert pair["input_lr"].shape == (2, 8, 8)
        assert pair["target"].shape == (2, 8 * ratio, 8 * ratio)
        assert pair["input_lr"][:, 0, 0].tolist() == [column * 6 + 3, row * 6 + 3]
        np.testing.assert_allclose(parts(pair["target"], ratio), pair["input_lr"], atol=1e-3)


def test_a_finer_image_may_begin_elsewhere():
    low = ground(50, 40, 6)
    high = ground(120, 100, 1.5, x=600000 + 9 * 6 + 1.5, y=4900020 - 3 * 6 - 3)  # 37, 14 pixels in
    chosen = everything(low)
    writer = Collector()
    done = extract_patches(chosen, {"input_lr": low, "target": high}, writer, QUIET)
    assert done.outside == len(chosen) - len(writer.pairs) > 0
    assert [tuple(pair["input_lr"][:, 0, 0]) for _, pair in writer.pairs] == [
        (column * 6 + 3, row * 6 + 3) for row in (8, 16) for column in (16, 24)
    ]
    for _, pair in writer.pairs:
        np.testing.assert_allclose(parts(pair["target"], 4), pair["input_lr"], atol=1e-3)


def test_splits_go_with_the_patches():
    low = ground(160, 160, 6)
    chosen = select_patches(low, patch_size=8, proportions=(0.6, 0.2, 0.2))
    writer = Collector()
    done = extract_patches(chosen, {"input_lr": low}, writer, QUIET)
    assert done.counts == chosen.counts
    assert [split for split, _ in writer.pairs] == [SPLITS[i] for i in chosen.splits]


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_nodata_in_any_source_rejects_the_pair(value):
    low, high = ground(40, 40, 6, nodata=-1), ground(160, 160, 1.5, nodata=-1)
    chosen = everything(low)
    low.pixels[0, 3, 3] = value
    high.pixels[1, 4 * 8 + 5, 4 * 16 + 1] = value
    writer = Collector()
    done = extract_patches(chosen, {"input_lr": low, "target": high}, writer, QUIET)
    assert (done.nodata, done.counts["train"]) == (2, 23)
    kept = [tuple(pair["input_lr"][:, 0, 0]) for _, pair in writer.pairs]
    assert (3.0, 3.0) not in kept
    assert (16 * 6 + 3.0, 8 * 6 + 3.0) not in kept


def test_the_whole_way_to_patch_images(tmp_path):
    low, high = ground(40, 40, 6), ground(160, 160, 1.5)
    tensors = [
        PatchCard(name="input_lr", bands=["B04", "B03"], resolution=6, size=8),
        PatchCard(name="target", bands=["B04", "B03"], resolution=1.5, size=32),
    ]
    with PatchWriter(tmp_path, tensors) as writer:
        extract_patches(everything(low), {"input_lr": low, "target": high}, writer, QUIET)
        writer.finish(6, QUIET)
    with rasterio.open(tmp_path / "train_target.tif") as file:
        assert (file.width, file.height, file.count) == (32, 25 * 32, 2)
        assert file.read(1)[32, 0] == 8 * 6 + 0.75


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ground(40, 40, 4), r"pixels of target \(4\) do not fit a whole number of times into .* \(6\)"),
        (ground(40, 40, 1.5001), "do not fit a whole number of times"),
        (ground(40, 40, 12), "do not fit a whole number of times"),
        (ground(160, 160, 1.5, x=600000.75), "target lies 0.500, 0.000 of its pixels off"),
        (ground(160, 160, 1.5, x=699999), "None of the 25 patches can be cut: 25 lie beyond the edge of"),
    ],
)
def test_what_does_not_fit_is_refused(other, message):
    low = ground(40, 40, 6)
    with pytest.raises(InputError, match=message):
        extract_patches(everything(low), {"input_lr": low, "target": other}, Collector(), QUIET)


def test_another_crs_is_refused():
    low, high = ground(40, 40, 6), ground(160, 160, 1.5)
    high.grid = replace(high.grid, crs=CRS.from_epsg(32632))
    with pytest.raises(InputError, match="target is in another CRS"):
        extract_patches(everything(low), {"input_lr": low, "target": high}, Collector(), QUIET)


def test_all_nodata_is_refused():
    low, high = ground(40, 40, 6), ground(160, 160, 1.5, nodata=0)
    high.pixels[:] = 0
    with pytest.raises(InputError, match="0 lie beyond the edge of input_lr or target, 25 have nodata there"):
        extract_patches(everything(low), {"input_lr": low, "target": high}, Collector(), QUIET)


# Reading


def test_reads_are_bounded_and_few(monkeypatch):
    low, high = ground(200, 400, 6), ground(800, 1600, 1.5)
    chosen = everything(low)
    low.windows.clear()
    bound = 2 * 4 * (200 * 40 + 800 * 160)  # five rows of patches
    monkeypatch.setattr(cutting, "AT_ONCE", bound)
    writer = Collector()
    extract_patches(chosen, {"input_lr": low, "target": high}, writer, QUIET)
    assert len(writer.pairs) == len(chosen) == 25 * 50
    assert [w.height for w in high.windows] == [160] * 10
    pairs = zip(low.windows, high.windows, strict=True)
    assert all(8 * (a.width * a.height + b.width * b.height) <= bound for a, b in pairs)
    monkeypatch.setattr(cutting, "AT_ONCE", 8 * (80 * 8 + 320 * 32))  # less than one row
    high.windows.clear()
    again = Collector()
    extract_patches(chosen, {"input_lr": low, "target": high}, again, QUIET)
    assert {(w.width, w.height) for w in high.windows} <= {(320, 32), (160, 32)}
    for (_, one), (_, other) in zip(writer.pairs, again.pairs, strict=True):
        np.testing.assert_array_equal(one["target"], other["target"])


def test_far_points_are_read_alone():
    image = ground(1000, 1000, 10)
    places = points_at((600055, 4899965), (609905, 4890165), (600055, 4890165))
    assert len(list(otbtf_patches(places, [OtbtfSource([image], 4, 4)]))) == 3
    assert {(w.width, w.height) for w in image.windows} == {(4, 4)}


def test_can_be_cancelled(tmp_path):
    class Stop(Progress):
        def cancelled(self) -> bool:
            return True

    low = ground(40, 40, 6)
    with pytest.raises(Cancelled):
        extract_patches(everything(low), {"input_lr": low}, Collector(), Stop())
    with pytest.raises(Cancelled):
        otbtf_extraction(
            points_at((600055, 4899965)), [OtbtfSource([low], 2, 2)], [tmp_path / "a.tif"], progress=Stop()
        )
    assert not list(tmp_path.iterdir())
