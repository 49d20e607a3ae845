"""A folder of single-band files: ``B02.tif``, ``s2_B02.jp2``, ``T31TDH_…_B02_10m.jp2``, ``…_B8A.tif``."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import InputError
from ..jobs import SceneOptions
from .bands import BANDS, band_name
from .build import build_scene
from .files import FilePool, RasterFile, check_whole
from .product import Found, facts_from_names
from .scene import Scene

_BAND_FILE = re.compile(r"^(?:.*[_.\- ])?(B(?:0?[1-9]|1[0-2]|8A))(?:_(\d\d)m)?\.(?:tiff?|jp2)$", re.IGNORECASE)

_SCL_FILE = re.compile(r"^(?:.*[_.\- ])?SCL(?:_20m)?\.(?:tiff?|jp2)$", re.IGNORECASE)


def band_of_file(name: str) -> tuple[str, int | None] | None:
    """The band that a file's name ends in, and the resolution where the name says it (``_20m``)."""
    found = _BAND_FILE.match(name)
    return (band_name(found.group(1)), int(found.group(2)) if found.group(2) else None) if found else None


def open_bands_folder(folder: Path, options: SceneOptions) -> Scene:
    """Open a folder of band files. Raises `InputError` where it holds none, or two of one band."""
    chosen = _choose(folder)
    if not chosen:
        raise InputError(
            f"{folder} holds no Sentinel-2 product: neither MTD_MSIL1C.xml or MTD_MSIL2A.xml "
            "nor single-band files such as B02.tif or …_B8A.jp2."
        )
    facts = facts_from_names(str(folder), folder.absolute().name, next(iter(chosen.values())).name)
    pool = FilePool()
    try:
        found = {}
        for name, path in chosen.items():
            check_whole(path, str(path))
            file = RasterFile(str(path), str(path))
            header = pool.header(file)
            if len(header.dtypes) != 1:
                raise InputError(f"{path} has {len(header.dtypes)} bands, though its name says it is {name} alone.")
            found[name] = Found(file, header)
        scl = next((path for path in sorted(folder.iterdir()) if _SCL_FILE.match(path.name)), None)
        return build_scene(facts, found, options, pool, RasterFile(str(scl), str(scl)) if scl else None)
    except BaseException:
        pool.close()
        raise


def _choose(folder: Path) -> dict[str, Path]:
    """One file for each band: its own resolution first, then the nearest finer one, then what there is."""
    choices: dict[str, dict[int, Path]] = {}
    # IMG_DATA of a Level-2A product, taken out of it, has a folder for each resolution.
    for path in sorted([*folder.iterdir(), *folder.glob("R[126]0m/*")]):
        named = band_of_file(path.name)
        if not named or not path.is_file():
            continue
        name, resolution = named
        there = choices.setdefault(name, {})
        key = resolution or BANDS[name].resolution
        if key in there:
            raise InputError(
                f"{folder} has two files of band {name}: {there[key].name} and {path.name}; keep one scene in it."
            )
        there[key] = path
    chosen = {}
    for name, there in choices.items():
        fine = [resolution for resolution in there if resolution <= BANDS[name].resolution]
        chosen[name] = there[max(fine)] if fine else there[min(there)]
    return {name: chosen[name] for name in BANDS if name in chosen}
