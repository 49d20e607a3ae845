"""How a result looks when QGIS loads it: an image in true colour, stretched; a measure's map from bad to good."""

from __future__ import annotations

from collections import deque

from qgis.core import (
    QgsColorRampShader,
    QgsContrastEnhancement,
    QgsMultiBandColorRenderer,
    QgsProcessingContext,
    QgsProcessingLayerPostProcessorInterface,
    QgsRasterLayer,
    QgsRasterMinMaxOrigin,
    QgsRasterShader,
    QgsRectangle,
    QgsSingleBandPseudoColorRenderer,
)
from qgis.PyQt.QtGui import QColor

SAMPLE = 250_000
"""Pixels that the stretch is estimated from."""
# Band triples by preference: true colour, then what a subset of bands may still have.
_TRIPLES = (("B04", "B03", "B02"), ("B12", "B8A", "B05"), ("B12", "B11", "B8A"), ("B07", "B06", "B05"))
# QGIS does not keep Python post-processors alive (qgis/QGIS#47533); so many may wait for their layer at once.
_kept: deque[QgsProcessingLayerPostProcessorInterface] = deque(maxlen=500)
# From bad to good: matplotlib's viridis, which is as clear in print and to the colour-blind.
_VIRIDIS = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")


class TrueColour(QgsProcessingLayerPostProcessorInterface):
    """Styles one loaded layer by its band descriptions; a layer without three known bands stays as it is."""

    def postProcessLayer(self, layer, context, feedback) -> None:
        if isinstance(layer, QgsRasterLayer) and layer.isValid():
            style(layer)


def style(layer: QgsRasterLayer) -> None:
    """Give a layer its true colours, as far as it has the bands for them."""
    bands = {}
    for number in range(1, layer.bandCount() + 1):
        words = layer.dataProvider().generateBandName(number).replace(":", " ").split()
        bands.update({word: number for word in words if word.startswith("B") and word[1:2].isdigit()})
    for triple in _TRIPLES:
        if all(name in bands for name in triple):
            renderer = QgsMultiBandColorRenderer(layer.dataProvider(), *(bands[name] for name in triple))
            layer.setRenderer(renderer)
            break
    layer.setContrastEnhancement(
        QgsContrastEnhancement.ContrastEnhancementAlgorithm.StretchToMinimumMaximum,
        QgsRasterMinMaxOrigin.Limits.CumulativeCut,
        QgsRectangle(),
        SAMPLE,
    )
    layer.triggerRepaint()


class MeasureMap(QgsProcessingLayerPostProcessorInterface):
    """Styles one loaded map of a measure."""

    def __init__(self, measure: str) -> None:
        super().__init__()
        self._measure = measure

    def postProcessLayer(self, layer, context, feedback) -> None:
        if isinstance(layer, QgsRasterLayer) and layer.isValid():
            style_measure(layer, self._measure)


def style_measure(layer: QgsRasterLayer, measure: str) -> None:
    """Colour a map of ``uiq`` or ``ssim`` from 0 to 1, or of ``sam`` from its 98th percentile down to 0."""
    worst, best = 0.0, 1.0
    if measure == "sam":
        worst, best = layer.dataProvider().cumulativeCut(1, 0.0, 0.98, QgsRectangle(), SAMPLE)[1], 0.0
    share = (best - worst) / (len(_VIRIDIS) - 1)
    stops = sorted((worst + share * step, colour) for step, colour in enumerate(_VIRIDIS))
    items = [QgsColorRampShader.ColorRampItem(value, QColor(colour), f"{value:.3g}") for value, colour in stops]
    ramp = QgsColorRampShader(min(worst, best), max(worst, best))
    ramp.setColorRampItemList(items)
    shader = QgsRasterShader()
    shader.setRasterShaderFunction(ramp)
    renderer = QgsSingleBandPseudoColorRenderer(layer.dataProvider(), 1, shader)
    renderer.setClassificationMin(min(worst, best))
    renderer.setClassificationMax(max(worst, best))
    layer.setRenderer(renderer)
    layer.triggerRepaint()


def style_when_loaded(algorithm: str, output: str, path: str, scene: str, context: QgsProcessingContext) -> None:
    """Have QGIS give an image its true colours and its scene's name, should it load it."""
    _when_loaded(algorithm, output, path, f"{scene} 10 m" if scene else "", TrueColour(), context)


def style_measure_when_loaded(
    algorithm: str, output: str, path: str, name: str, measure: str, context: QgsProcessingContext
) -> None:
    """Have QGIS colour and name a map of a measure, should it load it."""
    _when_loaded(algorithm, output, path, name, MeasureMap(measure), context)


def _when_loaded(
    algorithm: str, output: str, path: str, name: str, style: QgsProcessingLayerPostProcessorInterface,
    context: QgsProcessingContext,
) -> None:  # fmt: skip
    """The user's own style for this output goes first."""
    from processing.gui.RenderingStyles import RenderingStyles

    if not context.willLoadLayerOnCompletion(path):
        return
    details = context.layerToLoadOnCompletionDetails(path)
    if name:
        details.name = name
    if not RenderingStyles.getStyle(algorithm, output):
        _kept.append(style)
        details.setPostProcessor(_kept[-1])
