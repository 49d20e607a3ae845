"""FSIM of the definition "reference" is piq's, and the Canny of ISSM is OpenCV's.

piq lays out its filters with rows and columns interchanged, against the authors' own code. The filters are the same but
at the highest frequency of an even side, so of the transposed images piq gives what we give of the images themselves.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from unittest import mock

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from similarity_pairs import real, sentinel2

from s2sr_qgis.core.similarity.canny import candidates, hysteresis
from s2sr_qgis.core.similarity.measures import measure


def field(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Smooth random values from 0 to 255."""
    rng = np.random.default_rng(seed)
    x = gaussian_filter(rng.normal(size=shape), (0,) * (len(shape) - 2) + (1.5, 1.5))
    return 255 * (x - x.min()) / np.ptp(x)


def noisy(x: np.ndarray, largest: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.clip(gaussian_filter(x, (0, 0.8, 0.8)) + rng.normal(0, 0.02 * largest, x.shape), 0, largest)


@pytest.fixture(scope="module")
def piq_fsim():
    torch = pytest.importorskip("torch", reason="'make test-similarity' installs PyTorch where it can be had")
    spec = importlib.util.find_spec("piq")
    if spec is None:
        pytest.skip("'make test-similarity' installs piq where PyTorch is")
    # piq as a whole wants torchvision, for measures by trained networks; its FSIM does not.
    bare = types.ModuleType("piq")
    bare.__path__ = list(spec.submodule_search_locations or ())
    with mock.patch.dict(sys.modules, piq=bare):
        from piq.fsim import fsim as by_piq

    def fsim(x: np.ndarray, y: np.ndarray, data_range: float) -> float:
        """Of one band, (H, W)."""
        tensors = [torch.tensor(a.astype(np.float64))[None, None] for a in (x, y)]
        return float(by_piq(*tensors, data_range=data_range, chromatic=False))

    return fsim


@pytest.mark.parametrize("shape", [(64, 64), (65, 80), (97, 101), (129, 640), (390, 400), (520, 515)])
def test_fsim(piq_fsim, shape):
    """Odd sides and even ones, and reduced by 2."""
    x = field(shape)[None]
    y = noisy(x, 255)
    found = measure(x, y, ["fsim"], data_range=255)["fsim"].total
    assert found == pytest.approx(piq_fsim(x[0].T, y[0].T, 255), abs=1e-9)
    assert found == pytest.approx(piq_fsim(x[0], y[0], 255), abs=1e-5)


def test_fsim_of_reflectance_and_of_real_bands(piq_fsim):
    for x, y, data_range in ((*sentinel2(), 4095.0), (real(100) / 1e4, noisy(real(100) / 1e4, 0.4), 1.0)):
        score = measure(x, y, ["fsim"], data_range=data_range)["fsim"]
        wanted = [piq_fsim(a.T, b.T, data_range) for a, b in zip(x, y, strict=True)]
        assert score.bands == pytest.approx(wanted, abs=1e-9)
        assert score.total == pytest.approx(np.mean(wanted), abs=1e-9)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("step", [1, 16])
def test_edges_are_those_of_opencv(bands, step):
    """To the pixel, with plateaus (values in steps) and without."""
    cv2 = pytest.importorskip("cv2", reason="'make test-similarity' installs OpenCV")
    images = [field((bands, *shape), seed) for seed, shape in enumerate([(70, 83), (200, 333), (1, 40), (40, 3)])]
    # The sample's real pixels have four bands; six are the first two again.
    images += [np.random.default_rng(3).uniform(0, 255, (bands, 64, 65))]
    images += [np.minimum(np.concatenate([real(120)] * 2)[:bands] / 8, 255)]
    for values in images:
        image = (values // step * step).astype(np.uint8)
        weak, strong = (np.packbits(edges, axis=1) for edges in candidates(image))
        found = np.unpackbits(hysteresis(weak, strong, image.shape[2]), axis=1, count=image.shape[2]) * 255
        assert (found == cv2.Canny(np.ascontiguousarray(np.moveaxis(image, 0, -1)), 100, 200)).all()
