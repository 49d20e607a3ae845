"""What a network does, measured by running it: scale, multiple, receptive radius; whether tiles give the whole image.

A network is a function here, whatever runs it: tensors by input name (1, h, w, channels) → the output (1, H, W, bands).
``factors``: pixels of the finest input that one pixel of each input spans. ``unit``: the value of a tensor that means
reflectance 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelError

Array = npt.NDArray[Any]
Run = Callable[[dict[str, Array]], Array]

MULTIPLES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""What sides of the finest input may have to be multiples of."""

LARGEST = 1024
"""Side of the largest image that a radius is looked for in, in pixels of the finest input."""

EQUAL = 2e-4
"""Largest difference (reflectance) of results that count as the same."""


def measure_radius(
    run: Run,
    channels: dict[str, int],
    factors: dict[str, int],
    *,
    unit: float = 1e4,
    multiple: int = 1,
    largest: int | None = None,
) -> int:
    """How far a change of one input pixel reaches, in pixels of the finest input, by perturbing one pixel of each.

    Where the output is finer still, a pixel of the finest input counts as reached when any of the output's pixels in it
    is. ``multiple``: pixels after which the network repeats itself; each place among them is perturbed. Raises
    `ModelError` where the change reaches the edge of an image of ``largest`` pixels.
    """
    coarsest = max(factors.values())
    period = math.lcm(coarsest, multiple)
    size = math.ceil(32 * coarsest / period) * period
    while True:
        inputs = _images(channels, factors, size, size, unit)
        plain = run(inputs)
        scale = plain.shape[1] // size
        radius = 0
        for name, f in factors.items():
            for phase in range(0, multiple, f):
                changed = {key: value.copy() for key, value in inputs.items()}
                place = (size // period // 2 * period + phase) // f
                changed[name][:, place, place] += 0.3 * unit
                moved = np.any(run(changed) != plain, axis=(0, 3))
                for axis in (0, 1):
                    reached = np.flatnonzero(moved.any(axis=axis)) // scale
                    if len(reached):
                        radius = max(radius, f * place - int(reached[0]), int(reached[-1]) - (f * place + f - 1))
        # Touching the edge means that the image was too small to see how far it goes.
        if radius < size // 2 - period:
            return radius
        if largest and 2 * size > largest:
            raise ModelError(
                f"A pixel of the network's result depends on pixels more than {radius} away, perhaps on the whole "
                "image (global pooling, attention); tiles of a scene would not fit each other."
            )
        size *= 2


def measure_scale(
    run: Run, channels: dict[str, int], bands: int, factors: dict[str, int], unit: float
) -> tuple[int, int]:
    """How many times finer than the finest input the output is, and what the input's sides must be multiples of.

    Random images of several sizes are run, also shifted. Raises `ModelError` for a network that is not fully
    convolutional, or whose output has other bands or no whole multiple of the input's size.
    """
    coarsest = max(factors.values())
    reasons: list[str] = []
    for multiple in (math.lcm(step, coarsest) for step in MULTIPLES):
        sizes = [(step * multiple, (step + 1) * multiple) for step in (-(-48 // multiple), -(-48 // multiple) + 1)]
        try:
            shapes = [(size, run(_images(channels, factors, *size, unit)).shape) for size in sizes]
        except ModelError as error:
            reasons.append(str(error))
            continue
        scales = {
            (shape[1] / height, shape[2] / width) if len(shape) == 4 else (0.0, 0.0)
            for (height, width), shape in shapes
        }
        (height, width), shape = shapes[0]
        if len(shape) == 4 and shape[3] != bands:
            raise ModelError(f"The network's output has {shape[3]} bands, but {bands} are named; name each of them.")
        scale = round(max(scales)[0])
        if scales != {(scale, scale)} or scale < 1:
            found = " x ".join(map(str, shape[1:3])) + f" pixels for {height} x {width}"
            reasons.append(f"its output has {found} of the finest input, no whole multiple")
            continue
        if _shifts(run, channels, factors, multiple, scale, unit):
            return scale, multiple
        reasons.append("what it makes of a place depends on where in the image that lies")
    raise ModelError(
        f"The network is not fully convolutional, so a scene cannot be worked on in tiles: {reasons[-1].rstrip('.')}."
    )


def _shifts(
    run: Run, channels: dict[str, int], factors: dict[str, int], multiple: int, scale: int, unit: float
) -> bool:
    """Whether a network makes of a shifted image its shifted result, far from the edges."""
    period = math.ceil(16 / multiple) * multiple + multiple
    size = math.ceil(512 / multiple) * multiple if multiple > 16 else math.ceil(320 / multiple) * multiple
    large = _images(channels, factors, size + period, size + period, unit)
    small = {name: image[:, period // factors[name] :, period // factors[name] :] for name, image in large.items()}
    whole = {name: image[:, : size // factors[name], : size // factors[name]] for name, image in large.items()}
    one, other = run(whole), run({name: np.ascontiguousarray(image) for name, image in small.items()})
    middle, step = size * scale // 2, period * scale
    a = one[:, middle : middle + scale, middle : middle + scale]
    b = other[:, middle - step : middle - step + scale, middle - step : middle - step + scale]
    return bool(np.abs(a - b).max() <= EQUAL * unit)


def check_uniform(
    run: Run, inputs: dict[str, list[str]], factors: dict[str, int], outputs: list[str], unit: float
) -> str:
    """What is odd about a network's result on ground without detail, where each band has its own reflectance; or "".

    A network for super-resolution gives about what it gets there: another magnitude means another scaling, the values
    of another band mean another order of bands.
    """
    bands = [band for names in inputs.values() for band in names]
    values = {band: 0.06 + 0.24 * index / max(len(bands) - 1, 1) for index, band in enumerate(bands)}
    size = 48 * max(factors.values())
    tensors = {
        name: np.broadcast_to(
            np.array([values[band] * unit for band in names], np.float32),
            (1, size // factors[name], size // factors[name], len(names)),
        ).copy()
        for name, names in inputs.items()
    }
    result = run(tensors) / unit
    middle = result.shape[1] // 2
    found = dict(zip(outputs, map(float, result[0, middle, middle]), strict=True))
    wanted, mean = np.mean([values.get(band, 0.18) for band in outputs]), np.mean(list(found.values()))
    if not 0.5 < mean / wanted < 2:
        return (
            f"On ground of reflectance {wanted:.2f} without detail its result is {mean:.2g}: check the scaling of "
            "input and output."
        )
    for band, value in found.items():
        nearest = min(values, key=lambda other: abs(values[other] - value))
        if band in values and nearest != band and abs(values[band] - value) > 2 * abs(values[nearest] - value) + 0.01:
            return f"Its output for {band} looks like {nearest}: check the order of the bands."
    return ""


def _images(
    channels: dict[str, int], factors: dict[str, int], height: int, width: int, unit: float
) -> dict[str, Array]:
    """Noise in the range of reflectances for each input; height and width in pixels of the finest."""
    rng = np.random.default_rng(0)
    return {
        name: (unit * rng.uniform(0.02, 0.4, (1, height // f, width // f, channels[name]))).astype(np.float32)
        for name, f in factors.items()
    }
