"""The report of a pair's check: one HTML file with figures, limits and pictures, and no link to anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..progress import Progress
from ..raster.grid import Window
from ..raster.image import Image
from ..redaction import redact
from ..similarity.page import composite, render
from .pair_figures import PairCheck, PairLimits, reasons
from .pair_sums import CELL

_TEMPLATE = Path(__file__).with_name("pair_report.html")
_MOST_DETAIL = 1024


def write_pair_report(
    check: PairCheck,
    limits: PairLimits,
    lr: Image,
    reference: Image,
    path: Path,
    progress: Progress | None = None,
    *,
    title: str = "Report of an image pair",
) -> None:
    """Write the report of a check of these two images. Reads one block of each."""
    from . import pair_pictures as pictures

    progress = progress or Progress()
    progress.check()
    shown = composite(lr.bands)
    samples = check.samples
    values: dict[str, Any] = {"overview": None, "detail": None, "shift_map": None, "scatter": None}
    if samples is not None and samples.overview.size and check.overlap > 0:
        values["overview"] = pictures.overview(samples.overview[:, shown])
    if samples is not None and samples.best is not None:
        values["detail"] = pictures.detail(*_detail(check, lr, reference, samples.best, shown))
    progress.check()
    if check.blocks:
        values["shift_map"] = pictures.shift_map(check)
    if samples is not None and len(samples.cells):
        values["scatter"] = pictures.scatter(check, samples.cells)
    page = render(
        _TEMPLATE,
        title=title,
        subtitle=f"{check.width} × {check.height} low-resolution pixels, ratio {check.ratio}",
        check=check,
        reasons=reasons(check, limits),
        rows=_rows(check, limits),
        bands=_bands(check, limits),
        composite=", ".join(lr.bands[index] for index in shown),
        cell=CELL,
        **values,
    )
    path.write_text(redact(page), encoding="utf-8")


def _detail(check: PairCheck, lr: Image, reference: Image, block: Window, shown: list[int]) -> tuple[Any, Any]:
    """Both images over the middle of a block, bands as shown, (bands, h, w) each in its own pixels."""
    ratio = check.ratio
    side = max(min(block.width, block.height, _MOST_DETAIL // ratio), 1)
    window = Window(block.col + (block.width - side) // 2, block.row + (block.height - side) // 2, side, side)
    col = round((lr.grid.x - reference.grid.x) / reference.grid.spacing) + window.col * ratio
    row = round((reference.grid.y - lr.grid.y) / reference.grid.pixel_height) + window.row * ratio
    fine = reference.read(Window(col, row, side * ratio, side * ratio))
    return _known(lr.read(window)[shown], lr.nodata), _known(fine[shown], reference.nodata)


def _known(pixels: NDArray[Any], nodata: float | None) -> NDArray[np.float32]:
    """NaN where there is no value."""
    values = pixels.astype(np.float32)
    if nodata is not None:
        values[pixels == nodata] = np.nan
    return values


def _rows(check: PairCheck, limits: PairLimits) -> list[dict[str, Any]]:
    def row(name: str, value: str, limit: str = "", good: bool | None = None) -> dict[str, Any]:
        return {"name": name, "value": value, "limit": limit, "good": good}

    overlap = row(
        "Reference covered by the scene",
        f"{check.overlap:.1%}",
        f"≥ {limits.min_overlap:.0%}",
        check.overlap >= limits.min_overlap,
    )
    rows = [overlap, row("Usable pixels", f"{check.valid:.1%}")]
    rows.append(row("Clouds and their shadows", "not known" if check.clouds is None else f"{check.clouds:.1%}"))
    days = "not known" if check.days is None else f"{check.days:.0f}"
    kept = None if check.days is None else check.days <= limits.max_days
    rows.append(row("Days apart", days, f"≤ {limits.max_days:g}", kept))
    most = f"≤ {limits.max_shift:g} px"
    if check.shift is None or check.dx is None or check.dy is None or check.spread is None:
        rows.append(row("Shift", "not measured", most, False))
    else:
        rows.append(row("Shift, Sentinel-2 pixels", f"{check.shift:.2f} px", most, check.shift <= limits.max_shift))
        rows.append(row("… in low-resolution pixels, right and down", f"({check.dx:+.2f}, {check.dy:+.2f})"))
        rows.append(row("… spread of the blocks, Sentinel-2 pixels", f"± {check.spread:.2f}"))
    used = sum(block.used for block in check.blocks)
    rows.append(row("… blocks in use", f"{used} of {check.tried}"))
    if check.corrected is not None:
        right, down = check.corrected
        rows.append(row("Moved before, low-resolution pixels", f"({right:+.2f}, {down:+.2f})"))
    return rows


def _bands(check: PairCheck, limits: PairLimits) -> list[dict[str, Any]]:
    return [
        {
            "name": band.name,
            "reference": band.reference,
            "slope": "" if band.slope is None else f"{band.slope:.4g}",
            "offset": "" if band.offset is None else f"{band.offset:.4g}",
            "correlation": "none" if band.correlation is None else f"{band.correlation:.3f}",
            "limit": f"≥ {limits.min_correlation:g}",
            "good": band.correlation is not None and band.correlation >= limits.min_correlation,
        }
        for band in check.bands
    ]
