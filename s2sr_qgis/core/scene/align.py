"""Bring a scene's bands onto one grid: same CRS, nested pixels, the extent that all of them cover."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError
from ..raster.grid import Grid
from .bands import BANDS
from .files import Header

_TOLERANCE = 0.05
"""How far, in 10 m pixels, a corner may lie off its grid line (chips re-referenced by rounded coordinates)."""


@dataclass(frozen=True)
class Place:
    """Where a band's file lies under the scene's grid: stored resolution, and the file pixel at the grid's corner."""

    stored_resolution: int
    col: int
    row: int


@dataclass(frozen=True)
class Alignment:
    """The common 10 m grid, its alignment in 10 m pixels, each kept band's place, and what to tell the user."""

    grid: Grid
    multiple: int
    places: dict[str, Place]
    warnings: list[str]


def align(headers: dict[str, Header]) -> Alignment:
    """Find the common grid of bands by name. Raises `InputError` where CRS differ or grids do not nest."""
    first = next(iter(headers))
    for name, header in headers.items():
        if header.crs != headers[first].crs:
            raise InputError(
                f"Bands in two CRS: {first} is in {_crs(headers[first])}, {name} in {_crs(header)}; "
                "warp them to one CRS first."
            )
    crs = headers[first].crs
    if crs is None or crs.is_geographic:
        return _by_counts(headers)
    return _by_georeference(headers)


def _crs(header: Header) -> str:
    return header.crs.to_string() if header.crs else "no CRS"


def _by_georeference(headers: dict[str, Header]) -> Alignment:
    for name, header in headers.items():
        if not math.isclose(header.transform.a, -header.transform.e, rel_tol=1e-6):
            raise InputError(
                f"The pixels of {name} are not square ({header.transform.a:g} x {-header.transform.e:g}); "
                "warp the band first."
            )
    notes: list[str] = []
    unit, metres = _unit(headers)
    if not math.isclose(unit * metres, 10, rel_tol=1e-4):
        notes.append(f"A pixel of the 10 m bands measures {unit * metres:g} m here; it is treated as a 10 m pixel.")
    stored = {name: _stored(name, header.transform.a / unit * 10, header) for name, header in headers.items()}
    _check_pixels(headers, stored, unit * metres)
    kept = _keep(stored, notes)
    coarsest = max(BANDS[name].resolution for name in kept)
    multiple = coarsest // 10
    origin = _origin(headers, kept, unit, coarsest)

    left, top, right, bottom = -(10**9), -(10**9), 10**9, 10**9
    corners: dict[str, tuple[int, int]] = {}
    for name in kept:
        header, factor = headers[name], stored[name] // 10
        col, row = _corner(header, origin, unit)
        corners[name] = round(col), round(row)
        left, top = max(left, round(col)), max(top, round(row))
        right, bottom = min(right, round(col) + header.width * factor), min(bottom, round(row) + header.height * factor)
    whole = left, top, right, bottom
    left, top = math.ceil(left / multiple) * multiple, math.ceil(top / multiple) * multiple
    right, bottom = right // multiple * multiple, bottom // multiple * multiple
    if right <= left or bottom <= top:
        raise InputError(f"The bands {', '.join(kept)} have no ground in common: their extents do not overlap.")
    if all(stored[name] == 10 for name in kept):
        notes += _cropped((left - whole[0], top - whole[1], whole[2] - right, whole[3] - bottom), whole, coarsest)
    places = {
        name: Place(
            stored[name], (left - corners[name][0]) * 10 // stored[name], (top - corners[name][1]) * 10 // stored[name]
        )
        for name in kept
    }
    grid = Grid(headers[kept[0]].crs, origin[0] + left * unit, origin[1] - top * unit, unit, right - left, bottom - top)
    return Alignment(grid, multiple, places, notes)


def _cropped(lost: tuple[int, int, int, int], whole: tuple[int, int, int, int], coarsest: int) -> list[str]:
    """A sentence on the pixels of the common ground that do not fill a pixel of the coarsest band."""
    sides = ("columns on the left", "rows at the top", "columns on the right", "rows at the bottom")
    parts = [f"{count} {side}" for count, side in zip(lost, sides, strict=True) if count]
    if not parts:
        return []
    width, height = whole[2] - whole[0], whole[3] - whole[1]
    return [
        f"{', '.join(parts)} are left out: of the {width} x {height} pixels, only whole {coarsest} m pixels are used, "
        f"so the result has {width - lost[0] - lost[2]} x {height - lost[1] - lost[3]}."
    ]


def _check_pixels(headers: dict[str, Header], stored: dict[str, int], metres: float) -> None:
    """Refuse bands on one grid that is not Sentinel-2's 10 m grid: there is nothing to sharpen from."""
    sizes = {round(header.transform.a, 6) for header in headers.values()}
    resolutions = {BANDS[name].resolution for name in headers}
    if len(sizes) > 1 or len(resolutions) == 1:
        return
    pixel = metres * max(stored.values()) / 10
    # Far beyond all sensors like it, this is a thumbnail of a product, and a note says so.
    if pixel < 8 or 12.5 < pixel < 300:
        raise InputError(
            f"All bands ({', '.join(headers)}) have pixels of {pixel:g} m: there are no 10 m bands to sharpen the "
            "others with (HLS and Landsat have 30 m, other sensors other sizes); use the Sentinel-2 product itself."
        )


def _unit(headers: dict[str, Header]) -> tuple[float, float]:
    """What 10 m pixels measure in the CRS's unit, and that unit in metres."""
    first = next(iter(headers.values()))
    metres = float(first.crs.linear_units_factor[1]) if first.crs else 1.0
    spacings = [header.transform.a * metres for header in headers.values()]
    if all(any(math.isclose(s, known, rel_tol=1e-4) for known in (10, 20, 60)) for s in spacings):
        return 10 / metres, metres
    # A decimated or resampled product: its bands still nest as Sentinel-2's do, so the finest band sets the measure.
    lead = min(headers, key=lambda name: (BANDS[name].resolution, headers[name].transform.a))
    return headers[lead].transform.a * 10 / BANDS[lead].resolution, metres


def _stored(name: str, metres: float, header: Header) -> int:
    for known in (10, 20, 60):
        if math.isclose(metres, known, rel_tol=1e-3):
            return known
    raise InputError(
        f"The grids do not nest: the pixels of {name} measure {header.transform.a:g}, "
        "which fits no grid of 10, 20 and 60 m bands; resample the band first."
    )


def _keep(stored: dict[str, int], notes: list[str]) -> list[str]:
    kept = [name for name in stored if stored[name] <= BANDS[name].resolution]
    for name in stored:
        if name not in kept:
            notes.append(
                f"{name} is left out: it is stored at {stored[name]} m, above its own {BANDS[name].resolution} m."
            )
    if not kept:
        raise InputError(f"The bands {', '.join(stored)} are all stored coarser than Sentinel-2 records them.")
    return kept


def _start(header: Header) -> str:
    return f"({header.transform.c:.10g}, {header.transform.f:.10g})"


def _corner(header: Header, origin: tuple[float, float], unit: float) -> tuple[float, float]:
    return (header.transform.c - origin[0]) / unit, (origin[1] - header.transform.f) / unit


def _origin(headers: dict[str, Header], kept: list[str], unit: float, coarsest: int) -> tuple[float, float]:
    """A point on which lines of the coarsest band's grid cross, with every stored grid nested in it."""
    spacing = {name: headers[name].transform.a for name in kept}
    lead = max(kept, key=lambda name: spacing[name])
    corner = (headers[lead].transform.c, headers[lead].transform.f)
    step = unit * coarsest / 10
    candidates = [corner]
    if spacing[lead] < step * 0.999:
        # Nothing is stored at the coarsest resolution, but every Sentinel-2 tile's corner is a multiple of 60 m in UTM,
        # so the blocks of a 60 m band that somebody resampled to 10 m start at multiples of 60 m too.
        candidates.insert(0, (round(corner[0] / step) * step, round(corner[1] / step) * step))
    stray = lead
    for origin in candidates:
        strays = [name for name in kept if not _nests(headers[name], origin, unit)]
        if not strays:
            return origin
        stray = strays[0]
    raise InputError(
        f"The grids do not nest: {stray} starts at {_start(headers[stray])} with pixels of {spacing[stray]:g}, "
        f"{lead} at {_start(headers[lead])} with pixels of {spacing[lead]:g}, and their pixel edges do not meet."
    )


def _nests(header: Header, origin: tuple[float, float], unit: float) -> bool:
    factor = round(header.transform.a / unit)
    return all(
        abs(value - round(value)) < _TOLERANCE and round(value) % factor == 0 for value in _corner(header, origin, unit)
    )


def _by_counts(headers: dict[str, Header]) -> Alignment:
    """Without a metric CRS the pixel counts tell how bands nest: one 10 m pixel, 1/2 or 1/6 of it."""
    lead = max(headers, key=lambda name: (headers[name].width, -BANDS[name].resolution))
    unit = BANDS[lead].resolution // 10
    width, height = headers[lead].width * unit, headers[lead].height * unit
    notes: list[str] = []
    stored: dict[str, int] = {}
    for name, header in headers.items():
        factor = next((f for f in (1, 2, 6) if (header.width * f, header.height * f) == (width, height)), None)
        apart = max(
            abs(header.transform.c - headers[lead].transform.c) / header.transform.a,
            abs(header.transform.f - headers[lead].transform.f) / -header.transform.e,
        )
        if factor is None or apart > 1:
            raise InputError(
                f"The grids do not nest: {name} has {header.width} x {header.height} pixels from {_start(header)} on, "
                f"{lead} has {headers[lead].width} x {headers[lead].height} from {_start(headers[lead])} on."
            )
        stored[name] = factor * 10
    kept = _keep(stored, notes)
    multiple = max(BANDS[name].resolution for name in kept) // 10
    if all(stored[name] == 10 for name in kept):
        notes += _cropped((0, 0, width % multiple, height % multiple), (0, 0, width, height), multiple * 10)
    if width < multiple or height < multiple:
        raise InputError(f"The scene has only {width} x {height} pixels of 10 m.")
    fine = headers[lead].transform
    across, down = fine.a / unit, -fine.e / unit
    grid = Grid(
        headers[lead].crs,
        fine.c,
        fine.f,
        across,
        width // multiple * multiple,
        height // multiple * multiple,
        None if math.isclose(across, down, rel_tol=1e-9) else down,
    )
    return Alignment(grid, multiple, {name: Place(stored[name], 0, 0) for name in kept}, notes)
