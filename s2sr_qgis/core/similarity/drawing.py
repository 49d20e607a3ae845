"""All pictures of a report, drawn from what `Pictures` has gathered of one or more candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .charts import errors, scatters
from .maps import maps, overview
from .page import Gallery
from .pictures import Pictures


def galleries(names: Sequence[str], all_of: Sequence[Pictures], unit: str) -> Iterator[Gallery]:
    """All that there is to show, one after the other. ``unit``: of the images' values, may be empty."""
    first, shown = all_of[0], f" ({unit})" if unit else ""
    many, cell = len(names) > 1, first.cell
    yield overview(names, all_of)
    squares = [pictures.root_mean_squares() for pictures in all_of]
    labels = [f"{name}: RMS difference" if many else "RMS difference" for name in names]
    yield maps(
        "Size of the difference", "Root mean square over the bands.", squares, labels, ("RMS difference", unit),
        max(len(names), 2), cell,
    )  # fmt: skip
    signed = [pictures.differences()[index] for index in range(len(first.bands)) for pictures in all_of]
    labels = [f"{band}, {name}" if many else band for band in first.bands for name in names]
    yield maps(
        "Sign of the difference", "Image minus reference: red where the image is higher, blue where it is lower.",
        signed, labels, ("difference", unit), _columns(len(names), len(signed)), cell,
        signed=True, judged=range(0, len(signed), len(names)) if many else (),
    )  # fmt: skip
    if len(first.bands) > 1:
        angles = [pictures.angles() for pictures in all_of]
        labels = [f"{name}: spectral angle" if many else "Spectral angle" for name in names]
        yield maps(
            "Spectral angle", "Angle between the spectra of reference and image: a change of colour, not of "
            "brightness.", angles, labels, ("spectral angle", "°"), max(len(names), 2), cell,
        )  # fmt: skip
    yield scatters(names, all_of, shown)
    yield errors(names, all_of, shown)


def _columns(candidates: int, maps: int) -> int:
    """How many maps beside each other: all candidates of a band or two, and no row with one map where four fit."""
    if candidates > 1:
        return 2 * candidates if candidates == 2 else candidates
    return 4 if maps % 4 == 0 and maps % 3 else 3
