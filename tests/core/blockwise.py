"""A measure of an image that comes in blocks, as a job takes it in."""

from __future__ import annotations

import numpy as np

from s2sr_qgis.core.similarity.measure import Block, Score, Setup, prepare
from s2sr_qgis.core.similarity.measures import catalogue


def blockwise(
    name: str,
    reference: np.ndarray,
    image: np.ndarray,
    size: tuple[int, int],
    mask: np.ndarray | None = None,
    *,
    data_range: float = 10000.0,
    definition: str = "reference",
) -> Score:
    """``size``: rows and columns of a block's own part, multiples of 32."""
    x, y, valid = prepare(reference, image, mask)
    bands, height, width = x.shape
    accumulator = catalogue()[name].create(Setup(bands, height, width, data_range, definition))
    halo = accumulator.halo
    for row in range(0, height, size[0]):
        for col in range(0, width, size[1]):
            top, left = max(row - halo, 0), max(col - halo, 0)
            around = np.s_[:, top : row + size[0] + halo, left : col + size[1] + halo]
            own = (
                slice(row - top, min(row + size[0], height) - top),
                slice(col - left, min(col + size[1], width) - left),
            )
            accumulator.take(accumulator.observe(Block(x[around], y[around], valid[around], top, left, own)))
    return accumulator.score()


def assert_same(one: Score, other: Score, rel: float = 1e-9) -> None:
    """Equal to nine digits, NaN and infinity included."""
    assert (one.bands is None) == (other.bands is None)
    if one.bands is not None:
        np.testing.assert_allclose(one.bands, other.bands, rtol=rel, atol=0)
    np.testing.assert_allclose(one.total, other.total, rtol=rel, atol=0)


def turned(image: np.ndarray) -> list[np.ndarray]:
    """The image mirrored both ways, and turned by the three right angles."""
    return [image[:, ::-1], image[:, :, ::-1], *(np.rot90(image, times, axes=(1, 2)) for times in (1, 2, 3))]
