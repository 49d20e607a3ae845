"""The job `similarity`: two rasters of any size, compared block by block, as figures, a report and a map."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import NotGeoreferencedWarning

from ..jobs import SimilarityJob
from ..outputs import write_text
from ..progress import Part, Progress
from ..raster.grid import Window
from ..raster.targets import check_outputs
from ..raster.writer import FileOptions, OutputBand, RasterWriter, assumed, write_raster
from ..redaction import json_text
from .comparison import BLOCK_UNIT, Comparison, Result, block, blocks, chosen, in_threads
from .measure import Block, Float, Measure, Setup
from .measures import catalogue
from .rasters import Pair, described, open_pair
from .window import local_map

ODD_RATIO = 50.0
"""Times that the means of two images may differ before one seems to be in another unit."""


def compare(job: SimilarityJob, progress: Progress) -> dict[str, Any]:
    """Compare two rasters, or a super-resolved one with its source, and write what the job asks for.

    Returns ``measures``: for each ``title``, ``total``, ``bands`` (None where it has none), ``unit``, and a ``note``
    where a figure is infinite or not defined (then None); each total under the measure's own name, too; ``shift``
    (pixels right and down that bring the image onto the reference, None where not found); ``definition``,
    ``data_range``, ``data_range_from``, ``unit`` (of the values), ``pixels`` (that count in a band), ``bands``,
    ``reference``, ``image``; ``assumptions`` about the files; the paths of the files written. With ``source``:
    the quantities of `triple.opensr_quantities` under ``opensr``. With ``consistency``: what
    `consistency.consistency` gives.
    Raises `InputError`, `OutputError`, `Cancelled`.
    """
    inputs = [job.reference, job.image, job.mask, job.source]
    check_outputs([job.json_file, job.report], [job.map], inputs)
    if job.consistency:
        from .consistency import consistency

        outputs = consistency(job, progress)
    else:
        outputs = _measured(job, progress)
    outputs = {name: plain(value) for name, value in outputs.items()}
    if job.json_file:
        write_text(job.json_file, json_text(outputs))
        outputs["json_file"] = str(job.json_file)
        progress.artifact("json_file", str(job.json_file))
    progress.progress(100, "Done")
    return outputs


def compare_pair(
    pair: Pair, comparison: Comparison, progress: Progress, threads: int | None = None, layer: Layer | None = None
) -> Result:
    """Take every block of a pair into a comparison, and its map into ``layer``.

    Raises `InputError`, `OutputError`, `Cancelled`.
    """
    setup = comparison.setup
    halo = max(comparison.halo, layer.halo if layer else 0)

    def work(window: Window, check: Callable[[], None]) -> tuple[Any, Float | None]:
        part = block(window, halo, setup, pair.read)
        return comparison.observe(part, check), layer.values(part) if layer else None

    parts = blocks(setup.height, setup.width, setup.bands, pair.strips)
    with closing(in_threads(parts, work, progress, threads)) as done:
        for window, (part, values) in done:
            comparison.take(part)
            if layer and values is not None:
                layer.write(window, values)
    return comparison.result()


class Layer:
    """A measure in every place as a band of a raster that is being written."""

    def __init__(self, name: str, setup: Setup, writer: RasterWriter) -> None:
        measure = catalogue()[name]
        self.halo = measure.create(setup).halo
        self._name, self._setup, self._band, self._writer = name, setup, measure.title, writer

    def values(self, part: Block) -> Float:
        """Those of a block's own pixels, (h, w); NaN where the measure has none."""
        return local_map(self._name, part.x, part.y, part.valid, self._setup)[part.own]

    def write(self, window: Window, values: Float) -> None:
        """Write what `values` gave. Raises `OutputError`."""
        self._writer.write(window, {self._band: values.astype(np.float32)})


def figures(result: Result, unit: str) -> dict[str, Any]:
    """A comparison's scores as `compare` gives them. ``unit``: of the images' values."""
    measures: dict[str, Any] = {}
    for measure in result.measures:
        score = result.scores[measure.name]
        bands = None if score.bands is None else dict(zip(result.bands, map(float, score.bands), strict=True))
        every = [score.total, *(bands or {}).values()]
        entry = {
            "title": measure.title,
            "total": float(score.total),
            "bands": bands,
            "unit": _unit(measure, result.setup, unit),
        }
        if any(math.isinf(value) for value in every):
            entry["note"] = "infinite where the images are equal"
        elif any(math.isnan(value) for value in every):
            entry["note"] = "not defined where nothing can be measured"
        measures[measure.name] = entry
    return {"measures": measures, **{name: entry["total"] for name, entry in measures.items()}}


def plain(value: Any) -> Any:
    """The same figures as JSON can hold them: no infinity, no NaN, no NumPy."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(part) for part in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _measured(job: SimilarityJob, progress: Progress) -> dict[str, Any]:
    chosen(job.measures, job.definition)
    with ExitStack() as stack:
        pair = stack.enter_context(open_pair(job, progress))
        grid = pair.grid
        setup = Setup(len(pair.bands), grid.height, grid.width, pair.data_range, job.definition, job.ratio)
        comparison = Comparison(job.measures, pair.bands, setup, job.report is not None)
        layer = stack.enter_context(_map(job, pair, setup, progress)) if job.map else None
        middle = 50.0 if job.source else 95.0
        result = compare_pair(pair, comparison, Part(progress, 0, middle), job.threads, layer)
        quantities = _quantities(job, Part(progress, middle, 95))
    doubts = _doubts(result, pair)
    for text in doubts:
        progress.log(text, "warning")
    assumptions = [*pair.warnings, *doubts]
    if quantities:
        assumptions += quantities["opensr"].pop("assumptions")
    outputs = {
        "reference": job.reference,
        "image": job.image,
        "definition": job.definition,
        "data_range": pair.data_range,
        "data_range_from": pair.range_from,
        "unit": pair.unit,
        "bands": list(result.bands),
        "pixels": result.pixels,
        **figures(result, pair.short_unit),
        "shift": result.shift,
        "assumptions": assumptions,
        **quantities,
    }
    if job.map:
        outputs["map"] = str(job.map)
        progress.artifact("map", str(job.map))
    if job.report:
        _report(job, pair, result, doubts, quantities, progress)
        outputs["report"] = str(job.report)
        progress.artifact("report", str(job.report))
    return outputs


def _quantities(job: SimilarityJob, progress: Progress) -> dict[str, Any]:
    if not job.source:
        return {}
    from .triple import opensr_quantities

    return {"opensr": opensr_quantities(job, progress)}


def _report(
    job: SimilarityJob, pair: Pair, result: Result, doubts: list[str], quantities: dict[str, Any], progress: Progress
) -> None:
    from .report import Candidate, Report, Section, write_report

    sections: list[Section] = []
    if quantities:
        from .trust_report import opensr_section

        sections.append(opensr_section(quantities["opensr"]))
    image, reference = Path(job.image).name, Path(job.reference).name
    facts = [("Reference", job.reference), ("Image", job.image), ("Grid", described(pair.grid))]
    more = (("Mask", job.mask), ("Resampled", pair.resampled), ("Values", pair.unit))
    facts += [(name, value) for name, value in more if value]
    page = Report(
        title=f"{image} compared with {reference}",
        facts=facts,
        candidates=[Candidate(image, result)],
        data_range_source=pair.range_from,
        unit=pair.short_unit.replace("values", ""),
        warnings=[*pair.warnings, *doubts],
        sections=sections,
    )
    write_report(page, job.report or Path(), progress)


@contextmanager
def _map(job: SimilarityJob, pair: Pair, setup: Setup, progress: Progress) -> Iterator[Layer]:
    title = catalogue()[job.map_measure].title
    tags = {"TIFFTAG_SOFTWARE": "s2sr", "REFERENCE": Path(job.reference).name, "IMAGE": Path(job.image).name}
    tags |= assumed(pair.warnings)
    options = FileOptions("float32", math.nan, block=BLOCK_UNIT, threads=job.threads, tags=tags)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # then its images have no place either
        with write_raster(job.map or "", pair.grid, [OutputBand(title)], options, progress.check) as writer:
            yield Layer(job.map_measure, setup, writer)


def _unit(measure: Measure, setup: Setup, unit: str) -> str:
    if measure.unit != "values":
        return measure.unit
    return "data ranges" if setup.definition == "up42" else unit


def _doubts(result: Result, pair: Pair) -> list[str]:
    """Sentences on figures that are likely to be those of two units, or of a wrong data range."""
    x, y = (float(np.nanmean(np.abs(means))) for means in result.means)
    if x and y and max(x / y, y / x) > ODD_RATIO:
        return [
            f"The reference's mean is {x:.4g}, the image's {y:.4g}: one seems to hold digital numbers and the other "
            "reflectance; tell both bands' scale, with gdal_edit.py -scale."
        ]
    if x > pair.data_range:
        return [
            f"The reference's mean is {x:.4g}, beyond the data range {pair.data_range:g}, which some measures depend "
            "on; say the right one (--data-range)."
        ]
    return []
