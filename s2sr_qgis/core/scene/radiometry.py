"""Unit, scale, radiometric offset and nodata of a scene's pixels: what is stated, and what has to be assumed.

One unit holds for all bands of a scene. Precedence: the user's option, the product's metadata or STAC item, the files'
tags, product names, then the pixels themselves. Each assumption is a sentence in the scene's warnings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..jobs import SceneOptions
from ..raster.units import HIGHEST, HOW, Unit, scaled_already, unit_of
from ..raster.validity import FILLS, HUGE, unmistakable
from .files import FilePool, sample
from .product import Facts, Found, offset_of_baseline

QUANTIFICATION = 10000.0
"""DN that mean reflectance 1 in every Sentinel-2 product so far."""

OFFSET_SHOWS = 1000.0
"""Where even the darkest pixels lie above this DN, they probably carry the 1000 of baseline 04.00."""

TAKEN_OFF = 700.0
"""Where dark pixels lie below this DN, they probably do not carry the 1000 of baseline 04.00 any more."""

_CONVENTIONAL = (0.0, -0.1, -1.0)
"""What stands for nodata in files of reflectance, where all bands have it at once."""

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Radiometry:
    """Of one band: reflectance = (stored + ``offset``) / ``quantification``; stored numbers that mean nodata."""

    offset: float
    quantification: float
    nodata: tuple[float, ...]


class Samples:
    """Decimated copies of bands, each read once; nodata by tag, mask or convention is NaN."""

    def __init__(self, found: dict[str, Found], pool: FilePool, nodata: float | None = None) -> None:
        self._found, self._pool, self._nodata = found, pool, nodata
        self._stored: dict[str, NDArray[np.generic]] = {}

    def stored(self, name: str) -> NDArray[np.generic]:
        """A band as stored, (h, w)."""
        if name not in self._stored:
            band = self._found[name]
            self._stored[name] = sample(self._pool, band.file, band.index, band.header)
        return self._stored[name]

    def values(self, name: str) -> Values:
        """A band's numbers that are measurements; 0 is none."""
        band, stored = self._found[name], self.stored(name)
        fills = (*FILLS, *(v for v in (_tag(band), self._nodata) if v is not None))
        values: Values = stored[~np.isin(stored, fills)].astype(np.float32)
        values = values[np.isfinite(values) & (np.abs(values) < HUGE)]
        values = values[values != 65535]
        measured: Values = values[values != 0]
        return measured

    def all_of(self, names: Iterable[str]) -> Values:
        """The numbers of several bands that are measurements."""
        return np.concatenate([self.values(name) for name in names])

    def darkest(self) -> float | None:
        """The lowest 1st percentile of the dark bands; None without such bands or pixels."""
        dark = [self.values(name) for name in ("B12", "B11", "B04") if name in self._found]
        return min((float(np.percentile(values, 1)) for values in dark if values.size), default=None)


def darkest(found: dict[str, Found], pool: FilePool) -> float | None:
    """The lowest 1st percentile of the dark bands' stored numbers; None without such bands or pixels."""
    return Samples(found, pool).darkest()


def settle(
    found: dict[str, Found], facts: Facts, options: SceneOptions, pool: FilePool, warnings: list[str]
) -> dict[str, Radiometry]:
    """Unit, offset and nodata of every band. Raises `InputError` where they cannot be known."""
    samples = Samples(found, pool, facts.nodata)
    scales = _scales(found, facts, options, samples, warnings)
    offsets = _offsets(found, facts, options, samples, scales, warnings)
    return {
        name: Radiometry(offsets[name], scales[name][1], nodata)
        for name, nodata in _nodata(found, facts, samples, scales, warnings).items()
    }


def _tag(band: Found) -> float | None:
    return band.header.nodata[band.index - 1]


def _is_float(band: Found) -> bool:
    return band.header.dtypes[band.index - 1].startswith("float")


def _tags(band: Found) -> tuple[float, float] | None:
    """Scale and offset as the file's tags have them; None where they say nothing."""
    scale, shift = band.header.scales[band.index - 1], band.header.offsets[band.index - 1]
    return None if (scale, shift) == (1.0, 0.0) or scale == 0 or not math.isfinite(scale + shift) else (scale, shift)


# Scale


def _scales(
    found: dict[str, Found], facts: Facts, options: SceneOptions, samples: Samples, warnings: list[str]
) -> dict[str, tuple[float | None, float]]:
    """(offset in stored numbers or None, quantification) of each band by option, metadata, tags, or its pixels."""
    if options.quantification is not None:
        q = options.quantification
        return {name: (_shift(band, q), q) for name, band in found.items()}
    chosen: dict[str, tuple[float | None, float]] = {}
    silent: list[str] = []
    for name, band in found.items():
        if band.quantification is not None and not (band.checked and _is_float(band)):
            chosen[name] = None, band.quantification
        elif band.checked and not _is_float(band) and not _tags(band):
            chosen[name] = None, QUANTIFICATION  # an asset of a Sentinel-2 collection; its pixels may be far away
        elif (
            (tags := _stated(band))
            and not _is_float(band)
            and math.isclose(1 / tags[0], QUANTIFICATION)
            and abs(tags[1]) < 2
        ):
            chosen[name] = _by_tags(*tags)
        else:
            silent.append(name)
    for kind in (True, False):
        group = [name for name in silent if _is_float(found[name]) == kind]
        if group:
            others = {chosen[name] for name in chosen if _is_float(found[name]) == kind}
            chosen.update(_scales_of(group, found, facts, samples, others, warnings))
    return chosen


def _stated(band: Found) -> tuple[float, float] | None:
    """Scale and offset of a STAC item or of the file's tags."""
    if band.quantification is not None:
        return 1 / band.quantification, (band.offset or 0.0) / band.quantification
    return _tags(band)


def _shift(band: Found, quantification: float) -> float | None:
    """The tags' offset in stored numbers, if the tags mean the same scale."""
    tags = _tags(band)
    return _by_tags(*tags)[0] if tags and math.isclose(1 / tags[0], quantification, rel_tol=1e-6) else None


def _by_tags(scale: float, shift: float) -> tuple[float, float]:
    # The tags are decimal fractions: -0.1 / 0.0001 must give -1000 and not -1000.0000000000001.
    return round(shift / scale, 6), round(1 / scale, 6)


def _scales_of(
    group: list[str],
    found: dict[str, Found],
    facts: Facts,
    samples: Samples,
    others: set[tuple[float | None, float]],
    warnings: list[str],
) -> dict[str, tuple[float | None, float]]:
    """The same for bands of one kind of type whose scale the pixels have to confirm or to tell."""
    raw = samples.all_of(group)
    real = _is_float(found[group[0]])
    tagged = {name: tags for name in group if (tags := _stated(found[name]))}
    if tagged:
        scaled = np.concatenate(
            [samples.values(name) * np.float32(s) + np.float32(d) for name, (s, d) in tagged.items()]
        )
        unit = unit_of(scaled, True)
        if any(abs(shift) > 2 and abs(scale) < 0.01 for scale, shift in tagged.values()):
            chosen = {name: (shift, round(1 / scale, 6)) for name, (scale, shift) in tagged.items()}
            warnings.append(
                "The offset tag is taken for digital numbers: as reflectance it would be beyond all bounds."
            )
        elif real and (stored := scaled_already(samples.all_of(tagged), scaled)):
            q = float(stored.value)
            chosen = dict.fromkeys(tagged, (0.0, q))
            warnings.append(
                f"The pixels are {stored.words} already, though scale and offset tags are in the file: the tags are "
                "not applied a second time."
            )
        elif unit is Unit.REFLECTANCE or not scaled.size:
            chosen = {name: _by_tags(*tags) for name, tags in tagged.items()}
        elif unit in (Unit.PERCENT, Unit.DN):
            q = float(unit.value)
            chosen = {name: (_by_tags(*tags)[0], _by_tags(*tags)[1] * q) for name, tags in tagged.items()}
            warnings.append(f"With scale and offset by their tags the pixels are taken for {unit.words}.")
        else:
            raise _ask(facts, f"with scale and offset by their tags the pixels are near {_near(scaled)}")
        rest = [name for name in group if name not in tagged]
        if not rest:
            return dict(chosen)
        others = others | set(chosen.values())
    else:
        chosen, rest = {}, group
    if others:
        if len(others) > 1:
            raise _ask(facts, f"{', '.join(rest)} have no scale tag, and the other bands have several scales")
        warnings.append(f"{', '.join(rest)} have no scale tag: they are taken to have the scale of the other bands.")
        return {**chosen, **dict.fromkeys(rest, next(iter(others)))}
    found_unit = unit_of(raw, real)
    if found_unit is None and raw.size:
        raise _ask(facts, f"the pixels are near {_near(raw)}, which can be several things")
    unit = found_unit or Unit.DN
    if unit is Unit.REFLECTANCE:
        warnings.append("The pixels are numbers near 0 to 1 without a scale tag: they are taken for reflectance.")
    elif raw.size and not real and np.percentile(raw, 99) > HIGHEST:
        warnings.append(
            f"The pixels are near {_near(raw)}, more than 10000 for reflectance 1 explains; they are taken for it all "
            "the same. If another number is reflectance 1, as 65535 in 16-bit images of browsers, give it as the "
            "quantification."
        )
    elif unit is Unit.PERCENT or (real and raw.size):
        warnings.append(f"The pixels are near {_near(raw)} without a scale tag: they are taken for {unit.words}.")
    return dict.fromkeys(rest, (None, float(unit.value)))


def _near(values: Values) -> str:
    low, high = (f"{value:.3g}" for value in np.percentile(values, (1, 99)))
    return f"{low} to {high}"


def _ask(facts: Facts, why: str) -> InputError:
    return InputError(f"The unit of {facts.name} is not known: {why}; {HOW}.")


# Offset


def _offsets(
    found: dict[str, Found],
    facts: Facts,
    options: SceneOptions,
    samples: Samples,
    scales: dict[str, tuple[float | None, float]],
    warnings: list[str],
) -> dict[str, float]:
    """The offset of each band in stored numbers."""
    chosen: dict[str, float] = {}
    guessed: list[str] = []
    for name, band in found.items():
        tagged, quantification = scales[name]
        if options.radiometric_offset is not None:
            # The option is in DN of 10000, whatever the pixels are.
            unit = quantification / QUANTIFICATION if quantification <= Unit.PERCENT.value else 1.0
            chosen[name] = options.radiometric_offset * unit
        elif band.offset is not None and quantification > Unit.PERCENT.value:
            chosen[name] = band.offset
        elif tagged is not None:
            chosen[name] = tagged
        else:
            guessed.append(name)
            chosen[name] = 0.0
    if guessed:
        offset = _implied({name: found[name] for name in guessed}, facts, samples, scales[guessed[0]][1], warnings)
        chosen.update(dict.fromkeys(guessed, offset))
    return chosen


def _implied(
    found: dict[str, Found], facts: Facts, samples: Samples, quantification: float, warnings: list[str]
) -> float:
    """The offset that baseline or family of a product imply, checked with its dark pixels."""
    dark, implied = samples.darkest(), offset_of_baseline(facts.baseline)
    dn = None if dark is None else dark * QUANTIFICATION / quantification
    if quantification <= Unit.PERCENT.value or facts.offset is not None:
        if dn is not None and dn > OFFSET_SHOWS:
            warnings.append(
                "Even the darkest pixels lie above reflectance 0.1, as if the 1000 DN of baseline 04.00 and later were "
                "still in them; if they are, give a radiometric offset of -1000."
            )
        return facts.offset or 0.0
    if implied:
        origin = "its name" if facts.name in facts.baseline_from else facts.baseline_from or facts.name
        if dn is not None and dn < TAKEN_OFF:
            raise InputError(
                f"The radiometric offset of {facts.name} is not known: {origin} states baseline {facts.baseline}, "
                f"whose pixels carry 1000 DN, but the darkest lie near {dn:.0f} DN; give a radiometric offset of 0 "
                "where it was taken off, -1000 where it is still in the pixels."
            )
        warnings.append(
            f"{facts.name} gets a radiometric offset of {implied:g}, as {origin} states baseline {facts.baseline}; if "
            "it was already taken off, give a radiometric offset of 0."
        )
        return implied
    if facts.baseline and implied is None:
        warnings.append(
            f"{facts.baseline} is no baseline of ESA, it is written by Sen2Cor run at home: no offset is stated, so 0 "
            "is used; if the pixels carry 1000 DN, give a radiometric offset of -1000."
        )
    if dn is not None and dn > OFFSET_SHOWS:
        stated = f"Baseline {facts.baseline} states no" if implied == 0 else "Nothing states the"
        warnings.append(
            f"{stated} radiometric offset, so 0 is used, but even the darkest pixels lie above 1000 DN: "
            "products from baseline 04.00 on carry 1000 DN; if this is one, give a radiometric offset of -1000."
        )
    return 0.0


# Nodata


def _nodata(
    found: dict[str, Found],
    facts: Facts,
    samples: Samples,
    scales: dict[str, tuple[float | None, float]],
    warnings: list[str],
) -> dict[str, tuple[float, ...]]:
    """Stored numbers that mean nodata, by band: the tag, 0 of digital numbers, and conventions that are not tagged."""
    chosen: dict[str, set[float]] = {}
    untagged: dict[float, list[str]] = {}
    for name, band in found.items():
        tag = _tag(band)
        numbers = {tag} if tag is not None and math.isfinite(tag) else set()
        if not _is_float(band) or scales[name][1] > Unit.PERCENT.value:
            numbers.add(0.0)
        if not band.header.dtypes[band.index - 1].startswith("uint"):
            seen = unmistakable(samples.stored(name), tag)
            for number in seen:
                untagged.setdefault(number, []).append(name)
            numbers |= {*FILLS, *seen}
        if facts.nodata is not None:
            numbers.add(facts.nodata)
        chosen[name] = numbers
    silent = [name for name, band in found.items() if _tag(band) is None and not band.header.masked]
    real = [name for name in silent if _is_float(found[name]) and scales[name][1] <= Unit.PERCENT.value]
    for number in _CONVENTIONAL:
        if real == list(found) and _in_all(samples, real, number * scales[real[0]][1]):
            untagged.setdefault(number * scales[real[0]][1], []).extend(real)
            for name in real:
                chosen[name].add(float(np.float32(number * scales[name][1])))
    for number, names in untagged.items():
        which = "all bands" if len(names) == len(found) else ", ".join(names)
        warnings.append(f"Pixels of {number:.6g} in {which} are taken for nodata, though no tag says so.")
    return {name: tuple(sorted(numbers)) for name, numbers in chosen.items()}


def _in_all(samples: Samples, names: list[str], number: float) -> bool:
    """Whether some pixels of the decimated copies have the same number in all bands."""
    hits = [
        np.isclose(samples.stored(name).astype(np.float64), number, rtol=0, atol=1e-9 + 1e-7 * abs(number))
        for name in names
    ]
    height, width = (min(hit.shape[side] for hit in hits) for side in (0, 1))
    common = np.ones((height, width), bool)
    for hit in hits:
        rows, columns = ((np.arange(n) + 0.5) * size // n for n, size in zip((height, width), hit.shape, strict=True))
        common &= hit[np.ix_(rows.astype(int), columns.astype(int))]
    return bool(common.any())
