"""The definition "reference" gives what others give that follow the papers; and where a peer does not.

Peers: scikit-image, sewar 0.4.10, image-similarity-measures 0.3.6 (UIQ where nothing is flat) and, where PyTorch is
installed, torchmetrics; for FSIM see test_against_piq. No peer has SRE, ISSM or Q2n: naive forms in tests/core hold
those.
"""

from __future__ import annotations

import numpy as np
import pytest
from similarity_pairs import noise, sentinel2
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity
from up42_package import package

from s2sr_qgis.core.similarity.measures import measure

sewar = pytest.importorskip("sewar.full_ref", reason="'make test-similarity' installs sewar")

PAIRS = {"Sentinel-2": (sentinel2, 10000.0), "noise of 16 bits": (lambda: noise(65535), 65535.0)}


@pytest.fixture(scope="module", params=PAIRS)
def pair(request):
    """Two images, float64, bands first, and their data range."""
    make, data_range = PAIRS[request.param]
    return *(image.astype(np.float64) for image in make()), data_range


def ours(name, x, y, data_range=1.0, ratio=1.0):
    return measure(x, y, [name], data_range=data_range, ratio=ratio)[name]


def last(image):
    return np.ascontiguousarray(np.moveaxis(image, 0, -1))


def test_rmse(pair):
    x, y, _ = pair
    score = ours("rmse", x, y)
    assert score.bands == pytest.approx([sewar.rmse(a, b) for a, b in zip(x, y, strict=True)], rel=1e-12)
    assert score.bands == pytest.approx([mean_squared_error(a, b) ** 0.5 for a, b in zip(x, y, strict=True)], rel=1e-12)
    assert score.total == pytest.approx(np.mean(score.bands), rel=1e-12)


def test_psnr(pair):
    x, y, data_range = pair
    score = ours("psnr", x, y, data_range)
    assert score.total == pytest.approx(sewar.psnr(last(x), last(y), MAX=data_range), abs=1e-9)
    assert score.total == pytest.approx(peak_signal_noise_ratio(x, y, data_range=data_range), abs=1e-9)


def test_ssim(pair):
    x, y, data_range = pair
    found = structural_similarity(
        x, y, data_range=data_range, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ours("ssim", x, y, data_range).total == pytest.approx(found, abs=1e-9)
    gauss = {"fltr": sewar.Filter.GAUSSIAN, "sigma": 1.5, "ws": 11}
    found, _ = sewar.ssim(last(x), last(y), MAX=data_range, fltr_specs=gauss)
    assert ours("ssim", x, y, data_range).total == pytest.approx(found, abs=1e-9)


def test_sam(pair):
    """That of sewar 0.4.8 was the angle between whole bands; 0.4.10 has it right."""
    x, y, _ = pair
    assert ours("sam", x, y).total == pytest.approx(np.degrees(sewar.sam(last(x), last(y))), abs=1e-9)
    x, y = x.copy(), y.copy()
    x[:, 3, 4], y[:, 5, 6] = 0, 0
    assert ours("sam", x, y).total == pytest.approx(np.degrees(sewar.sam(last(x), last(y))), abs=1e-9)


@pytest.mark.parametrize("ratio", [1, 2, 6])
def test_ergas(pair, ratio):
    x, y, _ = pair
    assert ours("ergas", x, y, ratio=ratio).total == pytest.approx(sewar.ergas(last(x), last(y), r=1 / ratio), rel=1e-9)


def test_uiq(pair):
    """The package's own loop over windows is Wang and Bovik's where no window is flat."""
    x, y, _ = pair
    assert ours("uiq", x, y).total == pytest.approx(package("uiq", x, y), abs=1e-6)


def test_uiq_of_sewar_is_wrong(pair):
    """It puts means where its formula has sums, so that a change of contrast hardly counts."""
    x, _, _ = pair
    y = x.mean(axis=(1, 2), keepdims=True) + 0.5 * (x - x.mean(axis=(1, 2), keepdims=True))
    right = ours("uiq", x, y).total
    assert right == pytest.approx(package("uiq", x, y), abs=1e-6)
    assert sewar.uqi(last(x), last(y)) > right + 0.01


@pytest.fixture
def tensors(pair):
    torch = pytest.importorskip("torch", reason="'make test-similarity' installs PyTorch where it can be had")
    pytest.importorskip("torchmetrics", reason="'make test-similarity' installs torchmetrics")
    x, y, data_range = pair
    return *(torch.from_numpy(image)[None] for image in (y, x)), data_range


def test_torchmetrics(pair, tensors):
    """RMSE, PSNR, SSIM, SAM and ERGAS, in its order: image, then reference. Its SSIM mirrors the image at the edges and
    counts the windows there, which Wang et al. do not; without them it is ours.
    """
    from torchmetrics.functional import mean_squared_error
    from torchmetrics.functional.image import (
        error_relative_global_dimensionless_synthesis,
        peak_signal_noise_ratio,
        spectral_angle_mapper,
        structural_similarity_index_measure,
    )

    x, y, data_range = pair
    image, reference, _ = tensors
    bands = [float(mean_squared_error(image[:, b], reference[:, b], squared=False)) for b in range(len(x))]
    assert ours("rmse", x, y).bands == pytest.approx(bands, rel=1e-6)
    found = peak_signal_noise_ratio(image, reference, data_range=data_range)
    assert ours("psnr", x, y, data_range).total == pytest.approx(float(found), abs=1e-4)
    _, places = structural_similarity_index_measure(image, reference, data_range=data_range, return_full_image=True)
    found = places[..., 5:-5, 5:-5].mean()
    assert ours("ssim", x, y, data_range).total == pytest.approx(float(found), abs=1e-6)
    found = np.degrees(float(spectral_angle_mapper(image, reference)))
    assert ours("sam", x, y).total == pytest.approx(found, abs=1e-5)
    found = error_relative_global_dimensionless_synthesis(image, reference, ratio=2)
    assert ours("ergas", x, y, ratio=2).total == pytest.approx(float(found), rel=1e-5)


def test_uiq_of_torchmetrics_has_other_windows(pair, tensors):
    """A Gaussian of 11 x 11 instead of Wang and Bovik's 8 x 8: another figure, though not a wrong one."""
    from torchmetrics.functional.image import universal_image_quality_index

    x, y, _ = pair
    image, reference, _ = tensors
    assert abs(float(universal_image_quality_index(image, reference)) - ours("uiq", x, y).total) > 1e-3
