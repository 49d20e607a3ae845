"""The command line of s2sr: Typer commands over `s2sr_qgis.core.jobs`, with Rich progress."""
