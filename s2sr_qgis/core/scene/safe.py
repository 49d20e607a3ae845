"""SAFE products, as folders and zipped: Level-1C and Level-2A, compact and old names."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

# Types only: defusedxml does the parsing.
from xml.etree.ElementTree import Element, ParseError  # nosec B405

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from ..errors import InputError
from ..jobs import SceneOptions
from .bands import BANDS
from .build import build_scene
from .files import FilePool, RasterFile, check_stream, check_whole
from .product import Facts, Found, facts_from_names, iso_time, level_of, offset_of_baseline, platform_of
from .radiometry import QUANTIFICATION
from .scene import Scene

_METADATA = re.compile(r"^(MTD_MSIL(1C|2A)|S2[A-D]_(OPER|USER)_MTD_SAFL(1C|2A)_.*)\.xml$", re.IGNORECASE)
_IMAGE = re.compile(r"_(B\d\d|B8A)(?:_(\d\d)m)?$")
_ZIPPED = re.compile(r"^S2[A-D]_.*\.zip$", re.IGNORECASE)
_INSIDE = {"GRANULE", "DATASTRIP"}
_LARGEST_XML = 64 * 2**20


class FolderTree:
    """A product's files on disk, by their path inside the product."""

    def __init__(self, root: Path, metadata: str) -> None:
        self.root, self.metadata = root, metadata
        self.name = root.name

    def images(self) -> list[str]:
        """Every JPEG 2000 file of the granules."""
        return [
            path.relative_to(self.root).as_posix()
            for path in self.root.glob("GRANULE/**/*.jp2")
            if not path.name.startswith(".")
        ]

    def text(self) -> bytes:
        """The product's metadata."""
        return (self.root / self.metadata).read_bytes()

    def has(self, member: str) -> bool:
        """Whether the product holds this file."""
        return (self.root / member).is_file()

    def open(self, member: str) -> RasterFile:
        """A band's file, checked to be whole."""
        path = self.root / member
        check_whole(path, str(path))
        return RasterFile(str(path), str(path), plain=True)


class ZipTree:
    """The same inside a zip, read in place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise InputError(f"{path} is no zip that can be read, it may be cut short; download it again.") from error
        # Old .NET tools write backslashes; GDAL reads them as slashes too.
        self._names = {info.filename.replace("\\", "/"): info.filename for info in infos}
        self._sizes = {info.filename.replace("\\", "/"): info.file_size for info in infos}
        for member in self._sizes:
            _check_inside(member, str(path))
        found = [member for member in self._sizes if _METADATA.match(PurePosixPath(member).name)]
        # The metadata of data strips and granules has other names, so every match is a product.
        if not found:
            raise InputError(
                f"{path} holds no SAFE product: no MTD_MSIL1C.xml or MTD_MSIL2A.xml is in it; where it holds bands, "
                "unpack it and open the folder."
            )
        if len(found) > 1:
            raise InputError(f"{path} holds {len(found)} products; unpack it and name one.")
        self.prefix = found[0][: -len(PurePosixPath(found[0]).name)]
        self.metadata = PurePosixPath(found[0]).name
        self.name = PurePosixPath(self.prefix).name or path.stem

    def images(self) -> list[str]:
        """Every JPEG 2000 file of the granules."""
        start = len(self.prefix)
        return [
            member[start:]
            for member in self._sizes
            if member.startswith(self.prefix + "GRANULE/")
            and member.endswith(".jp2")
            and not PurePosixPath(member).name.startswith(".")
        ]

    def text(self) -> bytes:
        """The product's metadata."""
        member = self.prefix + self.metadata
        if self._sizes[member] > _LARGEST_XML:
            raise InputError(f"{member} in {self.path} is too large to be a product's metadata.")
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self._names[member])
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
            raise InputError(f"{member} in {self.path} is damaged; fetch the zip again.") from error

    def has(self, member: str) -> bool:
        """Whether the product holds this file."""
        return self.prefix + member in self._sizes

    def open(self, member: str) -> RasterFile:
        """A band's file, checked to be whole."""
        full = self.prefix + member
        label = f"{full} in {self.path}"
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self._names[full]) as stream:
                check_stream(stream, self._sizes[full], label)  # type: ignore[arg-type]
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
            raise InputError(f"{label} is damaged; fetch the zip again.") from error
        return RasterFile(f"/vsizip/{{{self.path.resolve().as_posix()}}}/{full}", label, plain=True)


def _check_inside(member: str, where: str) -> None:
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member or re.match("[A-Za-z]:", member):
        raise InputError(
            f"{where} names a file outside itself ('{member}'); it is no sound SAFE product and is not read."
        )


def find_safe(path: Path) -> tuple[FolderTree | ZipTree, str] | None:
    """The product that a path means (root, folder above, or something inside), and the path inside it.

    None where there is none. Raises `InputError` where it could mean several.
    """
    if path.is_file():
        if path.suffix.lower() == ".zip":
            return ZipTree(path), ""
        if path.suffix.lower() not in (".xml", ".safe", ".jp2"):
            return None
    start = path.absolute()
    for root in _roots(start):
        metadata = _metadata_in(root)
        if metadata:
            return FolderTree(root, metadata), start.relative_to(root).as_posix()
    if not start.is_dir():
        return None
    below = [child for child in sorted(start.iterdir()) if child.is_dir() and _metadata_in(child)]
    folders = {child.name.removesuffix(".SAFE") for child in below}
    # Beside its own zip, the unpacked product is read.
    below += [
        child
        for child in sorted(start.iterdir())
        if child.is_file() and _ZIPPED.match(child.name) and child.stem.removesuffix(".SAFE") not in folders
    ]
    if len(below) > 1:
        raise InputError(
            f"{path} holds several products ({', '.join(child.name for child in below)}); name one of them."
        )
    return find_safe(below[0]) if below else None


def _roots(start: Path) -> Iterator[Path]:
    yield start if start.is_dir() else start.parent
    for path in (start, *start.parents):
        if path.name.upper() in _INSIDE:
            yield path.parent


def _metadata_in(folder: Path) -> str | None:
    try:
        names = sorted(child.name for child in folder.iterdir() if _METADATA.match(child.name))
    except OSError:
        return None
    return names[0] if names else None


@dataclass
class Metadata:
    """What MTD_MSIL*.xml says: facts, radiometry by ``band_id``, and image names without extension, by granule."""

    facts: Facts
    offsets: dict[int, float] = field(default_factory=dict)
    quantification: float | None = None
    images: list[str] = field(default_factory=list)
    old_images: list[str] = field(default_factory=list)


def parse_metadata(xml: bytes, label: str, name: str) -> Metadata:
    """Read a product's metadata. Raises `InputError` where it is no such file."""
    try:
        root: Element = fromstring(xml)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InputError(f"{label} is no sound XML; fetch the product again.") from error
    if "User_Product" not in root.tag:
        kind = root.tag.rpartition("}")[2]
        raise InputError(f"{label} is no Sentinel-2 product metadata: it holds '{kind}'.")
    values: dict[str, str] = {}
    metadata = Metadata(Facts(name, label))
    for element in root.iter():
        tag = element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""
        text = (element.text or "").strip()
        if tag in ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET"):
            try:
                metadata.offsets[int(element.get("band_id", ""))] = float(text)
            except ValueError as error:
                raise InputError(f"{label} has a {tag} that is no number; fetch the product again.") from error
        elif tag == "IMAGE_FILE":
            metadata.images.append(text)
        elif tag in ("IMAGE_ID", "IMAGE_ID_2A"):
            metadata.old_images.append(text)
        elif text:
            values.setdefault(tag, text)
    product = values.get("PRODUCT_URI", name).removesuffix(".SAFE")
    facts = facts_from_names(label, product)
    level = values.get("PROCESSING_LEVEL") or root.tag
    facts.level = level_of(level) or facts.level
    facts.platform = platform_of(values.get("SPACECRAFT_NAME", "")) or facts.platform
    facts.acquired = (
        iso_time(values.get("PRODUCT_START_TIME") or values.get("DATATAKE_SENSING_START")) or facts.acquired
    )
    facts.baseline = values.get("PROCESSING_BASELINE") or facts.baseline
    metadata.facts = facts
    keys = (
        ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
        if facts.level == "L2A"
        else ("QUANTIFICATION_VALUE",)
    )
    stated = next((values[key] for key in keys if key in values), None)
    try:
        metadata.quantification = float(stated) if stated else None
    except ValueError as error:
        raise InputError(f"{label} has a quantification value that is no number ('{stated}').") from error
    return metadata


def open_safe(
    tree: FolderTree | ZipTree, inside: str, source: str, options: SceneOptions, partial: bool = False
) -> Scene:
    """Open a SAFE product; with ``partial``, bands of damaged files are left out with a warning.

    ``inside`` is the path in it that the user picked, which chooses among several granules.
    """
    label = f"{tree.metadata} of {tree.name}"
    metadata = parse_metadata(tree.text(), label, tree.name.removesuffix(".SAFE"))
    metadata.facts.source = source
    pool = FilePool()
    try:
        found = {}
        members = _members(metadata, tree, inside, label)
        metadata.facts.warnings += _absent(metadata, members, label)
        for name, member in members.items():
            try:
                file = tree.open(member)
            except InputError as error:
                if not partial:
                    raise
                metadata.facts.warnings.append(f"{name} is left out: {error}")
                continue
            offset = _offset(metadata, BANDS[name].band_id, label, options)
            found[name] = Found(file, pool.header(file), 1, offset, metadata.quantification or QUANTIFICATION)
        granule = PurePosixPath(next(iter(members.values()))).parts[1]
        classified = [m for m in tree.images() if m.endswith("_SCL_20m.jp2") and granule in PurePosixPath(m).parts]
        return build_scene(metadata.facts, found, options, pool, tree.open(classified[0]) if classified else None)
    except BaseException:
        pool.close()
        raise


def _offset(metadata: Metadata, band_id: int, label: str, options: SceneOptions) -> float | None:
    if band_id in metadata.offsets or options.radiometric_offset is not None:
        return metadata.offsets.get(band_id)
    if offset_of_baseline(metadata.facts.baseline) or metadata.offsets:
        raise InputError(
            f"{label} has baseline {metadata.facts.baseline} but states no radiometric offset for band {band_id}; "
            "give one (-1000 in products as ESA delivers them, 0 where it was already taken off)."
        )
    # A baseline that ESA does not use says nothing about the offset; what is assumed is a warning then.
    return offset_of_baseline(metadata.facts.baseline)


def _members(metadata: Metadata, tree: FolderTree | ZipTree, inside: str, label: str) -> dict[str, str]:
    """Band name to file inside the product, each at its own resolution (or the nearest finer one listed)."""
    listed = [f"{image}.jp2" for image in metadata.images]
    if metadata.old_images:
        present = {PurePosixPath(member).stem: member for member in tree.images()}
        listed += [present.get(image, f"{image}.jp2") for image in metadata.old_images]
    granules = sorted({PurePosixPath(member).parts[1] for member in listed if member.startswith("GRANULE/")})
    if len(granules) > 1:
        granules = [granule for granule in granules if granule in PurePosixPath(inside).parts]
        if not granules:
            raise InputError(f"{label} lists several granules; name one folder in GRANULE.")
        listed = [member for member in listed if granules[0] in PurePosixPath(member).parts]
    choices: dict[str, dict[int, str]] = {}
    for member in listed:
        _check_inside(member, label)
        image = _IMAGE.search(PurePosixPath(member).stem)
        if image and image.group(1) in BANDS:
            band = BANDS[image.group(1)]
            resolution = int(image.group(2) or band.resolution)
            if resolution <= band.resolution:
                choices.setdefault(band.name, {})[resolution] = member
    if not choices:
        raise InputError(f"{label} lists no band images; fetch the product again.")
    members: dict[str, str] = {}
    for name, choice in choices.items():
        there = {resolution: member for resolution, member in choice.items() if tree.has(member)}
        if there:
            members[name] = there[max(there)]
    if not members:
        first = next(iter(next(iter(choices.values())).values()))
        raise InputError(
            f"{label} lists {first}, but the file is missing, as are all others; download the product again."
        )
    return members


def _absent(metadata: Metadata, members: dict[str, str], label: str) -> list[str]:
    """A sentence on the bands whose files the metadata list and the product lacks; B10 is never used."""
    listed = {found.group(1) for image in (*metadata.images, *metadata.old_images) if (found := _IMAGE.search(image))}
    absent = [name for name in BANDS if name in listed and name not in members and name != "B10"]
    if not absent:
        return []
    return [
        f"{', '.join(absent)} left out: {label} lists {'it' if len(absent) == 1 else 'them'}, but the files are "
        "missing; download the product again if you need them."
    ]
