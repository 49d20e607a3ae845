"""Pairs for sharpening by Wald's protocol: a scene degraded by 2 or 6 is the input, the scene itself the target.

Wald, Ranchin and Mangolini 1997; degradation and patch sizes as in DSen2 (Lanaras et al. 2018,
doi:10.1016/j.isprsjprs.2018.09.018). Everything streams: a tile of some hundred patches at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from ..errors import DatasetError, InputError, OutputError
from ..jobs import CreateSharpeningDatasetJob
from ..outputs import atomic
from ..progress import Progress
from ..raster.degradation import degradation_radius, degrade
from ..raster.grid import Window
from ..raster.image import GDAL_CACHE
from ..scene import Scene, open_scene
from ..scene.mtf import blur_sigmas
from .card import (
    FACTOR,
    SPLITS,
    TARGET,
    DatasetCard,
    PatchCard,
    SourceCard,
    Split,
    layout,
    read_dataset,
    recorded,
    software_version,
    write_card,
)
from .clouds import add_clouds
from .distillation import check_teacher, taught_pairs
from .mixtures import Place, mixed_pairs
from .patches import PatchWriter, write_preview
from .splits import Bounds, Partition, Region, check_shares, plan_splits

if TYPE_CHECKING:
    from ..inference.model import Model

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

PATCH_SIZE = {"20m": 32, "60m": 96}
"""Side of a patch on the target grid where the job does not say it, as in DSen2."""

READ_SIDE = 1536
"""Largest side of a read, in 10 m pixels, where a single patch is not larger."""


@dataclass(frozen=True)
class _Recipe:
    """How the pairs are cut; lengths in pixels of the target grid unless they say otherwise."""

    task: str
    factor: int
    size: int
    step: int
    tensors: list[PatchCard]
    sigmas: dict[str, float]

    @property
    def inputs(self) -> list[PatchCard]:
        return [tensor for tensor in self.tensors if tensor.name != TARGET]

    @property
    def bands(self) -> list[str]:
        return [band for tensor in self.inputs for band in tensor.bands]

    def radius(self, tensor: PatchCard) -> int:
        """How far the blur of an input reaches beyond a patch, in that input's pixels before the reduction."""
        return max(degradation_radius(self.factor, self.sigmas[band]) for band in tensor.bands)

    @property
    def reach(self) -> int:
        """How far a patch depends on the ground around it; whole pixels of every input."""
        pixels = max(self.radius(t) * t.coarser() / self.factor for t in self.inputs)
        return max(math.ceil(pixels / self.factor), 1) * self.factor


@dataclass(frozen=True)
class _Tile:
    """Patches that are cut from one read: their upper-left corners, and the window read, on the target grid."""

    corners: list[tuple[int, int, Split]]
    window: Window


def create_sharpening_dataset(job: CreateSharpeningDatasetJob, progress: Progress) -> dict[str, Any]:
    """Cut a dataset for sharpening out of scenes, into a folder that appears when it is complete.

    Returns ``output``, ``task``, ``n_train``, ``n_valid``, ``n_test``, ``assumptions``. Raises `InputError` for scenes,
    sizes or proportions that cannot be used, `OutputError` for a folder that cannot be written.
    """
    recipe = _recipe(job)
    proportions = (job.train, job.valid, job.test)
    check_shares(proportions)
    output = job.output.expanduser().absolute()
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE), atomic(output, folder=True) as folder:
        scenes = [open_scene(source, job.scene_options) for source in job.scenes]
        try:
            card = _fill(job, recipe, scenes, folder, progress)
        finally:
            for scene in scenes:
                scene.close()
        write_card(card, folder)
        try:
            written = read_dataset(folder)
        except DatasetError as error:
            raise OutputError(f"{output} could not be written completely; look whether the disk is full.") from error
        for split in SPLITS:
            if written.count(split):
                write_preview(written, split, folder / f"preview_{split}.png")
    progress.artifact("dataset", str(output))
    counts = {f"n_{split}": card.counts[split] for split in SPLITS}
    assumptions = list(dict.fromkeys(text for source in card.sources for text in source.assumptions))
    return {"output": str(output), "task": job.task, **counts, "assumptions": assumptions}


def _recipe(job: CreateSharpeningDatasetJob) -> _Recipe:
    factor = FACTOR[job.task]
    size = job.patch_size or PATCH_SIZE[job.task]
    step = job.step or size
    for name, value in (("patch size", size), ("step", step)):
        if value % factor:
            raise InputError(
                f"The {name} must be a multiple of {factor} for the {job.task} task, so that the pixels of both grids "
                f"coincide; {value} is not, {math.ceil(value / factor) * factor} is."
            )
    tensors = layout(job.task, size)
    bands = [band for tensor in tensors for band in tensor.bands]
    return _Recipe(job.task, factor, size, step, tensors, blur_sigmas(bands, factor, job.sigma, job.sensor_mtf))


def _fill(
    job: CreateSharpeningDatasetJob, recipe: _Recipe, scenes: Sequence[Scene], folder: Path, progress: Progress
) -> DatasetCard:
    """Write the patch images of all scenes and return their card."""
    for scene in scenes:
        for warning in scene.warnings:
            progress.log(warning, "warning")
    areas = [_area(scene, recipe, job.roi) for scene in scenes]
    regions = [_region(s, a, recipe) for s, a in zip(scenes, areas, strict=True)]
    proportions = (job.train, job.valid, job.test)
    plan = plan_splits(regions, proportions, job.split, job.block_size, job.seed, progress)
    teacher = _teacher(job, recipe)
    sources = []
    with PatchWriter(folder, recipe.tensors) as writer:
        for number, (scene, area, partition) in enumerate(zip(scenes, areas, plan.partitions, strict=True)):
            before = dict(writer.counts)
            for level in range(job.scales):
                done = (number + level / job.scales) / len(scenes)
                span = 90 / (len(scenes) * job.scales)
                _cut(scene, area, partition, recipe, 2**level, writer, progress, (90 * done, span))
                for copy in range(job.clouds):
                    sky = (job.seed, number, level, copy)
                    _cut(scene, area, partition, recipe, 2**level, writer, progress, (90 * done + span, 0), sky)
            if teacher:
                taught = 0
                rng = np.random.default_rng((job.seed, number))
                lesson = (scene, area, partition, recipe.tensors, recipe.step, teacher, job.teacher_variants, rng)
                for split, pair in taught_pairs(*lesson, progress):
                    writer.add(split, pair)
                    taught += 1
                progress.log(f"{scene.name} with {teacher.card.name}'s result: {taught} patches.")
            gained = {split: writer.counts[split] - before[split] for split in SPLITS}
            sources.append(_source(scene, job.licence, gained))
            scene.close()
        if job.mixtures:
            places = [Place(*trio) for trio in zip(scenes, areas, plan.partitions, strict=True)]
            mixed = (places, job.mixtures, recipe.tensors, recipe.factor, recipe.sigmas, teacher)
            before = dict(writer.counts)
            for pair in mixed_pairs(*mixed, np.random.default_rng((job.seed, 1)), progress):
                writer.add("train", pair)
            progress.log(f"Mixtures of two places: {writer.counts['train'] - before['train']} patches.")
        if not any(writer.counts.values()):
            raise InputError(
                f"No patch of {recipe.size} x {recipe.size} pixels is left: all have nodata or saturated pixels or lie "
                "across blocks of different splits; choose smaller patches, a smaller step or other proportions."
            )
        progress.progress(90, "Writing patch images")
        try:
            writer.finish(scenes[0].grid.spacing, progress)
        except RasterioError as error:
            raise OutputError(f"{job.output} could not be written; look whether the disk is full.") from error
    for split, proportion in zip(SPLITS, proportions, strict=True):
        if proportion > 0 and not writer.counts[split]:
            progress.log(f"The dataset has no {split} patches: the scenes are too small for its share.", "warning")
    return DatasetCard(
        task=job.task,
        factor=recipe.factor,
        tensors=recipe.tensors,
        counts=writer.counts,
        patch_size=recipe.size,
        step=recipe.step,
        scales=job.scales,
        clouds=job.clouds,
        teacher=teacher.card.name if teacher else None,
        teacher_variants=job.teacher_variants if teacher else 0,
        mixtures=job.mixtures,
        sigma=recipe.sigmas,
        sensor_mtf=job.sensor_mtf,
        split=plan.method,
        proportions=dict(zip(SPLITS, proportions, strict=True)),
        block_size=plan.block_size,
        seed=job.seed,
        sources=sources,
        s2sr=software_version(),
        job=recorded(job),
    )


def _teacher(job: CreateSharpeningDatasetJob, recipe: _Recipe) -> Model | None:
    if not job.teacher:
        return None
    from ..inference.model import load_model

    teacher = load_model(job.teacher)
    check_teacher(teacher, recipe.tensors)
    return teacher


def _area(scene: Scene, recipe: _Recipe, roi: str | None) -> Window:
    """The part of a scene, in 10 m pixels, that patches come from. Raises `InputError` when it cannot give any."""
    missing = [band for band in recipe.bands if band not in scene.bands]
    if missing:
        raise InputError(
            f"The {recipe.task} task takes {', '.join(recipe.bands)}, but {scene.name} has only "
            f"{', '.join(scene.bands)}: {', '.join(missing)} missing."
        )
    area = scene.roi_window(roi) if roi else scene.grid.window
    columns, rows = (side // recipe.factor**2 * recipe.factor for side in (area.width, area.height))
    if min(columns, rows) < recipe.size:
        raise InputError(
            f"{scene.name} gives {columns} x {rows} pixels of the {recipe.task} target grid, less than one patch of "
            f"{recipe.size} x {recipe.size}; choose a smaller patch size or leave the scene out."
        )
    return area


def _region(scene: Scene, area: Window, recipe: _Recipe) -> Region:
    patch = recipe.size * recipe.factor * scene.grid.spacing
    return Region(scene.grid.crs, scene.grid.crop(area).bounds, patch)


def _cut(
    scene: Scene,
    area: Window,
    partition: Partition,
    recipe: _Recipe,
    scale: int,
    writer: PatchWriter,
    progress: Progress,
    part: tuple[float, float],
    sky: tuple[int, ...] | None = None,
) -> None:
    """Cut the pairs of one scene reduced by ``scale`` and log what became of them; ``sky``: seed of clouds over it."""
    kept = damaged = 0
    for done, tile in _tiles(scene, area, partition, recipe, scale):
        progress.check()
        progress.progress(part[0] + part[1] * done, f"Cutting patches from {scene.name}")
        for split, pair in _pairs(scene, area, recipe, scale, tile, sky):
            if pair is None:
                damaged += 1
            else:
                writer.add(split, pair)
                kept += 1
    at = (f" at {scale} times coarser" if scale > 1 else "") + (" under simulated clouds" if sky else "")
    progress.log(f"{scene.name}{at}: {kept} patches, {damaged} left out for nodata or saturated pixels.")


def _tiles(
    scene: Scene, area: Window, partition: Partition, recipe: _Recipe, scale: int
) -> Iterator[tuple[float, _Tile]]:
    """The patches whose ground has one split, gathered into reads of bounded size; with the share already given."""
    unit = recipe.factor * scale  # 10 m pixels of a target pixel
    multiple = recipe.factor
    height, width = (side // (unit * multiple) * multiple for side in (area.height, area.width))
    rows = range(0, height - recipe.size + 1, recipe.step)
    columns = range(0, width - recipe.size + 1, recipe.step)
    at_once = max((READ_SIDE // unit - recipe.size - 2 * recipe.reach) // recipe.step + 1, 1)
    for row in range(0, len(rows), at_once):
        for column in range(0, len(columns), at_once):
            corners = []
            for r in rows[row : row + at_once]:
                for c in columns[column : column + at_once]:
                    split = partition.split_of(_ground(scene, area, recipe, unit, r, c))
                    if split is not None:
                        corners.append((r, c, split))
            if corners:
                top, left = min(r for r, _, _ in corners), min(c for _, c, _ in corners)
                bottom, right = max(r for r, _, _ in corners), max(c for _, c, _ in corners)
                core = Window(left, top, right - left + recipe.size, bottom - top + recipe.size)
                yield row / len(rows), _Tile(corners, core.grown(recipe.reach).clipped(width, height))


def _ground(scene: Scene, area: Window, recipe: _Recipe, unit: int, row: int, column: int) -> Bounds:
    """What a patch depends on, in the scene's CRS: its own ground and the reach of the blur around it."""
    patch = Window(column, row, recipe.size, recipe.size).grown(recipe.reach)
    window = Window(area.col + patch.col * unit, area.row + patch.row * unit, patch.width * unit, patch.height * unit)
    return scene.grid.crop(window).bounds


def _pairs(
    scene: Scene, area: Window, recipe: _Recipe, scale: int, tile: _Tile, sky: tuple[int, ...] | None
) -> Iterator[tuple[Split, dict[str, Float] | None]]:
    """Each patch of a tile: its split, and its tensors in DN without offset, or None where a pixel is unusable."""
    factor, window = recipe.factor, tile.window
    inputs: dict[str, Float] = {}
    bad: dict[str, Mask] = {}
    target = recipe.tensors[-1]
    fine: dict[str, Float] = {}
    for tensor in recipe.inputs:
        fine[tensor.name], bad[tensor.name] = _read(scene, area, window, tensor, factor, scale)
    if sky:
        rng = np.random.default_rng((*sky, window.row, window.col))
        add_clouds(fine, recipe.inputs, recipe.inputs[0].resolution * scale, rng)
    for tensor in recipe.inputs:
        images = fine[tensor.name]
        inputs[tensor.name] = np.stack(
            [degrade(image, factor, recipe.sigmas[band]) for band, image in zip(tensor.bands, images, strict=True)]
        )
        if tensor.bands == target.bands:
            inputs[TARGET] = images
    for row, column, split in tile.corners:
        y, x = row - window.row, column - window.col
        if any(_support(bad[t.name], y, x, recipe, t).any() for t in recipe.inputs):
            yield split, None
            continue
        yield split, {t.name: _patch(inputs[t.name], y, x, recipe, t) for t in recipe.tensors}


def _patch(image: Float, y: int, x: int, recipe: _Recipe, tensor: PatchCard) -> Float:
    coarser = recipe.size // tensor.size
    y, x = y // coarser, x // coarser
    return image[:, y : y + tensor.size, x : x + tensor.size]


def _support(bad: Mask, y: int, x: int, recipe: _Recipe, tensor: PatchCard) -> Mask:
    """The pixels of an input, before the reduction, that a patch depends on."""
    finer = recipe.factor // tensor.coarser()
    radius, side = recipe.radius(tensor), recipe.size * finer
    top, left = y * finer, x * finer
    return bad[max(top - radius, 0) : top + side + radius, max(left - radius, 0) : left + side + radius]


def _read(scene: Scene, area: Window, window: Window, tensor: PatchCard, factor: int, scale: int) -> tuple[Float, Mask]:
    """The bands of an input over a window of the target grid, reduced by ``scale``.

    Returns DN without offset, (bands, h, w), and where any band has nodata or is saturated, (h, w). Reads in parts, so
    that a coarse scale does not need the whole ground in memory at full resolution.
    """
    pixel = tensor.coarser() * scale  # 10 m pixels of a pixel of the result
    unit = factor * scale
    left, top = area.col + window.col * unit, area.row + window.row * unit
    width, height = window.width * unit, window.height * unit
    data = np.empty((len(tensor.bands), height // pixel, width // pixel), np.float32)
    bad = np.empty(data.shape[1:], bool)
    side = max(READ_SIDE // (unit * factor), 1) * unit * factor
    for row in range(0, height, side):
        for column in range(0, width, side):
            part = Window(left + column, top + row, min(side, width - column), min(side, height - row))
            y = slice(row // pixel, (row + part.height) // pixel)
            x = slice(column // pixel, (column + part.width) // pixel)
            pixels = scene.read(tensor.bands, part)
            unusable = np.zeros(pixels.data[tensor.bands[0]].shape, bool)
            for index, band in enumerate(tensor.bands):
                image = pixels.data[band]
                unusable |= ~pixels.valid[band] | pixels.saturated[band] | ~np.isfinite(image)
                data[index, y, x] = degrade(image, scale, 0.0) / 1e-4
            bad[y, x] = unusable.reshape(y.stop - y.start, scale, x.stop - x.start, scale).any(axis=(1, 3))
    return data, bad


def _source(scene: Scene, licence: str | None, patches: dict[Split, int]) -> SourceCard:
    return SourceCard(
        name=scene.name,
        source=scene.source.split("?")[0],  # the rest of a signed address is a secret
        level=scene.level,
        platform=scene.platform,
        acquired=scene.acquired.isoformat() if scene.acquired else None,
        licence=licence,
        patches=patches,
        assumptions=list(scene.warnings),
    )
