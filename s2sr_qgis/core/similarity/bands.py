"""Which bands of two files belong together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ..errors import InputError
from ..scene.bands import BANDS, band_in


class Named(Protocol):
    """A file whose bands have names; an empty one where a band has none."""

    path: Path
    names: list[str]


def paired(reference: Named, image: Named, wanted: Sequence[str], warn: Callable[[str], None]) -> list[tuple[int, int]]:
    """The places, from 0 on, of the bands to compare, in the reference and in the image.

    Bands belong together by name where each file names all of its bands and the names are Sentinel-2's or the same in
    both, else by position. ``wanted``: names, or numbers in the reference; none for all. ``warn`` is told of bands that
    are left out. Raises `InputError`.
    """
    places = _by_name(reference, image)
    if places is None:
        return _by_position(reference, image, wanted)
    if wanted:
        return list(dict.fromkeys(_named(band, reference, image, places) for band in wanted))
    left = [name for name in (*reference.names, *image.names) if name not in places]
    if left:
        warn(f"Only one of the images has {', '.join(left)}; left out.")
    return list(places.values())


def _by_name(reference: Named, image: Named) -> dict[str, tuple[int, int]] | None:
    """The places of the bands that both have; None where names do not tell."""
    names, others = reference.names, image.names
    if any(not all(each) or len(set(each)) < len(each) for each in (names, others)):
        return None
    common = {name: (place, others.index(name)) for place, name in enumerate(names) if name in others}
    ours, theirs = (all(name in BANDS for name in each) for each in (names, others))
    if ours and theirs and not common:
        raise InputError(
            f"The images have no band in common: {reference.path} has {', '.join(names)}, {image.path} has "
            f"{', '.join(others)}."
        )
    known = all(name in BANDS for name in common)
    return common if common and (known or set(names) == set(others)) else None


def _by_position(reference: Named, image: Named, wanted: Sequence[str]) -> list[tuple[int, int]]:
    count, other = len(reference.names), len(image.names)
    if wanted:
        places = list(dict.fromkeys(place_of(band, reference) for band in wanted))
        if max(places) >= other:
            raise InputError(f"{image.path} has {other} bands, but band {max(places) + 1} is asked for.")
        return [(place, place) for place in places]
    if count != other:
        raise InputError(
            f"{reference.path} has {count} bands and {image.path} has {other}, and their names do not tell which "
            "belong together; choose bands by number."
        )
    return [(place, place) for place in range(count)]


def _named(band: str, reference: Named, image: Named, places: dict[str, tuple[int, int]]) -> tuple[int, int]:
    name = reference.names[place_of(band, reference)]
    if name not in places:
        raise InputError(f"{image.path} has no band {name}; it has {', '.join(image.names)}.")
    return places[name]


def place_of(band: str, file: Named) -> int:
    """A band's place from 0 on, by its number or name. Raises `InputError`."""
    count = len(file.names)
    if band.strip().isdigit():
        if not 1 <= int(band) <= count:
            raise InputError(f"{file.path} has {count} bands, but band {int(band)} is asked for.")
        return int(band) - 1
    name = band_in(band.strip()) or band.strip()
    if name not in file.names:
        raise InputError(f"{file.path} has no band {band}; it has {', '.join(filter(None, file.names)) or count}.")
    return file.names.index(name)
