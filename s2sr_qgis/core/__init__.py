"""The core: everything the project does, without QGIS and without a terminal. The door is `core.jobs`."""

import os

# ONNX Runtime's wheels send what they are used for to their maker from the first import on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
