"""The report of a training: one HTML file with options, learning curves, figures and pictures, and no link."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset.card import TARGET, Dataset
from ..errors import Cancelled
from ..networks.base import OUTPUT
from ..outputs import write_text
from ..progress import Progress
from ..raster.resample import upsample
from ..redaction import redact
from ..similarity.page import Picture, png, render
from .logs import shown_bands
from .run_card import RunCard

if TYPE_CHECKING:
    from ..jobs import TrainJob

REPORT = "report.html"
PICTURES = 4
"""Patches that the report shows."""

EXAMINED = 64
"""Patches, evenly spread over the split, of which those with the most detail are shown."""

_TEMPLATE = Path(__file__).with_name("report.html")
_CURVES = (
    ("Training loss", (("loss", "", "#1f5fa8"),)),
    ("RMSE (DN)", (("rmse", "training", "#1f5fa8"), ("val_rmse", "validation", "#b42318"))),
    ("Learning rate", (("learning_rate", "", "#555555"),)),
)


def write_report(job: TrainJob, card: RunCard, datasets: list[Dataset], model: Any, progress: Progress) -> str | None:
    """Write ``report.html`` into the run's folder.

    Args:
        job: the training.
        card: its card, with the figures on the test split.
        datasets: as the training read them; patches of the test split, else of the validation split, are shown.
        model: the trained Keras model, from inputs by name (n, h, w, c), DN, to the output (n, h, w, bands), DN.
        progress: gets a warning where the report cannot be made: the training is not lost for it.

    Returns:
        The path of the report; none where it could not be made.
    """
    path = job.output / REPORT
    try:
        split, pictures = _pictures(card, datasets, model)
        page = render(
            _TEMPLATE,
            card=card,
            title=f"Training of {card.network}, task {card.task}",
            date=datetime.date.today().isoformat(),
            verdict=verdict(card.test),
            datasets=[_dataset(dataset) for dataset in datasets],
            options=sorted((name, str(value)) for name, value in job.model_dump(mode="json").items()),
            curves=_curves(job.output / "log.csv"),
            rows=_rows(card.test),
            split=split,
            pictures=pictures,
            shown=", ".join(card.tensors[-1].bands[index] for index in shown_bands(card.tensors[-1].bands)),
        )
        write_text(path, redact(page))
    except Cancelled:
        raise
    except Exception as error:  # the model is there: no fault of a picture may lose it
        progress.log(f"The report {path} could not be written: {redact(str(error))}", "warning")
        return None
    progress.artifact("report", str(path))
    return str(path)


def verdict(test: dict[str, Any]) -> tuple[str, str]:
    """How the model compares with bicubic on the test split: ``good`` or ``bad``, and a sentence."""
    if not test:
        return "bad", "The model was not scored: the datasets have no test split."
    mine, bicubic = float(test["rmse_mean"]), float(test["bicubic"]["rmse_mean"])
    figures = f"RMSE {mine:.1f} DN against {bicubic:.1f} DN on {test['patches']} test patches"
    if bicubic > 0 and mine < bicubic:
        return "good", f"Better than bicubic by {1 - mine / bicubic:.1%}: {figures}."
    if mine == bicubic:
        return "bad", f"As good as bicubic, no better: {figures}."
    share = f" by {mine / bicubic - 1:.1%}" if bicubic > 0 else ""
    return "bad", f"Worse than bicubic{share}: {figures}. Train longer or on more data before you use this model."


def _rows(test: dict[str, Any]) -> list[tuple[str, str, str, str, bool]]:
    """Band, RMSE of the model and of bicubic (DN), change, and whether the model is better."""
    if not test:
        return []
    pairs = [(band, test["rmse"][band], test["bicubic"]["rmse"][band]) for band in test["rmse"]]
    pairs.append(("mean", test["rmse_mean"], test["bicubic"]["rmse_mean"]))
    return [
        (band, f"{mine:.1f}", f"{other:.1f}", f"{mine / other - 1:+.1%}" if other else "", mine < other)
        for band, mine, other in pairs
    ]


def _dataset(dataset: Dataset) -> tuple[str, str, str, str]:
    """Folder, patches by split, patch size, and the scenes."""
    card = dataset.card
    counts = ", ".join(f"{dataset.count(split)} {split}" for split in ("train", "valid", "test"))
    scenes = ", ".join(source.name for source in card.sources)
    return str(dataset.folder), counts, f"{card.patch_size} px", scenes


def _curves(log: Path) -> list[Picture]:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with log.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    pictures = []
    for title, lines in _CURVES:
        figure = Figure(figsize=(4.2, 2.8), layout="constrained")
        axes = figure.add_subplot()
        drawn = 0
        for name, label, colour in lines:
            known = [(int(float(row["epoch"])) + 1, float(row[name])) for row in rows if row.get(name)]
            if known:
                drawn += 1
                axes.plot(*zip(*known, strict=True), ".-", color=colour, label=label, linewidth=1.2, markersize=4)
        if not drawn:
            continue
        values = np.concatenate([line.get_ydata() for line in axes.get_lines()])
        if len(values) and values.min() > 0 and values.max() > 20 * values.min():
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        if drawn > 1:
            axes.legend(fontsize=8, frameon=False)
        pictures.append(Picture(png(figure), f"{title} by epoch", title))
    return pictures


def _pictures(card: RunCard, datasets: list[Dataset], model: Any) -> tuple[str, list[Picture]]:
    """The split, and the patches of it with the most detail: input, bicubic, result, reference."""
    from matplotlib.figure import Figure

    low, bands = card.tensors[-2].name, shown_bands(card.tensors[-1].bands)
    for split in ("test", "valid"):
        held = [dataset for dataset in datasets if dataset.count(split)]  # type: ignore[arg-type]
        if held:
            break
    else:
        return "", []
    arrays = held[0].arrays(split)  # type: ignore[arg-type]
    total = len(arrays[TARGET])
    places = np.unique(np.linspace(0, total - 1, min(total, EXAMINED)).round().astype(int))
    contrast = [float(np.std(np.asarray(arrays[TARGET][int(place)]))) for place in places]
    chosen = sorted(int(place) for place in places[np.argsort(contrast)[::-1][:PICTURES]])
    pictures = []
    for place in chosen:
        part = {name: np.asarray(array[place : place + 1]) for name, array in arrays.items()}
        target = part.pop(TARGET)
        factor = target.shape[1] // part[low].shape[1]
        output = np.asarray(model.predict_on_batch(part)[OUTPUT])
        bicubic = upsample(part[low].transpose(0, 3, 1, 2), factor, "bicubic").transpose(0, 2, 3, 1)
        nearest = part[low].repeat(factor, axis=1).repeat(factor, axis=2)
        first, last = np.percentile(target[0][..., bands], (1, 99), axis=(0, 1))
        figure = Figure(figsize=(9.6, 2.65), layout="constrained")
        named = {"Input": nearest, "Bicubic": bicubic, "Result": output, "Reference": target}
        for number, (name, image) in enumerate(named.items()):
            axes = figure.add_subplot(1, 4, number + 1)
            shown = (image[0][..., bands] - first) / np.maximum(last - first, 1.0)
            axes.imshow(np.clip(np.nan_to_num(shown), 0, 1), interpolation="nearest")
            error = "" if image is target else f", RMSE {np.sqrt(np.mean((image - target) ** 2)):.0f} DN"
            axes.set_title(name + error, fontsize=9)
            axes.set_axis_off()
        text = f"Patch {place + 1} of {total}: input, bicubic, result, reference"
        pictures.append(Picture(png(figure, 100, None), text, f"Patch {place + 1} of {total}"))
    return split, pictures
