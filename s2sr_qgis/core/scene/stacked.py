"""One raster with a band for each Sentinel-2 band, all on one grid."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError
from ..jobs import SceneOptions
from .bands_folder import band_of_file
from .build import build_scene
from .files import FilePool, Header, RasterFile, check_whole
from .names import band_called, bands_by_wavelength, bands_named
from .product import Found, facts_from_names, product_names
from .scene import Scene


def open_stacked(path: Path, options: SceneOptions) -> Scene:
    """Open a stacked raster, its bands named by description or by ``options.band_names``. Raises `InputError`."""
    check_whole(path, str(path))
    return open_raster(path, RasterFile(str(path), str(path)), options, path.stem)


def open_raster(path: Path, file: RasterFile, options: SceneOptions, name: str) -> Scene:
    """`open_stacked` where the raster may be GDAL's mosaic of the files in ``path``."""
    pool = FilePool()
    try:
        header = pool.header(file)
        if not header.dtypes and header.inner:
            return build_scene(
                facts_from_names(str(path), path.stem, path.absolute().parent.name),
                _container(path, header, options, pool),
                options,
                pool,
            )
        found = {name: Found(file, header, index) for name, index in _names(path, header, options).items()}
        place = path.absolute().parent
        facts = facts_from_names(str(path), name, place.name, *product_names(place))
        facts.learn(header.tags)
        return build_scene(facts, found, options, pool)
    except BaseException:
        pool.close()
        raise


def _container(path: Path, header: Header, options: SceneOptions, pool: FilePool) -> dict[str, Found]:
    """The variables of a container that are bands by their names. Raises `InputError`."""
    # rasterio sorts them as text: Band1, Band10, Band2
    inner_names = sorted(
        header.inner, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]
    )
    variables = [name.rpartition(":")[2].rpartition("/")[2].strip('"') for name in inner_names]
    if not options.band_names:
        named = bands_named(variables, f"the container {path}")
    elif len(options.band_names) != len(variables):
        raise InputError(
            f"{path} is a container of {len(variables)} rasters ({', '.join(variables[:8])}), but "
            f"{len(options.band_names)} names are given ('-' skips one)."
        )
    else:
        named = [None if name.strip() == "-" else band_called(name) for name in options.band_names]
    found: dict[str, Found] = {}
    for inner, variable, name in zip(inner_names, variables, named, strict=True):
        if name is None:
            continue
        file = RasterFile(inner, f"Variable {variable} of {path}")
        part = pool.header(file)
        if len(part.dtypes) != 1:
            raise InputError(
                f"Variable {variable} of {path} has {len(part.dtypes)} layers, such as dates; save one date of it."
            )
        if name in found:
            raise InputError(f"{path} has two variables of band {name}; keep one of them.")
        found[name] = Found(file, part, 1)
    if not found:
        raise InputError(
            f"{path} is a container of several rasters ({', '.join(variables[:8])}), and none of them has the name of "
            "a Sentinel-2 band; convert its bands to GeoTIFF with gdal_translate, or name its variables B02, B03, …."
        )
    return found


def _names(path: Path, header: Header, options: SceneOptions) -> dict[str, int]:
    """Band name to band number (from 1)."""
    count = len(header.dtypes)
    if not count:
        raise InputError(f"{path} has no bands of its own (it is a container); name one of the rasters in it.")
    if options.band_names:
        given = list(options.band_names)
        if len(given) == count - 1 and header.validity_band:
            given.insert(header.validity_band - 1, "-")
        if len(given) != count:
            raise InputError(f"{path} has {count} bands, but {len(given)} names are given ('-' skips a band).")
        named = [(None if name.strip() == "-" else band_called(name)) for name in given]
    else:
        named = bands_named(header.descriptions, str(path))
        if not any(named):
            named = bands_by_wavelength(header.wavelengths)
    names: dict[str, int] = {}
    for index, name in enumerate(named, start=1):
        if name in names:
            raise InputError(
                f"{path} has two bands named {name} ({names[name]} and {index}); give the names of all bands."
            )
        if name:
            names[name] = index
    if not names:
        hint = "open the folder that holds it instead, or " if band_of_file(path.name) else ""
        raise InputError(
            f"The bands of {path} have no names, so nothing tells which is which; "
            f"{hint}give the band names in file order (B02,B03,…)."
        )
    return names
