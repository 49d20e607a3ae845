"""What the report says of consistency and of opensr-test's quantities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..jobs import SimilarityJob
from ..progress import Progress
from .report import Candidate, Report, Section, number, write_report

if TYPE_CHECKING:
    from .comparison import Result

_ROWS = (
    ("reflectance", "Reflectance consistency", "reflectance", "0"),
    ("spectral", "Spectral consistency", "°", "0"),
    ("spatial", "Spatial consistency", "source pixels", "0"),
    ("synthesis", "Synthesis", "reflectance", "–"),
    ("hallucination", "Hallucination", "share", "0"),
    ("omission", "Omission", "share", "0"),
    ("improvement", "Improvement", "share", "1"),
)

_SOURCE = "Aybar et al. 2024, doi:10.1109/LGRS.2024.3401394, in the defaults of opensr-test 1.3.3."


def opensr_section(figures: dict[str, Any], text: Sequence[str] = ()) -> Section:
    """The quantities of opensr-test that there are, as a part of the report."""
    rows = [
        (title, "–" if (value := figures[name]) is None else number(float(value)), unit, perfect)
        for name, title, unit, perfect in _ROWS
        if name in figures
    ]
    words = [
        "Consistencies: the image, reduced, against its source: mean absolute difference, mean spectral angle, shift.",
    ]
    if "hallucination" in figures:
        words.append(
            "Synthesis: how much the image differs from its magnified source. Of the detail in the places where there "
            "is most of it: hallucination is in neither reference nor source, omission is the reference's detail that "
            "is missing, improvement is what is there."
        )
    return Section("opensr-test", [*words, _SOURCE, *text], ("Quantity", "Value", "Unit", "Perfect"), rows)


def write_consistency(
    job: SimilarityJob, results: Sequence[Result], outputs: dict[str, Any], progress: Progress
) -> None:
    """The report of a consistency: the group that most was done to in full, the others as tables."""
    groups = outputs["groups"]
    order = sorted(range(len(groups)), key=lambda k: (groups[k]["factor"] == 1, -len(groups[k]["bands"])))
    main, *others = order
    image, source = Path(job.image).name, Path(job.reference).name
    sections = [_group(groups[k]) for k in others] + [opensr_section(outputs["opensr"])]
    factor = groups[main]["factor"]
    page = Report(
        title=f"Consistency of {image} with {source}",
        facts=[
            ("Source", job.reference),
            ("Image", job.image),
            ("Image's pixels in one of the source's", f"{factor} x {factor}"),
            *([("Mask", job.mask)] if job.mask else []),
        ],
        candidates=[Candidate(f"{image}, degraded", results[main])],
        data_range_source=outputs["data_range_from"],
        unit="DN",
        warnings=[
            "The reference is the source; the image is degraded to its pixels by the sensor's MTF. The figures tell "
            "whether the image still shows what the source shows, not whether its detail is true.",
            *outputs["assumptions"],
        ],
        sections=sections,
    )
    write_report(page, job.report or Path(), progress)


def _group(group: dict[str, Any]) -> Section:
    names = group["bands"]
    rows = []
    for entry in group["measures"].values():
        bands = entry["bands"] or {}
        unit = f" ({entry['unit']})" if entry["unit"] and len(entry["unit"]) < 4 else ""
        cells = [number(bands[name]) if name in bands else "" for name in names]
        rows.append((entry["title"] + unit, _shown(entry["total"]), *cells))
    factor = group["factor"]
    text = (
        [f"Each of the source's pixels is {factor} x {factor} of the image's."]
        if factor > 1
        else ["The image has these bands at the source's own spacing: compared as they are."]
    )
    return Section(f"Bands at {group['spacing']:g}", text, ("Measure", "Total", *names), rows)


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else number(value)
