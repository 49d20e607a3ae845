"""Simulated Sentinel-2 images: blur and noise against their definitions, grid, nodata, windows, bad input."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import Affine

from s2sr_qgis.core import jobs
from s2sr_qgis.core.dataset import simulate as module
from s2sr_qgis.core.errors import Cancelled, InputError, OutputError
from s2sr_qgis.core.progress import Progress
from s2sr_qgis.core.scene import open_scene
from s2sr_qgis.core.scene.mtf import MTF_AT_NYQUIST

BANDS = ["B04", "B03", "B02", "B08"]
CORNER = (370003.3, 4830001.7)


def write(path: Path, image: np.ndarray, spacing: float = 1.0, crs: str | None = "EPSG:32631", **more) -> Path:
    """A fine image (bands, height, width) at a corner that lies on no round number."""
    count, height, width = image.shape
    shape = {"count": count, "height": height, "width": width, "dtype": image.dtype.name}
    place = {"transform": Affine(spacing, 0, CORNER[0], 0, -spacing, CORNER[1]), "crs": crs and CRS.from_string(crs)}
    with rasterio.open(path, "w", driver="GTiff", **{**shape, **place, **more}) as file:
        file.write(image)
    return path


def run(image: Path, output: Path, **options) -> np.ndarray:
    jobs.run(jobs.SimulateJob(image=str(image), output=output, **{"noise": False, **options}))
    with rasterio.open(output) as file:
        return file.read()


def sine(size: int, period: float, spacing: float = 10.0) -> np.ndarray:
    """Stripes across the columns, 2000 +- 1000, whose crests lie on centres of pixels of ``spacing``."""
    across = np.cos(2 * math.pi * (np.arange(size) + 0.5 - spacing / 2) / period)
    return np.broadcast_to(2000 + 1000 * across, (size, size)).astype(np.float32)


@pytest.mark.parametrize("band", ["B04", "B03", "B02", "B08"])
def test_a_sine_at_nyquist_comes_out_with_the_bands_mtf(band, tmp_path) -> None:
    image = write(tmp_path / "fine.tif", sine(400, period=20)[np.newaxis])
    found = run(image, tmp_path / "out.tif", bands=[band])[0].astype(float)
    crests, troughs = found[5:-5, 6:-6:2], found[5:-5, 7:-6:2]
    assert (crests - 2000).mean() == pytest.approx(1000 * MTF_AT_NYQUIST[band], abs=2)
    assert (2000 - troughs).mean() == pytest.approx(1000 * MTF_AT_NYQUIST[band], abs=2)


def test_slower_stripes_and_other_spacings_follow_the_gaussian(tmp_path) -> None:
    """Half of Nyquist: the fourth root of the MTF. 20 m bands have theirs at their own Nyquist."""
    image = write(tmp_path / "fine.tif", sine(400, period=40)[np.newaxis])
    found = run(image, tmp_path / "a.tif", bands=["B04"])[0].astype(float)
    assert found[20, 8] - 2000 == pytest.approx(1000 * MTF_AT_NYQUIST["B04"] ** 0.25, abs=2)
    image = write(tmp_path / "fine20.tif", sine(400, period=40, spacing=20)[np.newaxis])
    found = run(image, tmp_path / "b.tif", bands=["B11"], spacing=20)[0].astype(float)
    assert found[10, 8] - 2000 == pytest.approx(1000 * MTF_AT_NYQUIST["B11"], abs=2)


def test_a_ratio_that_is_no_whole_number(tmp_path) -> None:
    """2.4 m to 10 m: a ramp of 3 DN a metre is sampled at the centres of the pixels."""
    cols = (np.arange(100) + 0.5) * 2.4 * 3 + 500
    image = write(tmp_path / "fine.tif", np.broadcast_to(cols, (1, 110, 100)).astype(np.float32), spacing=2.4)
    output = tmp_path / "out.tif"
    result = jobs.run(jobs.SimulateJob(image=str(image), output=output, bands=["B08"], noise=False))
    assert (result["width"], result["height"]) == (24, 26)
    assert result["ratio"] == pytest.approx(10 / 2.4)
    with rasterio.open(output) as file:
        assert tuple(file.transform)[:6] == (10, 0, CORNER[0], 0, -10, CORNER[1])
        assert file.crs.to_epsg() == 32631
        wanted = (np.arange(24) + 0.5) * 10 * 3 + 500
        np.testing.assert_allclose(file.read(1)[5:-5, 4:-4], np.broadcast_to(wanted[4:-4], (16, 16)), atol=1)


def test_it_opens_as_a_scene(tmp_path) -> None:
    fine = np.random.default_rng(0).uniform(300, 3000, (4, 200, 240)).astype(np.float32)
    output = tmp_path / "s.tif"
    written = run(write(tmp_path / "fine.tif", fine), output, gain=0.5)
    with open_scene(output) as scene:
        assert list(scene.bands) == ["B02", "B03", "B04", "B08"]
        assert (scene.grid.width, scene.grid.height, scene.grid.spacing) == (24, 20, 10)
        assert (scene.grid.x, scene.grid.y) == CORNER
        assert not scene.warnings
        pixels = scene.read(["B04", "B08"])
    np.testing.assert_allclose(pixels.data["B04"], written[0] * 1e-4, atol=1e-7)
    assert pixels.data["B08"].mean() == pytest.approx(0.5 * fine[3].mean() * 1e-4, rel=0.01)


@pytest.mark.parametrize("band", ["B02", "B08"])
@pytest.mark.parametrize("share", [1.0, 0.25])
def test_the_noise_is_that_of_the_specification(band, share, tmp_path) -> None:
    """At the reference radiance its ratio to the signal is as specified; a quarter of the light has half the noise."""
    radiance, ratio, irradiance = module.REFERENCE[band]
    level = 1e4 * math.pi * radiance / (irradiance * math.cos(math.radians(45)))
    flat = np.full((1, 600, 600), share * level, np.float32)
    found = run(write(tmp_path / "fine.tif", flat, spacing=5.0), tmp_path / "o.tif", bands=[band], noise=True)[0]
    wanted = math.sqrt((level / ratio) ** 2 * share + 1 / 12)  # and that of whole numbers
    assert found.std() == pytest.approx(wanted, rel=0.02)  # of 90000 pixels
    assert found.mean() == pytest.approx(share * level, abs=0.5)
    assert abs(np.corrcoef(found[:, 1:].ravel(), found[:, :-1].ravel())[0, 1]) < 0.02


def test_the_noise_follows_the_seed_and_differs_between_bands(tmp_path) -> None:
    image = write(tmp_path / "fine.tif", np.full((2, 200, 200), 2000, np.float32))
    first, again, other = (
        run(image, tmp_path / f"{n}.tif", bands=["B04", "B03"], noise=True, seed=seed)
        for n, seed in enumerate((1, 1, 2))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5
    assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.2


@pytest.mark.parametrize(("nodata", "hole"), [(-9.0, -9.0), (None, np.nan)])
def test_nodata_stays_nodata_and_colours_nothing(nodata, hole, tmp_path) -> None:
    fine = np.full((2, 200, 200), 1500, np.float32)
    fine[0, 53:61, 100:120] = hole
    found = run(write(tmp_path / "fine.tif", fine, nodata=nodata), tmp_path / "out.tif", bands=["B04", "B03"])
    wanted = np.full((20, 20), 1500)
    wanted[5:7, 10:12] = 0  # every pixel that the hole touches
    np.testing.assert_array_equal(found[0], wanted)
    np.testing.assert_array_equal(found[1], 1500)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.nodata == 0


def test_dark_pixels_are_not_nodata(tmp_path) -> None:
    found = run(write(tmp_path / "fine.tif", np.zeros((1, 50, 50), np.uint8)), tmp_path / "out.tif", bands=["B04"])
    assert (found == 1).all()


def test_windows_leave_no_trace(tmp_path, monkeypatch) -> None:
    fine = np.random.default_rng(3).uniform(100, 4000, (2, 523, 391)).astype(np.float32)
    fine[:, 200:210, 190:220] = np.nan
    image = write(tmp_path / "fine.tif", fine, spacing=2.0)
    whole = run(image, tmp_path / "a.tif", bands=["B04", "B08"])
    monkeypatch.setattr(module, "FINE_SIDE", 0)
    tiled = run(image, tmp_path / "b.tif", bands=["B04", "B08"])
    assert whole.shape == (2, 104, 78)  # more than one window of 64
    assert np.abs(whole.astype(int) - tiled).max() <= 1  # where rounding hangs on the last digit
    assert (whole != tiled).mean() < 1e-3


def geographic(folder: Path) -> Path:
    return write(folder / "g.tif", np.ones((4, 50, 50), np.uint16), spacing=1e-5, crs="EPSG:4326",
                 transform=Affine(1e-5, 0, 1.4, 0, -1e-5, 43.6))  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"image": "{folder}/none.tif"}, InputError, "cannot be opened"),
        ({"image": "{folder}/g.tif"}, InputError, "is in degrees; warp it"),
        ({"image": "{folder}/oblong.tif"}, InputError, r"not square \(1 x 2\)"),
        ({"bands": ["B04", "B03"]}, InputError, r"has 4 bands, but 2 names are given \(B04, B03\)"),
        ({"bands": ["B04", "B03", "B04", "-"]}, InputError, "Two bands of .* are named B04"),
        ({"bands": ["B04", "B11", "-", "-"]}, InputError, "records them at 10 and 20 m"),
        ({"bands": ["B10", "-", "-", "-"]}, InputError, "B10 cannot be simulated"),
        ({"bands": ["-", "-", "-", "-"]}, InputError, "No band of .* is named; name at least one"),
        ({"bands": ["red", "-", "-", "-"]}, InputError, "'red' is no Sentinel-2 band"),
        ({"spacing": 1.5}, InputError, "pixels of 1 m, too coarse to simulate 1.5 m"),
        ({"spacing": 60}, InputError, "covers 50 x 50 m, which is less than one pixel of 60 m"),
        ({"output": "{folder}/no/o.tif"}, OutputError, "does not exist"),
        ({"output": "{folder}/fine.tif"}, OutputError, "is already an input"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(change, error, words, tmp_path) -> None:
    fine = write(tmp_path / "fine.tif", np.full((4, 50, 50), 500, np.uint16))
    geographic(tmp_path)
    write(tmp_path / "oblong.tif", np.ones((4, 50, 50), np.uint16),
          transform=Affine(1, 0, 0, 0, -2, 0))  # fmt: skip
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    data = {"job": "simulate", "image": str(fine), "output": str(tmp_path / "o.tif"), **change}
    data = {key: value.format(folder=tmp_path) if isinstance(value, str) else value for key, value in data.items()}
    with pytest.raises(error, match=words) as caught:
        jobs.run(jobs.parse(data))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_cancelled_leaves_nothing(tmp_path) -> None:
    class Stop(Progress):
        def cancelled(self) -> bool:
            return True

    image = write(tmp_path / "fine.tif", np.full((4, 50, 50), 500, np.uint16))
    with pytest.raises(Cancelled):
        jobs.run(jobs.SimulateJob(image=str(image), output=tmp_path / "o.tif"), Stop())
    assert [path.name for path in tmp_path.iterdir()] == ["fine.tif"]


def test_the_documented_figures_are_those_used() -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| B")]
    assert {row[0] for row in rows} == set(MTF_AT_NYQUIST) == set(module.REFERENCE)
    for band, mtf, radiance, ratio, reflectance, noise in rows:
        level, deviation = module.reference(band)
        assert (float(mtf), float(radiance), float(ratio)) == (MTF_AT_NYQUIST[band], *module.REFERENCE[band][:2])
        assert (reflectance, noise) == (f"{level / 1e4:.2f}", f"{deviation:.0f}")


def test_the_command_line(tmp_path) -> None:
    from typer.testing import CliRunner

    from training_cli.main import app

    image = write(tmp_path / "fine.tif", np.full((4, 50, 50), 500, np.uint16))
    result = CliRunner().invoke(app, ["simulate", str(image), "-o", str(tmp_path / "o.tif"), "--no-noise"])
    assert result.exit_code == 0, result.output
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.descriptions == ("B04", "B03", "B02", "B08")
        assert (file.read() == 500).all()
