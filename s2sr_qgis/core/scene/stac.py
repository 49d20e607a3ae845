"""STAC items of Planetary Computer, Earth Search (v0, v1, Collection 1) and alike; assets read where they lie."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from ..errors import InputError
from ..jobs import SceneOptions
from . import signing
from .bands import BANDS
from .build import build_scene
from .files import FilePool, RasterFile, check_whole
from .names import COMMON, bands_named
from .product import (
    Facts,
    Found,
    baseline_of,
    facts_from_names,
    iso_time,
    level_of,
    offset_of_baseline,
    platform_of,
)
from .radiometry import OFFSET_SHOWS, darkest
from .scene import Scene

_KEY = re.compile(r"^([A-Za-z0-9]+?)(?:[_-](\d\d)m)?(-jp2)?$")
_SENTINEL_2 = re.compile(r"sentinel-?(?:s)?2|S2[A-D]_|S2[A-D]$", re.IGNORECASE)


@dataclass(frozen=True)
class SignedFile(RasterFile):
    """An asset of Planetary Computer: signed anew whenever its token is about to age out, or a read was refused."""

    def locate(self) -> str:
        """The address with a token that is valid now."""
        return f"/vsicurl/{signing.sign(self.path)}"

    def renew(self) -> None:
        """Drop the tokens, so that the next address gets a fresh one."""
        signing.refuse(self.path)


def open_stac(source: str, options: SceneOptions) -> Scene:
    """Open a STAC item, a JSON file or a URL. Raises `InputError`."""
    item = read_item(source)
    properties = item["properties"]
    facts = item_facts(item, source)
    pool = FilePool()
    try:
        found = {}
        assets, numbers = _assets(item)
        for name, key in assets.items():
            asset = item["assets"][key]
            offset, quantification = asset_radiometry(item, key, facts.baseline, numbers.get(name, 1))
            if offset is None and options.radiometric_offset is None:
                raise InputError(
                    f"{facts.name} does not say whether its pixels carry the radiometric offset; "
                    "give one: -1000 where they do, 0 where it was taken off or the baseline is before 04.00."
                )
            file = _asset_file(str(asset.get("href", "")), source, key)
            found[name] = Found(file, pool.header(file), numbers.get(name, 1), offset, quantification, checked=True)
        if _flag(properties) is not None and options.radiometric_offset is None:
            facts.warnings += _doubts(facts, found, pool)
        return build_scene(facts, found, options, pool, scl_file(item, source))
    except BaseException:
        pool.close()
        raise


def read_item(source: str) -> dict[str, Any]:
    """Read an item (or a collection of exactly one) from a file or a URL and check that it is Sentinel-2's."""
    try:
        item = json.loads(_text(source))
    except ValueError as error:
        raise InputError(f"{source} is no JSON, so it is no STAC item.") from error
    if isinstance(item, dict) and item.get("type") == "FeatureCollection":
        features = item.get("features")
        if not isinstance(features, list) or len(features) != 1:
            raise InputError(f"{source} is a collection of {len(features or [])} items; give one item.")
        item = features[0]
    parts = item if isinstance(item, dict) else {}
    if not isinstance(parts.get("assets"), dict) or not isinstance(parts.get("properties"), dict):
        raise InputError(f"{source} is no STAC item: it has no assets or no properties.")
    signs = [parts.get("collection"), parts.get("id")]
    signs += [parts["properties"].get(key) for key in ("constellation", "platform", "eo:platform")]
    if not any(_SENTINEL_2.search(str(sign)) for sign in signs if sign):
        raise InputError(f"{source} is no Sentinel-2 item (its collection is {parts.get('collection')}).")
    return parts


def _text(source: str) -> str:
    if "://" not in source:
        try:
            return Path(source).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"{source} cannot be opened ({error.strerror or error}).") from error
    import requests
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO

    host = urlsplit(source).hostname or source
    try:
        # Retries of the library's own would have no bound in time.
        answer = signing.wait_for(
            lambda: StacApiIO(timeout=(10, 30), max_retries=2).read_text(source),
            f"the STAC item from {host}",
            time.monotonic() + signing.PATIENCE,
        )
        return str(answer)
    except TimeoutError as error:
        raise InputError(f"{host} did not answer within {signing.PATIENCE:.0f} s; check the network.") from error
    except (APIError, requests.RequestException, OSError) as error:
        raise InputError(f"{source} gave no STAC item; check the address and the network.") from error


def item_facts(item: dict[str, Any], source: str) -> Facts:
    """Name, level, platform, time and baseline of an item."""
    properties = item["properties"]
    name = str(_property(properties, "product_uri", "product_title", "product_id") or item.get("id") or "item")
    facts = facts_from_names(source, name.removesuffix(".SAFE"))
    stated = [_property(properties, "product_type"), properties.get("processing:level"), item.get("collection")]
    facts.level = next((level_of(str(text)) for text in stated if text and level_of(str(text))), facts.level)
    facts.platform = platform_of(str(properties.get("platform") or properties.get("eo:platform"))) or facts.platform
    facts.acquired = iso_time(properties.get("datetime")) or facts.acquired
    baseline = _property(properties, "processing_baseline") or baseline_of(name.removesuffix(".SAFE"))
    facts.baseline = str(baseline) if baseline else None
    return facts


def _property(properties: dict[str, Any], *names: str) -> Any:
    """A property however the catalogue prefixes it."""
    keys = (f"{prefix}:{name}" for name in names for prefix in ("s2", "sentinel2", "sentinel"))
    return next((properties[key] for key in keys if properties.get(key)), None)


def band_assets(item: dict[str, Any]) -> dict[str, str]:
    """Band name to asset key: cloud-optimised GeoTIFF before JPEG 2000, own resolution before finer ones."""
    choices: dict[str, list[tuple[bool, int, str]]] = {}
    for key in item["assets"]:
        parts = _KEY.match(key)
        name = COMMON.get(parts.group(1), parts.group(1)) if parts else ""
        if not parts or name not in BANDS:
            continue
        own = BANDS[name].resolution
        resolution = int(parts.group(2)) if parts.group(2) else own
        if resolution <= own:
            choices.setdefault(name, []).append((bool(parts.group(3)), own - resolution, key))
    if not choices:
        raise InputError(f"{item.get('id')} has no assets that are Sentinel-2 bands ({', '.join(item['assets'])}).")
    return {name: min(choices[name])[2] for name in BANDS if name in choices}


def _assets(item: dict[str, Any]) -> tuple[dict[str, str], dict[str, int]]:
    """Band name to asset key, and to the band's number where one asset holds several bands (openEO)."""
    try:
        return band_assets(item), {}
    except InputError:
        stacks = _stacks(item)
        if len(stacks) > 1:
            raise InputError(
                f"{item.get('id')} has several assets with many bands ({', '.join(stacks)}); open one of them itself."
            ) from None
        if not stacks:
            raise
    key, numbers = next(iter(stacks.items()))
    return dict.fromkeys(numbers, key), numbers


def _stacks(item: dict[str, Any]) -> dict[str, dict[str, int]]:
    """The assets that hold several bands, each with its bands' numbers by name."""
    stacks = {}
    for key, asset in item["assets"].items():
        listed = asset.get("eo:bands") or asset.get("bands") if isinstance(asset, dict) else None
        roles = asset.get("roles") or [] if isinstance(asset, dict) else []
        if (
            not isinstance(listed, list)
            or len(listed) < 2
            or {"visual", "overview", "thumbnail"} & set(map(str, roles))
        ):
            continue
        words = [
            str(band.get("name") or band.get("common_name") or band.get("eo:common_name") or "")
            if isinstance(band, dict)
            else ""
            for band in listed
        ]
        named = bands_named(words, f"Asset {key}")
        if any(named):
            stacks[key] = {name: number for number, name in enumerate(named, start=1) if name}
    return stacks


def _flag(properties: dict[str, Any]) -> bool | None:
    flag = properties.get("earthsearch:boa_offset_applied", properties.get("sentinel:boa_offset_applied"))
    return flag if isinstance(flag, bool) else None


def asset_radiometry(
    item: dict[str, Any], key: str, baseline: str | None, number: int = 1
) -> tuple[float | None, float | None]:
    """(offset, quantification) of an asset's DN; None where nothing tells.

    Earth Search v1 takes the offset off in its GeoTIFFs, says so in a flag, and leaves -0.1 in ``raster:bands``; its
    JPEG 2000 assets are ESA's own. Planetary Computer says nothing but the baseline and leaves the pixels as they are.
    """
    asset, collection = item["assets"][key], str(item.get("collection"))
    bands = asset.get("raster:bands") or asset.get("bands") or [{}]
    band = bands[min(number, len(bands)) - 1]
    first = {**asset, **(band if isinstance(band, dict) else {})}
    scale, shift = first.get("scale", first.get("raster:scale")), first.get("offset", first.get("raster:offset"))
    try:
        quantification = round(1 / float(scale), 6) if scale else None
        tagged = round(float(shift) / float(scale), 6) if scale and shift is not None else None
    except (TypeError, ValueError) as error:
        raise InputError(f"The scale and offset of asset {key} are no numbers.") from error
    flag = None if key.endswith("-jp2") else _flag(item["properties"])
    if flag:
        return 0.0, quantification
    implied = offset_of_baseline(baseline)
    if tagged is not None:
        return tagged, quantification
    if flag is None and implied and "cogs" in collection:
        # Earth Search v0 took the offset off in some items of these baselines and not in others.
        return None, quantification
    return implied, quantification


def _doubts(facts: Facts, found: dict[str, Found], pool: FilePool) -> list[str]:
    """Some Earth Search items carry a wrong flag: compare it with the pixels (Element84/earth-search issues 9, 66)."""
    offset = next(iter(found.values())).offset
    if not offset_of_baseline(facts.baseline):
        return []
    dark = darkest(found, pool)
    if dark is None or not np.isfinite(dark):
        return []
    if offset == 0 and dark > OFFSET_SHOWS:
        wrong, right = "already taken off, but even the darkest pixels lie above 1000 DN", -1000
    elif offset and dark < 0.7 * OFFSET_SHOWS:
        wrong, right = "still in the pixels, but dark pixels lie far below 1000 DN", 0
    else:
        return []
    return [
        f"{facts.name} says that the radiometric offset is {wrong}; if the flag is wrong, give an offset of {right}."
    ]


def scl_file(item: dict[str, Any], source: str) -> RasterFile | None:
    """Level-2A's scene classification as the item has it; None where it has none. Raises `InputError`."""
    key = next((key for key in ("SCL", "scl", "SCL_20m", "SCL_60m", "scl-jp2") if key in item["assets"]), None)
    return _asset_file(str(item["assets"][key].get("href", "")), source, key) if key else None


def asset_addresses(item: dict[str, Any], source: str) -> dict[str, str]:
    """Absolute address of each asset by its key."""
    from pystac.utils import make_absolute_href

    return {
        key: make_absolute_href(str(asset["href"]), source, start_is_dir=False)
        for key, asset in item["assets"].items()
        if asset.get("href")
    }


def _asset_file(href: str, source: str, key: str) -> RasterFile:
    from pystac.utils import make_absolute_href

    remote_item = "://" in source
    address = make_absolute_href(href, source if remote_item else str(Path(source).absolute()), start_is_dir=False)
    parts = urlsplit(address)
    label = f"Asset {key} ({parts.path.rpartition('/')[2]})"
    if parts.scheme in ("http", "https"):
        if (parts.hostname or "").endswith(signing.BLOB):
            return SignedFile(address, label, remote=True)
        return RasterFile(f"/vsicurl/{address}", label, remote=True)
    if parts.scheme == "s3":
        return RasterFile(f"/vsis3/{parts.netloc}{parts.path}", label, remote=True)
    path = Path(unquote(parts.path) if parts.scheme == "file" else address)
    if remote_item or not href or (len(parts.scheme) > 1 and parts.scheme != "file"):
        raise InputError(f"{label} has an address that cannot be read ('{href}').")
    check_whole(path, str(path))
    return RasterFile(str(path), str(path))
