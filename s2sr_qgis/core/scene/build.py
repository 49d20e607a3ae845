"""Put a `Scene` together from the bands that a reader found."""

from __future__ import annotations

from ..errors import InputError
from ..jobs import SceneOptions
from .align import align
from .bands import BANDS
from .files import FilePool, RasterFile
from .product import Facts, Found
from .radiometry import settle
from .resampled import check_own_output, check_resampled
from .scene import Scene, SceneBand


def build_scene(
    facts: Facts, found: dict[str, Found], options: SceneOptions, pool: FilePool, scl: RasterFile | None = None
) -> Scene:
    """Settle radiometry and common grid of the bands found. Raises `InputError`."""
    found = {name: found[name] for name in BANDS if name in found}
    if not found:
        raise InputError(f"{facts.source} holds no Sentinel-2 band.")
    for name, band in found.items():
        dtype = band.header.dtypes[band.index - 1]
        if dtype in ("uint8", "int8") or dtype.startswith("complex"):
            raise InputError(
                f"{name} of {band.file.label} has pixels of type {dtype}: a picture, not Sentinel-2's measurements."
            )
    warnings = list(facts.warnings)
    level = facts.level
    if options.processing_level:
        if level and level != options.processing_level:
            warnings.append(f"{facts.name} says {level}; it is treated as {options.processing_level}, as asked.")
        level = options.processing_level
    check_own_output(found)
    alignment = align({name: band.header for name, band in found.items()})
    warnings += alignment.warnings
    warnings += check_resampled(found, alignment, pool)
    radiometry = settle(found, facts, options, pool, warnings)
    bands = {
        name: SceneBand(
            name=name,
            resolution=BANDS[name].resolution,
            stored_resolution=place.stored_resolution,
            offset=radiometry[name].offset,
            quantification=radiometry[name].quantification,
            nodata=radiometry[name].nodata,
            dtype=found[name].header.dtypes[found[name].index - 1],
            file=found[name].file,
            index=found[name].index,
            col=place.col,
            row=place.row,
        )
        for name, place in alignment.places.items()
    }
    return Scene(
        name=facts.name,
        source=facts.source,
        level=level,
        platform=facts.platform,
        acquired=facts.acquired,
        baseline=facts.baseline,
        bands=bands,
        grid=alignment.grid,
        multiple=alignment.multiple,
        warnings=warnings,
        files=pool,
        scl=scl,
    )
