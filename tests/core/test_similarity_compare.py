"""The job `similarity`: two rasters as one pair, block by block, and what comes out of it."""

from __future__ import annotations

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.warp import transform

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import Cancelled, InputError, OutputError
from s2sr_qgis.core.progress import Level, Progress
from s2sr_qgis.core.raster.grid import Window
from s2sr_qgis.core.similarity import comparison
from s2sr_qgis.core.similarity.comparison import blocks, in_threads
from s2sr_qgis.core.similarity.measures import catalogue, measure
from s2sr_qgis.core.similarity.window import local_map

HEIGHT, WIDTH = 90, 130
NAMES = ("B02", "B03", "B04", "B8A")


def place(right: float = 0, down: float = 0, pixel: float = 10) -> Affine:
    """A grid whose corner lies that many of the reference's pixels from the reference's."""
    return Affine(pixel, 0, 600000 + 10 * right, 0, -pixel, 5400000 - 10 * down)


PLACE = place()


class Told(Progress):
    """Remembers what it was told; `stop_at`: percent from which on it cancels."""

    def __init__(self, stop_at: float = math.inf) -> None:
        self.texts: dict[str, list[str]] = {"info": [], "warning": [], "debug": []}
        self.artifacts: list[str] = []
        self.percent, self.stop_at = 0.0, stop_at

    def progress(self, percent: float, text: str = "") -> None:
        assert percent >= self.percent
        self.percent = percent

    def log(self, text: str, level: Level = "info") -> None:
        self.texts[level].append(text)

    def artifact(self, name: str, path: str) -> None:
        assert Path(path).is_file()
        self.artifacts.append(name)

    def cancelled(self) -> bool:
        return self.percent >= self.stop_at


def write(path: Path, pixels: np.ndarray, names: tuple[str, ...] | None = NAMES, **options: Any) -> Path:
    profile = {"driver": "GTiff", "crs": "EPSG:32633", "transform": PLACE, "count": len(pixels), "dtype": pixels.dtype}
    profile |= {"height": pixels.shape[1], "width": pixels.shape[2]}
    scale, offset = options.pop("scale", None), options.pop("offset", None)
    with rasterio.open(path, "w", **(profile | options)) as file:
        file.write(pixels)
        if names:
            file.descriptions = names
        if scale:
            file.scales = [scale] * len(pixels)
            file.offsets = [offset or 0.0] * len(pixels)
    return path


def scene(seed: int = 5, noise: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """Four bands of fields and a noisy copy, uint16."""
    rng = np.random.default_rng(seed)
    fields = rng.uniform(400, 5000, (4, 9, 13)).repeat(10, axis=1).repeat(10, axis=2)
    x = fields + rng.normal(0, 200, fields.shape)
    return tuple(np.clip(image, 1, 60000).astype(np.uint16) for image in (x, x + rng.normal(0, noise, x.shape)))


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    return scene()


@pytest.fixture
def pair(tmp_path: Path, images: tuple[np.ndarray, np.ndarray]) -> tuple[Path, Path]:
    return write(tmp_path / "reference.tif", images[0]), write(tmp_path / "image.tif", images[1])


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "BLOCK_UNIT", 32)
    monkeypatch.setattr(comparison, "BLOCK_PIXELS", 4 * 33**2)


def compare(pair: tuple[Path, Path], progress: Progress | None = None, **options: Any) -> dict[str, Any]:
    return jobs.run(jobs.SimilarityJob(reference=str(pair[0]), image=str(pair[1]), **options), progress)


def refusal(pair: tuple[Path, Path], **options: Any) -> str:
    with pytest.raises((InputError, OutputError)) as caught:
        compare(pair, **options)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    return str(caught.value)


def rmse(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt(np.square(x.astype(float) - y).mean(axis=(-2, -1))).mean())


def test_the_figures_are_those_in_memory(pair, images, small_blocks) -> None:
    done = compare(pair, threads=2)
    wanted = measure(*images, data_range=10000.0)
    assert list(done["measures"]) == list(wanted) == list(catalogue())
    for name, score in wanted.items():
        entry = done["measures"][name]
        assert entry["total"] == done[name] == pytest.approx(score.total, rel=1e-9), name
        if score.bands is None:
            assert entry["bands"] is None
        else:
            assert entry["bands"] == pytest.approx(dict(zip(NAMES, score.bands, strict=True)), rel=1e-9), name
    assert done["rmse"] == pytest.approx(rmse(*images), rel=1e-12)
    assert done["pixels"] == HEIGHT * WIDTH
    assert done["bands"] == list(NAMES)
    assert done["shift"] == pytest.approx([0, 0], abs=0.1)
    assert (done["measures"]["sam"]["unit"], done["measures"]["psnr"]["unit"]) == ("°", "dB")


def test_threads_and_files_in_strips_change_nothing(pair, images, tmp_path, small_blocks) -> None:
    one, three = (compare(pair, threads=threads) for threads in (1, 3))
    assert one == three, "to the last bit"
    tiled = (
        write(tmp_path / "tiled.tif", images[0], tiled=True, blockxsize=64, blockysize=64, compress="deflate"),
        write(tmp_path / "deflated.tif", images[1], compress="deflate", blockysize=1),
    )
    other = compare(tiled, threads=2)
    assert {name: other[name] for name in one["measures"]} == {name: one[name] for name in one["measures"]}


@pytest.mark.parametrize("bands", [1, 6, 13, 300])
@pytest.mark.parametrize("flat", [False, True])
def test_blocks_cover_every_pixel_once_and_are_bounded(bands: int, flat: bool) -> None:
    count = np.zeros((1500, 2100), int)
    for window in blocks(1500, 2100, bands, flat):
        assert window.row % comparison.BLOCK_UNIT == window.col % comparison.BLOCK_UNIT == 0
        assert window.width * window.height * bands <= max(comparison.BLOCK_PIXELS, bands * comparison.BLOCK_UNIT**2)
        count[window.row : window.row + window.height, window.col : window.col + window.width] += 1
    assert (count == 1).all()


def test_only_the_measures_asked_for_in_the_catalogues_order(pair) -> None:
    done = compare(pair, measures=["uiq", "rmse"])
    assert list(done["measures"]) == ["rmse", "uiq"]
    assert done["shift"] is None
    assert "psnr" not in done


def test_up42_is_another_formula_and_says_what_it_has(pair, images) -> None:
    done = compare(pair, measures=["rmse", "sre"], definition="up42")
    assert done["rmse"] == pytest.approx(rmse(*images) / 10000)
    assert done["measures"]["rmse"]["unit"] == "data ranges"
    sentence = refusal(pair, measures=["ergas"], definition="up42")
    assert "'ergas' has no definition 'up42'" in sentence
    assert "rmse, psnr, ssim" in sentence
    assert "q2n" not in sentence
    with pytest.raises(InputError, match="There is no measure 'beauty'; choose of rmse, psnr"):
        comparison.chosen(["beauty"], "reference")


def test_equal_images_give_json_without_infinity(pair, tmp_path) -> None:
    told = Told()
    done = compare((pair[0], pair[0]), told, json_file=tmp_path / "o.json")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    read = json.loads((tmp_path / "o.json").read_text(), parse_constant=refuse)
    assert read == {name: value for name, value in done.items() if name != "json_file"}
    assert read["measures"]["psnr"] == {
        "title": "PSNR", "total": None, "bands": dict.fromkeys(NAMES), "unit": "dB",
        "note": "infinite where the images are equal",
    }  # fmt: skip
    assert (read["rmse"], read["psnr"], read["sre"], read["ssim"], read["uiq"]) == (0, None, None, 1, 1)
    assert read["shift"] == [0, 0]
    assert "note" not in read["measures"]["rmse"]
    assert told.artifacts == ["json_file"]
    assert told.percent == 100


def test_bands_belong_together_by_name(pair, images, tmp_path) -> None:
    turned = write(tmp_path / "turned.tif", images[1][::-1], ("B8A narrow", "b4", "B3", "Band B02 (490 nm)"))
    assert compare((pair[0], turned), measures=["rmse"]) == {
        **compare(pair, measures=["rmse"]), "image": str(turned)
    }  # fmt: skip
    chosen = compare((pair[0], turned), measures=["rmse"], bands=["b8a", "1", "B8A"])
    assert chosen["bands"] == ["B8A", "B02"]
    assert chosen["rmse"] == pytest.approx(rmse(images[0][[3, 0]], images[1][[3, 0]]))
    red, green = (write(tmp_path / f"{n}.tif", i[:2], n) for n, i in ((("r", "g"), images[0]), (("g", "r"), images[1])))
    assert compare((red, green), measures=["rmse"])["rmse"] == pytest.approx(rmse(images[0][:2], images[1][1::-1]))


def test_bands_without_names_belong_together_by_position(pair, images, tmp_path) -> None:
    plain = write(tmp_path / "plain.tif", images[1], None)
    assert compare((pair[0], plain), measures=["rmse"])["rmse"] == pytest.approx(rmse(*images))
    third = compare((plain, plain), measures=["rmse", "sam"], bands=["3"])
    assert third["bands"] == ["3"]
    fewer = write(tmp_path / "fewer.tif", images[1][:3], None)
    assert compare((pair[0], fewer), measures=["rmse"], bands=["B03"])["rmse"] == pytest.approx(
        rmse(images[0][1], images[1][1])
    )
    assert "has 4 bands and" in refusal((plain, fewer))
    assert "by number" in refusal((plain, fewer))
    assert "has 3 bands, but band 4 is asked for" in refusal((plain, fewer), bands=["4"])
    assert "has 4 bands, but band 9 is asked for" in refusal((plain, fewer), bands=["9"])
    assert "has no band red" in refusal((plain, fewer), bands=["red"])


def test_bands_that_one_image_lacks(pair, images, tmp_path) -> None:
    other = write(tmp_path / "other.tif", images[1][1:], ("B03", "B04", "B11"))
    told = Told()
    done = compare((pair[0], other), told, measures=["rmse"])
    assert done["bands"] == ["B03", "B04"]
    assert told.texts["warning"] == ["Only one of the images has B02, B8A, B11; left out."]
    assert "has no band B02; it has B03, B04, B11." in refusal((pair[0], other), bands=["B02"])
    assert "reference.tif has no band B12; it has B02" in refusal(pair, bands=["B12"])
    none = write(tmp_path / "none.tif", images[1][:1], ("B12",))
    assert "no band in common" in refusal((pair[0], none))


def test_differing_grids_are_refused_with_both_printed(pair, images, tmp_path) -> None:
    for name, options in (
        ("moved", {"transform": place(0.5, 0)}),
        ("coarse", {"transform": place(pixel=20)}),
        ("elsewhere", {"crs": "EPSG:32632"}),
        ("nowhere", {"crs": None}),
    ):
        other = write(tmp_path / f"{name}.tif", images[1], **options)
        sentence = refusal((pair[0], other))
        assert "reference.tif is EPSG:32633, corner 600000 5400000, pixels of 10 x 10, 130 x 90 pixels" in sentence
        assert f"{name}.tif is " in sentence
        assert "--resample" in sentence
    assert "no CRS" in sentence
    assert "coordinate reference system" in refusal((pair[0], other), resample="bicubic")
    rounded = write(tmp_path / "rounded.tif", images[1], transform=place(1e-5, 0))
    assert compare((pair[0], rounded), measures=["rmse"])["rmse"] == pytest.approx(rmse(*images))


def test_resampling_brings_the_image_to_the_references_grid(pair, images, tmp_path, small_blocks) -> None:
    moved = write(tmp_path / "moved.tif", images[1][:, 5:, 7:], transform=place(7, 5))
    done = compare((pair[0], moved), measures=["rmse"], resample="nearest", threads=2)
    assert done["rmse"] == pytest.approx(rmse(images[0][:, 5:, 7:], images[1][:, 5:, 7:]))
    assert done["pixels"] == (HEIGHT - 5) * (WIDTH - 7)
    half = images[0].reshape(4, 45, 2, 65, 2).mean(axis=(2, 4)).astype(np.float32)
    coarse = write(tmp_path / "coarse.tif", half, transform=place(pixel=20))
    linear, cubic = (compare((pair[0], coarse), resample=how, measures=["rmse"]) for how in ("linear", "bicubic"))
    assert 50 < cubic["rmse"] < linear["rmse"] < 500
    assert cubic["pixels"] == HEIGHT * WIDTH


def test_resampling_from_another_crs_and_beside_nodata(tmp_path) -> None:
    def surface(x: Any, y: Any) -> np.ndarray:
        """A plane over the ground of UTM zone 33."""
        return (5 + (np.asarray(x) - 600000) / 10 + (5400000 - np.asarray(y)) / 20).astype(np.float32)

    rows, cols = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    reference = write(tmp_path / "r.tif", surface(600000 + 10 * cols, 5400000 - 10 * rows)[None], None)
    (x,), (y,) = transform("EPSG:32633", "EPSG:32632", [600650], [5399550])
    grid = Affine(10, 0, round(x / 10) * 10 - 1200, 0, -10, round(y / 10) * 10 + 1000)
    rows, cols = np.mgrid[:200, :240] + 0.5
    there = transform("EPSG:32632", "EPSG:32633", (grid.c + 10 * cols).ravel(), (grid.f - 10 * rows).ravel())
    west = surface(*there).reshape(1, 200, 240)
    west[:, 95:105, 110:120] = -9999
    image = write(tmp_path / "w.tif", west, None, crs="EPSG:32632", transform=grid, nodata=-9999)
    done = compare((reference, image), measures=["rmse", "uiq"], resample="linear")
    assert done["rmse"] < 0.1
    assert HEIGHT * WIDTH - 200 < done["pixels"] < HEIGHT * WIDTH - 80


def test_mask_nodata_and_nan_exclude(pair, images, tmp_path, small_blocks) -> None:
    x, y = (image.astype(np.float32) for image in images)
    holes = np.zeros((HEIGHT, WIDTH), bool)
    holes[3:9, 30:60] = holes[40:50, 100:] = True
    spoiled = y.copy()
    spoiled[:, 3:9, 30:60] = np.nan
    spoiled[2, 40:50, 100:] = 65000
    reference = x.copy()
    reference[:, 80:, :10] = -1
    files = (write(tmp_path / "x.tif", reference, nodata=-1), write(tmp_path / "y.tif", spoiled, nodata=65000))
    done = compare(files, data_range=10000.0)
    valid = np.ones(x.shape, bool)
    valid[:, 3:9, 30:60] = valid[2, 40:50, 100:] = valid[:, 80:, :10] = False
    wanted = measure(x, y, data_range=10000.0, mask=valid)
    assert {n: done[n] for n in wanted} == pytest.approx({n: s.total for n, s in wanted.items()}, rel=1e-9)
    assert done["pixels"] == valid.any(axis=0).sum()

    mask = write(tmp_path / "mask.tif", np.where(holes, 0, 7).astype(np.uint8)[None], None)
    masked = compare(pair, mask=str(mask), measures=["rmse", "ssim"])
    wanted = measure(*images, ["rmse", "ssim"], data_range=10000.0, mask=~holes)
    assert masked["rmse"] == pytest.approx(wanted["rmse"].total, rel=1e-9)
    assert masked["ssim"] == pytest.approx(wanted["ssim"].total, rel=1e-9)
    assert masked["pixels"] == (~holes).sum()

    spoiled[:, 3:9, 30:60] = spoiled[2, 40:50, 100:] = -7
    files = (files[0], write(tmp_path / "no_tag.tif", spoiled))
    assert compare(files, data_range=10000.0, nodata=-7)["rmse"] == done["rmse"], "the option, where the file is silent"


def test_nothing_to_compare(pair, images, tmp_path) -> None:
    for name, options in (("blank", {"nodata": 0}), ("nan", {})):
        pixels = np.zeros_like(images[0]) if options else np.full(images[0].shape, np.nan, np.float32)
        image = write(tmp_path / f"{name}.tif", pixels, **options)
        assert "No pixel can be compared" in refusal((pair[0], image), map=tmp_path / "map.tif")
    far = write(tmp_path / "far.tif", images[1], transform=place(1000, 0))
    assert "No pixel can be compared" in refusal((pair[0], far), resample="linear")
    assert not (tmp_path / "map.tif").exists()


def test_scales_bring_both_to_one_unit(images, tmp_path) -> None:
    dn = write(tmp_path / "dn.tif", images[0], scale=1e-4)
    reflectance = write(tmp_path / "refl.tif", (images[1] * 1e-4).astype(np.float32))
    shifted = write(tmp_path / "shifted.tif", images[1] + 1000, scale=1e-4, offset=-0.1)
    for image in (reflectance, shifted):
        told = Told()
        done = compare((dn, image), told, measures=["rmse", "sre"])
        assert done["rmse"] == pytest.approx(rmse(*images), rel=1e-5)
        assert done["unit"] == "digital numbers of the reference (10000 of them are 1)"
        assert (done["data_range"], done["data_range_from"]) == (pytest.approx(10000), "the bands' scale (0.0001)")
    assert "digital numbers" in told.texts["info"][0]
    assert "data range 10000" in told.texts["info"][0]
    back = compare((reflectance, shifted), measures=["rmse"])
    assert back["rmse"] == pytest.approx(rmse(images[1], images[1]), abs=1e-7)
    assert (back["unit"], back["data_range"]) == ("values of the reference", 1.0)
    swapped = compare((shifted, dn), measures=["sre"])["sre"]
    mean = images[1].mean(axis=(1, 2))
    errors = np.square(images[0].astype(float) - images[1]).mean(axis=(1, 2))
    assert swapped == pytest.approx(float((10 * np.log10(mean**2 / errors)).mean())), "an offset is no signal"

    silent = write(tmp_path / "silent.tif", images[1])
    stored = compare((dn, silent), measures=["rmse"])
    assert stored["rmse"] == pytest.approx(rmse(*images))


def test_images_in_two_units_are_doubted(images, tmp_path) -> None:
    silent = write(tmp_path / "silent.tif", images[0])
    reflectance = write(tmp_path / "refl.tif", (images[1] * 1e-4).astype(np.float32))
    told = Told()
    assert compare((silent, reflectance), told, measures=["rmse"])["unit"] == "values as stored"
    assert "digital numbers and the other reflectance" in told.texts["warning"][0]
    floats = write(tmp_path / "floats.tif", images[0].astype(np.float32))
    told = Told()
    compare((floats, silent), told, measures=["rmse"])
    assert "beyond the data range 1" in told.texts["warning"][0]
    told = Told()
    compare((floats, silent), told, measures=["rmse"], data_range=10000.0)
    assert not told.texts["warning"]


@pytest.mark.parametrize(
    ("dtype", "names", "options", "expected", "source"),
    [
        ("uint8", None, {}, 255, "the type uint8"),
        ("uint16", None, {"nbits": 12}, 4095, "the tag NBITS (12 bits)"),
        ("int16", NAMES, {"scale": 1 / 4000}, 4000, "the bands' scale (0.00025)"),
        ("uint16", NAMES, {}, 10000, "the names of Sentinel-2's bands"),
        ("uint16", None, {}, 65535, "the type uint16"),
        ("int16", None, {}, 65535, "the type int16"),
        ("float32", NAMES, {}, 1, "the type float32 (reflectance)"),
    ],
)
def test_the_data_range_comes_from_the_file(tmp_path, dtype, names, options, expected, source) -> None:
    rng = np.random.default_rng(0)
    pixels = (rng.random((4, 20, 20)) * (1 if dtype == "float32" else 200)).astype(dtype)
    file = write(tmp_path / "a.tif", pixels, names, **options)
    told = Told()
    done = compare((file, file), told, measures=["psnr"])
    assert done["data_range"] == pytest.approx(expected)
    assert done["data_range_from"] == source
    assert f"data range {expected:g}, from {source}" in told.texts["info"][0]
    given = compare((file, file), measures=["psnr"], data_range=77.0)
    assert (given["data_range"], given["data_range_from"]) == (77, "the option")


@pytest.mark.filterwarnings("error::rasterio.errors.NotGeoreferencedWarning")
def test_images_without_a_place_on_the_ground(images, tmp_path) -> None:
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    pixels = [(image[:3] // 32).astype(np.uint8) for image in images]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDAL_PAM_ENABLED", "NO")
        for path, image in zip(files, pixels, strict=True):
            with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
                write(path, image, None, driver="PNG", crs=None, transform=Affine.identity())
    done = compare((files[0], files[1]), measures=["rmse"], map=tmp_path / "map.tif", map_measure="sam")
    assert done["rmse"] == pytest.approx(rmse(*pixels))
    assert done["data_range"] == 255


@pytest.mark.parametrize("name", ["uiq", "ssim", "sam"])
def test_the_map_is_the_measure_in_every_place(pair, images, tmp_path, small_blocks, name: str) -> None:
    told = Told()
    target = tmp_path / "map.tif"
    done = compare(pair, told, measures=["rmse"], map=target, map_measure=name, threads=2)
    assert done["map"] == str(target)
    assert told.artifacts == ["map"]
    from s2sr_qgis.core.similarity.measure import Setup, prepare

    x, y, valid = prepare(*images)
    wanted = local_map(name, x, y, valid, Setup(4, HEIGHT, WIDTH, 10000.0))
    with rasterio.open(target) as file:
        np.testing.assert_allclose(file.read(1), wanted.astype(np.float32), rtol=1e-6)
        assert file.transform == PLACE
        assert file.crs.to_epsg() == 32633
        assert math.isnan(file.nodata)
        assert file.profile["tiled"]
        assert file.descriptions == (catalogue()[name].title,)
    if name != "sam":
        assert np.isnan(wanted[0]).all()
        assert 0.5 < np.nanmean(wanted) < 1


def test_a_report_is_written(pair, tmp_path) -> None:
    told = Told()
    done = compare(pair, told, measures=["rmse", "sam"], report=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert done["report"] == str(tmp_path / "report.html")
    assert told.artifacts == ["report"]
    for text in ("image.tif", "reference.tif", "B8A", "EPSG:32633", "names of Sentinel-2"):
        assert text in page, text


@pytest.fixture
def three(images, tmp_path) -> tuple[Path, Path, Path]:
    """Reference and image at 10 m, and what the image would be made from, at 20 m."""
    half = images[0].reshape(4, 45, 2, 65, 2).mean(axis=(2, 4)).astype(np.uint16)
    names = ("B05", "B06", "B07", "B8A")
    reference, image = (write(tmp_path / f"{n}.tif", x, names) for n, x in zip("xy", images, strict=True))
    return reference, image, write(tmp_path / "source.tif", half, names, transform=place(pixel=20))


def test_a_source_adds_the_quantities_of_opensr_test(three, tmp_path) -> None:
    told = Told()
    outputs = {"json_file": tmp_path / "o.json", "report": tmp_path / "o.html"}
    done = compare(three[:2], told, measures=["rmse"], source=str(three[2]), **outputs)
    assert done["rmse"] == compare(three[:2], measures=["rmse"])["rmse"]
    shares = [done["opensr"][name] for name in ("hallucination", "omission", "improvement")]
    assert sum(shares) == pytest.approx(1)
    assert json.loads((tmp_path / "o.json").read_text())["opensr"] == done["opensr"]
    page = (tmp_path / "o.html").read_text(encoding="utf-8")
    assert "Hallucination" in page
    assert told.percent == 100
    assert told.artifacts == ["report", "json_file"]


def test_consistency_compares_with_the_source(three, tmp_path) -> None:
    told = Told()
    pair = three[2], three[1]
    done = compare(pair, told, measures=["rmse", "uiq"], consistency=True, json_file=tmp_path / "o.json")
    assert done["bands"] == ["B05", "B06", "B07", "B8A"]
    assert 0 < done["rmse"] < 500
    assert json.loads((tmp_path / "o.json").read_text())["measures"] == done["measures"]
    assert told.percent == 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reference": "{folder}/no.tif"}, ["no.tif cannot be opened"]),
        ({"image": "{folder}/text.tif"}, ["text.tif cannot be opened"]),
        ({"mask": "{folder}/no.tif"}, ["no.tif cannot be opened"]),
        ({"mask": "{folder}/other.tif"}, ["mask", "other.tif is EPSG:32633, corner 600100", "reference.tif is"]),
        ({"image": "{folder}/complex.tif"}, ["complex.tif", "one real type"]),
        ({"image": "{folder}/turned.tif"}, ["not north-up", "gdalwarp"]),
        ({"json_file": "{folder}/no/o.json"}, ["no does not exist"]),
        ({"report": "{folder}/no/o.html"}, ["no does not exist"]),
        ({"map": "{folder}/no/o.tif"}, ["no does not exist"]),
        ({"map": "{folder}/image.tif"}, ["image.tif is already an input"]),
        ({"map": "{folder}/o", "report": "{folder}/o"}, ["must end in .tif"]),
    ],
)
def test_bad_input_is_one_sentence_and_no_file(pair, images, tmp_path, change, words) -> None:
    (tmp_path / "text.tif").write_text("no raster")
    write(tmp_path / "other.tif", images[0][:1], None, transform=place(10, 0))
    write(tmp_path / "complex.tif", images[0].astype(np.complex64))
    write(tmp_path / "turned.tif", images[0], transform=Affine(10, 2, 600000, 2, -10, 5400000))
    before = sorted(tmp_path.iterdir())
    job = {
        "reference": str(pair[0]),
        "image": str(pair[1]),
        **{k: v.format(folder=tmp_path) for k, v in change.items()},
    }
    with pytest.raises((InputError, OutputError)) as caught:
        jobs.run(jobs.SimilarityJob(**job))
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_cancelling_leaves_nothing(pair, tmp_path, small_blocks) -> None:
    before = sorted(tmp_path.iterdir())
    outputs = {"map": tmp_path / "m.tif", "json_file": tmp_path / "o.json", "report": tmp_path / "r.html"}
    with pytest.raises(Cancelled):
        compare(pair, Told(stop_at=40), measures=["uiq"], threads=2, **outputs)
    assert sorted(tmp_path.iterdir()) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("block")]


WINDOWS = [Window(0, row, 1, 1) for row in range(12)]


def test_results_come_in_order_and_do_not_pile_up() -> None:
    ready: list[int] = []
    taken = 0

    def work(window: Window, check: Any) -> int:
        time.sleep(0.02 if window.row % 3 == 0 else 0.0)
        ready.append(window.row)
        return window.row

    for window, result in in_threads(WINDOWS, work, Progress(), 3):
        assert result == window.row == taken
        taken += 1
        time.sleep(0.005)
        assert len(ready) - taken <= 3
    assert taken == len(WINDOWS)


def test_an_error_in_a_block_is_the_jobs() -> None:
    def work(window: Window, check: Any) -> int:
        if window.row == 4:
            raise TimeoutError("row 4")
        return window.row

    results = in_threads(WINDOWS, work, Progress(), 2)
    assert [next(results)[1] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(TimeoutError, match="row 4"):
        next(results)


def test_cancelling_stops_the_blocks_at_work() -> None:
    started: list[int] = []

    def work(window: Window, check: Any) -> None:
        started.append(window.row)
        for _ in range(1000):
            check()
            time.sleep(0.01)

    class Impatient(Progress):
        def cancelled(self) -> bool:
            return bool(started)

    begin = time.monotonic()
    with pytest.raises(Cancelled, match="by the user"):
        list(in_threads(WINDOWS, work, Impatient(), 2))
    assert time.monotonic() - begin < 5
    assert len(started) <= 2
