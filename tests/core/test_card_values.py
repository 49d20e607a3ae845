"""A card with values that no network can have is refused, with the field named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from s2sr_qgis.core.errors import ModelError
from s2sr_qgis.core.inference.card import read_card

BUNDLED = Path(__file__).parents[2] / "s2sr_qgis" / "models" / "sharpen_60m" / "card.yaml"


@pytest.mark.parametrize("tensors", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("resolution", value) for value in (0, -10, math.nan, math.inf, None, "fine")] + [("bands", []), ("bands", "B1")],
)
def test_a_tensor_that_cannot_be_is_refused(tmp_path: Path, tensors: str, field: str, value: Any) -> None:
    card = yaml.safe_load(BUNDLED.read_text(encoding="utf-8"))
    card[tensors][0][field] = value
    _refused(tmp_path, card, field)


@pytest.mark.parametrize(
    ("field", "value"),
    [("inputs", []), ("outputs", []), ("radius", -1), ("multiple", 0), ("scaling", 0), ("scaling", math.nan)],
)
def test_a_card_that_cannot_be_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    card = yaml.safe_load(BUNDLED.read_text(encoding="utf-8"))
    card[field] = value
    _refused(tmp_path, card, field)


def _refused(folder: Path, card: dict[str, Any], field: str) -> None:
    (folder / "card.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    with pytest.raises(ModelError, match=field) as refusal:
        read_card(folder)
    assert "\n" not in str(refusal.value)
