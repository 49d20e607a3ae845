"""Cross-sensor super-resolution of a scene: its 10 m bands in, the same bands on a finer sensor's grid out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
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
from ..raster.tiles import Mask, Tile, crop, fill, mirror, snapped, tiles
from ..raster.writer import Clipped, FileOptions, OutputBand, assumed, clipped_sentences, write_raster
from ..scene import Scene
from ..scene.bands import BANDS
from ..scene.image import SCALING, SceneImage
from .card import SAVED_MODEL, ModelCard
from .model import REACH, check_bands, load_model
from .pipeline import ordered
from .selection import check_level
from .tile_size import BLOCK, plan_model

Float = NDArray[np.float32]


@dataclass(frozen=True)
class _Engine:
    """What makes the output's pixels, tile by tile.

    ``inferred``: the reflectance of each output band over a tile's core on the fine grid, (h, w), from the network's
    input over the padded tile. ``size``: a tile's side in pixels of the coarse grid. ``workers``: tiles at once.
    """

    inferred: Callable[[Tile, dict[str, Float]], dict[str, Float]]
    parts: list[Tile]
    size: int
    workers: int
    device: str


def super_resolve_cross_sensor(
    job: SuperResolveJob, scene: Scene, folder: Path, card: ModelCard, progress: Progress
) -> dict[str, Any]:
    """Write a scene's bands as a finer sensor would show them; called by `super_resolve`.

    The scene is superimposed (bicubic) on a grid of the model's own spacing that shares the scene's corner; the output
    is ``scale`` times finer than that: with the tutorial's model 6 m in, 1.5 m out. A region of interest grows to whole
    pixels of that grid and gives the same pixels as the whole scene would. uint16 is reflectance times 10000, nodata 0.
    The engine "otb" gives the native engine's file, its pixels within 1 DN of those in float32 precision.
    """
    bands = list(card.output_bands)
    if job.bands and list(dict.fromkeys(job.bands)) != bands:
        raise ModelError(f"The model {card.name} makes {', '.join(bands)} together; leave the bands out.")
    if job.consistency:
        raise InputError("Consistency passes are for sharpened bands; leave them out with a cross-sensor model.")
    check_bands(card, scene.bands)
    check_level(card, scene.level, job.allow_other_level, progress)
    coarse, area = _area(job, scene, card)
    fine = coarse.crop(area).finer(card.scale)
    source = superimpose(SceneImage(scene, card.input_bands), coarse)
    output = job.output.expanduser().absolute()
    outputs = [_output_band(band, job.data_type) for band in bands]
    options = FileOptions(
        data_type=job.data_type,
        nodata=0 if job.data_type == "uint16" else math.nan,
        format=job.format,
        compression=job.compression,
        threads=job.threads,
        tags={"TIFFTAG_SOFTWARE": "s2sr", "SCENE": scene.name, "MODELS": card.name, **assumed(scene.warnings)},
    )
    clipped: dict[str, Clipped] = {}
    with _otbtf(job, source, area, folder, card, progress) if job.engine == "otb" else _native(job, area, folder) as e:
        progress.log(
            f"summary: {scene.name}, {scene.level or 'level unknown'}, {', '.join(bands)} at {fine.spacing:g} m, "
            f"{fine.width} x {fine.height} pixels; model {card.name} on {e.device}, tiles of {e.size} pixels, "
            f"{e.workers} at once"
        )
        drawn = ((tile, *_read(source, tile.padded, card.input_bands)) for tile in e.parts)

        def done(
            item: tuple[Tile, dict[str, Float], Mask],
        ) -> tuple[Window, dict[str, NDArray[Any]], dict[str, Clipped]]:
            tile, seen, valid = item
            core = tile.core.finer(card.scale)
            good = crop(valid, tile.padded, tile.core).repeat(card.scale, 0).repeat(card.scale, 1)
            made = e.inferred(tile, seen) if good.any() else dict.fromkeys(bands, np.zeros(core.shape, np.float32))
            images = {band.name: band.stored(made[band.name], good, job.data_type) for band in outputs}
            counts = {band.name: band.beyond(made[band.name], good, job.data_type) for band in outputs}
            place = Window(tile.core.col - area.col, tile.core.row - area.row, tile.core.width, tile.core.height)
            return place.finer(card.scale), images, counts

        with write_raster(output, fine, outputs, options, progress.check) as writer:
            with closing(ordered(drawn, done, e.workers, progress.check)) as stream:
                for number, (place, images, counts) in enumerate(stream, start=1):
                    progress.check()
                    writer.write(place, images)
                    clipped = {band: clipped.get(band, Clipped()) + count for band, count in counts.items()}
                    progress.progress(95 * number / len(e.parts), f"Tile {number} of {len(e.parts)}")
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
        "device": e.device,
        "assumptions": list(scene.warnings),
    }


@contextmanager
def _native(job: SuperResolveJob, area: Window, folder: Path) -> Iterator[_Engine]:
    """ONNX Runtime, on tiles with a halo."""
    model = load_model(folder, job.device, job.threads, job.precision)
    wanted = job.tile_size * 10 / model.finest if job.tile_size else None
    size, workers = plan_model(model, area, model.threads, wanted, job.memory)

    def inferred(tile: Tile, seen: dict[str, Float]) -> dict[str, Float]:
        around, core = tile.padded.finer(model.scale), tile.core.finer(model.scale)
        return {band: crop(image, around, core) for band, image in model.infer(seen).items()}

    yield _Engine(inferred, tiles(area, size, model.halo, model.multiple), size, workers, model.device)


@contextmanager
def _otbtf(
    job: SuperResolveJob, source: Image, area: Window, folder: Path, card: ModelCard, progress: Progress
) -> Iterator[_Engine]:
    """OTBTF, which reads files: the network's whole input, filled and mirrored, lies beside the output meanwhile."""
    _check_otbtf(job, folder, card)
    finest, scale = card.finest, card.scale
    field = round(job.tile_size * 10 / finest) * scale if job.tile_size else FIELD
    output = job.output.expanduser().absolute()
    bands = [OutputBand(band) for band in card.input_bands]
    with tempfile.TemporaryDirectory(prefix=f".{output.stem}-", dir=output.parent) as temporary:
        path = Path(temporary) / "scene.tif"
        served = otbtf_job(folder, card, path, field)
        around = served.needed(area, scale)
        # OTBTF finds pixels by their coordinates, which are more exact near 0.
        grid = Grid(None, 0.0, 0.0, finest, around.width, around.height)
        with write_raster(path, grid, bands, FileOptions(data_type="float32", nodata=math.nan), progress.check) as file:
            parts = tiles(grid.window, BLOCK, 0, 1)
            for number, tile in enumerate(parts, start=1):
                progress.check()
                place = replace(tile.core, col=tile.core.col + around.col, row=tile.core.row + around.row)
                seen, _ = _read(source, place, card.input_bands)
                file.write(tile.core, {band: image / np.float32(card.scaling) for band, image in seen.items()})
                progress.progress(0, f"Input {number} of {len(parts)}")
        with _refused(folder):
            made = serve(served, card.output_bands, job.threads)
        left, top = round(made.grid.x / finest) + around.col, round(-made.grid.y / finest) + around.row
        size = served.field // scale

        def inferred(tile: Tile, _: dict[str, Float]) -> dict[str, Float]:
            core = replace(tile.core, col=tile.core.col - left, row=tile.core.row - top)
            with _refused(folder):
                pixels = made.read(core.finer(scale))
            if not np.isfinite(pixels).all():
                raise ModelError(f"{folder / SAVED_MODEL} gave values that are not numbers; export the model again.")
            return dict(zip(card.output_bands, pixels * np.float32(card.scaling), strict=True))

        # OTBTF's own tiles, so that it computes none twice, without what lies outside the area.
        whole = snapped(area, card.multiple)
        shares = (tile.core.intersection(area) for tile in tiles(whole, size, 0, 1))
        yield _Engine(inferred, [Tile(core, core) for core in shares if all(core.shape)], size, 1, "otbtf")


@contextmanager
def _refused(folder: Path) -> Iterator[None]:
    """Name the model where OTBTF cannot run it."""
    try:
        yield
    except InputError as error:
        reason = str(error).removesuffix(".")
        raise ModelError(
            f"{reason} ({folder / SAVED_MODEL}); export the run again, or use the engine 'native'."
        ) from error


def _check_otbtf(job: SuperResolveJob, folder: Path, card: ModelCard) -> None:
    """Raise where OTBTF cannot give what the native engine gives: absent, or an option that it does not have."""
    require_application(APPLICATION)
    refused = {
        "device": (job.device != "auto", "OTBTF chooses the device itself"),
        "precision": (job.precision not in ("auto", "float32"), "OTBTF runs the SavedModel, which is float32"),
        "memory": (job.memory is not None, "OTBTF takes no bound on its memory, a smaller tile size needs less"),
    }
    for option, (given, reason) in refused.items():
        if given:
            raise InputError(f"{reason}; leave the option '{option}' out, or use the engine 'native'.")
    if card.orientations > 1 and "saved_model" not in card.metrics.get("parity", {}):
        raise ModelError(
            f"The model {card.name} is the mean of two orientations, of which its {SAVED_MODEL} may hold one alone; "
            "export the run again, or use the engine 'native'."
        )


def otbtf_job(folder: Path, card: ModelCard, source: Path, field: int = FIELD) -> ServeJob:
    """The run of TensorflowModelServe that gives what the native engine gives, less the network's halo at the edges.

    ``source``: the network's input on its grid. Raises `ModelError` without a SavedModel.
    """
    saved = folder / SAVED_MODEL
    if not saved.is_dir():
        raise ModelError(
            f"{folder} holds no {SAVED_MODEL}, which OTBTF needs; export the run with --saved-model, or use the engine "
            "'native'."
        )
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


def _read(source: Image, window: Window, bands: Sequence[str]) -> tuple[dict[str, Float], Mask]:
    """The network's input on a window, filled and mirrored (reflectance), and where all bands are valid.

    Where pixels are invalid more is read, so that filling does not depend on the tiling.
    """
    grid = source.grid
    rows, cols = mirror(window.row, window.height, grid.height), mirror(window.col, window.width, grid.width)
    left, top = int(cols.min()), int(rows.min())
    have = Window(left, top, int(cols.max()) + 1 - left, int(rows.max()) + 1 - top)
    pixels, around = source.read(have), have
    good = np.isfinite(pixels)
    if good.any() and not good.all():
        around = have.grown(REACH).clipped(grid.width, grid.height)
        pixels = source.read(around)
        good = np.isfinite(pixels)
    where = np.ix_(rows - around.row, cols - around.col)
    seen = {}
    for index, band in enumerate(bands):
        image = fill((pixels[index] * np.float32(SCALING)).astype(np.float32), good[index], REACH)
        seen[band] = image[where]
    return seen, good.all(axis=0)[where]


def _output_band(name: str, data_type: str) -> OutputBand:
    info = BANDS[name]
    return OutputBand(name, info.wavelength, info.bandwidth, SCALING if data_type == "uint16" else 1.0, 0.0)
