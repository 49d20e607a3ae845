"""A dataset for cross-sensor super-resolution: the job `create_cross_sensor_dataset`.

The chain of OTBTF's tutorial (https://github.com/remicres/otbtf_keras_tutorial) in one run and without intermediate
files: Sentinel-2 superimposed on the finer sensor's XS grid, XS and PAN bundled to a perfect sensor, patches selected
and extracted. Every step is an image that is computed by windows, so memory does not grow with the scenes.
"""

from __future__ import annotations

import math
import shutil
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import DatasetError, InputError
from ..jobs import SearchScenesJob
from ..outputs import atomic
from ..progress import Progress
from ..raster.grid import Grid, Window
from ..raster.image import FileImage, Image, Moved, Remarked
from ..raster.superimpose import superimpose
from ..scene import Scene, open_scene
from ..scene.bands import band_name
from ..scene.image import Classification, Clear, Cloudy, SceneImage
from .card import (
    CROSS_SENSOR,
    SPLITS,
    TARGET,
    DatasetCard,
    PatchCard,
    SourceCard,
    read_dataset,
    recorded,
    software_version,
    write_card,
)
from .extraction import OtbtfSource, extract_patches, otbtf_patches
from .pair import PairCheck, PairLimits, check_pair, harmonized, refuse
from .pair_report import write_pair_report
from .patches import PatchWriter, write_preview
from .reference import SENTINEL_2, Reference, cropped, open_reference
from .selection import otbtf_selection, select_patches
from .splits import check_shares

if TYPE_CHECKING:
    from ..jobs import CreateCrossSensorDatasetJob

LOW = "input_lr"
NODATA = -32768.0
"""What OTB and OTBTF are given for a pixel without a value where the user names no nodata: far from all DN."""
REPORT = "pair_report.html"


def create_cross_sensor_dataset(job: CreateCrossSensorDatasetJob, progress: Progress) -> dict[str, Any]:
    """Cut pairs of a Sentinel-2 scene and a finer sensor's image into a folder that appears when it is complete.

    The folder holds the patch images (`core.dataset.card`), ``dataset.yaml``, ``preview_{split}.png`` and
    ``pair_report.html``. Inputs are DN without offset on the XS grid, targets what the finer sensor's file holds.

    Returns ``output``, ``scene``, ``ratio``, ``n_train``, ``n_valid``, ``n_test``, and of the pair ``shift``
    (Sentinel-2 pixels), ``overlap`` and ``overridden`` (reasons against the pair, made all the same by --force).
    Raises `InputError`, `DatasetError` (the pair is beyond its limits), `OutputError`, `Cancelled`.
    """
    check_shares((job.train, job.valid, job.test))
    output = job.output.expanduser().absolute()
    with ExitStack() as stack:
        folder = stack.enter_context(atomic(output, folder=True))
        reference = open_reference(job, stack)
        source = job.scene or _search(job, reference, progress)
        scene = stack.enter_context(open_scene(source, job.scene_options))
        for warning in (*scene.warnings, *reference.warnings):
            progress.log(warning, "warning")
        reference = cropped(reference, _overlap(scene, reference))
        card, facts = _fill(job, scene, reference, folder, stack, progress)
        write_card(card, folder)
        written = read_dataset(folder)
        for split in SPLITS:
            if written.count(split):
                write_preview(written, split, folder / f"preview_{split}.png")
    progress.artifact("dataset", str(output))
    counts = {f"n_{split}": card.counts[split] for split in SPLITS}
    result = {"output": str(output), "scene": scene.name, "ratio": reference.ratio, **counts, **facts}
    return {**result, "assumptions": card.sources[0].assumptions}


def _overlap(scene: Scene, reference: Reference) -> Window:
    """The window of the coarse grid that the scene covers."""
    from rasterio.warp import transform_bounds

    bounds = scene.grid.bounds
    if scene.grid.crs != reference.coarse.crs:
        if scene.grid.crs is None:
            raise InputError(f"{scene.name} has no CRS, so nobody can say what ground it shows.")
        bounds = transform_bounds(scene.grid.crs, reference.coarse.crs, *bounds)
    grid = reference.coarse
    left = math.ceil((bounds[0] - grid.x) / grid.spacing - 1e-6)
    top = math.ceil((grid.y - bounds[3]) / grid.spacing - 1e-6)
    right = math.floor((bounds[2] - grid.x) / grid.spacing + 1e-6)
    bottom = math.floor((grid.y - bounds[1]) / grid.spacing + 1e-6)
    window = Window(left, top, right - left, bottom - top).clipped(grid.width, grid.height)
    if min(right - left, bottom - top, window.width, window.height) <= 0:
        raise InputError(
            f"The scene {scene.name} and the image {reference.name} show different places; name a scene over the image."
        )
    return window


def _search(job: CreateCrossSensorDatasetJob, reference: Reference, progress: Progress) -> str:
    from ..scene.search import find

    start, end = job.start, job.end
    if reference.acquired:
        start = start or (reference.acquired - timedelta(days=job.max_days)).date().isoformat()
        end = end or (reference.acquired + timedelta(days=job.max_days)).date().isoformat()
    if not start or not end:
        raise InputError(
            f"{job.xs} does not say when it was taken, so it is unknown when to search; give --start and --end, or a "
            "--scene."
        )
    search = SearchScenesJob(
        output=job.output,
        area=job.xs,
        start=start,
        end=end,
        catalog=job.catalog,
        max_area_cloud=job.max_area_cloud,
        best=1,
    )
    best = find(search, progress)[0]
    cloud = (
        "cloud over the image unknown" if best.area_cloud is None else f"{best.area_cloud:.1f} % cloud over the image"
    )
    progress.log(f"Found {best.id}, {cloud}.")
    return best.source


def _fill(
    job: CreateCrossSensorDatasetJob,
    scene: Scene,
    reference: Reference,
    folder: Path,
    stack: ExitStack,
    progress: Progress,
) -> tuple[DatasetCard, dict[str, Any]]:
    """Check the pair, write the patch images, return their card and what the check found."""
    low, clouds = _low(job, scene, reference)
    facts: dict[str, Any] = {"sentinel2_pixel": SENTINEL_2 / reference.coarse.spacing, "progress": progress}
    if scene.acquired and reference.acquired:
        facts["days"] = abs((scene.acquired - reference.acquired).total_seconds()) / 86400
    check = check_pair(low, reference.image, clouds=clouds, **facts)
    if job.coregister and check.dx is not None and check.dy is not None:
        moved, pixel = (check.dx, check.dy), reference.coarse.spacing
        progress.log(f"The scene is moved by {moved[0] * pixel:.2f} m east and {-moved[1] * pixel:.2f} m north.")
        low, clouds = _low(job, scene, reference, moved)
        check = check_pair(low, reference.image, clouds=clouds, corrected=moved, **facts)
    limits = PairLimits.of(job)
    write_pair_report(check, limits, low, reference.image, folder / REPORT, progress)
    try:
        overridden = refuse(check, limits, force=job.force, progress=progress)
        if overridden:
            progress.log("The pair is beyond its limits, and the dataset is made all the same (--force).", "warning")
    except DatasetError as error:
        kept = job.output.expanduser().absolute().with_name(f"{job.output.name}_{REPORT}")
        shutil.move(folder / REPORT, kept)
        raise DatasetError(f"{error} The report is {kept}.") from error
    low = Clear(low, clouds) if clouds else low
    image = harmonized(reference.image, check) if job.harmonize else reference.image
    tensors = [
        PatchCard(name=LOW, bands=job.bands, resolution=reference.coarse.spacing, size=job.patch_size),
        PatchCard(
            name=TARGET,
            bands=job.bands,
            resolution=reference.coarse.spacing / reference.ratio,
            size=job.patch_size * reference.ratio,
        ),
    ]
    step = job.step or job.patch_size
    sources = {LOW: low, TARGET: image}
    with PatchWriter(folder, tensors) as writer:
        block = job.block_size
        if job.compat == "otbtf":
            _otbtf(job, sources, step, _mask(job, low.grid, stack), writer, progress)
        else:
            selection = select_patches(
                low,
                patch_size=job.patch_size,
                step=step,
                strategy=job.strategy,
                proportions=(job.train, job.valid, job.test),
                block_size=block,
                mask=_mask(job, low.grid, stack),
                seed=job.seed,
                progress=progress,
            )
            block = selection.block_size
            done = extract_patches(selection, sources, writer, progress)
            progress.log(
                f"{sum(done.counts.values())} patches; left out: {selection.invalid} for cloud, nodata or the mask, "
                f"{selection.across} between splits, {done.nodata + done.outside} without reference."
            )
        writer.finish(reference.coarse.spacing, progress)
    source = SourceCard(
        name=f"{scene.name} and {reference.name}",
        level=scene.level,
        platform=scene.platform,
        acquired=scene.acquired.isoformat() if scene.acquired else None,
        licence=job.licence,
        patches=dict(writer.counts),
        assumptions=[*scene.warnings, *reference.warnings],
    )
    split = "otbtf" if job.compat == "otbtf" else "blocks" if job.strategy == "split" else job.strategy
    card = DatasetCard(
        task=CROSS_SENSOR,
        factor=reference.ratio,
        tensors=tensors,
        counts=writer.counts,
        patch_size=tensors[1].size,
        step=step * reference.ratio,
        split=split,
        proportions=dict(zip(SPLITS, (job.train, job.valid, job.test), strict=True)),
        block_size=block,
        seed=job.seed,
        sources=[source],
        s2sr=software_version(),
        job=recorded(job),
        pair=_measured(check, reference.coarse.spacing, scene.source),
    )
    return card, {"shift": check.shift, "overlap": check.overlap, "overridden": overridden}


def _measured(check: PairCheck, spacing: float, source: str) -> dict[str, Any]:
    """The scene in use, the shift that is left and the shift that was corrected, for the card."""
    left = None if check.dx is None or check.dy is None else [check.dx, check.dy]
    return {
        "scene": source,
        "shift_pixels": left,
        "shift_metres": left and [value * spacing for value in left],
        "corrected_pixels": check.corrected and list(check.corrected),
        "bands": [asdict(band) for band in check.bands],
    }


def _low(
    job: CreateCrossSensorDatasetJob, scene: Scene, reference: Reference, moved: tuple[float, float] = (0.0, 0.0)
) -> tuple[Image, Image | None]:
    """The scene's bands on the coarse grid, DN without offset, and where there are clouds, if the scene says so.

    ``moved``: by how many pixels to the right and down.
    """
    coarse = reference.coarse
    # What moves is the grid that the scene is sampled on, so the scene is interpolated once.
    grid = replace(coarse, x=coarse.x - moved[0] * coarse.spacing, y=coarse.y + moved[1] * coarse.spacing)
    bands = SceneImage(scene, [band_name(band) for band in job.bands], saturated=False)
    low = superimpose(bands, grid, interpolation=job.interpolation, engine=job.engine, compat=job.compat, fill=NODATA)
    # Superimpose of OTB puts a number where the scene has no pixels.
    low = Remarked(low, NODATA, math.nan)
    if scene.scl is None or scene.grid.crs is None or job.compat == "otbtf":
        return Moved(low, coarse), None
    classes = superimpose(Classification(scene), grid, interpolation="nearest", dtype=np.uint8)
    return Moved(low, coarse), Moved(Cloudy(classes), coarse)


def _mask(job: CreateCrossSensorDatasetJob, grid: Grid, stack: ExitStack) -> Image | None:
    """The mask on the coarse grid. Raises `InputError` where it is not of the XS image's size."""
    if job.mask is None:
        return None
    mask = stack.enter_context(FileImage(job.mask, bands=[1]))
    xs = stack.enter_context(FileImage(job.xs)).grid
    if (mask.grid.width, mask.grid.height) != (xs.width, xs.height):
        raise InputError(
            f"The mask {job.mask} has {mask.grid.width} x {mask.grid.height} pixels, but the XS image has {xs.width} x "
            f"{xs.height}; give a mask on its grid."
        )
    return superimpose(mask, grid, interpolation="nearest", dtype=np.uint8)


def _otbtf(
    job: CreateCrossSensorDatasetJob,
    sources: dict[str, Image],
    step: int,
    mask: Image | None,
    writer: PatchWriter,
    progress: Progress,
) -> None:
    """Patches as OTBTF's PatchesSelection and PatchesExtraction choose and cut them.

    Pixels without a value get the number that is PatchesExtraction's nodata, so that no patch has one: the job's, else
    the image's own, else `NODATA`. PatchesSelection has a nodata where the job has one.
    """
    images, marks = [], []
    for image in sources.values():
        own = image.nodata if image.nodata is not None and math.isfinite(image.nodata) else NODATA
        mark = own if job.nodata is None else job.nodata
        images.append(Remarked(image, math.nan, mark))
        marks.append(mark)
    (low, target), size = images, job.patch_size
    ratio = round(low.grid.spacing / target.grid.spacing)
    engine: Literal["native", "otb"] = "otb" if job.engine == "otb" else "native"
    found = otbtf_selection(
        low,
        patch_size=job.patch_size,
        step=step,
        strategy=job.strategy,
        proportions=(job.train, job.valid, job.test),
        mask=mask,
        nodata=job.nodata,
        engine=engine,
        progress=progress,
    )
    for split, points in found.items():
        cut = otbtf_patches(
            points,
            [
                OtbtfSource([low], size, size, marks[0]),
                OtbtfSource([target], size * ratio, size * ratio, marks[1]),
            ],
            progress,
            engine,
        )
        for _, patches in cut:
            writer.add(split, {LOW: patches[0].astype(np.float32), TARGET: patches[1].astype(np.float32)})
    selected, written = sum(len(points) for points in found.values()), sum(writer.counts.values())
    if not written:
        raise InputError(
            f"OTBTF's rules leave no patch of {size} x {size} pixels ({selected} selected, all of them with nodata or "
            "beyond the edge of an image); choose smaller patches."
        )
    progress.log(f"{written} patches; left out: {selected - written} with nodata or beyond the edge of an image.")
