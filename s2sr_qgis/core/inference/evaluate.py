"""A model's figures on a real scene by Wald's protocol: degrade, sharpen, compare with the original bands.

Every band is blurred and reduced by the task's factor s (2 or 6), the model sharpens the result, and what it gives has
the grid of the scene's own 20 m or 60 m bands, which are the reference. Wald, Ranchin and Mangolini 1997; blur and
border as in DSen2's published figures (Lanaras et al. 2018, doi:10.1016/j.isprsjprs.2018.09.018).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..errors import InputError, ModelError
from ..jobs import EvaluateJob
from ..progress import Progress
from ..raster.degradation import degradation_radius, degrade
from ..raster.grid import Window
from ..raster.resample import upsample
from ..raster.tiles import crop, fill
from ..raster.writer import atomic, check_target
from ..scene import Scene, open_scene
from ..similarity import AngleSums, ErrorSums, QualitySums
from ..similarity.metrics import UIQ_WINDOW
from .card import read_card
from .model import REACH, Model, check_bands, find_model, load_model
from .selection import check_level

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

DN = 1e4
"""What reflectance 1 is in the figures."""

BLOCK = 1920
"""Side of a block in 10 m pixels: bounds the memory, does not change the figures."""

CACHE = 256 * 2**20
"""Bytes that GDAL may keep of what it has read; its own bound is a share of the machine's memory."""

SPLINE_REACH = 12
"""Coarse pixels that bicubic interpolation depends on, beyond 1e-6 of their values."""


def evaluate(job: EvaluateJob, progress: Progress) -> dict[str, Any]:
    """Score a model on a scene, and bicubic interpolation beside it.

    Returns ``bands``: for each band, and ``mean``: over the bands, the figures ``rmse`` (DN, that is reflectance x
    10000), ``sre`` (dB), ``uiq`` and, for the mean, ``sam`` (degrees), each for ``model`` and ``bicubic``, and
    ``ratio`` of the two RMSE; ``rmse``, ``rmse_bicubic`` and ``ratio`` of the mean again; ``pixels`` compared, and what
    was compared. Where a band has nodata or is saturated, the pixel and those degraded with it do not count.
    Raises `InputError`, `ModelError`, `OutputError`, `MissingPackageError`, `Cancelled`.
    """
    if job.json_file:
        check_target(job.json_file.expanduser().absolute())
    folder = find_model(job.model)
    card = read_card(folder)
    if card.task == "cross-sensor":
        raise ModelError(
            f"The model {card.name} needs a finer sensor's image to be compared with, not a scene; the figures of its "
            "test pairs are in its card."
        )
    with rasterio.Env(GDAL_CACHEMAX=CACHE), open_scene(job.scene, job.scene_options) as scene:
        for warning in scene.warnings:
            progress.log(warning, "warning")
        check_bands(card, scene.bands)
        for band in card.output_bands:
            scene.band(band)
        check_level(card, scene.level, job.allow_other_level, progress)
        model = load_model(folder, job.device, job.threads, job.precision)
        protocol = _Protocol(scene, model, job)
        blocks = protocol.blocks()
        by_model, by_bicubic = _Sums(), _Sums()
        for number, block in enumerate(blocks):
            progress.check()
            progress.progress(98 * number / len(blocks), f"Block {number + 1} of {len(blocks)}")
            protocol.compare(block, by_model, by_bicubic)
    result = {
        "model": card.name,
        "scene": scene.name,
        "level": scene.level,
        "task": card.task,
        "factor": protocol.factor,
        "sigma": protocol.sigma,
        "border": job.border,
        "device": model.device,
        "precision": model.precision,
        **_figures(card.output_bands, by_model, by_bicubic),
    }
    progress.log(
        f"{card.name} on {scene.name}: RMSE {result['rmse']:.1f} DN, bicubic {result['rmse_bicubic']:.1f} DN, "
        f"ratio {result['ratio']:.3f}"
    )
    if job.json_file:
        with atomic(job.json_file) as temporary:
            temporary.write_text(json.dumps(_plain(result), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        progress.artifact("json_file", str(job.json_file))
    progress.progress(100, "Done")
    return result


@dataclass
class _Sums:
    """The metrics of one way of sharpening."""

    errors: ErrorSums = field(default_factory=ErrorSums)
    angles: AngleSums = field(default_factory=AngleSums)
    quality: QualitySums = field(default_factory=QualitySums)

    def add(self, reference: Float, image: Float, mask: Mask, own: Window) -> None:
        """Take in a block with the pixels of the next ones that its windows reach into; ``own`` is its own part."""
        part = np.s_[..., : own.height, : own.width]
        self.errors.add(reference[part], image[part], mask[part])
        self.angles.add(reference[part], image[part], mask[part])
        if min(mask.shape) >= UIQ_WINDOW:
            self.quality.add(reference, image, mask)

    def figures(self, bands: list[str]) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """Of each band, and of all together."""
        rmse, sre, uiq = self.errors.rmse(), self.errors.sre(), self.quality.uiq()
        each = {
            band: {"rmse": float(rmse.bands[i]), "sre": float(sre.bands[i]), "uiq": float(uiq.bands[i])}
            for i, band in enumerate(bands)
        }
        return each, {"rmse": rmse.total, "sre": sre.total, "sam": self.angles.sam(), "uiq": uiq.total}


class _Protocol:
    """Where and how a scene is degraded and compared. Windows are in pixels of the target grid, from the area's corner.

    The target grid is the scene's own grid of the bands that the model sharpens; the model sees it as its finest.
    """

    def __init__(self, scene: Scene, model: Model, job: EvaluateJob) -> None:
        self.scene, self.model = scene, model
        self.factor = max(model.factor(band) for band in model.card.output_bands)
        self.sigma = 1 / self.factor if job.sigma is None else job.sigma
        coarsest = max(model.factor(band) for band in model.card.input_bands)
        area = scene.roi_window(job.roi) if job.roi else scene.grid.window
        width, height = (side // (self.factor * coarsest) * coarsest for side in (area.width, area.height))
        self.area, self.whole = area, Window(0, 0, width, height)
        self.inner = self.whole.grown(-job.border)
        if min(self.inner.shape) < UIQ_WINDOW:
            raise InputError(
                f"{scene.name} gives {width} x {height} pixels to compare, too few with a border of {job.border} "
                f"and windows of {UIQ_WINDOW} x {UIQ_WINDOW}; choose a larger scene or region, or a smaller border."
            )
        self.unit = math.lcm(coarsest, model.multiple)
        blur = math.ceil(degradation_radius(self.factor, self.sigma) / self.factor) * coarsest
        self.halo = max(model.halo, SPLINE_REACH * self.factor) + blur

    def blocks(self) -> list[Window]:
        """The parts of the compared pixels, row by row."""
        inner, side = self.inner, max(BLOCK // self.factor // self.unit, 1) * self.unit
        return [
            Window(col, row, side, side).clipped(inner.col + inner.width, inner.row + inner.height)
            for row in range(inner.row, inner.row + inner.height, side)
            for col in range(inner.col, inner.col + inner.width, side)
        ]

    def compare(self, own: Window, by_model: _Sums, by_bicubic: _Sums) -> None:
        """Add a block's figures."""
        more = UIQ_WINDOW - 1
        right, bottom = self.inner.col + self.inner.width, self.inner.row + self.inner.height
        block = Window(own.col, own.row, own.width + more, own.height + more).clipped(right, bottom)
        seen = self._around(block, self.halo)
        reference, low, mask = self._degraded(seen)
        if not mask.all():  # filling looks further than the network
            seen = self._around(block, self.halo + REACH)
            reference, low, mask = self._degraded(seen)
        bands = self.model.card.output_bands
        sharp = self.model.predict({band: np.where(ok, image, np.nan) for band, (image, ok) in low.items()})
        smooth = {
            band: upsample(fill(*low[band], REACH / self.model.factor(band)), self.model.factor(band), "bicubic")
            for band in bands
        }
        images = [np.stack([crop(x[band], seen, block) for band in bands]) * DN for x in (reference, sharp, smooth)]
        counts = crop(mask, seen, block)
        by_model.add(images[0], images[1], counts, own)
        by_bicubic.add(images[0], images[2], counts, own)

    def _around(self, block: Window, halo: int) -> Window:
        """The window to degrade: the block with its halo, on whole pixels of every degraded band."""
        left, top = ((start - halo) // self.unit * self.unit for start in (block.col, block.row))
        right = -((-block.col - block.width - halo) // self.unit) * self.unit
        bottom = -((-block.row - block.height - halo) // self.unit) * self.unit
        left, top = max(left, 0), max(top, 0)
        return Window(left, top, right - left, bottom - top).clipped(self.whole.width, self.whole.height)

    def _degraded(self, window: Window) -> tuple[dict[str, Float], dict[str, tuple[Float, Mask]], Mask]:
        """A window's reference bands, its degraded bands with where they are known, and which pixels count."""
        f, card = self.factor, self.model.card
        place = Window(
            self.area.col + window.col * f, self.area.row + window.row * f, window.width * f, window.height * f
        )
        pixels = self.scene.read(list(dict.fromkeys([*card.input_bands, *card.output_bands])), place)
        usable = {band: ok & ~pixels.saturated[band] for band, ok in pixels.valid.items()}
        mask = np.ones(window.shape, bool)
        low: dict[str, tuple[Float, Mask]] = {}
        for band in card.input_bands:
            image, ok = pixels.data[band], usable[band]
            blocks = ok.reshape(image.shape[0] // f, f, image.shape[1] // f, f)
            low[band] = degrade(image, f, self.sigma, ok), np.asarray(blocks.any(axis=(1, 3)), bool)
            coarser = self.model.factor(band)
            mask &= blocks.all(axis=(1, 3)).repeat(coarser, axis=0).repeat(coarser, axis=1)
        for band in card.output_bands:
            mask &= usable[band]
        return {band: pixels.data[band] for band in card.output_bands}, low, mask


def _figures(bands: list[str], by_model: _Sums, by_bicubic: _Sums) -> dict[str, Any]:
    each, mean = by_model.figures(bands)
    each_bicubic, mean_bicubic = by_bicubic.figures(bands)
    pixels = int(np.max(by_model.errors.count))
    if not pixels:
        raise InputError("No pixel can be compared: every one has nodata or is saturated in one of the bands.")
    return {
        "pixels": pixels,
        "bands": {
            band: {
                "model": each[band],
                "bicubic": each_bicubic[band],
                "ratio": _ratio(each[band]["rmse"], each_bicubic[band]["rmse"]),
            }
            for band in bands
        },
        "mean": {"model": mean, "bicubic": mean_bicubic, "ratio": _ratio(mean["rmse"], mean_bicubic["rmse"])},
        "rmse": mean["rmse"],
        "rmse_bicubic": mean_bicubic["rmse"],
        "ratio": _ratio(mean["rmse"], mean_bicubic["rmse"]),
    }


def _ratio(rmse: float, bicubic: float) -> float:
    return rmse / bicubic if bicubic else math.nan


def _plain(value: Any) -> Any:
    """The same figures as JSON can hold them: no infinity, no NaN."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
