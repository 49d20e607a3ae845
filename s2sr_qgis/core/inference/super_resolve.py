"""A scene in, all its bands at 10 m out: windows stream from reader to network to writer."""

from __future__ import annotations

import math
import shutil
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..errors import InputError, OutputError
from ..jobs import SuperResolveJob
from ..progress import Progress
from ..raster.grid import Window
from ..raster.tiles import Tile, crop, fill, mirrored, snapped, tiles
from ..raster.writer import FileOptions, OutputBand, check_target, write_raster
from ..scene import open_scene
from ..scene.bands import BANDS
from ..scene.scene import Scene, SceneBand
from .card import ModelCard
from .consistency import back_project, margin
from .cross_sensor import super_resolve_cross_sensor
from .model import REACH, TILE, Model, load_model
from .selection import Choice, choose, cross_sensor_model

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

BASE_MEMORY = 200
"""MB that the process holds before the first tile: interpreter, libraries, model."""


def super_resolve(job: SuperResolveJob, progress: Progress) -> dict[str, Any]:
    """Sharpen a scene's 20 m and 60 m bands to 10 m and write them with its 10 m bands.

    The file covers the scene's 10 m grid, or the region of interest; uint16 in the DN convention of the input, nodata
    0, or float32 reflectance, nodata NaN. A pixel is nodata exactly where its own band's source pixel is. Returns
    ``output``, ``scene`` (its name), ``width``, ``height``, ``bands``, ``models``, ``level``, ``device`` and, after
    consistency passes, ``residual``: the RMSE in reflectance between each original band and the degraded result, before
    and after.
    Raises `InputError`, `ModelError`, `OutputError`, `MissingPackageError`, `Cancelled`.
    """
    output = job.output.expanduser().absolute()
    check_target(output)
    with open_scene(job.scene, job.scene_options) as scene:
        if output.resolve() in {
            Path(p).resolve() for p in (scene.source, *(b.file.path for b in scene.bands.values()))
        }:
            raise OutputError(f"{output} belongs to the scene; choose another output.")
        for warning in scene.warnings:
            progress.log(warning, "warning")
        cross = cross_sensor_model(job.models)
        if cross:
            return super_resolve_cross_sensor(job, scene, *cross, progress)
        if job.engine == "otb":
            raise InputError("OTBTF serves cross-sensor models; leave the engine out to sharpen bands.")
        area = scene.roi_window(job.roi) if job.roi else scene.grid.window
        choices, bands = choose(scene, job.models, job.bands, job.allow_other_level, progress)
        models = [load_model(choice.folder, job.device, job.threads, job.precision) for choice in choices]
        work = _Sharpening(scene, list(zip(models, choices, strict=True)), bands, job.consistency)
        size = _tile_size(job, work)
        devices = ", ".join(dict.fromkeys(model.device for model in models)) or "cpu"
        progress.log(
            f"summary: {scene.name}, {scene.level or 'level unknown'}, {', '.join(bands)} at 10 m, "
            f"{area.width} x {area.height} pixels; models {', '.join(c.card.name for c in choices) or 'none'} on "
            f"{devices}, tiles of {size} pixels"
        )
        item = 2 if job.data_type == "uint16" else 4
        if shutil.disk_usage(output.parent).free < area.width * area.height * len(bands) * item:
            progress.log(f"There may be too little space on the disk of {output.parent}.", "warning")
        outputs = [_output_band(scene.bands[band], job.data_type) for band in bands]
        options = FileOptions(
            data_type=job.data_type,
            nodata=0 if job.data_type == "uint16" else math.nan,
            format=job.format,
            compression=job.compression,
            block=_block(size),
            threads=job.threads,
            tags=_tags(scene, choices, job),
        )
        target = write_raster(output, scene.grid.crop(area), outputs, options, progress.check)
        cache = {"GDAL_CACHEMAX": job.memory * 2**20 // 4} if job.memory else {}
        with rasterio.Env(**cache), target as writer:
            parts = tiles(area, size, work.halo, work.multiple)
            with closing(_ahead(work, parts)) as stream:
                for number, (tile, seen) in enumerate(stream, start=1):
                    progress.check()
                    images = {
                        out.name: out.stored(image, valid, job.data_type)
                        for out, (image, valid) in zip(outputs, work.sharpen(tile, seen), strict=True)
                    }
                    place = tile.core
                    writer.write(Window(place.col - area.col, place.row - area.row, place.width, place.height), images)
                    progress.progress(95 * number / len(parts), f"Tile {number} of {len(parts)}")
            progress.progress(95, "Overviews")
        residual = work.residuals()
        for band, (before, after) in residual.items():
            progress.log(f"{band}: residual to the original {before:.5f} before, {after:.5f} after back-projection")
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
    }
    return {**result, "residual": residual} if residual else result


@dataclass(frozen=True)
class _Seen:
    """What was read for a tile: bands filled and mirrored on its padded window, and where they are valid."""

    data: dict[str, Float]
    valid: dict[str, Mask]


@dataclass
class _Sharpening:
    """The work on one tile: read what the networks need, run them, give every output band on the tile's core."""

    scene: Scene
    models: list[tuple[Model, Choice]]
    bands: list[str]
    passes: int
    squares: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        needed = [band for model, _ in self.models for band in model.card.input_bands]
        self.needed = list(dict.fromkeys([*self.bands, *needed]))
        self.multiple = math.lcm(self.scene.multiple, *(model.multiple for model, _ in self.models))
        self.halo = max((self.halo_of(model) for model, _ in self.models), default=0)

    def halo_of(self, model: Model) -> int:
        """Pixels around a core that this model and the back-projection of its bands depend on."""
        return model.halo + margin(max(model.factor(band) for band in model.card.output_bands), self.passes)

    def factor(self, band: str) -> int:
        """How many 10 m pixels one of the band's pixels is wide."""
        return self.scene.bands[band].resolution // 10

    def read(self, tile: Tile) -> _Seen:
        """Read, fill and mirror; wider where pixels are invalid, so that filling does not depend on the tiling."""
        grid, have = self.scene.grid, tile.padded.clipped(self.scene.grid.width, self.scene.grid.height)
        pixels, around = self.scene.read(self.needed, have), have
        masks = pixels.valid.values()
        if not all(valid.all() for valid in masks) and any(valid.any() for valid in masks):
            around = have.grown(REACH).clipped(grid.width, grid.height)
            pixels = self.scene.read(self.needed, around)
        seen = _Seen({}, {})
        for band in self.needed:
            f = self.factor(band)
            there, here, want = around.scaled(f), have.scaled(f), tile.padded.scaled(f)
            data = fill(pixels.data[band], pixels.valid[band], REACH / f)
            seen.data[band] = mirrored(crop(data, there, here), here, want)
            seen.valid[band] = mirrored(crop(pixels.valid[band], there, here), here, want)
        return seen

    def sharpen(self, tile: Tile, seen: _Seen) -> list[tuple[Float, Mask]]:
        """Reflectance and validity of every output band on the tile's core, both (height, width)."""
        valid = {band: self._core(seen.valid[band], tile, self.factor(band)) for band in self.bands}
        images = {band: self._core(seen.data[band], tile, 1) for band in self.bands if self.factor(band) == 1}
        for model, choice in self.models:
            if any(valid[band].any() for band in choice.bands):
                images.update(self._run(model, choice, tile, seen))
        empty = np.zeros(tile.core.shape, np.float32)
        return [(images.get(band, empty), valid[band]) for band in self.bands]

    def residuals(self) -> dict[str, list[float]]:
        """RMSE of each band's residual before and after back-projection, in reflectance."""
        return {
            band: [math.sqrt(sums[0] / sums[2]), math.sqrt(sums[1] / sums[2])]
            for band, sums in self.squares.items()
            if sums[2]
        }

    def _run(self, model: Model, choice: Choice, tile: Tile, seen: _Seen) -> dict[str, Float]:
        window = snapped(tile.core.grown(self.halo_of(model)), model.multiple)
        feed = {}
        for band in model.card.input_bands:
            f = model.factor(band)
            feed[band] = crop(seen.data[band], tile.padded.scaled(f), window.scaled(f))
        sharpened = model.infer(feed)
        images = {}
        for band in choice.bands:
            image = sharpened[band]
            if self.passes:
                f = self.factor(band)
                valid = crop(seen.valid[band], tile.padded.scaled(f), window.scaled(f))
                image, before, after = back_project(image, feed[band], valid, f, self.passes)
                coarse, core = window.scaled(f), tile.core.scaled(f)
                squares = [np.square(crop(r, coarse, core), dtype=np.float64).sum() for r in (before, after)]
                count = crop(valid, coarse, core).sum()
                self.squares[band] = self.squares.get(band, np.zeros(3)) + np.array([*squares, count])
            images[band] = crop(image, window, tile.core)
        return images

    @staticmethod
    def _core(image: NDArray[Any], tile: Tile, factor: int) -> NDArray[Any]:
        part = crop(image, tile.padded.scaled(factor), tile.core.scaled(factor))
        return part.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else part


def _ahead(work: _Sharpening, parts: list[Tile]) -> Generator[tuple[Tile, _Seen]]:
    """Read one tile ahead of the network."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(work.read, parts[0])
        for number, tile in enumerate(parts):
            seen = pending.result()
            if number + 1 < len(parts):
                pending = pool.submit(work.read, parts[number + 1])
            yield tile, seen


def _tile_size(job: SuperResolveJob, work: _Sharpening) -> int:
    """The side of a tile, a multiple of what reader and networks ask for: as told, or what the memory allows."""
    unit = work.multiple
    if job.tile_size:
        return math.ceil(job.tile_size / unit) * unit
    size = math.ceil(TILE / unit) * unit
    if job.memory:
        # Two tiles at once (one is read ahead), float32, besides what each network keeps.
        pixel = 8.0 * len(work.needed) + 12 * len(work.bands)
        pixel += sum(_network_bytes(model.card) for model, _ in work.models)
        free = max(job.memory * 0.75 - BASE_MEMORY, 1) * 2**20
        size = max(
            min(size, (int(math.sqrt(free / pixel)) - 2 * work.halo) // unit * unit), math.ceil(60 / unit) * unit
        )
    return size


def _network_bytes(card: ModelCard) -> float:
    """Rough bytes per 10 m pixel of a convolutional network at work, from its operations and its parameters.

    Operations per parameter tell how many of the 10 m pixels its trunk works on, the parameters its width (taking ten
    3 × 3 layers); a dozen feature maps' worth of memory is held, as measured on CoarseNet.
    """
    density = card.mflop_per_pixel * 1e6 / (2 * max(card.parameters, 1))
    return density * math.sqrt(card.parameters / 90) * 4 * 12


def _block(size: int) -> int:
    """The side of the file's inner tiles: one that divides the tile, so that each is written once, else 512."""
    return next((side for side in range(512, 127, -16) if size % side == 0), 512)


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
    }
    return {name: value for name, value in tags.items() if value}
