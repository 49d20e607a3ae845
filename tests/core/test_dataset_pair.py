"""The check of an image pair: what it measures, what is refused and why, and its report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rasterio.crs import CRS
from scipy.ndimage import fourier_shift

from s2sr_qgis.core.dataset.clouds import fractal
from s2sr_qgis.core.dataset.pair import PairCheck, PairLimits, check_pair, harmonized, reasons, refuse
from s2sr_qgis.core.dataset.pair_pictures import shift_map
from s2sr_qgis.core.dataset.pair_report import write_pair_report
from s2sr_qgis.core.errors import Cancelled, DatasetError, InputError
from s2sr_qgis.core.jobs import CreateCrossSensorDatasetJob
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.grid import Grid, Window
from s2sr_qgis.core.raster.superimpose import superimpose
from s2sr_qgis.core.similarity import shift as shift_module
from s2sr_qgis.core.similarity.page import composite

UTM, RATIO, SIDE = CRS.from_epsg(32631), 2, 128
SLOPES, OFFSETS = (0.5, 2.0), (100.0, -300.0)


class ArrayImage:
    """An `Image` of numbers in memory that remembers what was read."""

    def __init__(self, pixels: np.ndarray, spacing: float, nodata: float | None = None, x=500_000.0, y=5e6, crs=UTM):
        self.pixels, self.nodata, self.dtype = pixels, nodata, pixels.dtype
        self.grid = Grid(crs, x, y, spacing, pixels.shape[2], pixels.shape[1])
        self.bands = [f"B0{n + 2}" for n in range(len(pixels))]
        self.largest = 0

    def read(self, window: Window | None = None) -> np.ndarray:
        w = window or self.grid.window
        assert w.clipped(self.grid.width, self.grid.height) == w
        self.largest = max(self.largest, w.width * w.height)
        return self.pixels[:, w.row : w.row + w.height, w.col : w.col + w.width].copy()


def reduced(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[-2:]
    return image.reshape(-1, height // RATIO, RATIO, width // RATIO, RATIO).mean(axis=(2, 4)).astype(np.float32)


def fine(seed: int = 0, side: int = SIDE * RATIO) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([1000 + 100 * fractal((side, side), 2.4, rng) for _ in SLOPES]).astype(np.float32)


def pair(dx: float = 0.0, dy: float = 0.0, seed: int = 0) -> tuple[ArrayImage, ArrayImage]:
    """Low-resolution image and reference; the former must go (dx, dy) low-resolution pixels to lie on the latter."""
    ground = fine(seed)
    place = (-dy * RATIO, -dx * RATIO)
    moved = np.stack([np.fft.ifft2(fourier_shift(np.fft.fft2(band), place)).real for band in ground])
    coarse = reduced(moved) * np.reshape(SLOPES, (-1, 1, 1)) + np.reshape(OFFSETS, (-1, 1, 1))
    return ArrayImage(coarse.astype(np.float32), 6.0), ArrayImage(ground, 3.0)


@pytest.fixture(scope="module")
def shifted() -> tuple[ArrayImage, ArrayImage, PairCheck]:
    lr, reference = pair(1.3, -0.6)
    return lr, reference, check_pair(lr, reference, days=12.4, clouds=0.031, sentinel2_pixel=10 / 6)


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (0.37, 0.21), (-2.4, 1.75), (5.3, -3.6)])
def test_a_sub_pixel_shift_is_found(dx: float, dy: float) -> None:
    check = check_pair(*pair(dx, dy))
    assert check.dx == pytest.approx(dx, abs=0.05)
    assert check.dy == pytest.approx(dy, abs=0.05)
    assert check.tried == len(check.blocks) == 16
    assert check.spread is not None
    assert check.spread < 0.1


def test_the_shift_says_where_the_low_resolution_image_must_go() -> None:
    """Two columns to the right and one row down lay this image on the reference."""
    ground = fine()
    lr = np.roll(reduced(ground), (-1, -2), axis=(1, 2))
    check = check_pair(ArrayImage(lr, 6.0), ArrayImage(ground, 3.0))
    assert (check.dx, check.dy) == (pytest.approx(2, abs=0.05), pytest.approx(1, abs=0.05))
    assert np.array_equal(np.roll(lr, (1, 2), axis=(1, 2)), reduced(ground))


def test_the_shift_survives_noise_and_another_season() -> None:
    """Noise of a fifth of the contrast, a cloud that nobody masked, and one band with nothing in common."""
    lr, reference = pair(0.8, 0.4)
    rng = np.random.default_rng(5)
    lr.pixels[0] += rng.normal(0, 10, lr.pixels[0].shape)
    lr.pixels[:, 30:60, 70:110] += 4000
    lr.pixels[1] = 100 * fractal(lr.pixels[1].shape, 2.4, rng)
    check = check_pair(lr, reference)
    assert (check.dx, check.dy) == (pytest.approx(0.8, abs=0.05), pytest.approx(0.4, abs=0.05))
    assert not all(block.used for block in check.blocks) or len(check.blocks) < check.tried


def test_an_image_moved_by_the_shift_lies_on_the_reference(shifted) -> None:
    lr, reference, check = shifted
    moved = ArrayImage(lr.pixels, 6.0, x=lr.grid.x + check.dx * 6, y=lr.grid.y - check.dy * 6)
    again = check_pair(superimpose(moved, lr.grid), reference, corrected=(check.dx, check.dy))
    assert (again.dx, again.dy) == (pytest.approx(0, abs=0.05), pytest.approx(0, abs=0.05))
    assert again.corrected == (check.dx, check.dy)


def test_the_shift_is_also_told_in_sentinel2_pixels(shifted) -> None:
    _, _, check = shifted
    assert check.shift == pytest.approx(np.hypot(1.3, 0.6) * 0.6, abs=0.03)


def test_slope_offset_and_correlation_of_each_band() -> None:
    check = check_pair(*pair())
    for band, slope, offset in zip(check.bands, SLOPES, OFFSETS, strict=True):
        assert band.slope == pytest.approx(slope, rel=1e-4)
        assert band.offset == pytest.approx(offset, abs=0.5)
        assert band.correlation == pytest.approx(1, abs=1e-6)
    assert [(band.name, band.reference) for band in check.bands] == [("B02", "B02"), ("B03", "B03")]


def test_changes_on_the_ground_hardly_move_the_line() -> None:
    lr, reference = pair()
    lr.pixels[:, :40, :64] += 3000
    check = check_pair(lr, reference)
    for band, slope, offset in zip(check.bands, SLOPES, OFFSETS, strict=True):
        assert band.slope == pytest.approx(slope, rel=0.03)
        assert band.offset == pytest.approx(offset, abs=0.03 * slope * 1000)


def test_the_harmonized_reference_has_the_radiometry_of_the_other(shifted) -> None:
    lr, reference = pair()
    check = check_pair(lr, reference)
    reference.pixels[:, 4, 6], reference.nodata = -1.0, -1.0
    image = harmonized(reference, check)
    assert (image.grid, image.bands, image.dtype) == (reference.grid, reference.bands, np.float32)
    assert np.isnan(image.read()[:, 4, 6]).all()
    assert np.isnan(image.read()).sum() == 2
    part = image.read(Window(40, 20, 10, 12))
    expected = lr.pixels[:, 10:16, 20:25]
    np.testing.assert_allclose(reduced(part), expected, atol=0.5)


def test_nodata_counts_nowhere() -> None:
    lr, reference = pair(0.5, 0.25)
    lr.pixels[:, :32] = np.nan
    reference.nodata = 0.0
    reference.pixels[:, :, :64] = 0
    check = check_pair(lr, reference)
    assert check.overlap == pytest.approx(0.75)
    assert check.valid == pytest.approx(0.75**2)
    assert len(check.blocks) == 9
    assert (check.dx, check.dy) == (pytest.approx(0.5, abs=0.05), pytest.approx(0.25, abs=0.05))
    assert [band.slope for band in check.bands] == pytest.approx(SLOPES, rel=0.05)


def test_one_pixel_without_value_does_not_cost_the_block() -> None:
    lr, reference = pair(0.5, 0.25)
    lr.pixels[0, ::16, ::16] = np.nan
    check = check_pair(lr, reference)
    assert len(check.blocks) == 16
    assert (check.dx, check.dy) == (pytest.approx(0.5, abs=0.05), pytest.approx(0.25, abs=0.05))


def test_a_low_resolution_pixel_is_valid_where_all_its_reference_is() -> None:
    lr, reference = pair()
    reference.nodata = -9.0
    reference.pixels[1, 11, 21] = -9.0
    check = check_pair(lr, reference)
    assert check.valid == pytest.approx(1 - 1 / SIDE**2)
    assert check.overlap == 1


def test_clouds_are_left_out_and_counted() -> None:
    lr, reference = pair()
    mask = np.zeros((1, SIDE, SIDE), np.uint8)
    mask[:, :32, :64] = 1
    lr.pixels[:, :32, :64] = 9000
    check = check_pair(lr, reference, clouds=ArrayImage(mask, 6.0))
    assert check.clouds == pytest.approx(1 / 8)
    assert check.valid == pytest.approx(7 / 8)
    assert check.overlap == 1
    assert [band.slope for band in check.bands] == pytest.approx(SLOPES, rel=1e-3)
    assert len(check.blocks) == 14


def test_only_the_common_ground_is_read() -> None:
    """The reference begins one low-resolution pixel and one of its own before the other, and ends earlier."""
    lr, reference = pair()
    wide = np.pad(reference.pixels, ((0, 0), (3, 0), (3, 0)), mode="reflect")[:, :200, :220]
    check = check_pair(lr, ArrayImage(wide, 3.0, x=500_000 - 9.0, y=5e6 + 9.0))
    assert (check.dx, check.dy) == (pytest.approx(0, abs=0.05), pytest.approx(0, abs=0.05))
    assert check.overlap == pytest.approx(98 * 108 * 4 / (200 * 220))
    assert [band.slope for band in check.bands] == pytest.approx(SLOPES, rel=1e-3)


def test_a_large_pair_is_looked_at_in_places(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shift_module, "MOST", 2)
    lr, reference = pair(0.5, 0.25)
    check = check_pair(lr, reference)
    assert check.tried == 4
    assert check.read == pytest.approx(4 / 16)
    assert (check.dx, check.dy) == (pytest.approx(0.5, abs=0.05), pytest.approx(0.25, abs=0.05))
    assert reference.largest == 64**2
    assert check.samples is not None
    assert check.samples.overview.shape == (2, 2, 64, 64)
    write_pair_report(check, PairLimits(), lr, reference, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Estimated from 4 blocks spread evenly over the ground, 25 % of it." in page


def test_the_figures_are_json(shifted) -> None:
    figures = json.loads(json.dumps(shifted[2].figures()))
    assert figures["dx"] == pytest.approx(1.3, abs=0.05)
    assert figures["days"] == 12.4
    assert len(figures["blocks"]) == 16
    assert set(figures["bands"][0]) == {"name", "reference", "slope", "offset", "correlation"}
    assert "samples" not in figures


def test_a_good_pair_is_not_refused() -> None:
    check = check_pair(*pair(0.5, 0.25), days=3)
    assert reasons(check, PairLimits()) == []
    assert refuse(check, PairLimits()) == []


def test_images_that_do_not_overlap_are_refused(tmp_path: Path) -> None:
    lr, reference = pair()
    elsewhere = ArrayImage(reference.pixels, 3.0, x=600_001.0)
    check = check_pair(lr, elsewhere)
    assert (check.overlap, check.valid, check.tried, check.dx) == (0, 0, 0, None)
    with pytest.raises(DatasetError, match="do not overlap"):
        refuse(check, PairLimits())
    write_pair_report(check, PairLimits(), lr, elsewhere, tmp_path / "report.html")
    assert "do not overlap" in (tmp_path / "report.html").read_text("utf-8")


def test_a_scene_without_values_there_does_not_overlap_either() -> None:
    lr, reference = pair()
    lr.pixels[:] = np.nan
    check = check_pair(lr, reference)
    assert [sentence for sentence in reasons(check, PairLimits()) if "do not overlap" in sentence]


def test_every_limit_has_its_sentence(shifted) -> None:
    check = shifted[2]
    strict = PairLimits(max_shift=0.5, max_days=10, min_correlation=1.1, min_overlap=1.5)
    found = reasons(check, strict)
    for text in ("covers only 100.0% of the reference", "12 days apart, more than 10", "shifted by 0.8", "B03"):
        assert len([sentence for sentence in found if text in sentence]) == 1, text
    assert len(found) == 5
    assert all(sentence.endswith(".") for sentence in found)
    cloudy = reasons(replace(check, valid=0.0), PairLimits())
    assert cloudy == ["Clouds cover all that the two images share; choose a clearer scene."]


def test_bands_in_the_wrong_order_are_refused() -> None:
    lr, reference = pair()
    lr.pixels[:] = 2000 - lr.pixels[::-1]
    with pytest.raises(DatasetError, match="check the order of the bands"):
        refuse(check_pair(lr, reference), PairLimits())


def test_forced_the_reasons_are_warnings(shifted) -> None:
    said: list[tuple[str, str]] = []
    progress = Progress()
    progress.log = lambda text, level="info": said.append((level, text))  # type: ignore[method-assign]
    limits = PairLimits(max_shift=0.5)
    found = refuse(shifted[2], limits, force=True, progress=progress)
    assert said == [("warning", sentence) for sentence in found]
    assert len(found) == 1
    with pytest.raises(DatasetError, match=r"more than 0\.5"):
        refuse(shifted[2], limits)


def test_a_flat_image_has_no_blocks_and_says_so(tmp_path: Path) -> None:
    lr, reference = pair()
    lr.pixels[:] = 700
    check = check_pair(lr, reference)
    assert (check.blocks, check.tried, check.dx, check.shift, check.spread) == ([], 16, None, None, None)
    assert [band.correlation for band in check.bands] == [None, None]
    found = reasons(check, PairLimits())
    assert "none of 16 blocks has texture" in found[0]
    assert "the same everywhere" in found[1]
    with pytest.raises(DatasetError, match="cannot be harmonized"):
        harmonized(reference, check)
    write_pair_report(check, PairLimits(), lr, reference, tmp_path / "report.html")
    assert "No block shows a shift." in (tmp_path / "report.html").read_text("utf-8")


def test_noise_alone_has_no_blocks_in_use() -> None:
    lr, reference = pair()
    lr.pixels[:] = np.random.default_rng(1).normal(500, 50, lr.pixels.shape)
    check = check_pair(lr, reference)
    assert not any(block.used for block in check.blocks)
    assert "cannot be measured" in reasons(check, PairLimits())[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crs": CRS.from_epsg(32630)}, "EPSG:32631 and the reference in EPSG:32630"),
        ({"spacing": 2.5}, "the ratio is 2.4"),
        ({"x": 500_001.0}, "do not nest"),
    ],
)
def test_grids_that_do_not_nest(change: dict[str, Any], message: str) -> None:
    lr, reference = pair()
    with pytest.raises(InputError, match=message):
        check_pair(lr, ArrayImage(reference.pixels, **{"spacing": 3.0, **change}))


def test_other_bands_or_another_mask_than_the_image() -> None:
    lr, reference = pair()
    with pytest.raises(InputError, match="has 2 bands and the reference 1"):
        check_pair(lr, ArrayImage(reference.pixels[:1], 3.0))
    with pytest.raises(InputError, match="The cloud mask has 5 x 4 pixels"):
        check_pair(lr, reference, clouds=ArrayImage(np.zeros((1, 4, 5), np.uint8), 6.0))


def test_a_cancelled_check_stops() -> None:
    progress = SimpleNamespace(check=lambda: (_ for _ in ()).throw(Cancelled("stop")))
    with pytest.raises(Cancelled):
        check_pair(*pair(), progress=progress)  # type: ignore[arg-type]


def test_the_limits_are_the_jobs() -> None:
    job = CreateCrossSensorDatasetJob(xs="a", output=Path("b"), max_shift=0.7, max_days=9, min_correlation=0.6)
    assert PairLimits.of(job) == PairLimits(0.7, 9, 0.6)


class Links(HTMLParser):
    """Collects what a page points to, and the tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_holds_numbers_and_pictures_and_needs_nothing_else(shifted, tmp_path: Path) -> None:
    lr, reference, check = shifted
    lr.bands = ["<script>", "B03"]
    path = tmp_path / "pair_report.html"
    write_pair_report(check, PairLimits(max_shift=0.5), lr, reference, path)
    page = path.read_text("utf-8")
    links = Links()
    links.feed(page)
    assert links.open == []
    assert len(links.targets) == 4
    assert all(target.startswith("data:image/png;base64,iVBOR") for target in links.targets)
    text = re.sub(r'src="[^"]*"', "", page)
    assert "http" not in text
    assert "url(" not in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert f"({check.dx:+.2f}, {check.dy:+.2f})" in text
    assert reasons(check, PairLimits(max_shift=0.5))[0] in text
    for number in (f"{check.shift:.2f} px", "≤ 0.5 px", "16 of 16", "100.0%", "3.1%", "≤ 60"):
        assert number in text, number
    for band in check.bands:
        assert f"{band.slope:.4g}" in text
        assert f"{band.correlation:.3f}" in text
    assert list(tmp_path.iterdir()) == [path]


def test_the_report_of_a_good_pair(tmp_path: Path) -> None:
    lr, reference = pair()
    check = check_pair(lr, reference, corrected=(1.25, -0.5))
    write_pair_report(check, PairLimits(), lr, reference, tmp_path / "a.html", title="Pair & more")
    text = re.sub(r'src="[^"]*"', "", (tmp_path / "a.html").read_text("utf-8"))
    assert "The pair keeps its limits." in text
    assert "<h1>Pair &amp; more</h1>" in text
    assert "(+1.25, -0.50)" in text
    assert "beyond" not in text


def test_a_map_of_a_shift_of_nothing_at_all(shifted) -> None:
    still = [replace(block, dx=0.0, dy=0.0) for block in shifted[2].blocks]
    assert shift_map(replace(shifted[2], blocks=still)).startswith("data:image/png")


def test_which_bands_a_picture_shows() -> None:
    assert composite(["B02", "B03", "B04", "B08"]) == [2, 1, 0]
    assert composite(["a", "b", "c", "d"]) == [0, 1, 2]
    assert composite(["B08", "B04"]) == [0]
