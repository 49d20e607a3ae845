"""Cross-sensor super-resolution of a scene: its 10 m bands in, the same bands on a finer sensor's grid out."""

from __future__ import annotations

import math
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, ModelError
from ..jobs import SuperResolveJob
from ..progress import Progress
from ..raster.grid import Grid, Window
from ..raster.image import Image
from ..raster.otb import require_application
from ..raster.serve import APPLICATION, FIELD, ServeJob, Source, serve, serve_job
from ..raster.superimpose import superimpose
from ..raster.tiles import Tile, crop, fill, mirrored, tiles
from ..raster.writer import Clipped, FileOptions, OutputBand, assumed, clipped_sentences, write_raster
from ..scene import Scene
from ..scene.bands import BANDS
from ..scene.image import SCALING, SceneImage
from .card import SAVED_MODEL, ModelCard
from .model import REACH, Model, check_bands, load_model
from .pipeline import ordered
from .selection import check_level
from .tile_size import BLOCK, plan_model

Float = NDArray[np.float32]


def super_resolve_cross_sensor(
    job: SuperResolveJob, scene: Scene, folder: Path, card: ModelCard, progress: Progress
) -> dict[str, Any]:
    """Write a scene's bands as a finer sensor would show them; called by `super_resolve`.

    The scene is superimposed (bicubic) on a grid of the model's own spacing that shares the scene's corner; the output
    is ``scale`` times finer than that: with the tutorial's model 6 m in, 1.5 m out. A region of interest grows to whole
    pixels of that grid and gives the same pixels as the whole scene would. uint16 is reflectance times 10000, nodata 0.
    """
    bands = list(card.output_bands)
    if job.bands and list(dict.fromkeys(job.bands)) != bands:
        raise ModelError(f"The model {card.name} makes {', '.join(bands)} together; leave the bands out.")
    if job.consistency:
        raise InputError("Consistency passes are for sharpened bands; leave them out with a cross-sensor model.")
    check_bands(card, scene.bands)
    check_level(card, scene.level, job.allow_other_level, progress)
    if job.engine == "otb":
        return _through_otbtf(job, scene, folder, card, progress)
    model = load_model(folder, job.device, job.threads, job.precision)
    coarse, area = _area(job, scene, card)
    fine = coarse.crop(area).finer(model.scale)
    source = superimpose(SceneImage(scene, card.input_bands), coarse)
    wanted = job.tile_size * 10 / model.finest if job.tile_size else None
    size, workers = plan_model(model, area, model.threads, wanted, job.memory)
    progress.log(
        f"summary: {scene.name}, {scene.level or 'level unknown'}, {', '.join(bands)} at {fine.spacing:g} m, "
        f"{fine.width} x {fine.height} pixels; model {card.name} on {model.device}, tiles of {size} pixels, "
        f"{workers} at once"
    )
    outputs = [_output_band(band, job.data_type) for band in bands]
    options = FileOptions(
        data_type=job.data_type,
        nodata=0 if job.data_type == "uint16" else math.nan,
        format=job.format,
        compression=job.compression,
        threads=job.threads,
        tags={"TIFFTAG_SOFTWARE": "s2sr", "SCENE": scene.name, "MODELS": card.name, **assumed(scene.warnings)},
    )
    output = job.output.expanduser().absolute()
    parts = tiles(area, size, model.halo, model.multiple)
    clipped: dict[str, Clipped] = {}
    drawn = ((tile, *_read(source, tile.padded, model)) for tile in parts)

    def done(
        item: tuple[Tile, dict[str, Float], NDArray[np.bool_]],
    ) -> tuple[Window, dict[str, NDArray[Any]], dict[str, Clipped]]:
        tile, seen, valid = item
        core = tile.core.finer(model.scale)
        good = crop(valid, tile.padded, tile.core).repeat(model.scale, 0).repeat(model.scale, 1)
        made = model.infer(seen) if good.any() else {}
        images, counts = {}, {}
        for band in outputs:
            if made:
                image = crop(made[band.name], tile.padded.finer(model.scale), core)
            else:
                image = np.zeros(core.shape, np.float32)
            images[band.name] = band.stored(image, good, job.data_type)
            counts[band.name] = band.beyond(image, good, job.data_type)
        place = tile.core
        return Window(place.col - area.col, place.row - area.row, *place.shape[::-1]).finer(model.scale), images, counts

    with write_raster(output, fine, outputs, options, progress.check) as writer:
        with closing(ordered(drawn, done, workers, progress.check)) as stream:
            for number, (place, images, counts) in enumerate(stream, start=1):
                progress.check()
                writer.write(place, images)
                clipped = {band: clipped.get(band, Clipped()) + count for band, count in counts.items()}
                progress.progress(95 * number / len(parts), f"Tile {number} of {len(parts)}")
        for sentence in clipped_sentences(clipped):
            scene.warnings.append(sentence)
            progress.log(sentence, "warning")
            writer.tag(assumed(scene.warnings))
        progress.progress(95, "Overviews")
    progress.progress(100, "Done")
    progress.artifact("output", str(output))
    return {
        "output": str(output),
        "scene": scene.name,
        "width": fine.width,
        "height": fine.height,
        "bands": bands,
        "models": [card.name],
        "level": scene.level,
        "device": model.device,
        "assumptions": list(scene.warnings),
    }


def otbtf_job(folder: Path, card: ModelCard, source: Path, field: int = FIELD) -> ServeJob:
    """The run of TensorflowModelServe that gives what the native engine gives, less the network's halo at the edges.

    ``source``: the scene's bands on the model's grid, DN without offset. Raises `ModelError` without a SavedModel.
    """
    saved = folder / SAVED_MODEL
    if not saved.is_dir():
        raise ModelError(f"{folder} holds no {SAVED_MODEL}, which OTBTF needs; export the run with --saved-model.")
    tensor = card.inputs[0]
    return serve_job(
        saved,
        [Source(tensor.name, tensor.resolution, [source])],
        card.outputs[0].name,
        card.outputs[0].resolution,
        card.radius,
        multiple=card.multiple,
        field=field,
    )


def _through_otbtf(
    job: SuperResolveJob, scene: Scene, folder: Path, card: ModelCard, progress: Progress
) -> dict[str, Any]:
    """The same through OTBTF, which reads files: the superimposed bands lie beside the output meanwhile."""
    require_application(APPLICATION)
    coarse, area = _area(job, scene, card)
    source = superimpose(SceneImage(scene, card.input_bands), coarse)
    output = job.output.expanduser().absolute()
    bands = [OutputBand(band) for band in card.input_bands]
    lossless = FileOptions(data_type="float32", nodata=math.nan)
    with tempfile.TemporaryDirectory(prefix=f".{output.stem}-", dir=output.parent) as temporary:
        path = Path(temporary) / "scene.tif"
        with write_raster(path, coarse.crop(area), bands, lossless, progress.check) as writer:
            for tile in tiles(area, BLOCK, 0, 1):
                progress.check()
                place = Window(tile.core.col - area.col, tile.core.row - area.row, tile.core.width, tile.core.height)
                writer.write(place, dict(zip(card.input_bands, source.read(tile.core), strict=True)))
        grid = serve(otbtf_job(folder, card, path), output, job.data_type, assumed(scene.warnings))
    progress.artifact("output", str(output))
    return {
        "output": str(output),
        "scene": scene.name,
        "width": grid.width,
        "height": grid.height,
        "bands": list(card.output_bands),
        "models": [card.name],
        "level": scene.level,
        "device": "otbtf",
        "assumptions": list(scene.warnings),
    }


def _area(job: SuperResolveJob, scene: Scene, card: ModelCard) -> tuple[Grid, Window]:
    """The model's grid over the whole scene, and the window of it that is asked for."""
    coarse = respaced(scene.grid, card.inputs[0].resolution)
    if not job.roi:
        return coarse, coarse.window
    return coarse, coarse.window_of(scene.grid.crop(scene.roi_window(job.roi)).bounds)


def respaced(grid: Grid, spacing: float) -> Grid:
    """The grid of another spacing with the same corner; pixels that would reach beyond it are dropped."""
    ratio = grid.spacing / spacing
    columns, rows = (math.floor(side * ratio + 1e-6) for side in (grid.width, grid.height))
    if not columns or not rows:
        raise InputError(f"The area is smaller than one pixel of {spacing:g} m.")
    return replace(grid, spacing=spacing, y_spacing=None, width=columns, height=rows)


def _read(source: Image, window: Window, model: Model) -> tuple[dict[str, Float], NDArray[np.bool_]]:
    """The network's input on a padded window, filled and mirrored (reflectance), and where all bands are valid.

    Where pixels are invalid more is read, so that filling does not depend on the tiling.
    """
    grid = source.grid
    have = window.clipped(grid.width, grid.height)
    pixels, around = source.read(have), have
    good = np.isfinite(pixels)
    if good.any() and not good.all():
        around = have.grown(REACH).clipped(grid.width, grid.height)
        pixels = source.read(around)
        good = np.isfinite(pixels)
    seen = {}
    for index, band in enumerate(model.card.input_bands):
        image = fill((pixels[index] * np.float32(SCALING)).astype(np.float32), good[index], REACH)
        seen[band] = mirrored(crop(image, around, have), have, window)
    return seen, mirrored(crop(good.all(axis=0), around, have), have, window)


def _output_band(name: str, data_type: str) -> OutputBand:
    info = BANDS[name]
    return OutputBand(name, info.wavelength, info.bandwidth, SCALING if data_type == "uint16" else 1.0, 0.0)
