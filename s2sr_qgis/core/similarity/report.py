"""The report of a comparison: one HTML file with scores, pictures and definitions, and no link to anything else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..outputs import write_text
from ..progress import Progress
from ..redaction import redact
from .measure import Definition, Measure
from .page import Gallery, Picture, render

if TYPE_CHECKING:
    from .comparison import Result

_TEMPLATE = Path(__file__).with_name("report.html")
_DECIMALS = {"dB": 2, "°": 3, "px": 3}
_COLUMNS = 7
_DEFINITIONS: Mapping[Definition, str] = {
    "reference": "reference: the formulas of the papers named below",
    "up42": "up42: the formulas of image-similarity-measures 0.3.6, in float64",
}


@dataclass(frozen=True)
class Candidate:
    """One image that was compared with the reference: its name in the tables, and what was found."""

    name: str
    result: Result


@dataclass(frozen=True)
class Section:
    """A further part of the page: sentences, then a table, then pictures, each where there is one.

    Attributes:
        title: its heading.
        text: paragraphs.
        head: headings of the table's columns.
        rows: cells of the table, as they are to be shown; all but a row's first stand to the right.
        pictures: see `Picture`; `page.png` makes one of a matplotlib figure.
    """

    title: str
    text: Sequence[str] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Report:
    """What a report says.

    Attributes:
        title: its heading, such as ``result.tif compared with reference.tif``.
        facts: name and value of what the reader must know: reference, image, grid, mask … Pixels, definition and data
            range come from the results.
        candidates: all compared with the same reference by the same measures, the one to judge first.
        data_range_source: where the data range comes from, such as ``type uint8``.
        unit: of the images' values, such as ``DN``; empty where it is not known.
        warnings: sentences that stand at the top.
        sections: further parts, before the definitions.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    candidates: Sequence[Candidate]
    data_range_source: str
    unit: str = ""
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = ()


def write_report(report: Report, path: Path, progress: Progress | None = None) -> None:
    """Write the page; it appears complete or not at all. Raises `OutputError`, `Cancelled`."""
    progress = progress or Progress()
    first = report.candidates[0].result
    names = [candidate.name for candidate in report.candidates]
    page = render(
        _TEMPLATE,
        title=report.title,
        report=report,
        facts=[*report.facts, *_facts(report)],
        names=names,
        totals=_totals(report),
        tables=[_table(report, start) for start in range(0, len(first.bands), _COLUMNS)],
        shifts=_shifts(report),
        galleries=_galleries(report, names, progress),
        definitions=[(measure.title, measure.definitions[first.setup.definition]) for measure in first.measures],
    )
    progress.check()
    write_text(path, redact(page))


def number(value: float, unit: str = "") -> str:
    """A score for a table: decimals by its unit, ∞, or – where it is not known."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if unit == "values":
        return _plain(value)
    return f"{value:.{_DECIMALS.get(unit, 4)}f}".replace("-", "−")


def best(values: Sequence[float], perfect: float) -> int | None:
    """Which of several scores is nearest to the perfect one; None where none is better than the others."""
    away = [-value if math.isinf(perfect) else abs(value - perfect) for value in values]
    known = [value for value in away if not math.isnan(value)]
    if len(known) < 2 or known.count(min(known)) > 1:
        return None
    return away.index(min(known))


def _plain(value: float) -> str:
    """A number in the images' unit: four digits that matter, an exponent where it is very large or small."""
    if math.isnan(value):
        return "–"
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3e}".replace("-", "−")
    digits = 3 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(digits, 0)}f}".replace("-", "−")


def _facts(report: Report) -> list[tuple[str, str]]:
    result = report.candidates[0].result
    setup = result.setup
    size = setup.height * setup.width
    unit = f" {report.unit}" if report.unit else ""
    return [
        ("Bands", ", ".join(result.bands)),
        (
            "Pixels that count",
            f"{result.pixels:,} of {size:,} ({result.pixels / size:.1%})",
        ),
        ("Definition", _DEFINITIONS[setup.definition]),
        ("Data range", f"{_plain(setup.data_range)}{unit}, from {report.data_range_source}"),
    ]


def _totals(report: Report) -> list[dict[str, Any]]:
    """A row a measure: its unit, the perfect score, and the candidates' totals with the better one marked."""
    rows = []
    for measure in report.candidates[0].result.measures:
        values = [candidate.result.scores[measure.name].total for candidate in report.candidates]
        rows.append(
            {
                "title": measure.title,
                "unit": _unit(measure, report),
                "perfect": "∞" if math.isinf(measure.perfect) else f"{measure.perfect:g}",
                "cells": _cells(values, measure),
            }
        )
    return rows


def _table(report: Report, start: int) -> dict[str, Any]:
    """The scores of some bands: a group of rows a measure, a row a candidate, and the bands' means below."""
    result = report.candidates[0].result
    part = slice(start, start + _COLUMNS)
    groups = []
    for measure in result.measures:
        scores = [candidate.result.scores[measure.name].bands for candidate in report.candidates]
        known = [values[part].tolist() for values in scores if values is not None]
        if len(known) == len(scores):
            columns = [_cells(values, measure) for values in zip(*known, strict=True)]
            groups.append({"title": _headed(measure, _unit(measure, report)), "rows": list(zip(*columns, strict=True))})
    means = [("reference", result.means[0]), *((c.name, c.result.means[1]) for c in report.candidates)]
    return {
        "bands": result.bands[part],
        "groups": groups,
        "means": [(name, [_plain(value) for value in values[part].tolist()]) for name, values in means],
    }


def _cells(values: Sequence[float], measure: Measure) -> list[dict[str, Any]]:
    winner = best(values, measure.perfect)
    return [{"text": number(value, measure.unit), "best": index == winner} for index, value in enumerate(values)]


def _headed(measure: Measure, unit: str) -> str:
    return f"{measure.title} ({unit})" if unit else measure.title


def _unit(measure: Measure, report: Report) -> str:
    if measure.unit != "values":
        return measure.unit
    return "data ranges" if report.candidates[0].result.setup.definition == "up42" else report.unit


def _galleries(report: Report, names: list[str], progress: Progress) -> list[Gallery]:
    """The pictures, where every candidate has them."""
    found = [candidate.result.pictures for candidate in report.candidates]
    pictures = [each for each in found if each is not None]
    if len(pictures) < len(found):
        return []
    from .drawing import galleries

    done = []
    progress.check()
    for gallery in galleries(names, pictures, report.unit):
        progress.check()
        done.append(gallery)
    return done


def _shifts(report: Report) -> list[str]:
    """Where each candidate lies, in words."""
    found = [(candidate.name, candidate.result.shift) for candidate in report.candidates]
    return [
        f"To lie on the reference, {name} must go {abs(dx):.3f} pixels to the {'right' if dx >= 0 else 'left'} and "
        f"{abs(dy):.3f} {'down' if dy >= 0 else 'up'}."
        for name, (dx, dy) in ((name, shift) for name, shift in found if shift is not None)
        if math.hypot(dx, dy) >= 0.0005
    ]
