"""How a result looks when QGIS loads it: true colour, stretched between the 2nd and 98th percentile."""

from __future__ import annotations

from collections import deque

from qgis.core import (
    QgsContrastEnhancement,
    QgsMultiBandColorRenderer,
    QgsProcessingContext,
    QgsProcessingLayerPostProcessorInterface,
    QgsRasterLayer,
    QgsRasterMinMaxOrigin,
    QgsRectangle,
)

SAMPLE = 250_000
"""Pixels that the stretch is estimated from."""
# Band triples by preference: true colour, then what a subset of bands may still have.
_TRIPLES = (("B04", "B03", "B02"), ("B12", "B8A", "B05"), ("B12", "B11", "B8A"), ("B07", "B06", "B05"))
# QGIS does not keep Python post-processors alive (qgis/QGIS#47533); so many may wait for their layer at once.
_kept: deque[TrueColour] = deque(maxlen=500)


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


def style_when_loaded(algorithm: str, output: str, path: str, scene: str, context: QgsProcessingContext) -> None:
    """Have QGIS style and name the layer, should it load it; the user's own style for this output goes first."""
    from processing.gui.RenderingStyles import RenderingStyles

    if not context.willLoadLayerOnCompletion(path):
        return
    details = context.layerToLoadOnCompletionDetails(path)
    if scene:
        details.name = f"{scene} 10 m"
    if not RenderingStyles.getStyle(algorithm, output):
        _kept.append(TrueColour())
        details.setPostProcessor(_kept[-1])
