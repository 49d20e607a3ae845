"""Which models and bands a job comes to: what the scene has, what the models give, what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from ..progress import Progress
from ..scene import open_scene
from ..scene.bands import SHARPENED_ORDER, band_name
from .card import ModelCard, read_card
from .model import bundled_models, check_bands, find_model

if TYPE_CHECKING:
    from ..jobs import SuperResolveJob
    from ..scene.scene import Scene


@dataclass(frozen=True)
class Choice:
    """A model to load, and the bands to take from it."""

    folder: Path
    card: ModelCard
    bands: list[str]


def check_level(card: ModelCard, level: str | None, allow_other: bool, progress: Progress) -> None:
    """Raise `ModelError` when a model is not made for the scene's processing level; a warning where that is allowed.

    Also logs the warning that the model's card holds.
    """
    made_for = " and ".join(card.processing_levels)
    if level is None:
        progress.log(
            f"The scene does not say its processing level; the model {card.name} is for {made_for}. "
            "Give the level where the scene is of another.",
            "warning",
        )
    elif level not in card.processing_levels:
        sentence = f"The model {card.name} is for {made_for}, but the scene is {level}"
        if not allow_other:
            raise ModelError(f"{sentence}; choose a model for {level}, or allow another processing level.")
        progress.log(f"{sentence}; the result may be less accurate.", "warning")
    if "warning" in card.metrics:
        progress.log(f"{card.name}: {card.metrics['warning']}", "warning")


def choose(
    scene: Scene, models: Sequence[str], bands: Sequence[str], allow_other: bool, progress: Progress
) -> tuple[list[Choice], list[str]]:
    """The models to run and the bands to write, in their order.

    ``models``: bundled names or folders; none: the bundled ones that the scene's bands and level allow. ``bands``: what
    to write; none: all that can be had. Raises `ModelError` naming both lists when bands are missing.
    """
    wanted = list(dict.fromkeys(band_name(band) for band in bands))
    native = scene.names(10)
    given: dict[str, Choice] = {}
    for folder, card in _named(models) if models else _fitting(scene, allow_other):
        fresh = [band for band in card.output_bands if not wanted or band in wanted]
        twice = [band for band in fresh if band in given]
        if twice and models:
            other = given[twice[0]].card.name
            raise ModelError(f"The models {other} and {card.name} both give {', '.join(twice)}; name one of them.")
        fresh = [band for band in fresh if band not in given]
        if not fresh:
            if models:
                progress.log(f"The model {card.name} is not needed for the bands asked for.")
            continue
        check_bands(card, scene.bands)
        check_level(card, scene.level, allow_other, progress)
        given.update(dict.fromkeys(fresh, Choice(folder, card, fresh)))
    available = [band for band in SHARPENED_ORDER if band in native or band in given]
    missing = [band for band in wanted if band not in available]
    if missing or (not wanted and not given):
        raise ModelError(_nothing(scene, models, missing, available))
    left = [band for band in scene.bands if band in SHARPENED_ORDER and band not in available]
    if left and not wanted:
        progress.log(f"No model here sharpens {', '.join(left)}; left out.", "warning")
    return list({choice.folder: choice for choice in given.values()}.values()), wanted or available


def chosen(job: SuperResolveJob) -> list[Choice]:
    """The sharpening models that a job comes to, without a word to the user. Raises as `choose` does."""
    cross = cross_sensor_model(job.models)
    if cross:
        raise ModelError(
            f"The model {cross[1].name} gives a finer sensor's grid: its target is not in the scene, so it cannot be "
            "adapted to it; leave 'adapt' out."
        )
    with open_scene(job.scene, job.scene_options) as scene:
        return choose(scene, job.models, job.bands, job.allow_other_level, Progress())[0]


def cross_sensor_model(models: Sequence[str]) -> tuple[Path, ModelCard] | None:
    """The cross-sensor model among those named, or None. Raises `ModelError` where it is not the only one."""
    named = _named(models)
    cross = next((pair for pair in named if pair[1].task == "cross-sensor"), None)
    if cross and len(named) > 1:
        raise ModelError(f"The model {cross[1].name} gives a finer grid than the others; run it by itself.")
    return cross


def _named(models: Sequence[str]) -> list[tuple[Path, ModelCard]]:
    folders = dict.fromkeys(find_model(name) for name in models)
    return [(folder, read_card(folder)) for folder in folders]


def _fitting(scene: Scene, allow_other: bool) -> list[tuple[Path, ModelCard]]:
    """The bundled models that this scene can feed, those for its own level first."""
    cards = [(folder, read_card(folder)) for folder in bundled_models().values()]
    cards = [(folder, card) for folder, card in cards if all(band in scene.bands for band in card.input_bands)]
    cards = [(folder, card) for folder, card in cards if card.task != "cross-sensor"]
    own = [pair for pair in cards if scene.level is None or scene.level in pair[1].processing_levels]
    return own + [pair for pair in cards if allow_other and pair not in own]


def _nothing(scene: Scene, models: Sequence[str], missing: list[str], available: list[str]) -> str:
    asked = f"The bands {', '.join(missing)} cannot be had" if missing else "No bundled model fits this scene"
    cards = [card for _, card in _named(list(models) or list(bundled_models()))]
    known = "; ".join(
        f"{card.name} ({'/'.join(card.processing_levels)}) makes {', '.join(card.output_bands)} from "
        f"{', '.join(card.input_bands)}"
        for card in cards
    )
    return (
        f"{asked}: the {scene.level or 'scene'} has {', '.join(scene.bands)}"
        f"{' and ' + ', '.join(available) + ' can be written' if missing and available else ''}, and the models are "
        f"{known or 'none'}; name a model that fits."
    )
