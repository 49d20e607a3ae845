"""A model's card (`card.yaml`): what the network eats, what it gives, where it comes from."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ModelError
from ..redaction import yaml_text
from ..scene.bands import BANDS, band_name

CARD_NAME = "card.yaml"

SAVED_MODEL = "saved_model"
"""Where an exported model folder holds the TensorFlow SavedModel, if it has one."""

MAX_LOSS = 1.0
"""Percent of its RMSE that a variant may lose against float32 and still be chosen unasked."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TensorCard(_Part):
    """One tensor of the network, NHWC, its channels named by band."""

    name: str
    bands: list[str] = Field(min_length=1)
    resolution: float = Field(
        gt=0, allow_inf_nan=False, description="Pixel size in metres in a scene of full resolution."
    )

    def coarser(self, spacing: float = 10) -> int:
        """How many pixels of this size, in metres, one pixel of this tensor is wide."""
        return round(self.resolution / spacing)


class ModelFile(_Part):
    """One file of the model folder."""

    file: str
    precision: Literal["float32", "float16", "int8"]
    sha256: str
    metrics: dict[str, Any] = Field(default_factory=dict, description="Its own figures, beside float32's.")

    @property
    def loss(self) -> float:
        """By how many percent its RMSE on a test split or on test scenes is larger than float32's; 0 if unmeasured."""
        # Patches of the training itself are no test: mixtures and simulated clouds hold the extremes that 8 bits clip.
        known = self.metrics.get("split", "test") == "test"
        return float(self.metrics.get("loss_percent", 0)) if known else 0.0


class ModelCard(_Part):
    """Everything that inference needs to know of a model, and what a user should.

    ``scaling``: a tensor's value times this is reflectance (1e-4: the network takes DN without offset).
    ``radius``: receptive radius in pixels of the finest input, measured. ``multiple``: sides of the finest input must
    be multiples of this. ``upsampling`` names the kernel the network adds its detail to; it is part of the network.
    Outputs have one pixel size, that of the finest input or a whole number of times finer (cross-sensor).
    """

    name: str
    title: str
    task: Literal["20m", "60m", "cross-sensor"]
    network: str
    processing_levels: list[Literal["L1C", "L2A"]]
    inputs: list[TensorCard] = Field(min_length=1)
    outputs: list[TensorCard] = Field(min_length=1)
    scaling: float = Field(1e-4, gt=0, allow_inf_nan=False)
    upsampling: str = "bilinear, half-pixel centres"
    radius: int = Field(ge=0)
    multiple: int = Field(ge=1)
    orientations: Literal[1, 2] = Field(
        1,
        description="2: the result is the mean with that on the image rotated by 180° (self-ensemble). The SavedModel "
        "computes this mean itself; the ONNX files hold the network alone, and inference runs them twice.",
    )
    parameters: int
    mflop_per_pixel: float = Field(description="Million floating-point operations per output pixel.")
    files: list[ModelFile]
    training: dict[str, Any] = Field(default_factory=dict, description="Data with licences, recipe, seed.")
    metrics: dict[str, Any] = Field(default_factory=dict)
    licence: str = ""
    source: str = ""

    @property
    def finest(self) -> float:
        """Pixel size of the finest input, in metres."""
        return min(tensor.resolution for tensor in self.inputs)

    @property
    def scale(self) -> int:
        """How many times finer than the finest input the outputs are."""
        return max(round(self.finest / self.outputs[0].resolution), 1)

    @property
    def input_bands(self) -> list[str]:
        """Every band that the network takes."""
        return [band for tensor in self.inputs for band in tensor.bands]

    @property
    def output_bands(self) -> list[str]:
        """Every band that the network gives."""
        return [band for tensor in self.outputs for band in tensor.bands]


def read_card(folder: Path) -> ModelCard:
    """Read and validate the card of a model folder. Raises `ModelError`."""
    path = folder / CARD_NAME
    if not path.is_file():
        raise ModelError(f"{folder} is no model folder (it has no {CARD_NAME}); name a bundled or an exported model.")
    try:
        return ModelCard.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not readable YAML; export the model again.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path} is no valid card: {where}: {first['msg']}; export the model again.") from error


def write_card(card: ModelCard, folder: Path) -> Path:
    """Write a card beside its files."""
    path = folder / CARD_NAME
    text = yaml_text(card.model_dump(mode="json"))
    # Scanners for secrets, that of the QGIS plugin site among them, take a checksum for a key unless told.
    text = re.sub(r"^(\s*sha256: .*)$", r"\1  # pragma: allowlist secret", text, flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")
    return path


def native_resolution(bands: list[str]) -> float | None:
    """The pixel size in metres that some bands are recorded at; None where they have several. Raises `InputError`."""
    found = {BANDS[band_name(band)].resolution for band in bands}
    return float(found.pop()) if len(found) == 1 else None


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
