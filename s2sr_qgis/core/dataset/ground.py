"""One scene as ground to learn on and to be judged by: pairs by Wald's protocol, some blocks of it held out.

Everything lies in memory, so a large scene is sampled: pieces spread over it, up to `PIXELS` pixels of the target grid.
The ground is cut into blocks. Some are held out, in two parts: `valid` to choose by while training, `test` to decide
by at the end. A training patch may show them to the network, but what it should give there is never told: their
targets do not count, nor do those within `BUFFER` pixels. So patches hold the network's context in small scenes too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import rasterio
from numpy.typing import NDArray

from ..errors import InputError
from ..inference.card import ModelCard
from ..inference.model import REACH, check_bands
from ..inference.selection import check_level
from ..inference.wald import blur_reach, degraded, factors, reduction
from ..jobs import SceneOptions
from ..progress import Progress
from ..raster.grid import Window
from ..raster.image import GDAL_CACHE
from ..raster.tiles import crop, fill, mirrored, tiles
from ..scene import Scene, open_scene
from .card import SPLITS, TARGET, Split
from .splits import assign

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

SHARES = (0.7, 0.15, 0.15)
"""Of the blocks, as in `SPLITS`."""

BLOCKS = 16
"""As many blocks as this, where the ground is large enough."""

PIECE = 1536
"""Side of a piece in 10 m pixels."""

PIXELS = 4_000_000
"""Pixels of the target grid held in memory, about 50 bytes each."""

BUFFER = 6
"""Pixels of the target grid between a training patch and a held-out block: more than the blur reaches."""

EDGE = 6
"""Pixels along the scene's edge that do not count, as in `evaluate`."""

PATCH = 48
"""Side of a training patch on the target grid, a multiple of every coarse pixel."""

SMALLEST_BLOCK = 30
"""Side on the target grid."""

LEAST = 0.25
"""Share of a training patch that counts."""

COUNTS = "counts"
"""Name of the tensor that says which pixels of a patch's target count."""


@dataclass(frozen=True)
class Piece:
    """A part of the scene: tensors in DN without offset, (bands, h, w) by name; which pixels of the target count.

    ``window``: on the target grid, from the corner of the ground.
    """

    window: Window
    tensors: dict[str, Float]
    usable: Mask

    @property
    def here(self) -> Window:
        """The same pixels from the piece's own corner."""
        return Window(0, 0, self.window.width, self.window.height)


@dataclass(frozen=True)
class Block:
    """A rectangle of a piece (``window`` from the piece's corner) and its split."""

    piece: Piece
    window: Window
    split: Split


@dataclass(frozen=True)
class View:
    """A part of a held-out block as the network sees it, with what is around it.

    ``inputs``: (1, h, w, channels) by name, DN. ``core``: the rows and columns of the output that count. ``target``,
    (bands, h, w), and ``usable``, (h, w), are of these.
    """

    inputs: dict[str, Float]
    core: tuple[slice, slice]
    target: Float
    usable: Mask


@dataclass(frozen=True)
class Ground:
    """What `read_ground` gives."""

    name: str
    level: str | None
    card: ModelCard
    pieces: list[Piece]
    blocks: list[Block]
    assumptions: list[str] = field(default_factory=list)

    def patches(self, count: int, rng: np.random.Generator) -> dict[str, Float]:
        """At most ``count`` training patches at random places: (n, h, w, channels) by tensor, DN.

        The tensor `COUNTS`, (n, h, w, 1), is 1 where the target counts, else 0; the target there is the coarse band.
        Raises `InputError` where there is too little ground to train on.
        """
        free = [self._free(piece) for piece in self.pieces]
        places = [(n, corner) for n, counts in enumerate(free) for corner in self._corners(counts)]
        if not places:
            raise self.too_small()
        found: dict[str, list[Float]] = {}
        for index in rng.permutation(len(places))[:count]:
            number, (row, col) = places[index]
            patch = {COUNTS: free[number][np.newaxis, row : row + PATCH, col : col + PATCH].astype(np.float32)}
            for name, images in self.pieces[number].tensors.items():
                f = self._coarser(name)
                rows, cols = slice(row // f, (row + PATCH) // f), slice(col // f, (col + PATCH) // f)
                patch[name] = images[:, rows, cols]
            low, f = self.card.inputs[-1].name, self._coarser(self.card.inputs[-1].name)
            blind = patch[low].repeat(f, axis=1).repeat(f, axis=2)
            patch[TARGET] = np.where(patch[COUNTS] > 0, patch[TARGET], blind)
            for name, images in patch.items():
                found.setdefault(name, []).append(images.transpose(1, 2, 0))
        return {name: np.stack(patches) for name, patches in found.items()}

    def views(self, split: Split, size: int, halo: int, most: int, rng: np.random.Generator) -> list[View]:
        """Parts of the split's blocks, ``size`` × ``size`` pixels of the target grid, ``most`` pixels at random.

        ``halo``: how far around them the network sees; beyond the ground it sees a mirror image, as in inference.
        """
        found, pixels = [], 0
        own = [block for block in self.blocks if block.split == split]
        cut = [(block, tile) for block in own for tile in tiles(block.window, size, halo, self.card.multiple)]
        for index in rng.permutation(len(cut)):
            (block, tile) = cut[index]
            piece = block.piece
            usable = crop(piece.usable, piece.here, tile.core)
            if not usable.any():
                continue
            have = tile.padded.clipped(piece.window.width, piece.window.height)
            inputs = {}
            for tensor in self.card.inputs:
                f = self._coarser(tensor.name)
                part = crop(piece.tensors[tensor.name], piece.here.scaled(f), have.scaled(f))
                seen = mirrored(part, have.scaled(f), tile.padded.scaled(f))
                inputs[tensor.name] = np.ascontiguousarray(seen.transpose(1, 2, 0))[np.newaxis]
            row, col = tile.core.row - tile.padded.row, tile.core.col - tile.padded.col
            core = slice(row, row + tile.core.height), slice(col, col + tile.core.width)
            found.append(View(inputs, core, crop(piece.tensors[TARGET], piece.here, tile.core), usable))
            pixels += int(usable.sum())
            if pixels >= most:
                break
        return found

    def too_small(self) -> InputError:
        """The error that says that there is too little ground to learn on and to hold blocks out."""
        factor = reduction(self.card)
        side = 2 * SMALLEST_BLOCK
        pixels = sum(int(piece.usable.sum()) for piece in self.pieces)
        return InputError(
            f"{self.name} is too small for adapting {self.card.name}: {pixels} pixels of {10 * factor} m count, and "
            f"some {side} x {side} ({side * factor / 100:g} km a side) without nodata are needed, so that blocks can "
            "be held out; choose a larger scene or region."
        )

    def _coarser(self, name: str) -> int:
        if name == TARGET:
            return 1
        return next(tensor.coarser(self.card.finest) for tensor in self.card.inputs if tensor.name == name)

    def _free(self, piece: Piece) -> Mask:
        """Which pixels of a piece may be trained on."""
        free = piece.usable.copy()
        for block in self.blocks:
            if block.split != "train":
                place = block.piece.window
                col, row = place.col - piece.window.col, place.row - piece.window.row
                held = Window(block.window.col + col, block.window.row + row, block.window.width, block.window.height)
                near = held.grown(BUFFER).clipped(piece.window.width, piece.window.height)
                free[near.row : near.row + near.height, near.col : near.col + near.width] = False
        return free

    def _corners(self, free: Mask) -> NDArray[np.intp]:
        """Rows and columns, (n, 2), of the patches of which enough counts; on the coarsest band's grid."""
        unit = max(factors(self.card).values())
        sums = np.pad(free, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
        counts = sums[PATCH:, PATCH:] - sums[:-PATCH, PATCH:] - sums[PATCH:, :-PATCH] + sums[:-PATCH, :-PATCH]
        return np.argwhere(counts[::unit, ::unit] >= LEAST * PATCH**2) * unit


def read_ground(
    source: str,
    options: SceneOptions,
    card: ModelCard,
    *,
    roi: str | None,
    allow_other_level: bool,
    seed: int,
    progress: Progress,
) -> Ground:
    """Read a scene, or a region of it, as ground for a sharpening model.

    Raises `InputError` for a scene that cannot be read or is too small to hold blocks out, `ModelError` where it lacks
    bands or is of a level that the model is not made for.
    """
    rng = np.random.default_rng(seed)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE), open_scene(source, options) as scene:
        for warning in scene.warnings:
            progress.log(warning, "warning")
        check_bands(card, scene.bands)
        for band in card.output_bands:
            scene.band(band)
        check_level(card, scene.level, allow_other_level, progress)
        area = scene.roi_window(roi) if roi else scene.grid.window
        pieces = _pieces(scene, card, area, rng, progress)
        ground = Ground(scene.name, scene.level, card, pieces, _blocks(pieces, _target_size(card, area), rng))
        ground.assumptions.extend(scene.warnings)
        if not ground.blocks:
            raise ground.too_small()
        return ground


def _target_size(card: ModelCard, area: Window) -> tuple[int, int]:
    """Columns and rows of the target grid that whole degraded pixels of every band cover."""
    factor, unit = reduction(card), max(factors(card).values())
    columns, rows = (side // (factor * unit) * unit for side in (area.width, area.height))
    return columns, rows


def _pieces(scene: Scene, card: ModelCard, area: Window, rng: np.random.Generator, progress: Progress) -> list[Piece]:
    """Pieces of the area in random order, up to `PIXELS`; those without a pixel that counts are left out."""
    factor, unit = reduction(card), max(factors(card).values())
    columns, rows = _target_size(card, area)
    across, down = (math.ceil(length * factor / PIECE) for length in (columns, rows))
    windows = list(_cut(columns, rows, (across, down), unit))
    found: list[Piece] = []
    for number, index in enumerate(rng.permutation(len(windows))):
        progress.check()
        done = sum(piece.usable.size for piece in found) / min(PIXELS, columns * rows)
        progress.progress(100 * max(done, number / len(windows)), f"Reading {scene.name}")
        piece = _read(scene, card, area, windows[index], factor)
        if piece.usable.any():
            found.append(piece)
        if sum(piece.usable.size for piece in found) >= PIXELS:
            break
    return found


def _cut(columns: int, rows: int, counts: tuple[int, int], unit: int) -> Iterator[Window]:
    """Nearly equal windows, ``counts`` of them across and down, on multiples of ``unit``."""
    across, down = (
        [round(i * length / count / unit) * unit for i in range(count + 1)]
        for length, count in zip((columns, rows), counts, strict=True)
    )
    for top, bottom in pairwise(down):
        for left, right in pairwise(across):
            yield Window(left, top, right - left, bottom - top)


def _read(scene: Scene, card: ModelCard, area: Window, window: Window, factor: int) -> Piece:
    columns, rows = _target_size(card, area)
    around = window.grown(blur_reach(card, factor, 1 / factor)).clipped(columns, rows)
    ten = around.finer(factor)
    place = Window(area.col + ten.col, area.row + ten.row, ten.width, ten.height)
    reference, low, usable = degraded(scene, card, place, factor, 1 / factor)
    coarser = factors(card)
    tensors = {}
    for tensor in card.inputs:
        f = tensor.coarser(card.finest)
        images = [fill(*low[band], REACH / coarser[band]) for band in tensor.bands]
        tensors[tensor.name] = crop(np.stack(images), around.scaled(f), window.scaled(f)) / np.float32(card.scaling)
    target = np.stack([reference[band] for band in card.output_bands])
    tensors[TARGET] = crop(target, around, window) / np.float32(card.scaling)
    return Piece(window, tensors, crop(usable, around, window).copy())


def _blocks(pieces: list[Piece], whole: tuple[int, int], rng: np.random.Generator) -> list[Block]:
    """Cut the pieces into blocks and hold some out; blocks with few pixels that count are for training.

    Empty where there are too few blocks.
    """
    side = max(math.sqrt(sum(piece.usable.size for piece in pieces) / BLOCKS), SMALLEST_BLOCK)
    right, bottom = (length - EDGE for length in whole)
    found: list[tuple[Piece, Window]] = []
    pixels: list[int] = []
    for piece in pieces:
        place = piece.window
        counts = max(int(place.width // side), 1), max(int(place.height // side), 1)
        for part in _cut(place.width, place.height, counts, 1):
            x, y = place.col + part.col, place.row + part.row
            inner = Window(x - EDGE, y - EDGE, part.width, part.height).clipped(right - EDGE, bottom - EDGE)
            own = Window(inner.col + EDGE - place.col, inner.row + EDGE - place.row, inner.width, inner.height)
            count = int(crop(piece.usable, piece.here, own).sum())
            if count and count >= own.width * own.height / 2:
                found.append((piece, own))
                pixels.append(count)
    if len(found) < len(SPLITS):
        return []
    splits = assign(pixels, SHARES, rng)
    return [Block(piece, window, SPLITS[split]) for (piece, window), split in zip(found, splits, strict=True)]
