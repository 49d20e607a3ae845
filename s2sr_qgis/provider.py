"""The Processing provider `s2sr`."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsProcessingModelAlgorithm, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms.base import ICON
from .runner import settings
from .runner.text import tr

WORKFLOWS = Path(__file__).parent / "workflows"
"""Processing models that chain the algorithms; tools/workflows.py writes them."""


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
        for path in sorted(WORKFLOWS.glob("*.model3")):
            model = QgsProcessingModelAlgorithm()
            if model.fromFile(str(path)):
                self.addAlgorithm(model)

    def supportsNonFileBasedOutput(self) -> bool:
        # The worker is another process: it can only write files.
        return False

    def defaultRasterFileExtension(self) -> str:
        return "tif"

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        return ["tif", "tiff"]
