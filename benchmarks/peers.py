"""Who `make bench` measures for a task: ours in each precision, DSen2 by two engines and as a package, bicubic."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timing import CACHE, ROOT

from s2sr_qgis.core import jobs
from s2sr_qgis.core.errors import S2SRError
from s2sr_qgis.core.inference.card import ModelCard, read_card
from s2sr_qgis.core.inference.model import find_model

PACKAGE = "remote_sensing_processor==0.2.2"
"""Holds UP42's weights of DSen2 (GPL-3.0); see docs/models.md."""
PEER = "remote_sensing_processor 0.2.1"
"""The same weights; the sharpening of 0.2.2 stops with an error, as its rescaling takes the bands for an axis."""
PACKAGE_PYTHON = ROOT / ".venv-peer" / "bin" / "python"
PACKAGE_REASON = ROOT / ".venv-peer" / "reason.txt"
TIMED = ("float32", "int8")
"""Precisions of a processor."""
SIZED = "AESR-sized"
SIZED_OPTIONS = {"blocks": 6, "features": 100}
"""1.1 million parameters whose trunk runs at 10 m."""
OUR_SIDES: tuple[int | None, ...] = (None,)
THEIR_SIDES: tuple[int | None, ...] = (None, 120, 240, 360)
"""Sides of tiles that are tried, in 10 m pixels; None: what our code chooses, for ours as users get it."""


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    ``spec``: see contender.py; None: not timed, for its speed is that of ``like``. ``scored``: a model and a precision
    for the accuracy; None: has none of its own.
    """

    label: str
    group: str
    spec: dict[str, Any] | None
    sides: tuple[int | None, ...] = (None,)
    scored: tuple[str, str] | None = None
    python: Path = field(default=Path(sys.executable))
    like: str = ""
    parameters: int | None = None
    mflop_per_pixel: float | None = None


REFERENCE = "DSen2, ONNX Runtime"
TRANSPOSED = "DSen2, weights transposed"


def contenders(task: str, models: list[str], threads: int, say: Any) -> list[Contender]:
    """Everybody for a task. ``models``: ours, by name or folder. ``say`` is told, in a line each, who is missing."""
    rows = []
    for name in models:
        card = read_card(find_model(name))
        if card.task != task:
            continue
        for precision in [file.precision for file in card.files if file.precision in TIMED]:
            spec = {"kind": "onnx", "folder": str(find_model(name)), "precision": precision, "threads": threads}
            rows.append(_row(f"{card.name}, {precision}", "ours", spec, OUR_SIDES, card, (name, precision)))
    folders = published(task, say)
    dsen2 = folders.get("as stored") or random_weights(task, f"dsen2_{task}_random", {})
    card = read_card(dsen2)
    scored = (str(dsen2), "float32") if folders else None
    spec = {"kind": "onnx", "folder": str(dsen2), "precision": "float32", "threads": threads}
    rows.append(_row(REFERENCE, "dsen2", spec, THEIR_SIDES, card, scored))
    if folders:
        transposed = (str(folders["transposed"]), "float32")
        rows.append(Contender(TRANSPOSED, "dsen2", None, scored=transposed, like=REFERENCE))
    spec = {"kind": "tensorflow", "folder": str(dsen2), "threads": threads}
    rows.append(_row("DSen2, TensorFlow", "dsen2", spec, THEIR_SIDES, card, None))
    if PACKAGE_PYTHON.is_file() and not PACKAGE_REASON.exists():
        spec = {"kind": "package", "task": task, "threads": threads}
        rows.append(Contender(f"DSen2, {PEER}", "dsen2", spec, python=PACKAGE_PYTHON))
    else:
        reason = (
            PACKAGE_REASON.read_text().strip() if PACKAGE_REASON.exists() else "run `make bench`, which installs it"
        )
        say(f"{PEER} is left out: {reason}")
    sized = random_weights(task, f"sized_{task}", SIZED_OPTIONS)
    spec = {"kind": "onnx", "folder": str(sized), "precision": "float32", "threads": threads}
    rows.append(_row(f"{SIZED}, random weights", "sized", spec, THEIR_SIDES, read_card(sized), None))
    tensor = card.inputs[-1]
    spec = {"kind": "bicubic", "bands": tensor.bands, "factor": tensor.coarser()}
    rows.append(Contender("bicubic", "bicubic", spec, scored=("bicubic", "")))
    return rows


def _row(
    label: str,
    group: str,
    spec: dict[str, Any],
    sides: tuple[int | None, ...],
    card: ModelCard,
    scored: tuple[str, str] | None,
) -> Contender:
    size = {"parameters": card.parameters, "mflop_per_pixel": card.mflop_per_pixel}
    return Contender(label, group, spec, sides, scored, **size)  # type: ignore[arg-type]


def published(task: str, say: Any) -> dict[str, Path]:
    """Model folders of DSen2 with UP42's weights, ``as stored`` and ``transposed``; none where they cannot be had."""
    folders = {}
    try:
        for way in ("as stored", "transposed"):
            folder = CACHE / f"dsen2_{task}_{way.replace(' ', '_')}"
            if not folder.is_dir():
                job = jobs.ImportModelJob(
                    source=_weights(task),
                    output=folder,
                    transpose=way == "transposed",
                    saved_model=way == "as stored",
                    name=f"DSen2, {way}",
                    licence="GPL-3.0",
                )
                jobs.run(job)
            folders[way] = folder
    except (OSError, KeyError, subprocess.SubprocessError, tarfile.TarError, S2SRError) as error:
        say(f"DSen2 has random weights and no RMSE; {PACKAGE}, which holds published ones, is not to be had: {error}")
        return {}
    return folders


def _weights(task: str) -> Path:
    """The published weights of a task as HDF5, downloaded once."""
    name = f"L1C{task.upper()}"
    path = CACHE / f"{name}.hdf5"
    if not path.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        if not list(CACHE.glob("remote_sensing_processor-*.tar.gz")):
            pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
            command = [*pip, "--no-binary", "remote_sensing_processor", "-d", str(CACHE), PACKAGE]
            subprocess.run(command, check=True, capture_output=True, timeout=600)
        (source,) = CACHE.glob("remote_sensing_processor-*.tar.gz")
        script = CACHE / f"{name}.pt"
        with tarfile.open(source) as archive:
            member = next(m for m in archive.getmembers() if m.name.endswith(f"superres/weights/{name}.pt"))
            content = archive.extractfile(member)
            if content is None:
                raise KeyError(member.name)
            script.write_bytes(content.read())
        part = path.with_suffix(".part")
        convert = [sys.executable, str(ROOT / "tools" / "torchscript_to_hdf5.py"), str(script), str(part)]
        subprocess.run(convert, check=True, capture_output=True)
        part.replace(path)
        script.unlink()
    return path


def random_weights(task: str, name: str, options: dict[str, Any]) -> Path:
    """DSen2's layout with random weights as a model folder, by the exporter of trained ones, made once."""
    folder = CACHE / name
    if folder.is_dir():
        return folder
    from s2sr_qgis.core.dataset.card import layout
    from s2sr_qgis.core.progress import Progress
    from s2sr_qgis.core.training.export import describe, write_model
    from s2sr_qgis.core.training.run_card import RunCard

    CACHE.mkdir(parents=True, exist_ok=True)
    run = RunCard(
        network="dsen2",
        network_options=options,
        task=task,
        scaling=1e-4,
        tensors=layout(task, 6),
        sources=[],
        backend="",
        precision="float32",
    )
    network = run.build()
    card = describe(network, run, name=name, title="DSen2's layout with random weights, for speed alone")
    write_model(network, card, folder, saved_model=True, patches=None, progress=Progress())
    return folder
