"""A band of a product is a raster of its own: no file that points GDAL at other files or addresses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from products import L1C_BANDS, make_band_folder, make_safe, zip_safe
from rasterio.shutil import copy

from s2sr_qgis.core.errors import InputError
from s2sr_qgis.core.scene import open_scene


@pytest.mark.parametrize("kind", ["safe", "zip", "folder"])
def test_a_vrt_in_the_place_of_a_band_is_refused(tmp_path: Path, kind: str) -> None:
    other = tmp_path / "other.tif"
    profile = {"driver": "GTiff", "width": 120, "height": 120, "count": 1, "dtype": "uint16"}
    with rasterio.open(other, "w", **profile) as file:
        file.write(np.full((1, 120, 120), 4242, np.uint16))
    target = tmp_path / "product"
    target.mkdir()
    root = make_band_folder(target, bands=L1C_BANDS) if kind == "folder" else make_safe(target)
    band = next(path for path in sorted(root.rglob("*B05*")) if path.suffix in (".jp2", ".tif"))
    copy(str(other), str(tmp_path / "points.vrt"), driver="VRT")
    text = (tmp_path / "points.vrt").read_text().replace("other.tif", str(other)).replace('relativeToVRT="1"', "")
    band.write_text(text)
    with rasterio.open(band) as file:
        assert file.driver == "VRT"
    source = zip_safe(root) if kind == "zip" else root
    with pytest.raises(InputError, match=r"B05.*(JPEG 2000|GeoTIFF)"):
        open_scene(source)
