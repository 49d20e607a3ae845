"""A model's figures on a real scene by Wald's protocol: degrade, sharpen, compare with the original bands.

Every band is blurred and reduced by the task's factor s (2 or 6), the model sharpens the result, and what it gives has
the grid of the scene's own 20 m or 60 m bands, which are the reference. Wald, Ranchin and Mangolini 1997; blur and
border as in DSen2's published figures (Lanaras et al. 2018, doi:10.1016/j.isprsjprs.2018.09.018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..errors import InputError, ModelError
from ..jobs import EvaluateJob
from ..outputs import write_text
from ..progress import Progress
from ..raster.grid import Grid, Window
from ..raster.image import GDAL_CACHE
from ..raster.resample import upsample
from ..raster.targets import check_outputs
from ..raster.tiles import crop, fill
from ..redaction import json_text
from ..scene import Scene, open_scene
from ..similarity.compare import plain
from ..similarity.comparison import Comparison, Result
from ..similarity.measure import BLOCK_STEP, Block, Setup
from ..similarity.rasters import described
from ..similarity.report import Candidate, Report, write_report
from ..similarity.window import SSIM_WINDOW
from .card import ModelCard, read_card
from .model import REACH, Model, check_bands, find_model, load_model
from .selection import check_level
from .wald import blur_reach, degraded, reduction

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

DN = 1e4
"""What reflectance 1 is in the figures."""

BLOCK = 1920
"""Side of a block in 10 m pixels: bounds the memory, does not change the figures."""

LEAST = SSIM_WINDOW["reference"]
"""Pixels to compare along each side: the largest of the measures' windows."""

MEASURES: Sequence[str] = ()
"""Of the catalogue, by name; none: all."""

WAYS = ("model", "bicubic")
"""What is compared with the original bands, as in the figures."""

SPLINE_REACH = 12
"""Coarse pixels that bicubic interpolation depends on, beyond 1e-6 of their values."""


def evaluate(job: EvaluateJob, progress: Progress) -> dict[str, Any]:
    """Score a model on a scene, and bicubic interpolation beside it.

    Returns ``bands``: for each band, and ``mean``: for all together, the measures of the catalogue in their reference
    definitions, such as ``rmse`` (DN, that is reflectance x 10000), ``sre`` (dB), ``uiq`` and, for all together,
    ``sam`` (degrees), each for ``model`` and ``bicubic``, and ``ratio`` of the two RMSE; ``rmse``, ``rmse_bicubic`` and
    ``ratio`` of the mean again; ``pixels`` compared, and what was compared. A figure that is infinite or that nothing
    can tell is None. Where a band has nodata or is saturated, the pixel and those degraded with it do not count.
    Raises `InputError`, `ModelError`, `OutputError`, `MissingPackageError`, `Cancelled`.
    """
    check_outputs([job.json_file, job.report], inputs=[job.scene, job.roi])
    folder = find_model(job.model)
    card = read_card(folder)
    if card.task == "cross-sensor":
        raise ModelError(
            f"The model {card.name} needs a finer sensor's image to be compared with, not a scene; the figures of its "
            "test pairs are in its card."
        )
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE), open_scene(job.scene, job.scene_options) as scene:
        for warning in scene.warnings:
            progress.log(warning, "warning")
        check_bands(card, scene.bands)
        for band in card.output_bands:
            scene.band(band)
        check_level(card, scene.level, job.allow_other_level, progress)
        model = load_model(folder, job.device, job.threads, job.precision)
        protocol = _Protocol(scene, model, job)
        results = protocol.results(job, progress)
    outputs = {
        "model": card.name,
        "scene": scene.name,
        "level": scene.level,
        "task": card.task,
        "factor": protocol.factor,
        "sigma": protocol.sigma,
        "border": job.border,
        "device": model.device,
        "precision": model.precision,
        "assumptions": list(scene.warnings),
        **_figures(results),
    }
    progress.log(
        f"{card.name} on {scene.name}: RMSE {outputs['rmse']:.1f} DN, bicubic {outputs['rmse_bicubic']:.1f} DN, "
        f"ratio {outputs['ratio']:.3f}"
    )
    if outputs["rmse"] > outputs["rmse_bicubic"]:
        progress.log(f"The model is worse than bicubic on {scene.name}: do not use it there.", "warning")
    figures: dict[str, Any] = plain(outputs)
    if job.report:
        write_report(_report(job, card, scene, protocol, results), job.report, progress)
        figures["report"] = str(job.report)
        progress.artifact("report", str(job.report))
    if job.json_file:
        write_text(job.json_file, json_text(figures))
        progress.artifact("json_file", str(job.json_file))
    progress.progress(100, "Done")
    return figures


class _Protocol:
    """Where and how a scene is degraded and compared. Windows are in pixels of the target grid, from the area's corner.

    The target grid is the scene's own grid of the bands that the model sharpens; the model sees it as its finest.
    """

    def __init__(self, scene: Scene, model: Model, job: EvaluateJob) -> None:
        self.scene, self.model = scene, model
        self.factor = reduction(model.card)
        self.sigma = 1 / self.factor if job.sigma is None else job.sigma
        coarsest = max(model.factor(band) for band in model.card.input_bands)
        area = scene.roi_window(job.roi) if job.roi else scene.grid.window
        width, height = (side // (self.factor * coarsest) * coarsest for side in (area.width, area.height))
        self.area, self.whole = area, Window(0, 0, width, height)
        self.inner = self.whole.grown(-job.border)
        if min(self.inner.shape) < LEAST:
            raise InputError(
                f"{scene.name} gives {width} x {height} pixels to compare, too few with a border of {job.border} "
                f"and windows of {LEAST} x {LEAST}; choose a larger scene or region, or a smaller border."
            )
        self.unit = math.lcm(coarsest, model.multiple)
        self.halo = max(model.halo, SPLINE_REACH * self.factor) + blur_reach(model.card, self.factor, self.sigma)

    @property
    def grid(self) -> Grid:
        """Of the compared pixels."""
        return self.scene.grid.crop(self.area).coarser(self.factor).crop(self.inner)

    def results(self, job: EvaluateJob, progress: Progress) -> tuple[Result, Result]:
        """What the comparisons of the model and of bicubic interpolation find."""
        bands = self.model.card.output_bands
        setup = Setup(len(bands), self.inner.height, self.inner.width, DN, ratio=self.factor)
        comparisons = [Comparison(MEASURES, bands, setup, job.report is not None) for _ in WAYS]
        blocks, pixels = self._blocks(), 0
        with ThreadPoolExecutor(min(job.threads or len(WAYS), len(WAYS))) as executor:
            for number, own in enumerate(blocks):
                progress.check()
                progress.progress(95 * number / len(blocks), f"Block {number + 1} of {len(blocks)}")
                pairs = self._pairs(own, comparisons[0].halo)
                pixels += int(pairs[0].valid[0][pairs[0].own].sum())
                parts = [
                    executor.submit(comparison.observe, pair, progress.check)
                    for comparison, pair in zip(comparisons, pairs, strict=True)
                ]
                for comparison, part in zip(comparisons, parts, strict=True):
                    comparison.take(part.result())
        if not pixels:
            raise InputError("No pixel can be compared: every one has nodata or is saturated in one of the bands.")
        progress.progress(95, "Measures of the whole image")
        return comparisons[0].result(), comparisons[1].result()

    def _blocks(self) -> list[Window]:
        """The parts of the compared pixels, row by row."""
        inner, side = self.inner, max(BLOCK // self.factor // BLOCK_STEP, 1) * BLOCK_STEP
        return [
            Window(col, row, side, side).clipped(inner.col + inner.width, inner.row + inner.height)
            for row in range(inner.row, inner.row + inner.height, side)
            for col in range(inner.col, inner.col + inner.width, side)
        ]

    def _pairs(self, own: Window, halo: int) -> list[Block]:
        """A block of the original bands in DN with the model's image, and with bicubic interpolation."""
        inner = self.inner
        left, top = max(own.col - halo, inner.col), max(own.row - halo, inner.row)
        right = min(own.col + own.width + halo, inner.col + inner.width)
        bottom = min(own.row + own.height + halo, inner.row + inner.height)
        block = Window(left, top, right - left, bottom - top)
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
        counts = crop(mask, seen, block)
        x, *images = (
            np.stack([np.where(counts, crop(image[band], seen, block) * DN, 0).astype(np.float64) for band in bands])
            for image in (reference, sharp, smooth)
        )
        valid = counts[np.newaxis].repeat(len(bands), axis=0)
        rows, cols = (slice(start, start + length) for start, length in (
            (own.row - block.row, own.height), (own.col - block.col, own.width)
        ))  # fmt: skip
        return [Block(x, y, valid, block.row - inner.row, block.col - inner.col, (rows, cols)) for y in images]

    def _around(self, block: Window, halo: int) -> Window:
        """The window to degrade: the block with its halo, on whole pixels of every degraded band."""
        left, top = ((start - halo) // self.unit * self.unit for start in (block.col, block.row))
        right = -((-block.col - block.width - halo) // self.unit) * self.unit
        bottom = -((-block.row - block.height - halo) // self.unit) * self.unit
        left, top = max(left, 0), max(top, 0)
        return Window(left, top, right - left, bottom - top).clipped(self.whole.width, self.whole.height)

    def _degraded(self, window: Window) -> tuple[dict[str, Float], dict[str, tuple[Float, Mask]], Mask]:
        """A window's reference bands, its degraded bands with where they are known, and which pixels count."""
        ten = window.finer(self.factor)
        place = Window(self.area.col + ten.col, self.area.row + ten.row, ten.width, ten.height)
        return degraded(self.scene, self.model.card, place, self.factor, self.sigma)


def _figures(results: Sequence[Result]) -> dict[str, Any]:
    """Every score of each band and of all together, by way."""
    first = results[0]
    each: dict[str, dict[str, Any]] = {band: {way: {} for way in WAYS} for band in first.bands}
    mean: dict[str, Any] = {way: {} for way in WAYS}
    for way, result in zip(WAYS, results, strict=True):
        for name, score in result.scores.items():
            mean[way][name] = float(score.total)
            for band, value in zip(result.bands, [] if score.bands is None else score.bands, strict=False):
                each[band][way][name] = float(value)
    for row in (*each.values(), mean):
        rmse, bicubic = (row[way]["rmse"] for way in WAYS)
        row["ratio"] = rmse / bicubic if bicubic else math.nan
    return {
        "pixels": first.pixels,
        "bands": each,
        "mean": mean,
        "rmse": mean["model"]["rmse"],
        "rmse_bicubic": mean["bicubic"]["rmse"],
        "ratio": mean["ratio"],
    }


def _report(job: EvaluateJob, card: ModelCard, scene: Scene, protocol: _Protocol, results: Sequence[Result]) -> Report:
    facts = [
        ("Scene", f"{scene.name}, {scene.level}" if scene.level else scene.name),
        ("Model", f"{card.name}: {card.title}"),
        ("Reference", f"the scene's own bands at {protocol.grid.spacing:g} m"),
        (
            "Images",
            f"every band blurred (Gaussian of {protocol.sigma:.3g} fine pixels) and reduced {protocol.factor} times, "
            "then brought back by the model, and by bicubic interpolation (Wald's protocol)",
        ),
        ("Grid", described(protocol.grid)),
        ("Border left out", f"{job.border} pixels"),
    ]
    return Report(
        title=f"{card.name} on {scene.name}",
        facts=facts,
        candidates=[Candidate(name, result) for name, result in zip((card.name, "bicubic"), results, strict=True)],
        data_range_source="reflectance 0 to 1",
        unit="DN",
        warnings=scene.warnings,
    )
