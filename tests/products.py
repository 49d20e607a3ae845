"""Tiny Sentinel-2 products made by code: fields with sharp edges, texture common to all bands, known DN."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree

from s2sr_qgis.core.scene.bands import BANDS

CRS = "EPSG:32631"
CORNER = (600000.0, 5400000.0)
"""Upper-left corner of every product, a multiple of 60 m as in real tiles."""

L1C_BANDS = tuple(BANDS)
L2A_BANDS = tuple(name for name in BANDS if name != "B10")
_START = "2023-08-15T10:36:31.024Z"

# Reflectance of water, forest, crop, dry grass, bare soil, sand, town and meadow in the order of BANDS.
_SPECTRA = np.array(
    [
        [0.06, 0.05, 0.05, 0.03, 0.03, 0.02, 0.02, 0.02, 0.02, 0.01, 0.002, 0.01, 0.01],
        [0.04, 0.03, 0.05, 0.03, 0.08, 0.20, 0.25, 0.27, 0.28, 0.25, 0.004, 0.14, 0.06],
        [0.06, 0.05, 0.08, 0.05, 0.12, 0.30, 0.38, 0.40, 0.41, 0.36, 0.004, 0.20, 0.10],
        [0.08, 0.08, 0.11, 0.13, 0.18, 0.24, 0.27, 0.29, 0.30, 0.27, 0.004, 0.33, 0.22],
        [0.09, 0.10, 0.13, 0.18, 0.21, 0.23, 0.25, 0.26, 0.28, 0.25, 0.004, 0.38, 0.31],
        [0.16, 0.19, 0.25, 0.31, 0.34, 0.36, 0.38, 0.39, 0.41, 0.36, 0.005, 0.49, 0.43],
        [0.13, 0.14, 0.16, 0.18, 0.20, 0.22, 0.24, 0.25, 0.26, 0.23, 0.004, 0.26, 0.24],
        [0.05, 0.06, 0.10, 0.07, 0.15, 0.33, 0.41, 0.43, 0.44, 0.39, 0.004, 0.24, 0.12],
    ]
)


SHARED = Path(__file__).parents[2] / "shared" / "data"


def real_data(path: str) -> Path:
    """A file or folder of the shared real data; skips the test where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"the shared data '{path}' are not beside the repository")
    return found


def reflectances(size: int = 240, bands: Iterable[str] = L1C_BANDS, seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """True reflectance of each band at its own resolution; ``size`` in 10 m pixels, a multiple of 6."""
    if size % 6:
        raise ValueError("size must be a multiple of 6")
    rng = np.random.default_rng(seed)
    fields = max(12, size * size // 900)
    points = rng.uniform(0, size, (fields, 2))
    kinds = rng.integers(0, len(_SPECTRA), fields)
    rows, cols = np.mgrid[0:size, 0:size]
    nearest = KDTree(points).query(np.stack([rows, cols], axis=-1))[1]
    brightness = 1 + 0.15 * rng.standard_normal(fields)[nearest]
    texture = sum(weight * _unit_noise(rng, size, sigma) for weight, sigma in ((0.04, 0.8), (0.05, 2.0), (0.06, 8.0)))
    cover = kinds[nearest]
    result = {}
    for name in bands:
        order = list(BANDS).index(name)
        own = 0.01 * _unit_noise(np.random.default_rng(seed * 100 + order + 1), size, 1.5)
        fine = _SPECTRA[cover, order] * np.clip(brightness * (1 + texture) + own, 0.2, 2)
        fine = gaussian_filter(fine, 0.5)
        factor = BANDS[name].resolution // 10
        result[name] = fine.reshape(size // factor, factor, size // factor, factor).mean(axis=(1, 3))
    return result


def _unit_noise(rng: np.random.Generator, size: int, sigma: float) -> NDArray[np.float64]:
    noise = gaussian_filter(rng.standard_normal((size, size)), sigma, mode="wrap")
    return noise / noise.std()


def digital_numbers(
    size: int = 240,
    bands: Iterable[str] = L1C_BANDS,
    seed: int = 0,
    offset: int = 0,
    nodata_corner: int = 0,
    saturated: int = 0,
) -> dict[str, NDArray[np.uint16]]:
    """DN of each band: reflectance x 10000 - ``offset``, at least 1.

    ``nodata_corner``: 10 m pixels along both edges of an upper-left triangle of DN 0. ``saturated``: side of a square
    of DN 65535 in the lower right, in 10 m pixels. Both are rounded outwards to a band's pixels.
    """
    result = {}
    for name, values in reflectances(size, bands, seed).items():
        numbers = np.clip(np.rint(values * 10000 - offset), 1, 65534).astype(np.uint16)
        factor = BANDS[name].resolution // 10
        rows, cols = np.mgrid[0 : numbers.shape[0], 0 : numbers.shape[1]] * factor
        numbers[rows + cols < nodata_corner] = 0
        if saturated:
            side = -(-saturated // factor)
            numbers[-side:, -side:] = 65535
        result[name] = numbers
    return result


def write_band(
    path: Path,
    data: NDArray[Any],
    resolution: float,
    crs: str | None = CRS,
    corner: tuple[float, float] = CORNER,
    transform: Affine | None = None,
    nodata: float | None = None,
    description: str | None = None,
) -> Path:
    """Write one band: lossless JPEG 2000 for ``.jp2``, GeoTIFF otherwise."""
    options: dict[str, Any] = {"driver": "GTiff", "compress": "deflate"}
    if path.suffix == ".jp2":
        options = {"driver": "JP2OpenJPEG", "REVERSIBLE": "YES", "QUALITY": 100, "YCBCR420": "NO"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        width=data.shape[1],
        height=data.shape[0],
        count=1,
        dtype=data.dtype,
        crs=crs,
        transform=transform or Affine(resolution, 0, corner[0], 0, -resolution, corner[1]),
        nodata=nodata,
        **options,
    ) as dataset:
        dataset.write(data, 1)
        if description:
            dataset.descriptions = (description,)
    return path


def make_safe(
    folder: Path,
    level: str = "L1C",
    baseline: str = "05.09",
    size: int = 240,
    offset: int | None = None,
    bands: Iterable[str] | None = None,
    seed: int = 0,
    platform: str = "S2A",
    nodata_corner: int = 0,
    saturated: int = 0,
    old_names: bool = False,
) -> Path:
    """Write a SAFE product into ``folder`` and return its root.

    ``offset`` is what the metadata states (-1000 from baseline 04.00 on, none before); the true reflectance is
    `reflectances` of the same size and seed whatever the offset. ``old_names``: the naming of before December 2016.
    """
    if offset is None:
        offset = -1000 if int(baseline[:2]) >= 4 else 0
    names = tuple(bands) if bands is not None else (L1C_BANDS if level == "L1C" else L2A_BANDS)
    tile, stamp = "T31UDQ", "20230815T103631"
    product = f"{platform}_MSI{level}_{stamp}_N{baseline.replace('.', '')}_R008_{tile}_20230815T140000"
    granule = f"{level}_{tile}_A042551_20230815T104044"
    image = f"{tile}_{stamp}"
    metadata = f"MTD_MSI{level}.xml"
    if old_names:
        product = f"{platform}_OPER_PRD_MSI{level}_PDMC_20160809T140000_R008_V20160809T103631_20160809T103631"
        granule = f"{platform}_OPER_MSI_{level}_TL_SGS__20160809T140000_A005900_{tile}_N{baseline}"
        image = f"{platform}_OPER_MSI_{level}_TL_SGS__20160809T140000_A005900_{tile}"
        metadata = f"{platform}_OPER_MTD_SAF{level}_PDMC_20160809T140000_R008_V20160809T103631_20160809T103631.xml"
    root = folder / f"{product}.SAFE"
    listed = []
    for name, data in digital_numbers(size, names, seed, offset, nodata_corner, saturated).items():
        native = BANDS[name].resolution
        copies = [native] if level == "L1C" else [r for r in (10, 20, 60) if r >= native]
        for resolution in copies:
            factor = resolution // native
            blocks = data.reshape(data.shape[0] // factor, factor, data.shape[1] // factor, factor)
            coarse = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint16)
            place = "" if level == "L1C" else f"R{resolution}m/"
            suffix = "" if level == "L1C" else f"_{resolution}m"
            member = f"GRANULE/{granule}/IMG_DATA/{place}{image}_{name}{suffix}"
            write_band(root / f"{member}.jp2", coarse, resolution)
            listed.append(member)
    (root / "GRANULE" / granule / "QI_DATA").mkdir(exist_ok=True)
    stated = offset if int(baseline[:2]) >= 4 or offset else None
    xml = _metadata_xml(root.name, level, baseline, stated, platform, granule, listed, old_names)
    (root / metadata).write_text(xml, encoding="utf-8")
    (root / "manifest.safe").write_text("<?xml version='1.0'?>\n<manifest/>\n", encoding="utf-8")
    return root


def _metadata_xml(
    name: str, level: str, baseline: str, offset: int | None, platform: str, granule: str, images: list[str], old: bool
) -> str:
    kind, prefix = ("1C", "RADIO") if level == "L1C" else ("2A", "BOA")
    files = "\n".join(
        f"            <IMAGE_ID>{image.rpartition('/')[2]}</IMAGE_ID>"
        if old
        else f"            <IMAGE_FILE>{image}</IMAGE_FILE>"
        for image in images
    )
    offsets = ""
    if offset is not None:
        lines = "".join(
            f'<{prefix}_ADD_OFFSET band_id="{band.band_id}">{offset}</{prefix}_ADD_OFFSET>' for band in BANDS.values()
        )
        group = "Radiometric_Offset_List" if level == "L1C" else "BOA_ADD_OFFSET_VALUES_LIST"
        offsets = f"<{group}>{lines}</{group}>"
    quantification = (
        '<QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>'
        if level == "L1C"
        else '<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>'
        '<AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>'
    )
    schema = f"https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-{kind}.xsd"
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{kind}_User_Product xmlns:n1="{schema}">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>{_START}</PRODUCT_START_TIME>
      <PRODUCT_STOP_TIME>{_START}</PRODUCT_STOP_TIME>
      <PRODUCT_URI>{name}</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-{kind}</PROCESSING_LEVEL>
      <PRODUCT_TYPE>S2MSI{kind}</PRODUCT_TYPE>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
      <Datatake datatakeIdentifier="G{platform}_20230815T103631_042551_N{baseline}">
        <SPACECRAFT_NAME>Sentinel-{platform[1:]}</SPACECRAFT_NAME>
        <DATATAKE_SENSING_START>{_START}</DATATAKE_SENSING_START>
      </Datatake>
      <Product_Organisation><Granule_List>
        <Granule granuleIdentifier="{granule}">
{files}
        </Granule>
      </Granule_List></Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      {quantification}
      {offsets}
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-{kind}_User_Product>
"""


def zip_safe(root: Path, target: Path | None = None) -> Path:
    """Zip a SAFE product as the hubs deliver it (the .SAFE folder inside)."""
    target = target or root.with_suffix(".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root.parent).as_posix())
    return target


def make_band_folder(
    folder: Path,
    pattern: str = "{band}.tif",
    size: int = 240,
    bands: Iterable[str] = L2A_BANDS,
    seed: int = 0,
    offset: int = 0,
    crs: str | None = CRS,
    **more: Any,
) -> Path:
    """Write single-band files; ``pattern`` knows ``{band}`` and ``{resolution}``."""
    for name, data in digital_numbers(size, bands, seed, offset, **more).items():
        resolution = BANDS[name].resolution
        write_band(folder / pattern.format(band=name, resolution=resolution), data, resolution, crs)
    return folder


def make_stack(
    path: Path,
    size: int = 240,
    bands: Iterable[str] = L2A_BANDS,
    seed: int = 0,
    offset: int = 0,
    descriptions: bool = True,
    tags: bool = False,
    reflectance: bool = False,
    corner: tuple[float, float] = CORNER,
    nodata: float | None = None,
    **more: Any,
) -> Path:
    """Write one GeoTIFF at 10 m, coarser bands repeated into blocks.

    ``tags``: GDAL scale and offset tags. ``reflectance``: float32 reflectance with NaN where DN is 0.
    """
    numbers = digital_numbers(size, bands, seed, offset, **more)
    layers = {
        name: np.kron(data, np.ones((BANDS[name].resolution // 10,) * 2, data.dtype)) for name, data in numbers.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=size,
        height=size,
        count=len(layers),
        dtype="float32" if reflectance else "uint16",
        crs=CRS,
        transform=Affine(10, 0, corner[0], 0, -10, corner[1]),
        tiled=True,
        blockxsize=64,
        blockysize=64,
        nodata=float("nan") if reflectance else nodata,
        compress="deflate",
    ) as dataset:
        for index, layer in enumerate(layers.values(), start=1):
            values = layer
            if reflectance:
                values = np.where(layer == 0, np.nan, (layer.astype(np.float64) + offset) / 10000).astype(np.float32)
            dataset.write(values, index)
        if descriptions:
            dataset.descriptions = tuple(layers)
        if tags:
            dataset.scales = (0.0001,) * len(layers)
            dataset.offsets = (offset * 0.0001,) * len(layers)
    return path


_COMMON_NAMES = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge1",
    "B06": "rededge2",
    "B07": "rededge3",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B11": "swir16",
    "B12": "swir22",
}


def make_stac_item(
    folder: Path,
    catalogue: str = "earth-search-v1",
    size: int = 240,
    baseline: str = "05.09",
    offset: int | None = None,
    href: str = "{file}",
    seed: int = 0,
    bands: Iterable[str] = L2A_BANDS,
    properties: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """Write GeoTIFFs and a STAC item over them and return the item's path.

    ``catalogue``: ``planetary-computer``, ``earth-search-v1`` or ``earth-search-c1``. ``offset`` is what the pixels
    carry: by default -1000 from baseline 04.00 on, but 0 in Earth Search v1, which takes it off. ``href`` is the
    address of an asset, knowing ``{file}``.
    """
    applied = catalogue == "earth-search-v1" and int(baseline[:2]) >= 4
    if offset is None:
        offset = -1000 if int(baseline[:2]) >= 4 and not applied else 0
    product = f"S2A_MSIL2A_20230815T103631_N{baseline.replace('.', '')}_R008_T31UDQ_20230815T140000"
    assets: dict[str, Any] = {}
    for name, data in digital_numbers(size, bands, seed, offset, **more).items():
        write_band(folder / f"{name}.tif", data, BANDS[name].resolution, nodata=0)
        asset: dict[str, Any] = {
            "href": href.format(file=f"{name}.tif"),
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"],
        }
        if catalogue == "planetary-computer":
            assets[name] = {**asset, "eo:bands": [{"name": name}]}
            continue
        # Earth Search leaves -0.1 in the item even where the pixels already have it.
        shift = -0.1 if int(baseline[:2]) >= 4 else 0
        raster = {"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": shift}
        assets[_COMMON_NAMES[name]] = {**asset, "raster:bands": [raster]}
    collection = "sentinel-2-c1-l2a" if catalogue == "earth-search-c1" else "sentinel-2-l2a"
    stated: dict[str, Any] = {
        "datetime": _START,
        "platform": "Sentinel-2A" if catalogue == "planetary-computer" else "sentinel-2a",
        "s2:processing_baseline": baseline,
        "s2:product_uri": f"{product}.SAFE",
        "s2:product_type": "S2MSI2A",
        **({"earthsearch:boa_offset_applied": applied} if catalogue == "earth-search-v1" else {}),
        **(properties or {}),
    }
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": product,
        "collection": collection,
        "geometry": None,
        "properties": stated,
        "links": [],
        "assets": assets,
    }
    path = folder / "item.json"
    path.write_text(json.dumps(item, indent=1), encoding="utf-8")
    return path
