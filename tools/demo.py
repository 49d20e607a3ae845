"""`make demo`: the plugin in a throw-away QGIS profile sharpens the sample; the results go to demo/."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent))
from package import PLUGIN, ROOT, stage

from s2sr_qgis.core.inference.card import read_card
from s2sr_qgis.core.inference.model import bundled_models
from s2sr_qgis.core.scene import open_scene
from training_cli.report import evaluation_table

PROFILE = ROOT / "build" / "demo-profile"
OUTPUT = ROOT / "demo"
COMPOSITE = ("B12", "B8A", "B05")
ZOOM = 40
"""Side of the enlarged part in 20 m pixels."""

console = Console(highlight=False)
Image = NDArray[np.float32]


def main() -> int:
    """Run the demo; the exit status is 0 when everything was written."""
    samples = sorted((ROOT / "samples").glob("*.SAFE"))
    if not samples:
        return fail("samples/ holds no .SAFE product; check out the whole repository.")
    sample = samples[0]
    with open_scene(sample) as scene:
        level = scene.level
        size = f"{scene.grid.width} x {scene.grid.height} pixels of 10 m"
    models = [name for name, folder in bundled_models().items() if level in read_card(folder).processing_levels]
    if not models:
        return fail(f"No bundled model is for {level}; `make models` trains them.")
    shutil.rmtree(PROFILE, ignore_errors=True)
    (PROFILE / "run").mkdir(parents=True, mode=0o700)
    stage(PROFILE / "profiles" / "default" / "python" / "plugins")
    OUTPUT.mkdir(exist_ok=True)
    name = sample.stem.removesuffix("_MSI")
    image, picture = OUTPUT / f"{name}_10m.tif", OUTPUT / f"{name}_before_after.png"
    written = [image, picture]
    console.print(f"[bold]s2sr demo[/]  {sample.name}, {level}, {size}\n")
    try:
        with console.status("Installing the plugin into a throw-away QGIS profile"):
            qgis("plugins", "enable", PLUGIN)
        with console.status("s2sr:superresolve: all bands to 10 m"):
            process("s2sr:superresolve", {"INPUT": str(sample), "OUTPUT": str(image)})
        console.print("qgis_process run s2sr:superresolve   done")
        for model in models:
            figures = OUTPUT / f"{name}_{model}.json"
            with console.status(f"s2sr:evaluatemodel: {model} beside bicubic"):
                inputs = {"INPUT": str(sample), "MODEL": model, "OUTPUT_JSON": str(figures)}
                process("s2sr:evaluatemodel", inputs)
            console.print("qgis_process run s2sr:evaluatemodel  done\n")
            console.print(evaluation_table(json.loads(figures.read_text(encoding="utf-8")), title=model))
            console.print()
            written.append(figures)
        console.print("The models were trained on this scene too, so these figures flatter them: see docs/models.md.\n")
        with console.status("Before and after"):
            draw(sample, image, picture)
    except RuntimeError as error:
        return fail(str(error))
    console.print("Written:")
    for path in written:
        console.print(f"  {path.relative_to(ROOT)}  {path.stat().st_size / 1e3:,.0f} kB", soft_wrap=True)
    return 0


def fail(sentence: str) -> int:
    """Say what is wrong."""
    Console(stderr=True, highlight=False).print(sentence, style="red", markup=False, soft_wrap=True)
    return 1


def qgis(*arguments: str, job: dict[str, Any] | None = None) -> str:
    """Run qgis_process in the demo's profile and return what it prints. Raises `RuntimeError` with its complaint."""
    environment = {
        **os.environ,
        "QGIS_CUSTOM_CONFIG_PATH": str(PROFILE),
        "XDG_RUNTIME_DIR": str(PROFILE / "run"),
        "QT_QPA_PLATFORM": "offscreen",
        "S2SR_PYTHON": sys.executable,
    }
    done = subprocess.run(
        ["qgis_process", *arguments],
        input=json.dumps(job) if job else "",
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        complaint = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-12:]
        raise RuntimeError("\n".join([f"qgis_process {' '.join(arguments)} failed:", *complaint]))
    return done.stdout


def process(algorithm: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run an algorithm and return its results."""
    text = qgis("run", algorithm, "-", job={"inputs": inputs})
    results: dict[str, Any] = json.loads(text[text.index("{") :])["results"]
    return results


def draw(sample: Path, image: Path, picture: Path) -> None:
    """A composite of 20 m bands as recorded and sharpened, side by side, and a part of both enlarged."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    before, after = recorded(sample), sharpened(image)
    low, high = np.nanpercentile(before, (2, 98), axis=(0, 1))  # of each band
    part = busiest(before)
    zoomed = before[part], after[tuple(slice(2 * s.start, 2 * s.stop) for s in part)]
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 11.6), layout="constrained")
    titles = ("20 m as recorded", "10 m sharpened", f"20 m, {ZOOM * 20} m wide", f"10 m, {ZOOM * 20} m wide")
    for axis, pixels, title in zip(axes.flat, (before, after, *zoomed), titles, strict=True):
        axis.imshow(np.clip((pixels - low) / (high - low), 0, 1), interpolation="nearest")
        axis.set_title(title)
        axis.set_axis_off()
    figure.suptitle(f"{' '.join(COMPOSITE)}  {sample.stem}", fontsize=9)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def recorded(sample: Path) -> Image:
    """The composite's bands at 20 m: reflectance, (rows, columns, 3)."""
    with open_scene(sample) as scene:
        pixels = scene.read(COMPOSITE)
    return np.stack([np.where(pixels.valid[b], pixels.data[b], np.nan) for b in COMPOSITE], axis=-1)


def sharpened(image: Path) -> Image:
    """The composite's bands at 10 m: reflectance, (rows, columns, 3)."""
    with rasterio.open(image) as source:
        index = [source.descriptions.index(band) + 1 for band in COMPOSITE]
        data = source.read(index, masked=True).astype(np.float32).filled(np.nan)
        scale = np.array([(source.scales[i - 1], source.offsets[i - 1]) for i in index], np.float32)
    return np.moveaxis(data * scale[:, :1, None] + scale[:, 1:, None], 0, -1)


def busiest(image: Image) -> tuple[slice, slice]:
    """The part of an image with the most contrast between neighbours."""
    grey = np.nan_to_num(image.mean(axis=-1))
    contrast = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    rows, columns = (side // ZOOM for side in contrast.shape)
    blocks = contrast[: rows * ZOOM, : columns * ZOOM].reshape(rows, ZOOM, columns, ZOOM).mean(axis=(1, 3))
    row, column = divmod(int(blocks.argmax()), columns)
    return slice(row * ZOOM, (row + 1) * ZOOM), slice(column * ZOOM, (column + 1) * ZOOM)


if __name__ == "__main__":
    sys.exit(main())
