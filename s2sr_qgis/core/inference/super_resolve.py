"""A scene in, all its bands at 10 m out: windows stream from reader to network to writer."""

from __future__ import annotations

import math
import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..errors import InputError, OutputError
from ..jobs import SuperResolveJob
from ..processors import available_threads
from ..progress import Progress
from ..raster.grid import Window
from ..raster.targets import check_outputs
from ..raster.tiles import enclosing, tiles
from ..raster.writer import Clipped, FileOptions, OutputBand, assumed, clipped_sentences, write_raster
from ..scene import open_scene
from ..scene.bands import BANDS
from ..scene.rows import Rows
from ..scene.scene import Scene, SceneBand
from .model import REACH, load_model
from .pipeline import Profile, ordered
from .selection import Choice, choose, cross_sensor_model
from .sharpening import Sharpening
from .tile_size import BLOCK, block_cache, block_side, plan


def super_resolve(job: SuperResolveJob, progress: Progress) -> dict[str, Any]:
    """Sharpen a scene's 20 m and 60 m bands to 10 m and write them with its 10 m bands.

    The file covers the scene's 10 m grid, or the region of interest; uint16 in the DN convention of the input, nodata
    0, or float32 reflectance, nodata NaN. A pixel is nodata exactly where its own band's source pixel is. Returns
    ``output``, ``scene`` (its name), ``width``, ``height``, ``bands``, ``models``, ``level``, ``device`` and, after
    consistency passes, ``residual``: the RMSE in reflectance between each original band and the degraded result, before
    and after; ``seconds``: processor time that decoding, the networks, encoding and the rest took; ``assumptions``:
    what was assumed about the scene, also in the tag S2SR_ASSUMPTIONS of the file. The pixels do not
    depend on the threads and, but for the last digits of the networks' sums, not on the tiles.
    Raises `InputError`, `ModelError`, `OutputError`, `MissingPackageError`, `Cancelled`.
    """
    begin = time.process_time()
    output = job.output.expanduser().absolute()
    check_outputs(rasters=[output], inputs=[job.roi])
    with open_scene(job.scene, job.scene_options, partial=bool(job.bands)) as scene:
        if output.resolve() in {
            Path(p).resolve() for p in (scene.source, *(b.file.path for b in scene.bands.values()))
        }:
            raise OutputError(f"{output} belongs to the scene; choose another output.")
        for warning in scene.warnings:
            progress.log(warning, "warning")
        cross = cross_sensor_model(job.models)
        if cross:
            from .cross_sensor import super_resolve_cross_sensor

            return super_resolve_cross_sensor(job, scene, *cross, progress)
        if job.engine == "otb":
            raise InputError("OTBTF serves cross-sensor models; leave the engine out to sharpen bands.")
        area = scene.roi_window(job.roi) if job.roi else scene.grid.window
        choices, bands = choose(scene, job.models, job.bands, job.allow_other_level, progress)
        threads = job.threads or available_threads()
        models = [load_model(choice.folder, job.device, threads, job.precision) for choice in choices]
        outputs = [_output_band(scene.bands[band], job.data_type) for band in bands]
        pairs = list(zip(models, choices, strict=True))
        work = Sharpening(scene, pairs, outputs, job.data_type, job.consistency)
        at_once = min((model.threads for model in models), default=threads)
        size, workers = plan(work, area, at_once, job.tile_size, job.memory)
        devices = ", ".join(dict.fromkeys(model.device for model in models)) or "cpu"
        progress.log(
            f"summary: {scene.name}, {scene.level or 'level unknown'}, {', '.join(bands)} at 10 m, "
            f"{area.width} x {area.height} pixels; models {', '.join(c.card.name for c in choices) or 'none'} on "
            f"{devices}, tiles of {size} pixels, {workers} at once"
        )
        item = 2 if job.data_type == "uint16" else 4
        if shutil.disk_usage(output.parent).free < area.width * area.height * len(bands) * item:
            progress.log(f"There may be too little space on the disk of {output.parent}.", "warning")
        options = FileOptions(
            data_type=job.data_type,
            nodata=0 if job.data_type == "uint16" else math.nan,
            format=job.format,
            compression=job.compression,
            block=block_side(size) or BLOCK,
            threads=job.threads,
            tags=_tags(scene, choices, job),
        )
        target = write_raster(output, scene.grid.crop(area), outputs, options, progress.check)
        parts = tiles(area, size, work.halo, work.multiple)
        limits = enclosing(map(work.inside, parts))
        profile, ready = Profile(), time.process_time()
        squares: dict[str, NDArray[np.float64]] = {}
        clipped: dict[str, Clipped] = {}
        with (
            rasterio.Env(GDAL_CACHEMAX=block_cache(size, area.width * len(bands) * item)),
            target as writer,
            Rows(scene, work.needed, limits, REACH, threads, progress.check) as rows,
        ):
            drawn, done = profile.drawn("draw", work.drawn(parts, rows)), profile.measured("work", work.done)
            with closing(ordered(drawn, done, workers, progress.check)) as stream:
                for number, tile in enumerate(stream, start=1):
                    progress.check()
                    place = tile.core
                    window = Window(place.col - area.col, place.row - area.row, place.width, place.height)
                    writer.write(window, tile.images)
                    for band, sums in tile.squares.items():
                        squares[band] = squares.get(band, np.zeros(3)) + sums
                    for band, count in tile.clipped.items():
                        clipped[band] = clipped.get(band, Clipped()) + count
                    progress.progress(95 * number / len(parts), f"Tile {number} of {len(parts)}")
            for sentence in clipped_sentences(clipped):
                scene.warnings.append(sentence)
                progress.log(sentence, "warning")
                writer.tag(assumed(scene.warnings))
            progress.progress(95, "Overviews")
        residual = _residuals(squares)
        for band, (before, after) in residual.items():
            progress.log(f"{band}: residual to the original {before:.5f} before, {after:.5f} after back-projection")
        spent = time.process_time() - begin
        decoded, network = rows.seconds, sum(model.seconds for model in models)
        rest = ready - begin + profile.seconds["draw"] + profile.seconds["work"] - network
        # Whatever else the process did meanwhile was writing: GDAL compresses in threads of its own.
        seconds = {"decode": decoded, "network": network, "encode": spent - decoded - network - rest, "rest": rest}
    progress.progress(100, "Done")
    progress.artifact("output", str(output))
    result: dict[str, Any] = {
        "output": str(output),
        "scene": scene.name,
        "width": area.width,
        "height": area.height,
        "bands": bands,
        "models": [choice.card.name for choice in choices],
        "level": scene.level,
        "device": devices,
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "assumptions": list(scene.warnings),
    }
    return {**result, "residual": residual} if residual else result


def _residuals(squares: dict[str, NDArray[np.float64]]) -> dict[str, list[float]]:
    """RMSE of each band's residual before and after back-projection, in reflectance, from sums over the tiles."""
    return {
        band: [math.sqrt(before / count), math.sqrt(after / count)]
        for band, (before, after, count) in squares.items()
        if count
    }


def _output_band(band: SceneBand, data_type: str) -> OutputBand:
    info = BANDS[band.name]
    offset, quantification = _convention(band) if data_type == "uint16" else (0.0, 1.0)
    return OutputBand(band.name, info.wavelength, info.bandwidth, 1 / quantification, offset / quantification)


def _convention(band: SceneBand) -> tuple[float, float]:
    """Offset and quantification to write DN with: the input's own; where it stores reflectance, 0 and 10000."""
    return (band.offset, band.quantification) if band.quantification > 1 else (0.0, 10000.0)


def _tags(scene: Scene, choices: list[Choice], job: SuperResolveJob) -> dict[str, str]:
    tags = {
        "TIFFTAG_SOFTWARE": "s2sr",
        "SCENE": scene.name,
        "PROCESSING_LEVEL": scene.level or "",
        "PROCESSING_BASELINE": scene.baseline or "",
        "PLATFORM": scene.platform or "",
        "ACQUISITION": scene.acquired.isoformat() if scene.acquired else "",
        "MODELS": ", ".join(choice.card.name for choice in choices),
        "CONSISTENCY_PASSES": str(job.consistency),
        **assumed(scene.warnings),
    }
    return {name: value for name, value in tags.items() if value}
