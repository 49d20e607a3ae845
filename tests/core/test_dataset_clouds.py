"""Simulated clouds: where they lie in each band, what they leave alone, and the datasets that have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from products import make_band_folder
from skimage.registration import phase_cross_correlation

from s2sr_qgis.core import jobs
from s2sr_qgis.core.dataset.card import SPLITS, layout, read_dataset
from s2sr_qgis.core.dataset.clouds import COLOUR, DELAY, add_clouds, fractal
from s2sr_qgis.core.raster.degradation import degrade

SIDE = 384
INPUTS = {task: [tensor for tensor in layout(task, 6) if tensor.name != "target"] for task in ("20m", "60m")}


def clouded(seed: int, task: str = "20m", ground: float = 0.0) -> dict[str, np.ndarray]:
    """The bands of a flat scene under clouds, at their own resolutions."""
    images = {
        tensor.name: np.full((len(tensor.bands), *(SIDE // tensor.coarser(),) * 2), ground, np.float32)
        for tensor in INPUTS[task]
    }
    add_clouds(images, INPUTS[task], 10.0, np.random.default_rng(seed))
    return {
        band: image for tensor in INPUTS[task] for band, image in zip(tensor.bands, images[tensor.name], strict=True)
    }


def test_the_same_seed_gives_the_same_clouds() -> None:
    first, second, other = clouded(1), clouded(1), clouded(2)
    assert all(np.array_equal(first[band], second[band]) for band in first)
    assert not np.array_equal(first["B02"], other["B02"])


@pytest.mark.parametrize("seed", range(4))
def test_clear_sky_is_left_alone_and_clouds_are_bright(seed) -> None:
    bands = clouded(seed, "60m", ground=1000.0)
    assert set(bands) == set(DELAY) == set(COLOUR)
    for band, image in bands.items():
        clear = image == 1000.0
        assert 0.05 < clear.mean() < 0.75, band
        assert np.isfinite(image).all()
        assert image.min() > 0
    assert np.percentile(bands["B02"], 99) > 2000
    for dark in ("B09", "B12"):  # ice and vapour absorb
        assert np.percentile(bands[dark], 99) < np.percentile(bands["B02"], 99)


def test_clouds_move_between_bands_by_the_parallax() -> None:
    """Over black ground a band is the cloud alone; its place follows the band's delay, along one direction."""
    longest = 0.0
    for seed in range(6):
        bands = clouded(seed)
        place = {
            band: phase_cross_correlation(bands["B02"], bands[band], upsample_factor=20, normalization=None)[0]
            for band in ("B08", "B03", "B04")
        }
        drift = place["B04"] / DELAY["B04"]
        for band, found in place.items():
            np.testing.assert_allclose(found, drift * DELAY[band], atol=0.15)
        pairs = [("B05", band) for band in ("B07", "B12")]
        for first, band in pairs:
            found, *_ = phase_cross_correlation(bands[first], bands[band], upsample_factor=20, normalization=None)
            np.testing.assert_allclose(2 * found, drift * (DELAY[band] - DELAY[first]), atol=0.4)
        longest = max(longest, float(np.abs(drift).max()))
    # 6 km up, 51 m a second; the clouds above the ground are what the network is to see.
    assert 1.5 < longest < 8


@pytest.mark.parametrize("slope", [2.4, 3.4])
def test_texture_is_fractal(slope) -> None:
    noise = np.mean([_spectrum(fractal((256, 256), slope, np.random.default_rng(seed))) for seed in range(4)], axis=0)
    frequency = np.arange(len(noise)) / 256
    used = slice(8, 90)
    fitted = np.polyfit(np.log(frequency[used]), np.log(noise[used]), 1)[0]
    assert fitted == pytest.approx(-slope, abs=0.15)
    image = fractal((96, 150), slope, np.random.default_rng(0))
    assert image.shape == (96, 150)
    assert image.mean() == pytest.approx(0, abs=1e-4)
    assert image.std() == pytest.approx(1, abs=1e-4)


def _spectrum(image: np.ndarray) -> np.ndarray:
    """Mean power at each whole number of periods over the image."""
    power = np.abs(np.fft.fft2(image)) ** 2
    periods = np.fft.fftfreq(len(image)) * len(image)
    radius = np.rint(np.hypot(periods[:, None], periods)).astype(int)
    return np.bincount(radius.ravel(), power.ravel()) / np.bincount(radius.ravel())


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    return make_band_folder(tmp_path_factory.mktemp("scene") / "s", size=288, seed=2)


def make(scene: Path, output: Path, clouds: int) -> Path:
    shares = {"train": 0.5, "valid": 0.25, "test": 0.25}
    jobs.run(
        jobs.CreateSharpeningDatasetJob(
            scenes=[str(scene)], output=output, patch_size=16, block_size=2, clouds=clouds, seed=3, **shares
        )
    )
    return output


def test_cloudy_copies_lie_over_the_same_ground_in_the_same_split(scene, tmp_path) -> None:
    plain = read_dataset(make(scene, tmp_path / "plain", 0))
    cloudy = read_dataset(make(scene, tmp_path / "cloudy", 2))
    assert (plain.card.clouds, cloudy.card.clouds) == (0, 2)
    assert yaml.safe_load((tmp_path / "cloudy" / "dataset.yaml").read_text())["clouds"] == 2
    covered = 0
    for split in SPLITS:
        count = plain.count(split)
        assert count > 0
        assert cloudy.count(split) == 3 * count
        for name, array in plain.arrays(split).items():
            np.testing.assert_array_equal(cloudy.arrays(split)[name][:count], array[:])
        ground, sky = plain.arrays(split)["target"][:], cloudy.arrays(split)["target"][:]
        for copy in (1, 2):
            same = sky[copy * count : (copy + 1) * count] == ground
            # The very values of the same patch where the sky is clear; they are in no other patch's place.
            assert same.any(axis=-1).mean() > 0.05
            covered += (~same).all(axis=(1, 2, 3)).sum() + (same.mean(axis=(1, 2, 3)) < 0.9).sum()
        assert not np.array_equal(sky[count : 2 * count], sky[2 * count :])
    assert covered > 0


def test_input_and_target_have_the_same_clouds(scene, tmp_path) -> None:
    dataset = read_dataset(make(scene, tmp_path / "d", 1))
    arrays = dataset.arrays("train")
    for index in range(dataset.count("train") // 2, dataset.count("train")):
        target, low = arrays["target"][index], arrays["input_20m"][index]
        wanted = np.stack([degrade(target[..., band], 2, 0.5) for band in range(6)], axis=-1)
        np.testing.assert_allclose(low[2:-2, 2:-2], wanted[2:-2, 2:-2], atol=0.5)


def test_the_same_seed_gives_the_same_cloudy_dataset(scene, tmp_path) -> None:
    first, second = (make(scene, tmp_path / name, 1) for name in "ab")
    for path in first.glob("*.tif"):
        assert path.read_bytes() == (second / path.name).read_bytes()
