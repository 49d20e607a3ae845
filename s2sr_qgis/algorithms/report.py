"""The report of an evaluation as a small HTML page, for QGIS's results viewer."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from ..runner.text import tr

STYLE = """body { font-family: sans-serif } table { border-collapse: collapse }
td, th { padding: 0.2em 0.7em; text-align: right } th, tr:last-child td { border-top: 1px solid #999 }
td:first-child, th:first-child { text-align: left } tr:last-child { font-weight: bold }"""
COLUMNS = (("rmse", "RMSE (DN)", 1), ("sre", "SRE (dB)", 2), ("sam", "SAM (°)", 3), ("uiq", "UIQ", 4))


def write_report(path: str, done: dict[str, Any]) -> None:
    """Write the figures of an `evaluate` job: a row a band and one for all, the model beside bicubic."""
    rows = {**done["bands"], tr("all bands"): done["mean"]}
    heads = [tr("band"), *(head for _, name, _ in COLUMNS for head in (name, tr("bicubic"))), tr("ratio of RMSE")]
    title = tr("{} on {}").format(done["model"], done["scene"])
    about = tr("Wald's protocol, factor {}; {} pixels compared; DN: reflectance x 10000.").format(
        done["factor"], done["pixels"]
    )
    lines = [
        "<!DOCTYPE html>",
        f'<html><head><meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style></head><body>',
        f"<h2>{escape(title)}</h2><p>{escape(about)}</p><table>",
        _row("th", heads),
    ]
    for name, row in rows.items():
        cells = [
            _number(row[way].get(metric), decimals) for metric, _, decimals in COLUMNS for way in ("model", "bicubic")
        ]
        lines.append(_row("td", [name, *cells, _number(row["ratio"], 3)]))
    lines.append("</table></body></html>")
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"
