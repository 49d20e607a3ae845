"""Cutting patches out of images: the same ground from each, and OTBTF's PatchesExtraction bit for bit.

`extract_patches` is what datasets are made with. `otbtf_patches` and `otbtf_extraction` reproduce OTBTF 4.3.1
(include/otbTensorflowSampler.hxx of https://github.com/remicres/otbtf) with its rounding of points to pixels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..outputs import atomic
from ..progress import Progress
from ..raster.grid import Grid, Window
from ..raster.image import Image
from ..raster.superimpose import Engine
from .card import SPLITS, Split
from .cutting import Patches, covers, cut_patches
from .otbtf_images import DataType, clamped, read_patches, write_labels, write_patches
from .patches import PatchWriter
from .points import Points, write_points
from .selection import Selection
from .validity import image_name, valid_pixels

_ALIGNED = 1e-3
"""How far, in its pixels, a source may lie off the coarse grid: rounding of its coordinates, and no more."""


@dataclass(frozen=True)
class Extraction:
    """``counts``: patches written of each split. ``outside``, ``nodata``: how many were left out for lying beyond the
    edge of a source, and for having a pixel without a value in one.
    """

    counts: dict[Split, int]
    outside: int
    nodata: int


@dataclass(frozen=True)
class OtbtfSource:
    """A source of PatchesExtraction: images stacked by band (the first one's grid), the patch's sides, its nodata."""

    images: Sequence[Image]
    width: int
    height: int
    nodata: float | None = None


def extract_patches(
    selection: Selection, sources: Mapping[str, Image], writer: PatchWriter, progress: Progress
) -> Extraction:
    """Give the writer the pairs of a selection: from each source, by tensor name, exactly the patch's ground.

    A source's pixels are a whole number of times smaller than those of the selection's grid and lie in them without a
    shift; a patch of it is that many times larger. A pair is left out when a source does not cover it, or has a pixel
    without a value (nodata or not finite) in any band. Reads a bounded number of pixels at a time.

    Raises `InputError` for a source of another CRS, ratio or place, and when no pair is left.
    """
    images = list(sources.values())
    size = selection.patch_size
    places = [_place(selection.grid, name, image) for name, image in sources.items()]
    outside = nodata = 0
    kept: list[list[Window]] = []
    splits: list[Split] = []
    for (row, column), split in zip(selection.corners, selection.splits, strict=True):
        windows = [
            Window(int(column) * ratio - left, int(row) * ratio - top, size * ratio, size * ratio)
            for ratio, left, top in places
        ]
        if all(covers(image.grid, window) for image, window in zip(images, windows, strict=True)):
            kept.append(windows)
            splits.append(SPLITS[int(split)])
        else:
            outside += 1
    counts: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    for number, patches in cut_patches(kept, images, progress):
        if all(valid_pixels(patch, image.nodata).all() for patch, image in zip(patches, images, strict=True)):
            writer.add(splits[number], dict(zip(sources, patches, strict=True)))
            counts[splits[number]] += 1
        else:
            nodata += 1
    if not sum(counts.values()):
        raise InputError(
            f"None of the {len(selection)} patches can be cut: {outside} lie beyond the edge of "
            f"{' or '.join(sources)}, {nodata} have nodata there; look whether the images overlap and what their "
            "nodata value is."
        )
    return Extraction(counts, outside, nodata)


def otbtf_patches(
    points: Points, sources: Sequence[OtbtfSource], progress: Progress | None = None, engine: Engine = "native"
) -> Iterator[tuple[int, Patches]]:
    """The patches that PatchesExtraction cuts at points: the point's place in ``points``, and of each source a patch
    (bands, height, width) of float32, in the order of the points.

    The pixel nearest to a point, halves up, is the patch's pixel (height // 2, width // 2). A point is left out where
    a patch is not wholly inside its source, or any value of it equals the source's ``nodata``; the images' own nodata
    and CRS are ignored. ``engine`` "otb" runs OTBTF itself. Raises `InputError` when images to be stacked differ in
    size, `MissingPackageError` for an engine that is not there.
    """
    for source in sources:
        _check_stack(source.images)
    if engine == "otb":
        yield from _from_otbtf(points, sources)
        return
    grids = [source.images[0].grid for source in sources]
    places: list[list[Window]] = []
    indices: list[int] = []
    starts = [
        (_nearest(points.x, g.x, g.spacing) - s.width // 2, _nearest(points.y, g.y, -g.pixel_height) - s.height // 2)
        for s, g in zip(sources, grids, strict=True)
    ]
    for index in range(len(points)):
        windows = [
            Window(int(columns[index]), int(rows[index]), source.width, source.height)
            for (columns, rows), source in zip(starts, sources, strict=True)
        ]
        if all(covers(grid, window) for grid, window in zip(grids, windows, strict=True)):
            places.append(windows)
            indices.append(index)
    stacks = [_Stack(source.images) for source in sources]
    for number, patches in cut_patches(places, stacks, progress or Progress()):
        values = [source.nodata for source in sources]
        if any(np.isnan(patch).any() for patch in patches):
            continue  # left out by a mask, which OTBTF does not know
        if not any(v is not None and (p == np.float32(v)).any() for v, p in zip(values, patches, strict=True)):
            yield indices[number], patches


def otbtf_extraction(
    points: Points,
    sources: Sequence[OtbtfSource],
    outputs: Sequence[str | Path],
    labels: str | Path | None = None,
    *,
    data_type: DataType = "float32",
    labels_type: DataType = "uint8",
    engine: Engine = "native",
    progress: Progress | None = None,
) -> int:
    """Write what PatchesExtraction writes: of each source one GeoTIFF of its patches, one below the other, and one of
    the points' numbers (1 pixel wide).

    Like OTB's, a file has its source's spacing, its first pixel's centre at 0, and no CRS or nodata; values beyond
    the data type are clamped, fractions cut off. Returns how many patches there are. Raises `InputError` where there
    is none, `OutputError` where a file cannot be written.
    """
    progress = progress or Progress()
    grids = [source.images[0].grid for source in sources]
    written: list[int] = []
    with ExitStack() as stack:
        targets = [stack.enter_context(atomic(path)) for path in outputs]
        label_target = stack.enter_context(atomic(labels)) if labels is not None else None
        files = [stack.enter_context(tempfile.TemporaryFile(dir=target.parent)) for target in targets]
        for index, patches in otbtf_patches(points, sources, progress, engine):
            for file, patch in zip(files, patches, strict=True):
                file.write(clamped(patch, data_type).tobytes())
            written.append(int(points.ids[index]))
        if not written:
            raise InputError(
                f"None of the {len(points)} points gives a patch; look whether they lie inside the images, and what "
                "the nodata value is."
            )
        for target, file, source, grid in zip(targets, files, sources, grids, strict=True):
            bands = sum(len(image.bands) for image in source.images)
            write_patches(target, file, (bands, source.height, source.width), len(written), grid, data_type, progress)
        if label_target is not None:
            write_labels(label_target, np.array(written), labels_type)
    return len(written)


def _from_otbtf(points: Points, sources: Sequence[OtbtfSource]) -> Iterator[tuple[int, Patches]]:
    from ..raster.otb import otbtf_patches_extraction

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        vector, labels = folder / "points.geojson", folder / "labels.tif"
        write_points(replace(points, ids=np.arange(len(points))), vector)
        parameters: dict[str, Any] = {"vec": str(vector), "field": "id"}
        images = []
        for number, source in enumerate(sources, start=1):
            parameters |= {f"source{number}.patchsizex": source.width, f"source{number}.patchsizey": source.height}
            if source.nodata is not None:
                parameters[f"source{number}.nodata"] = source.nodata
            images.append(folder / f"{number}.tif")
        otbtf_patches_extraction([source.images for source in sources], parameters, images, labels)
        yield from read_patches(images, [(source.height, source.width) for source in sources], labels)


class _Stack:
    """Images of one size as one, with the bands of each; float32, as OTB reads everything."""

    def __init__(self, images: Sequence[Image]) -> None:
        self._images = images
        self.grid = images[0].grid
        self.bands = [band for image in images for band in image.bands]
        self.nodata = None
        self.dtype = np.dtype(np.float32)

    def read(self, window: Window | None = None) -> NDArray[np.float32]:
        return np.concatenate([image.read(window).astype(np.float32) for image in self._images])


def _check_stack(images: Sequence[Image]) -> None:
    first = images[0].grid
    for image in images[1:]:
        if (image.grid.width, image.grid.height) != (first.width, first.height):
            raise InputError(
                f"{image_name(image)} has {image.grid.width} x {image.grid.height} pixels, but {image_name(images[0])} "
                f"has {first.width} x {first.height}; images of one source must have one size."
            )


def _place(grid: Grid, name: str, image: Image) -> tuple[int, int, int]:
    """How many pixels of an image lie beside each other in one of the grid, and the grid's pixel of its corner."""
    its = image.grid
    if its.crs != grid.crs:
        raise InputError(f"{name} is in another CRS than the grid of the patches; superimpose one on the other.")
    ratio = round(grid.spacing / its.spacing)
    left, top = (its.x - grid.x) / its.spacing, (grid.y - its.y) / its.pixel_height
    drift = max(
        abs(grid.spacing / its.spacing - ratio) * grid.width,
        abs(grid.pixel_height / its.pixel_height - ratio) * grid.height,
    )
    if ratio < 1 or drift > _ALIGNED:
        raise InputError(
            f"The pixels of {name} ({its.spacing:g}) do not fit a whole number of times into those of the patches' "
            f"grid ({grid.spacing:g}); superimpose one image on the other's grid."
        )
    if max(abs(left - round(left)), abs(top - round(top))) > _ALIGNED:
        raise InputError(
            f"{name} lies {left % 1:.3f}, {top % 1:.3f} of its pixels off the patches' grid; superimpose one image on "
            "the other's grid."
        )
    return ratio, round(left), round(top)


def _nearest(coordinates: NDArray[np.float64], corner: float, spacing: float) -> NDArray[np.int64]:
    """In ITK's order of operations: at a pixel's edge the last bit decides."""
    return np.floor((coordinates - (corner + 0.5 * spacing)) * (1 / spacing) + 0.5).astype(np.int64)
