"""s2sr: super-resolution of Sentinel-2 in QGIS. `s2sr_qgis.core` also imports where there is no QGIS."""


def classFactory(iface):
    from .plugin import S2SRPlugin

    return S2SRPlugin(iface)
