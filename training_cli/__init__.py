"""The command line of s2sr: Typer commands over `s2sr_qgis.core.jobs`, with Rich progress."""

from s2sr_qgis.core.variables import own_packages_first

own_packages_first()  # before Typer and NumPy are imported
