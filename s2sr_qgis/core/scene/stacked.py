"""One raster with a band for each Sentinel-2 band, all on one grid."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..jobs import SceneOptions
from .bands import band_in, band_name
from .bands_folder import band_of_file
from .build import build_scene
from .files import FilePool, Header, RasterFile, check_whole
from .product import Found, facts_from_names, product_names
from .scene import Scene


def open_stacked(path: Path, options: SceneOptions) -> Scene:
    """Open a stacked raster, its bands named by description or by ``options.band_names``. Raises `InputError`."""
    check_whole(path, str(path))
    file = RasterFile(str(path), str(path))
    pool = FilePool()
    try:
        header = pool.header(file)
        found = {name: Found(file, header, index) for name, index in _names(path, header, options).items()}
        place = path.absolute().parent
        facts = facts_from_names(str(path), path.stem, place.name, *product_names(place))
        facts.learn(header.tags)
        return build_scene(facts, found, options, pool)
    except BaseException:
        pool.close()
        raise


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
        named = [(None if name.strip() == "-" else band_name(name)) for name in given]
    else:
        named = [band_in(description) for description in header.descriptions]
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
