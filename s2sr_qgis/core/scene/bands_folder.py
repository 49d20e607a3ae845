"""A folder of single-band files: ``B02.tif``, ``s2_B02.jp2``, ``T31TDH_…_B02_10m.jp2``, ``…_B8A.tif``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..jobs import SceneOptions
from .bands import BANDS, band_name
from .build import build_scene
from .files import FilePool, RasterFile, check_whole
from .product import Found, facts_from_names, product_names
from .scene import Scene

_BAND_FILE = re.compile(
    r"^(?:.*[_.\- ])?(B(?:0?[1-9]|1[0-2]|8A))(?:_(\d\d)m)?(?:_\(Raw\))?\.(?:tiff?|jp2)$", re.IGNORECASE
)

_PART = re.compile(r"^(.+)-\d{10}-\d{10}\.tiff?$", re.IGNORECASE)

_SCL_FILE = re.compile(r"^(?:.*[_.\- ])?SCL(?:_20m)?\.(?:tiff?|jp2)$", re.IGNORECASE)


_MASK_FILE = re.compile(r"^(?:.*[_.\- ])?data[_ ]?mask\.(?:tiff?|jp2)$", re.IGNORECASE)


def band_of_file(name: str) -> tuple[str, int | None] | None:
    """The band that a file's name ends in, and the resolution where the name says it (``_20m``)."""
    found = _BAND_FILE.match(name)
    return (band_name(found.group(1)), int(found.group(2)) if found.group(2) else None) if found else None


def open_bands_folder(folder: Path, options: SceneOptions) -> Scene:
    """Open a folder of band files. Raises `InputError` where it holds none, or two of one band."""
    images = _images(folder)
    notes: list[str] = []
    chosen = _choose(images, notes)
    if not chosen and (parts := _parts(folder)):
        from .mosaic import open_mosaic

        return open_mosaic(folder, parts, options)
    if not chosen:
        raise InputError(
            f"{folder} holds no Sentinel-2 product: neither MTD_MSIL1C.xml or MTD_MSIL2A.xml "
            "nor single-band files such as B02.tif or …_B8A.jp2."
        )
    products = product_names(images.absolute())
    facts = facts_from_names(str(folder), *products, folder.absolute().name, next(iter(chosen.values())).name)
    facts.warnings += notes
    place = images.absolute()
    if any(part.suffix.upper() == ".SAFE" for part in (place, *place.parents)):
        facts.warnings.append(
            f"{facts.name} has no MTD_MSIL1C.xml or MTD_MSIL2A.xml: its level, baseline and radiometric offset are "
            "taken from its name."
        )
    pool = FilePool()
    try:
        found = {}
        beside = next((path for path in sorted(images.iterdir()) if _MASK_FILE.match(path.name)), None)
        mask = RasterFile(str(beside), str(beside), plain=True) if beside else None
        extent = pool.header(mask) if mask else None
        for name, path in chosen.items():
            check_whole(path, str(path))
            file = RasterFile(str(path), str(path), plain=True)
            header = pool.header(file)
            if mask and extent:
                if (extent.width, extent.height) == (header.width, header.height):
                    file = replace(file, mask=mask)
                    header = pool.header(file)
                else:
                    facts.warnings.append(f"{beside} is not used for {name}, which is on another grid.")
            numbers = [n for n in range(1, len(header.dtypes) + 1) if n != header.validity_band]
            if len(numbers) != 1:
                raise InputError(f"{path} has {len(header.dtypes)} bands, though its name says it is {name} alone.")
            found[name] = Found(file, header, numbers[0])
            facts.learn(header.tags)
        scl = next(
            (path for path in sorted([*images.iterdir(), *images.glob("R20m/*")]) if _SCL_FILE.match(path.name)), None
        )
        return build_scene(facts, found, options, pool, RasterFile(str(scl), str(scl), plain=True) if scl else None)
    except BaseException:
        pool.close()
        raise


def _images(folder: Path) -> Path:
    """Where the bands of a folder lie: in a SAFE product that has lost its metadata, in its granule's IMG_DATA."""
    patterns = ("IMG_DATA", "*/IMG_DATA", "GRANULE/*/IMG_DATA", "*.SAFE/GRANULE/*/IMG_DATA")
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_dir()]
    if _choose(folder) or not found:
        return folder
    if len(found) > 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found)
        raise InputError(f"{folder} holds several products ({names}); name one of them.")
    return found[0]


def _parts(folder: Path) -> list[Path]:
    """The files of an Earth Engine export in several parts: ``name-0000000000-0000005120.tif``. Raises `InputError`."""
    found = {path: _PART.match(path.name) for path in sorted(folder.iterdir()) if path.is_file()}
    names = {match.group(1) for match in found.values() if match}
    if len(names) > 1:
        raise InputError(f"{folder} holds parts of several exports ({', '.join(sorted(names))}); keep one in it.")
    return [path for path, match in found.items() if match]


def _choose(folder: Path, notes: list[str] | None = None) -> dict[str, Path]:
    """One file for each band: its own resolution first, then the nearest finer one, then what there is."""
    choices: dict[str, dict[int, Path]] = {}
    # IMG_DATA of a Level-2A product, taken out of it, has a folder for each resolution.
    paths = [path for path in sorted([*folder.iterdir(), *folder.glob("R[126]0m/*")]) if path.name[0] != "."]
    if any("_FRE_" in path.name for path in paths) and any("_SRE_" in path.name for path in paths):
        paths = [path for path in paths if "_SRE_" not in path.name]
        if notes is not None:
            notes.append(
                "The product has each band twice: FRE, flat reflectance (slopes corrected), is used and not SRE; for "
                "SRE, move the FRE files to another folder."
            )
    for path in paths:
        named = band_of_file(path.name)
        if not named or not path.is_file():
            continue
        name, resolution = named
        if path.parent != folder:  # AWS names all files alike: R10m/B02.jp2, R20m/B02.jp2
            resolution = resolution or int(path.parent.name[1:3])
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
