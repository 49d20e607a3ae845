"""The QGIS side of the worker: which Python runs it, its environment, the event protocol, cancelling."""
