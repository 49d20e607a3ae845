"""The core: everything the project does, without QGIS and without a terminal. The door is `core.jobs`."""
