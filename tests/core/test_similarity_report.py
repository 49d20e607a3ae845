"""The report of a comparison: what it gathers block by block, what it says, and how it looks in a browser."""

from __future__ import annotations

import base64
import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2sr_qgis.core.errors import Cancelled, OutputError
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.raster.grid import Window
from s2sr_qgis.core.similarity.comparison import Comparison, Result, block
from s2sr_qgis.core.similarity.drawing import galleries
from s2sr_qgis.core.similarity.histogram import Histogram
from s2sr_qgis.core.similarity.measure import Block, Setup
from s2sr_qgis.core.similarity.page import Gallery, Picture
from s2sr_qgis.core.similarity.pictures import MOST_BANDS, Pictures
from s2sr_qgis.core.similarity.report import Candidate, Report, Section, best, number, write_report

MEASURES = ("rmse", "psnr", "sre", "sam")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
IMAGE = re.compile(r'<img[^>]*?alt="([^"]*)"[^>]*?src="data:image/png;base64,([^"]+)"')

PROBE = """<pre id="probe"></pre><iframe id="frame" src="report.html" width="{width}" height="900" frameborder="0">
</iframe><script>addEventListener("load", () => {{
const frame = document.getElementById("frame").contentWindow, page = frame.document;
const wide = [...page.querySelectorAll("body *")].filter(
  e => !e.closest(".wide") && e.getBoundingClientRect().right > frame.innerWidth + 1);
const broken = [...page.images].filter(i => !i.complete || i.naturalWidth < 10);
document.getElementById("probe").textContent =
  [frame.innerWidth, page.documentElement.scrollWidth, wide.length, page.images.length, broken.length].join(" ")
}})</script>"""
"""Says of the report in a window of this width: how wide it is and needs, what sticks out, pictures, broken ones."""

Pair = tuple[np.ndarray, np.ndarray, np.ndarray]


def scene(bands: int = 3, height: int = 90, width: int = 130, noise: float = 30.0, hole: bool = True) -> Pair:
    """Reference, image and mask; the image is 100 higher in its right half, and a hole lies in the first band."""
    rng = np.random.default_rng(5)
    rows, cols = np.mgrid[0:height, 0:width]
    x = np.stack([1500 + 200 * b + 500 * np.sin(rows / 9 + b) * np.cos(cols / 7) for b in range(bands)])
    y = x + rng.normal(0, noise, x.shape)
    y[:, :, width // 2 :] += 100
    valid = np.ones(x.shape, bool)
    if hole:
        valid[0, 10:40, 20:50] = False
        valid[:, 70:, 100:] = False
    return np.where(valid, x, 0), np.where(valid, y, 0), valid


def windows(height: int, width: int, side: int) -> list[Window]:
    return [
        Window(col, row, side, side).clipped(width, height)
        for row in range(0, height, side)
        for col in range(0, width, side)
    ]


def blocks(pair: Pair, side: int, halo: int = 0) -> list[Block]:
    x, y, valid = pair
    setup = Setup(*x.shape, data_range=1e4)

    def read(w: Window) -> Pair:
        part = np.s_[:, w.row : w.row + w.height, w.col : w.col + w.width]
        return x[part], y[part], valid[part]

    return [block(window, halo, setup, read) for window in windows(*x.shape[1:], side)]


def names(count: int) -> list[str]:
    return [f"B{number:02}" for number in range(1, count + 1)]


def gathered(pair: Pair, side: int = 1024, halo: int = 0) -> Pictures:
    pictures = Pictures(names(len(pair[0])), Setup(*pair[0].shape, data_range=1e4))
    for part in blocks(pair, side, halo):
        pictures.take(pictures.observe(part))
    return pictures


def compared(pair: Pair, pictures: bool = True, definition: str = "reference") -> Result:
    setup = Setup(*pair[0].shape, data_range=1e4, definition=definition)
    comparison = Comparison(MEASURES, names(len(pair[0])), setup, pictures)
    for part in blocks(pair, 1024):
        comparison.take(comparison.observe(part))
    return comparison.result()


def report(*candidates: Candidate, **options) -> Report:
    facts = [("Reference", "reference.tif"), ("Grid", "EPSG:32633, 130 x 90 pixels")]
    return Report("image.tif compared with reference.tif", facts, candidates, "type uint16", "DN", **options)


def written(page: Report, folder: Path) -> str:
    write_report(page, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def pixels(address: str) -> np.ndarray:
    """The picture of a data address, (rows, columns, 3)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


def shown(pictures: list[Pictures], title: str) -> Gallery:
    labels = [f"way {n}" for n in range(len(pictures))]
    return next(gallery for gallery in galleries(labels, pictures, "DN") if gallery.title == title)


# What is gathered


@pytest.mark.parametrize("size", [(90, 130), (1300, 70)])  # cells of one pixel, and of three, which blocks of 32 cut
@pytest.mark.parametrize(("side", "halo"), [(32, 0), (64, 5), (96, 17)])
def test_blocks_do_not_change_the_pictures(size, side, halo):
    pair = scene(2, *size)
    whole, parts = gathered(pair, 2048), gathered(pair, side, halo)
    assert whole.cell == -(-max(size) // 600)
    for name in ("differences", "root_mean_squares", "angles"):
        np.testing.assert_allclose(getattr(parts, name)(), getattr(whole, name)(), rtol=1e-9, atol=1e-9)
    for mine, its in zip(parts.scatter + parts.errors, whole.scatter + whole.errors, strict=True):
        assert (mine.exponent, mine.first) == (its.exponent, its.first)
        np.testing.assert_array_equal(mine.counts, its.counts)


def test_maps_are_means_of_what_counts():
    x, y, valid = pair = scene(2, 1300, 70)
    pictures = gathered(pair)
    cell = np.s_[:, 30:33, 33:36]
    place = np.s_[..., 10, 11]
    difference = (y - x)[cell]
    np.testing.assert_allclose(pictures.differences()[place][1], difference[1].mean())
    assert math.isnan(pictures.differences()[place][0]), "the first band's hole"
    np.testing.assert_allclose(pictures.root_mean_squares()[place], np.sqrt(np.mean(difference[1] ** 2)))
    assert math.isnan(pictures.angles()[place]), "a spectrum without its first band is none"
    cosine = (x * y).sum(axis=0) / np.linalg.norm(x, axis=0) / np.linalg.norm(y, axis=0)
    np.testing.assert_allclose(pictures.angles()[0, 0], np.degrees(np.arccos(cosine[:3, :3])).mean())
    assert pictures.errors[0].counts.sum() == pictures.scatter[0].counts.sum() == valid[0].sum()


def test_many_bands_are_chosen_evenly():
    pair = scene(30, 40, 40, hole=False)
    pictures = gathered(pair)
    assert len(pictures.bands) == MOST_BANDS
    assert (pictures.bands[0], pictures.bands[-1]) == ("B01", "B30")
    every = np.sqrt(((pair[1] - pair[0]) ** 2).mean(axis=0))
    np.testing.assert_allclose(pictures.root_mean_squares(), every)  # of all bands


@pytest.mark.parametrize("scale", [1e-4, 1.0, 3e7])
def test_histogram_is_numpy_s(scale):
    values = np.random.default_rng(2).normal(-300, 50, (2, 5000)) * scale
    histogram = Histogram.of(values, 64, 1e-9)
    assert 32 < max(histogram.counts.shape) <= 64
    expected = np.histogram2d(*values, bins=[histogram.edges(0), histogram.edges(1)])[0]
    np.testing.assert_array_equal(histogram.counts, expected)


def test_histogram_does_not_depend_on_parts():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 1, 500), [0.0, 1e6], rng.normal(0, 300, 500)])[None]
    whole = Histogram.of(values, 256, 1e-3)
    for cuts in ([1, 500, 502], [501], range(0, 1002, 10)):
        parts = [Histogram.of(part, 256, 1e-3) for part in np.split(values, cuts, axis=1)]
        merged = parts[0]
        for part in parts[1:]:
            merged = merged.merged(part)
        assert (merged.exponent, merged.first) == (whole.exponent, whole.first)
        np.testing.assert_array_equal(merged.counts, whole.counts)


@pytest.mark.parametrize("value", [0.0, -7.25, 1e30])
def test_histogram_of_one_value(value):
    histogram = Histogram.of(np.full((1, 9), value), 64, 1e-6)
    assert histogram.counts.tolist() == [9]
    assert histogram.edges()[0] <= value < histogram.edges()[1]


# What is drawn


def test_maps_show_sign_and_size():
    gallery = shown([gathered(scene())], "Sign of the difference")
    red, blue = (pixels(gallery.pictures[1].address)[:60, 70:, channel].mean() for channel in (0, 2))
    assert red > blue + 50, "the right half is higher"
    assert (pixels(gallery.pictures[0].address)[10:40, 20:50] == 217).all(), "grey where nothing counts"
    assert "±" in gallery.text
    assert "percentile 98" in gallery.text
    sizes = pixels(shown([gathered(scene())], "Size of the difference").pictures[0].address).astype(float)
    assert sizes[:60, 70:, 1].mean() > sizes[:60, :60, 1].mean(), "brighter where the difference is larger"


def test_maps_of_candidates_have_one_scale():
    """The same image twice, then a worse one: equal pictures stay equal only beside their equals."""
    same, worse = gathered(scene()), gathered(scene(noise=200))
    two = shown([same, same], "Size of the difference")
    assert two.pictures[0].address == two.pictures[1].address
    scaled = shown([same, worse], "Size of the difference")
    assert pixels(scaled.pictures[0].address).mean() < pixels(two.pictures[0].address).mean()


def test_the_sign_is_shown_for_the_image_to_judge():
    good, poor = gathered(scene()), gathered(scene(noise=2000))
    gallery = shown([good, poor], "Sign of the difference")
    assert "of the first image's maps" in gallery.text
    first, second = (pixels(gallery.pictures[number].address)[:60, 70:] for number in (0, 1))
    assert (first[..., 0] > first[..., 2]).mean() > 0.9, "red, though the other's differences are far larger"
    assert (second[..., 0] > second[..., 2]).mean() < 0.7
    x, _, valid = scene()
    perfect = gathered((x, x, valid))
    assert "of all maps here" in shown([perfect, poor], "Sign of the difference").text


def test_one_band_has_no_spectral_angle():
    titles = [gallery.title for gallery in galleries(["way"], [gathered(scene(1))], "")]
    assert "Spectral angle" not in titles
    assert titles[-2:] == ["Reference against image", "Errors"]


@pytest.mark.parametrize("kind", ["equal", "flat", "nothing"])
def test_images_with_little_to_show(kind, tmp_path):
    x, y, valid = scene(3, 40, 40, hole=False)
    if kind == "equal":
        y = x
    elif kind == "flat":
        x, y = np.full_like(x, 7), np.full_like(x, 7)
    pair = x, y, valid
    if kind == "nothing":  # in the first band
        valid[0] = False
        pair = np.where(valid, x, 0), np.where(valid, y, 0), valid
    page = written(report(Candidate("image.tif", compared(pair))), tmp_path)
    assert len(IMAGE.findall(page)) == 2 + 1 + 3 + 1 + 3 + 3 + 4  # overview, maps, charts; scales of colours
    assert page.count(">∞<") == (2 if kind == "nothing" else 2 + 2 + 6)  # perfect scores, totals, bands


# What the page says


def test_page_is_complete_and_self_contained(tmp_path):
    pair, worse = scene(), scene(noise=200)
    first, second = compared(pair), compared(worse)
    page = written(
        report(
            Candidate("sharp <net>", first),
            Candidate("bicubic", second),
            warnings=["Units & ranges differ."],
            sections=[
                Section("Consistency", ["As the source?"], ["", "value"], [["B01", "0.5"]]),
                Section("More", pictures=[Picture("data:image/png;base64,AAAA", "a chart", "below")]),
            ],
        ),
        tmp_path,
    )
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "http" not in page
    assert "<script" not in page
    assert "sharp &lt;net&gt;" in page
    assert "Units &amp; ranges differ." in page
    for name in MEASURES:
        assert f"✓ {number(first.scores[name].total, 'values' if name == 'rmse' else unit(name))}</td>" in page
        assert f">{number(second.scores[name].total, 'values' if name == 'rmse' else unit(name))}</td>" in page
    for value in first.scores["psnr"].bands:
        assert f'<td class="number best">{value:.2f}</td>' in page
    assert "10000 DN, from type uint16" in page
    assert f"{first.pixels:,} of 11,700" in page
    assert "doi:10.1016/j.isprsjprs.2018.09.018" in page
    for text in ("Consistency", "As the source?", '<td class="number">0.5</td>', "below"):
        assert text in page
    assert all(alt for alt, _ in IMAGE.findall(page))
    assert page.count("<figure>") == 3 + 2 + 6 + 2 + 3 + 3 + 1
    assert len(page) < 1e6


def unit(name: str) -> str:
    return {"psnr": "dB", "sre": "dB", "sam": "°"}[name]


def test_page_of_the_other_definition(tmp_path):
    page = written(report(Candidate("image.tif", compared(scene(), False, "up42"))), tmp_path)
    assert "image-similarity-measures 0.3.6" in page
    assert "data ranges" in page, "the unit of up42's RMSE"
    assert "<img" not in page
    assert "better" not in page


@pytest.mark.parametrize(
    ("values", "perfect", "winner"),
    [
        ([3, 2], 0, 1), ([0.9, 0.95], 1, 1), ([30, 20], math.inf, 0), ([math.inf, 20], math.inf, 0),
        ([1, 1], 0, None), ([math.inf, math.inf], math.inf, None), ([math.nan, 1], 0, None), ([2], 0, None),
        ([-0.2, 0.1], 0, 1), ([3, math.nan, 2], 0, 2),
    ],
)  # fmt: skip
def test_the_better_one(values, perfect, winner):
    assert best(values, perfect) == winner


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (math.nan, "dB", "–"), (math.inf, "dB", "∞"), (-1.234, "dB", "−1.23"), (0.98765, "", "0.9877"),
        (852.04, "values", "852.0"), (12345.6, "values", "12346"), (0.0012345, "values", "0.001234"),
        (0.0, "values", "0"), (1e-9, "values", "1.000e−09"), (0.1234, "px", "0.123"),
    ],
)  # fmt: skip
def test_numbers(value, unit, text):
    assert number(value, unit) == text


def test_nothing_half_done_is_left(tmp_path):
    class Stop(Progress):
        def cancelled(self) -> bool:
            return True

    page = report(Candidate("image.tif", compared(scene())))
    with pytest.raises(Cancelled):
        write_report(page, tmp_path / "report.html", Stop())
    with pytest.raises(OutputError, match="does not exist"):
        write_report(page, tmp_path / "no" / "report.html")
    assert list(tmp_path.iterdir()) == []


# How it looks


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1200, 480])
def test_page_in_a_browser(width, tmp_path):
    """Everything is drawn, pictures too, and nothing is wider than the window."""
    page = report(Candidate("sharpen_20m", compared(scene(6))), Candidate("bicubic", compared(scene(6, noise=200))))
    text = written(page, tmp_path)
    # In a frame, since Chromium has no windows narrower than 500 pixels.
    (tmp_path / "probe.html").write_text(PROBE.format(width=width), encoding="utf-8")
    found = browse(tmp_path / "probe.html", 1300, "--dump-dom")
    inner, scrolled, wide, images, broken = map(int, re.search(r'id="probe">([\d ]+)<', found)[1].split())
    assert inner == width
    assert scrolled <= inner
    assert (wide, broken) == (0, 0)
    assert images == text.count("<img") > 30
    browse(tmp_path / "report.html", width, f"--screenshot={tmp_path / 'page.png'}")
    with Image.open(tmp_path / "page.png") as picture:
        drawn = np.asarray(picture.convert("L"), np.float64)
    assert drawn.shape[1] == width
    rows = drawn[:3000].std(axis=1)
    assert (rows > 5).mean() > 0.5, "not blank"


def browse(page: Path, width: int, option: str) -> str:
    """Open a page in a window of this width."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    command = [BROWSER, *options, f"--window-size={width},3000", option, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
