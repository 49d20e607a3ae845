"""How alike two images are: the metrics, in their reference definitions."""

from .metrics import AngleSums, ErrorSums, QualitySums, Score, psnr, rmse, sam, sre, ssim, uiq

__all__ = ["AngleSums", "ErrorSums", "QualitySums", "Score", "psnr", "rmse", "sam", "sre", "ssim", "uiq"]
