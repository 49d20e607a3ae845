"""How alike two images are: measures in the papers' definitions and in those of image-similarity-measures."""

from .measure import Score
from .measures import (
    catalogue,
    ergas,
    fsim,
    issm,
    measure,
    psnr,
    q2n,
    rmse,
    sam,
    spatial_shift,
    spectral_correlation,
    sre,
    ssim,
    uiq,
)

__all__ = [
    "Score",
    "catalogue",
    "ergas",
    "fsim",
    "issm",
    "measure",
    "psnr",
    "q2n",
    "rmse",
    "sam",
    "spatial_shift",
    "spectral_correlation",
    "sre",
    "ssim",
    "uiq",
]
