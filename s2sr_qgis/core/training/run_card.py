"""What a run folder says of itself (`run.yaml`): enough to build the network again and to write a model's card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..dataset.card import TARGET, PatchCard, SourceCard
from ..errors import TrainingError
from ..networks import ElementSpec, ModelBase, build_network, element_spec
from ..outputs import write_text
from ..redaction import yaml_text

RUN_CARD = "run.yaml"
CONFIG = "config.yaml"


class RunCard(BaseModel):
    """``tensors`` as in the dataset's card; ``test``: figures of the saved model on the test split, DN."""

    model_config = ConfigDict(extra="forbid")

    network: str
    network_options: dict[str, Any] = Field(default_factory=dict)
    task: str
    scaling: float
    tensors: list[PatchCard]
    sources: list[SourceCard]
    datasets: list[dict[str, Any]] = Field(default_factory=list, description="Counts, factors, seed of each dataset.")
    backend: str
    precision: str
    quantized: bool = Field(False, description="Trained with 8 bits in the loop.")
    epochs: int = 0
    minutes: float = 0.0
    valid_rmse: float | None = None
    weights: str = Field("mean", description="The best weights: raw, their running mean, or the start's.")
    test: dict[str, Any] = Field(default_factory=dict)
    warning: str | None = Field(None, description="Where the model is worse than bicubic on the test patches.")

    def build(self) -> ModelBase:
        """The network with fresh weights. Raises `InputError` as `build_network` does."""
        return build_network(self.network, spec_of(self.tensors), self.network_options)


def spec_of(tensors: list[PatchCard]) -> ElementSpec:
    """The shapes of a dataset's tensors, as networks take them."""
    counts = {tensor.name: len(tensor.bands) for tensor in tensors}
    sizes = {tensor.name: tensor.size for tensor in tensors}
    return element_spec(counts, {TARGET: counts.pop(TARGET)}, sizes)


def write_run_card(card: RunCard, folder: Path) -> None:
    """Write a run's card."""
    write_text(folder / RUN_CARD, yaml_text(card.model_dump(mode="json")))


def read_run_card(folder: Path) -> RunCard:
    """Read a run's card. Raises `TrainingError` when the folder holds no finished run."""
    try:
        return RunCard.model_validate(yaml.safe_load((folder / RUN_CARD).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise TrainingError(
            f"{folder} is no run folder: it has no {RUN_CARD}; name the folder of a training."
        ) from error
    except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise TrainingError(f"{folder / RUN_CARD} is damaged; train again.") from error
