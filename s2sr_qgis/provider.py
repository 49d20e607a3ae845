"""The Processing provider `s2sr`."""

from __future__ import annotations

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms.base import ICON
from .runner import settings
from .runner.text import tr


class S2SRProvider(QgsProcessingProvider):
    def id(self) -> str:
        return "s2sr"

    def name(self) -> str:
        return "s2sr"

    def longName(self) -> str:
        return tr("s2sr: Sentinel-2 super-resolution")

    def icon(self) -> QIcon:
        return QIcon(str(ICON))

    def svgIconPath(self) -> str:
        return str(ICON)

    def load(self) -> bool:
        settings.register(self.icon())
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        settings.unregister()

    def loadAlgorithms(self) -> None:
        from .algorithms import all_algorithms

        for algorithm in all_algorithms():
            self.addAlgorithm(algorithm)

    def supportsNonFileBasedOutput(self) -> bool:
        # The worker is another process: it can only write files.
        return False

    def defaultRasterFileExtension(self) -> str:
        return "tif"

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        return ["tif", "tiff"]
