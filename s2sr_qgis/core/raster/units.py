"""In which unit an optical image's pixels are, judged by the pixels."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

HOW = "give the quantification: 1 for reflectance 0 to 1, 100 for percent, 10000 for digital numbers"
"""How the user says it, for an error's sentence."""


HIGHEST = 25000.0
"""Digital numbers of 10000 for reflectance 1 do not reach this, but in a pixel or two."""


class Unit(Enum):
    """The value is what means reflectance 1."""

    REFLECTANCE = 1
    PERCENT = 100
    DN = 10000

    @property
    def words(self) -> str:
        """For a sentence."""
        names = {"REFLECTANCE": "reflectance", "PERCENT": "reflectance in percent"}
        return names.get(self.name, "digital numbers (10000 are reflectance 1)")


def unit_of(values: NDArray[Any], real: bool) -> Unit | None:
    """The unit of an image's values, all bands together and without nodata; None where they cannot decide.

    Reflectance stays near 1: clouds reach 1.3, glint 2. ``real``: of a real type, where every unit is possible;
    integers are digital numbers.
    """
    if not values.size:
        return None
    high = float(np.percentile(values, 99))
    if not real:
        return Unit.DN if high > 100 else None
    if high > HIGHEST:
        return None
    if 0.003 < high < 2.5:
        return None if high >= 1 and _whole(values) else Unit.REFLECTANCE
    if 15 <= high <= 130:
        return None if _whole(values) else Unit.PERCENT
    return Unit.DN if high > 130 else None


def scaled_already(values: NDArray[Any], scaled: NDArray[Any]) -> Unit | None:
    """The unit of real pixels that scale and offset tags would scale a second time; None where the tags hold."""
    if not values.size or float(np.percentile(scaled, 99)) >= 0.02:
        return None
    unit = unit_of(values, True)
    return unit if unit in (Unit.REFLECTANCE, Unit.PERCENT) else None


def _whole(values: NDArray[Any]) -> bool:
    return bool(np.all(values == np.rint(values)))
