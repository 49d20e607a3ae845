"""The plugin: registers the Processing provider and the translations."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsApplication, QgsSettings
from qgis.PyQt.QtCore import QCoreApplication, QLocale, QTranslator

from .provider import S2SRProvider


class S2SRPlugin:
    def __init__(self, iface) -> None:
        self.iface = iface
        self.provider = None
        self.translator = None
        locale = str(QgsSettings().value("locale/userLocale", "") or QLocale.system().name())
        for name in (locale, locale[:2]):
            path = Path(__file__).parent / "i18n" / f"s2sr_{name}.qm"
            if path.is_file():
                self.translator = QTranslator()
                self.translator.load(str(path))
                QCoreApplication.installTranslator(self.translator)
                break

    def initProcessing(self) -> None:
        self.provider = S2SRProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        self.initProcessing()

    def unload(self) -> None:
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
        if self.translator is not None:
            QCoreApplication.removeTranslator(self.translator)
