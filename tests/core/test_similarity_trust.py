"""Consistency with the source, and opensr-test's quantities on rasters: what they tell apart, blocks, bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from products import CORNER, make_band_folder
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter
from scipy.ndimage import shift as moved

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import Cancelled, InputError
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.degradation import degrade
from s2sr_qgis.core.raster.resample import upsample
from s2sr_qgis.core.scene.mtf import MTF_AT_NYQUIST
from s2sr_qgis.core.similarity import comparison, nested, opensr, triple
from s2sr_qgis.core.similarity.consistency import consistency, kernel_sigma
from s2sr_qgis.core.similarity.triple import opensr_quantities

SIZE = 120
BANDS = ("B02", "B05", "B11", "B09")


def write(
    path: Path, image: np.ndarray, names: tuple[str, ...] = (), pixel: float = 10, right: float = 0, down: float = 0,
    crs: str = "EPSG:32631", **options: Any,
) -> Path:  # fmt: skip
    """A raster whose corner lies some of its pixels from that of every product."""
    place = Affine(pixel, 0, CORNER[0] + right * pixel, 0, -pixel, CORNER[1] - down * pixel)
    profile = {"driver": "GTiff", "count": len(image), "height": image.shape[1], "width": image.shape[2]}
    with rasterio.open(path, "w", **profile, dtype=image.dtype, crs=crs, transform=place, **options) as file:
        file.write(image)
        file.descriptions = names or (None,) * len(image)
    return path


def field(bands: int, side: int, seed: int = 0, sigma: float = 1.5) -> np.ndarray:
    """Reflectance of smooth texture, (bands, side, side)."""
    noise = np.random.default_rng(seed).standard_normal((bands, side, side))
    smooth = gaussian_filter(noise, (0, sigma, sigma), mode="wrap")
    return 0.25 + 0.05 * smooth / smooth.std()


def numbers(reflectance: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(reflectance * 10000), 1, 65534).astype(np.uint16)


def run(scene: Path, image: Path, **options: Any) -> dict[str, Any]:
    options = {"measures": ["rmse", "sam"], "threads": 1, **options}
    return consistency(
        jobs.SimilarityJob(reference=str(scene), image=str(image), consistency=True, **options), Progress()
    )


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return field(len(BANDS), SIZE)


@pytest.fixture(scope="module")
def source(truth, tmp_path_factory) -> Path:
    """What the sensor makes of the truth, a folder of bands at 10, 20 and 60 m."""
    folder = tmp_path_factory.mktemp("source")
    for band, fine in zip(BANDS, truth, strict=True):
        factor = {"B02": 1, "B09": 6}.get(band, 2)
        coarse = degrade(fine.astype(np.float32), factor, kernel_sigma(band, factor)) if factor > 1 else fine
        write(folder / f"{band}.tif", numbers(coarse)[np.newaxis], pixel=10 * factor)
    return folder


@pytest.fixture(scope="module")
def perfect(truth, tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("image") / "perfect.tif", numbers(truth), BANDS, nodata=0)


@pytest.mark.parametrize(("band", "factor"), [("B05", 2), ("B11", 2), ("B01", 6), ("B09", 6), ("B04", 4)])
def test_stripes_at_nyquist_come_out_with_the_bands_mtf(band, factor) -> None:
    """Crests on the centres of the source's pixels: of the MTF there, what the image's own pixels have not taken."""
    across = np.cos(math.pi * ((np.arange(40 * factor) + 0.5) / factor - 0.5))
    image = np.broadcast_to(across, (8 * factor, len(across))).astype(np.float32)
    found = degrade(image, factor, kernel_sigma(band, factor))[4, 8:-8]
    assert np.abs(found).mean() == pytest.approx(MTF_AT_NYQUIST[band] ** (1 - 1 / factor**2), abs=0.003)


def test_what_the_sensor_made_of_an_image_is_consistent_with_it(source, perfect) -> None:
    found = run(source, perfect)
    assert found["bands"] == list(BANDS)
    assert [(group["bands"], group["factor"]) for group in found["groups"]] == [
        (["B02"], 1), (["B05", "B11"], 2), (["B09"], 6)
    ]  # fmt: skip
    assert found["groups"][0]["measures"]["rmse"]["total"] == 0
    # Half a digital number is what rounding to integers costs, twice.
    assert max(found["measures"]["rmse"]["bands"].values()) < 0.6
    assert found["pixels"] == SIZE**2 + (SIZE // 2) ** 2 + (SIZE // 6) ** 2
    assert found["rmse"] == found["measures"]["rmse"]["total"]


def test_totals_weigh_the_groups_by_bands_and_leave_out_what_was_not_sharpened(source, perfect) -> None:
    found = run(source, perfect, measures=["rmse"])
    bands = found["measures"]["rmse"]["bands"]
    assert found["rmse"] == pytest.approx(np.mean([bands[name] for name in BANDS[1:]]))
    alone = run(source, perfect, measures=["rmse"], bands=["B02"])
    assert alone["rmse"] == 0
    assert alone["bands"] == ["B02"]


def test_the_numbers_tell_a_good_image_from_a_smooth_an_invented_and_a_shifted_one(
    truth, source, perfect, tmp_path
) -> None:
    smooth = truth.copy()
    for place, band in enumerate(BANDS):
        factor = {"B02": 1, "B09": 6}.get(band, 2)
        with rasterio.open(source / f"{band}.tif") as file:
            coarse = file.read(1).astype(np.float32) / 10000
        smooth[place] = upsample(coarse, factor, "bicubic") if factor > 1 else truth[place]
    texture = 0.03 * np.random.default_rng(3).standard_normal(truth.shape[1:])
    patches = gaussian_filter(texture, 4) * 8
    images = {
        "smooth": smooth,
        "texture": truth + texture,
        "patches": truth + patches,
        "shifted": np.stack([moved(band, (2, -2), order=1, mode="nearest") for band in truth]),
    }
    good = run(source, perfect)
    for name, image in images.items():
        found = run(source, write(tmp_path / f"{name}.tif", numbers(image), BANDS, nodata=0))
        assert found["rmse"] > 10 * good["rmse"], name
        if name != "smooth":
            assert found["opensr"]["reflectance"] > 1.2 * good["opensr"]["reflectance"], name
        spatial = found["groups"][1]["opensr"]["spatial"]
        if name == "shifted":
            assert spatial == pytest.approx(math.sqrt(2), abs=0.2)
        else:
            assert spatial < 0.2, name


def test_the_consistencies_are_those_of_the_arrays(source, perfect, truth) -> None:
    """Block by block on rasters, and in memory."""
    with rasterio.open(source / "B05.tif") as a, rasterio.open(source / "B11.tif") as b:
        low = np.stack([a.read(1), b.read(1)]) / 10000
    high = numbers(truth)[1:3] / 10000
    expected = opensr.quantities(low, high, high)
    found = run(source, perfect, bands=["B05", "B11"])["opensr"]
    assert found == pytest.approx({name: getattr(expected, name) for name in found}, rel=1e-6)


def test_the_size_of_the_blocks_changes_nothing(source, perfect, monkeypatch) -> None:
    def small(height: int, width: int, bands: int, flat: bool = False) -> list[Any]:
        return [
            comparison.Window(col, row, 32, 32).clipped(width, height)
            for row in range(0, height, 32)
            for col in range(0, width, 32)
        ]

    names = ["rmse", "psnr", "sam", "uiq"]
    with_whole = run(source, perfect, measures=names)
    monkeypatch.setattr("s2sr_qgis.core.similarity.consistency.blocks", small)
    with_small = run(source, perfect, measures=names, threads=2)
    for name in names:
        assert with_small[name] == pytest.approx(with_whole[name], rel=1e-9)
    assert with_small["opensr"] == pytest.approx(with_whole["opensr"], rel=1e-9)


def test_pixels_without_value_do_not_count(source, truth, tmp_path) -> None:
    image = numbers(truth)
    image[:, 30:34, 50:53] = 0
    found = run(source, write(tmp_path / "a.tif", image, BANDS, nodata=0), bands=["B05"])
    assert found["pixels"] == (SIZE // 2) ** 2 - 2 * 2
    # Around the hole the blur has less to see.
    assert found["rmse"] < 30
    mask = np.zeros((1, SIZE, SIZE), np.uint8)
    mask[:, 40:80, 20:60] = 1
    masked = run(
        source,
        write(tmp_path / "a.tif", image, BANDS, nodata=0),
        bands=["B05"],
        mask=str(write(tmp_path / "m.tif", mask)),
    )
    assert masked["pixels"] == 20 * 20
    assert masked["rmse"] < 0.6


def test_a_part_of_the_scene_lies_where_its_grid_says(source, truth, tmp_path) -> None:
    part = numbers(truth)[:, 12:72, 6:96]
    found = run(source, write(tmp_path / "part.tif", part, BANDS, right=6, down=12, nodata=0), bands=["B11"])
    assert found["pixels"] == 30 * 45
    # The part's edge is not what the sensor saw there.
    assert found["rmse"] < 60
    off = run(source, write(tmp_path / "off.tif", part, BANDS, right=8, down=12, nodata=0), bands=["B11"])
    assert off["rmse"] > 5 * found["rmse"]


def test_a_report_of_a_consistency(source, perfect, tmp_path) -> None:
    found = run(source, perfect, measures=["rmse"], report=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert found["report"] == str(tmp_path / "page.html")
    for text in ("perfect.tif", "B05", "B09", "opensr-test", "10.1109/LGRS.2024.3401394"):
        assert text in page


def test_bad_input_of_a_consistency(source, perfect, truth, tmp_path) -> None:
    image = numbers(truth)
    off = write(tmp_path / "off.tif", image, BANDS, right=0.4)
    with pytest.raises(InputError, match=r"do not nest.*EPSG:32631, corner 600000.*corner 600004"):
        run(source, off)
    other = write(tmp_path / "other.tif", image, BANDS, pixel=7)
    with pytest.raises(InputError, match="do not nest"):
        run(source, other, bands=["B11"])
    with pytest.raises(InputError, match="differ in CRS"):
        run(source, write(tmp_path / "crs.tif", image, BANDS, crs="EPSG:32632"))
    with pytest.raises(InputError, match="coarser than what it is said to be made from"):
        run(source, write(tmp_path / "coarse.tif", image[:, ::4, ::4], BANDS, pixel=40))
    with pytest.raises(InputError, match="covers no whole pixel"):
        run(source, write(tmp_path / "far.tif", image, BANDS, right=6000))
    with pytest.raises(InputError, match="has no band B12; it has B02"):
        run(source, write(tmp_path / "b12.tif", image, ("B02", "B05", "B11", "B12")), bands=["B12"])
    with pytest.raises(InputError, match=r"perfect.tif has no band B03; it has B02"):
        run(source, perfect, bands=["B03"])
    with pytest.raises(InputError, match="none whose MTF is known"):
        run(source, write(tmp_path / "unnamed.tif", image))
    with pytest.raises(InputError, match="No pixel can be compared"):
        run(source, write(tmp_path / "empty.tif", np.zeros_like(image), BANDS, nodata=0))
    with pytest.raises(InputError, match="leave out --source"):
        run(source, perfect, source=str(source))
    with pytest.raises(InputError, match="leave out the map"):
        run(source, perfect, map=tmp_path / "map.tif")
    with pytest.raises(InputError, match="mask must lie on the image's grid or the source's"):
        run(source, perfect, mask=str(write(tmp_path / "mask.tif", image[:1], right=0.5)))
    with pytest.raises(InputError, match="mask does not cover"):
        run(source, perfect, mask=str(write(tmp_path / "part.tif", image[:1, :60, :60])))


def test_bands_that_the_source_lacks_are_left_out_and_said(source, truth, tmp_path) -> None:
    class Told(Progress):
        texts: list[str] = []  # noqa: RUF012

        def log(self, text: str, level: Any = "info") -> None:
            self.texts.append(text)

    image = write(tmp_path / "b12.tif", numbers(truth), ("B02", "B05", "B11", "B12"), nodata=0)
    told = Told()
    job = jobs.SimilarityJob(reference=str(source), image=str(image), consistency=True, measures=["rmse"])
    assert consistency(job, told)["bands"] == ["B02", "B05", "B11"]
    assert any("B12" in text for text in told.texts)


FACTOR, LOW = 4, 40


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    """Digital numbers of a reference, what a sensor four times coarser sees of it, and candidates."""
    fine = field(3, FACTOR * LOW, seed=7)
    low = opensr.resized(fine, LOW, LOW)
    magnified = opensr.resized(low, FACTOR * LOW, FACTOR * LOW)
    invented = field(3, FACTOR * LOW, seed=8) - 0.25
    invented -= opensr.resized(opensr.resized(invented, LOW, LOW), FACTOR * LOW, FACTOR * LOW)
    candidates = {"good": magnified + 0.8 * (fine - magnified), "smooth": magnified, "invented": magnified + invented}
    return {name: numbers(image) for name, image in {"low": low, "fine": fine, **candidates}.items()}


@pytest.fixture(scope="module")
def files(images, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("triple")
    names = ("B04", "B03", "B02")
    return {
        name: write(folder / f"{name}.tif", image, names, 10 if name == "low" else 2.5, nodata=0)
        for name, image in images.items()
    }


def quantities(files: dict[str, Path], image: str, **options: Any) -> dict[str, Any]:
    job = {"reference": str(files["fine"]), "image": str(files[image]), "source": str(files["low"]), "threads": 1}
    return opensr_quantities(jobs.SimilarityJob(**{**job, **options}), Progress())


@pytest.mark.parametrize("image", ["good", "invented"])
def test_rasters_give_the_figures_of_the_arrays(image, images, files) -> None:
    expected = opensr.quantities(*(images[name] / 10000 for name in ("low", image, "fine")))._asdict()
    found = quantities(files, image)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found["factor"] == FACTOR
    assert found["pixels"] == (FACTOR * LOW - 2 * opensr.BORDER) ** 2


def test_the_shares_tell_truth_from_invention_and_from_nothing(files) -> None:
    good, smooth, invented = (quantities(files, name) for name in ("good", "smooth", "invented"))
    assert good["improvement"] > 0.7
    assert smooth["omission"] > 1.5 * max(good["omission"], invented["omission"])
    assert invented["hallucination"] > 0.4
    assert invented["hallucination"] > 2 * max(good["hallucination"], smooth["hallucination"])
    assert smooth["synthesis"] < good["synthesis"] < invented["synthesis"]
    for found in (good, smooth, invented):
        assert found["hallucination"] + found["omission"] + found["improvement"] == pytest.approx(1)


def test_blocks_give_the_same_quantities(files, monkeypatch) -> None:
    whole = quantities(files, "invented")
    monkeypatch.setattr(
        triple,
        "blocks",
        lambda height, width, *_: [
            comparison.Window(col, row, 11, 9).clipped(width, height)
            for row in range(0, height, 9)
            for col in range(0, width, 11)
        ],
    )
    in_blocks = quantities(files, "invented", threads=2)
    texts = ("bands", "shift", "assumptions")
    assert [in_blocks.pop(name) for name in texts] == [whole.pop(name) for name in texts]
    assert in_blocks == pytest.approx(whole, rel=1e-9)


def test_holes_do_not_count(images, files, tmp_path) -> None:
    holed = images["good"].copy()
    holed[:, 60:63, 60:63] = 0
    found = quantities(
        {**files, "good": write(tmp_path / "a.tif", holed, ("B04", "B03", "B02"), 2.5, nodata=0)}, "good"
    )
    assert found["pixels"] == (FACTOR * LOW - 2 * opensr.BORDER) ** 2 - 9
    assert found["improvement"] == pytest.approx(quantities(files, "good")["improvement"], abs=0.02)


def test_large_images_are_shifted_by_the_median_of_windows(monkeypatch) -> None:
    assert opensr.shift_windows(500, 512) == [comparison.Window(0, 0, 512, 500)]
    windows = opensr.shift_windows(5000, 1500)
    assert len(windows) == 4 * 2
    assert {window.shape for window in windows} == {(512, 512)}
    assert opensr.median_shift([(0.1, 0.2), (9.0, 9.0), (0.3, 0.4)]) == pytest.approx((0.2, 0.3))
    assert math.isnan(opensr.median_shift([])[0])


def test_a_coarse_raster_with_bands_of_10_m_keeps_them(tmp_path) -> None:
    """As a scene it would have only those that are recorded at 20 m."""
    path = write(tmp_path / "coarse.tif", numbers(field(2, 60)), ("B02", "B8A"), pixel=20)
    with nested.open_source(str(path), None) as found:
        assert list(found.bands) == ["B02", "B8A"]
        assert found.grid("B02").spacing == 20


def test_bad_input_of_the_quantities(images, files, tmp_path) -> None:
    names = ("B04", "B03", "B02")
    with pytest.raises(InputError, match="The images lie on different grids"):
        quantities(files, "low")
    with pytest.raises(InputError, match="do not nest"):
        quantities({**files, "low": write(tmp_path / "a.tif", images["low"], names, right=0.1)}, "good")
    with pytest.raises(InputError, match="coarser than what it is said to be made from"):
        quantities({**files, "low": write(tmp_path / "b.tif", images["low"], names, 0.5)}, "good")
    with pytest.raises(InputError, match="has no band B02; it has B03, B04, B08"):
        quantities({**files, "low": write(tmp_path / "c.tif", images["low"], ("B04", "B03", "B08"))}, "good")
    with pytest.raises(InputError, match="too few for the border"):
        quantities({**files, "low": write(tmp_path / "d.tif", images["low"][:, :8, :8], names)}, "good")
    empty = write(tmp_path / "e.tif", np.zeros_like(images["low"]), names, nodata=0)
    with pytest.raises(InputError, match="No pixel can be compared"):
        quantities({**files, "low": empty}, "good")
    with pytest.raises(InputError, match="does not exist"):
        quantities({**files, "low": tmp_path / "nothing.tif"}, "good")


def test_bands_at_several_resolutions_are_not_one_image(tmp_path) -> None:
    folder = make_band_folder(tmp_path / "scene", size=120, bands=("B04", "B05"))
    fine = numbers(field(2, 240))
    path = write(tmp_path / "fine.tif", fine, ("B04", "B05"), 5)
    with pytest.raises(InputError, match="at 2 resolutions"):
        quantities({"fine": path, "x": path, "low": folder}, "x")


def test_cancelling(source, perfect, files) -> None:
    class Stops(Progress):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        consistency(jobs.SimilarityJob(reference=str(source), image=str(perfect), consistency=True), Stops())
    with pytest.raises(Cancelled):
        opensr_quantities(
            jobs.SimilarityJob(reference=str(files["fine"]), image=str(files["good"]), source=str(files["low"])),
            Stops(),
        )


def test_a_raster_that_is_no_scene_is_a_source_too(images, files, tmp_path) -> None:
    """Bands without names belong together by position."""
    unnamed = {name: write(tmp_path / f"{name}.tif", images[name], (), 10 if name == "low" else 2.5) for name in images}
    with (
        pytest.raises(InputError, match="does not exist"),
        nested.open_source(str(tmp_path / "x.tif"), None),
    ):
        pass
    # uint16 without names and tags: Sentinel-2's digital numbers.
    expected = quantities(files, "good")
    found = quantities(unnamed, "good")
    assert found["improvement"] == pytest.approx(expected["improvement"])
    assert found["reflectance"] == pytest.approx(expected["reflectance"])
