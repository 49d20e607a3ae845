"""The table of the package's faults in docs/similarity.md says what the package and we give."""

from __future__ import annotations

import math

import pytest
from similarity_pairs import ROOT
from up42_faults import line, rows


@pytest.fixture(scope="module")
def found():
    return {text: values for text, *values in rows()}


def test_the_docs_show_both_numbers(found):
    page = (ROOT / "docs" / "similarity.md").read_text(encoding="utf-8").splitlines()
    missing = [line(text, *values) for text, values in found.items() if line(text, *values) not in page]
    assert not missing, "\n".join(missing)


def test_identical_images_are_perfect_here(found):
    """Whatever the package says of an image and itself; `up42` keeps its UIQ of flat windows and its ISSM."""
    perfect = {"SAM": 0, "UIQ": 1, "FSIM": 1, "ISSM": 1}
    alone = {text: values for text, values in found.items() if "with itself" in text}
    assert len(alone) >= len(perfect)
    for text, (_, _, reference) in alone.items():
        assert reference == pytest.approx(perfect[text.split()[0]], abs=1e-5), text


def test_what_the_package_cannot_see(found):
    """A pixel that is zero or NaN hardly changes an angle, and repeating an image changes no ratio."""
    whole = found["SAM of image and copy, uint16 (°)"]
    for text in (
        "SAM of the same, one pixel of the reference zero (°)",
        "SAM of the same, one pixel NaN (°)",
    ):
        theirs, *both = found[text]
        assert theirs == 0
        assert both == pytest.approx(whole[1:], rel=0.01)
    once, twice = found["SRE (dB)"], found["SRE of the same, repeated 2 x 2 (dB)"]
    assert twice[0] - once[0] == pytest.approx(10 * math.log10(2), abs=1e-6)
    assert twice[2] == pytest.approx(once[2], abs=1e-9)
