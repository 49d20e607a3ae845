"""The work on one tile of a scene: what is read becomes the networks' input, their output becomes stored pixels."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..raster.grid import Window
from ..raster.tiles import Tile, crop, fill, mirrored, snapped
from ..raster.writer import Clipped, OutputBand
from ..scene.rows import Raw, Rows
from ..scene.scene import Scene, known
from .consistency import back_project, margin
from .model import REACH, Model
from .selection import Choice
from .tile_size import Load

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
Squares = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Drawn:
    """A tile with the stored pixels of ``around``, its padded window's part inside the scene or more."""

    tile: Tile
    around: Window
    raw: Raw


@dataclass(frozen=True)
class Done:
    """A tile's core as the file stores it, and the sums of back-projection: squares before, after, pixels.

    ``clipped``: the pixels of each band whose values the file's type cannot hold.
    """

    core: Window
    images: dict[str, NDArray[Any]]
    squares: Squares
    clipped: dict[str, Clipped]


@dataclass(frozen=True)
class _Seen:
    """Bands filled and mirrored on a tile's padded window, and where they are valid; None: everywhere."""

    data: dict[str, Float]
    valid: dict[str, Mask | None]


class Sharpening:
    """What happens to a tile between reader and writer: `drawn` in one thread, `done` in any number of them."""

    def __init__(
        self,
        scene: Scene,
        models: list[tuple[Model, Choice]],
        outputs: list[OutputBand],
        data_type: str,
        passes: int,
    ) -> None:
        self.scene, self.models, self.outputs, self.data_type, self.passes = scene, models, outputs, data_type, passes
        needed = [band for model, _ in models for band in model.card.input_bands]
        self.needed = list(dict.fromkeys([*(out.name for out in outputs), *needed]))
        self.multiple = math.lcm(scene.multiple, *(model.multiple for model, _ in models))
        self.halo = max((self.halo_of(model) for model, _ in models), default=0)
        self.loads = [Load(model.card, model.precision, self.halo_of(model)) for model, _ in models]

    def halo_of(self, model: Model) -> int:
        """Pixels around a core that this model and the back-projection of its bands depend on."""
        return model.halo + margin(max(model.factor(band) for band in model.card.output_bands), self.passes)

    def factor(self, band: str) -> int:
        """How many 10 m pixels one of the band's pixels is wide."""
        return self.scene.bands[band].resolution // 10

    def inside(self, tile: Tile) -> Window:
        """The part of a tile's padded window that lies in the scene."""
        return tile.padded.clipped(self.scene.grid.width, self.scene.grid.height)

    def drawn(self, parts: Sequence[Tile], rows: Rows) -> Generator[Drawn]:
        """Read tile by tile; wider where pixels are invalid, so that filling does not depend on the tiling."""
        for tile in parts:
            around = self.inside(tile)
            raw = rows.read(around)
            masks = [known(raw[band], self.scene.bands[band]) for band in self.needed]
            if not all(mask.all() for mask in masks) and any(mask.any() for mask in masks):
                around = around.grown(REACH).clipped(self.scene.grid.width, self.scene.grid.height)
                raw = rows.read(around)
            yield Drawn(tile, around, raw)

    def done(self, drawn: Drawn) -> Done:
        """Sharpen a tile and give every output band on its core in the file's data type."""
        tile, seen = drawn.tile, self._seen(drawn)
        valid = {out.name: self._core(seen.valid[out.name], tile, self.factor(out.name)) for out in self.outputs}
        images = {band: crop(seen.data[band], tile.padded, tile.core) for band in valid if self.factor(band) == 1}
        squares: Squares = {}
        for model, choice in self.models:
            known = (valid[band] for band in choice.bands)
            if any(mask is None or mask.any() for mask in known):
                images.update(self._run(model, choice, tile, seen, squares))
        empty = np.zeros(tile.core.shape, np.float32)
        stored = {
            out.name: out.stored(images.get(out.name, empty), valid[out.name], self.data_type) for out in self.outputs
        }
        clipped = {
            out.name: out.beyond(images.get(out.name, empty), valid[out.name], self.data_type) for out in self.outputs
        }
        return Done(tile.core, stored, squares, clipped)

    def _seen(self, drawn: Drawn) -> _Seen:
        seen, have = _Seen({}, {}), self.inside(drawn.tile)
        for band in self.needed:
            f = self.factor(band)
            there, here, want = drawn.around.scaled(f), have.scaled(f), drawn.tile.padded.scaled(f)
            data, valid, _ = self.scene.bands[band].pixels(drawn.raw[band])
            whole = bool(valid.all())
            filled = data if whole else fill(data, valid, REACH / f)
            seen.data[band] = mirrored(crop(filled, there, here), here, want)
            seen.valid[band] = None if whole else mirrored(crop(valid, there, here), here, want)
        return seen

    def _run(self, model: Model, choice: Choice, tile: Tile, seen: _Seen, squares: Squares) -> dict[str, Float]:
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
                coarse, core = window.scaled(f), tile.core.scaled(f)
                mask = seen.valid[band]
                valid = np.ones(coarse.shape, bool) if mask is None else crop(mask, tile.padded.scaled(f), coarse)
                image, before, after = back_project(image, feed[band], valid, f, self.passes)
                sums = [np.square(crop(r, coarse, core), dtype=np.float64).sum() for r in (before, after)]
                squares[band] = np.array([*sums, crop(valid, coarse, core).sum()])
            images[band] = crop(image, window, tile.core)
        return images

    @staticmethod
    def _core(valid: Mask | None, tile: Tile, factor: int) -> Mask | None:
        """A mask on the 10 m pixels of a tile's core; None where all of it is valid."""
        part = None if valid is None else crop(valid, tile.padded.scaled(factor), tile.core.scaled(factor))
        if part is None or part.all():
            return None
        return part.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else part
