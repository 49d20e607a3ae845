"""How a result looks once QGIS has loaded it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from qgis.core import (
    QgsContrastEnhancement,
    QgsMultiBandColorRenderer,
    QgsProcessingContext,
    QgsProject,
    QgsRasterLayer,
)

NAMES = ("B02", "B03", "B04", "B05", "B8A", "B12")


def write_image(path: Path, names: tuple[str, ...]) -> Path:
    """A GeoTIFF whose bands run over 1000 values, with GDAL's own Python: QGIS always has it."""
    code = """if True:
        import sys
        import numpy
        from osgeo import gdal, osr
        path, *names = sys.argv[1:]
        image = gdal.GetDriverByName("GTiff").Create(path, 100, 100, len(names), gdal.GDT_UInt16)
        image.SetGeoTransform((500000, 10, 0, 4900000, 0, -10))
        srs = osr.SpatialReference(); srs.ImportFromEPSG(32631); image.SetProjection(srs.ExportToWkt())
        for number, name in enumerate(names, start=1):
            band = image.GetRasterBand(number)
            band.SetDescription(name)
            band.WriteArray(numpy.linspace(1000 * number, 1000 * number + 999, 10000).reshape(100, 100))
    """
    subprocess.run(["/usr/bin/python3", "-c", code, str(path), *names], check=True)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "image.tif", NAMES)


def test_true_colour_stretched_by_cumulative_cut(qgis_app, image) -> None:
    from s2sr_qgis.algorithms.style import style

    layer = QgsRasterLayer(str(image), "x")
    style(layer)
    renderer = layer.renderer()
    assert isinstance(renderer, QgsMultiBandColorRenderer)
    assert (renderer.redBand(), renderer.greenBand(), renderer.blueBand()) == (3, 2, 1)
    stretch = renderer.redContrastEnhancement()
    assert (
        stretch.contrastEnhancementAlgorithm()
        == QgsContrastEnhancement.ContrastEnhancementAlgorithm.StretchToMinimumMaximum
    )
    assert 3010 < stretch.minimumValue() < 3030
    assert 3970 < stretch.maximumValue() < 3990


def test_a_subset_without_true_colour_uses_what_it_has(qgis_app, tmp_path) -> None:
    from s2sr_qgis.algorithms.style import style

    layer = QgsRasterLayer(str(write_image(tmp_path / "i.tif", ("B05", "B8A", "B12"))), "x")
    style(layer)
    assert (layer.renderer().redBand(), layer.renderer().greenBand(), layer.renderer().blueBand()) == (3, 2, 1)


def test_a_single_band_stays_grey(qgis_app, tmp_path) -> None:
    from s2sr_qgis.algorithms.style import style

    layer = QgsRasterLayer(str(write_image(tmp_path / "i.tif", ("B05",))), "x")
    style(layer)
    assert layer.renderer().type() == "singlebandgray"
    assert layer.renderer().contrastEnhancement().minimumValue() > 1010


def test_the_loaded_result_is_named_and_styled(provider, worker, qgis_new_project, image) -> None:
    import processing

    worker.behave("ok", {"output": str(image), "scene": "S2A_T33UUB"})
    results = processing.runAndLoadResults("s2sr:superresolve", {"INPUT": str(image.parent), "OUTPUT": str(image)})
    layer = QgsProject.instance().mapLayer(results["OUTPUT"]) or next(iter(QgsProject.instance().mapLayers().values()))
    assert layer.name() == "S2A_T33UUB 10 m"
    assert layer.renderer().redBand() == 3


def test_the_users_own_style_goes_first(provider, worker, qgis_new_project, image, monkeypatch) -> None:
    from processing.gui.RenderingStyles import RenderingStyles

    from s2sr_qgis.algorithms.style import style_when_loaded

    context = QgsProcessingContext()
    details = QgsProcessingContext.LayerDetails("x", QgsProject.instance(), "OUTPUT")
    context.addLayerToLoadOnCompletion(str(image), details)
    style_when_loaded("s2sr:superresolve", "OUTPUT", str(image), "", context)
    assert context.layerToLoadOnCompletionDetails(str(image)).postProcessor() is not None

    context.addLayerToLoadOnCompletion(str(image), QgsProcessingContext.LayerDetails("x", QgsProject.instance(), "O"))
    monkeypatch.setattr(RenderingStyles, "styles", {"s2sr:superresolve": {"OUTPUT": "/my/style.qml"}})
    style_when_loaded("s2sr:superresolve", "OUTPUT", str(image), "S2A", context)
    assert context.layerToLoadOnCompletionDetails(str(image)).postProcessor() is None
    assert context.layerToLoadOnCompletionDetails(str(image)).name == "S2A 10 m"
