"""What the command line may not import before it has to: help and a mistyped option should cost no waiting."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("numpy", "scipy", "rasterio", "onnxruntime", "matplotlib", "skimage", "pystac_client", "tensorflow", "keras")


def imported(code: str) -> set[str]:
    """Top-level packages in a fresh interpreter after ``code``."""
    names = "sorted({name.partition('.')[0] for name in sys.modules})"
    script = f"import json, sys\n{code}\nprint(json.dumps({names}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", ["--help", "super-resolve --help"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    code = f"""
from training_cli.main import app
try:
    app({arguments.split()!r})
except SystemExit:
    pass
"""
    found = imported(code)
    assert {"typer", "pydantic"} <= found
    assert not found.intersection(HEAVY)


def test_sharpening_imports_no_scipy() -> None:
    found = imported("import s2sr_qgis.core.inference.super_resolve")
    assert {"numpy", "rasterio"} <= found
    assert not found.intersection({"scipy", "matplotlib", "skimage", "pystac_client", "tensorflow", "keras"})
