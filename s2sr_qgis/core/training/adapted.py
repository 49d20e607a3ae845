"""A scene sharpened by models that are adapted to it first: the job `super_resolve` with `adapt`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..inference.card import read_card, write_card
from ..inference.selection import chosen
from ..inference.super_resolve import super_resolve
from ..progress import Part, Progress
from ..raster.targets import check_outputs
from .adapt import adapt

if TYPE_CHECKING:
    from ..jobs import SuperResolveJob

ADAPTING = 70.0
"""Share of the progress bar, in percent, that adapting has; minutes are what it is bounded by, so no more is known."""


def super_resolve_adapted(job: SuperResolveJob, progress: Progress) -> dict[str, Any]:
    """Adapt each chosen model to the scene for its share of the minutes, then sharpen the scene with them.

    A model that gains nothing, or whose pixels the scene has too few of, is used as it is. Returns what `super_resolve`
    does, and ``adapted``: for each model what `adapt` found. Raises as both do.
    """
    from ..jobs import AdaptJob

    if job.precision not in ("auto", "float32"):
        raise InputError(
            f"Adapted models have a float32 file alone, not {job.precision}; leave the precision or 'adapt' out."
        )
    check_outputs(rasters=[job.output], inputs=[job.scene, job.roi])
    choices = chosen(job)
    if not job.adapt or not choices:
        raise InputError(f"There is no model to adapt: the bands asked for need none in {job.scene}; leave it out.")
    models: list[str] = []
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="s2sr-adapted-") as temporary:
        for number, choice in enumerate(choices):
            span = ADAPTING / len(choices)
            part = Part(progress, number * span, (number + 1) * span)
            name = choice.card.name
            folder = Path(temporary) / str(number)
            task = AdaptJob(
                model=str(choice.folder),
                scene=job.scene,
                output=folder,
                scene_options=job.scene_options,
                roi=job.roi,
                max_minutes=job.adapt / len(choices),
                threads=job.threads,
                allow_other_level=job.allow_other_level,
            )
            try:
                figures = adapt(task, part)
            except InputError as error:
                progress.log(f"{error} {name} is used as it is.", "warning")
                figures = {"adapted": False}
            if figures["adapted"]:
                card = read_card(folder)
                # The file's tags name the models: they then say what was done to them.
                card.name = f"{name} adapted, RMSE {figures['rmse_before']:.1f} to {figures['rmse_after']:.1f} DN"
                write_card(card, folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)
            models.append(str(folder if figures["adapted"] else choice.folder))
            found[name] = {key: value for key, value in figures.items() if key not in ("output", "model")}
        plain = job.model_copy(update={"models": models, "adapt": None})
        result = super_resolve(plain, Part(progress, ADAPTING, 100))
    progress.artifact("output", result["output"])
    return {**result, "adapted": found}
