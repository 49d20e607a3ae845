"""Simulated clouds over real ground, so that networks see what few training scenes hold.

Sentinel-2 looks at each band at another moment and under another angle, so a cloud above the ground stands at another
place in every band: over two seconds lie between B02 and B09, and 1 s at 5 km height is 43 m. A network that has never
seen this sharpens clouds badly. Times: Sentinel-2 MSI Technical Guide, inter-band offsets of the focal plane. Texture:
clouds are fractal, with power spectra of slope about -5/3 in one dimension (Davis et al. 1997,
doi:10.1175/1520-0469(1997)054<1423:TLTPOA>2.0.CO;2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift

from ..raster.degradation import degrade
from .card import PatchCard

Float = NDArray[np.float32]

DELAY = {
    "B02": 0.0, "B08": 0.264, "B03": 0.527, "B04": 1.005, "B05": 1.269, "B11": 1.468, "B06": 1.525,
    "B07": 1.790, "B8A": 2.055, "B12": 2.085, "B01": 2.314, "B09": 2.586,
}  # fmt: skip
"""Seconds after B02 at which the instrument sees the same ground in a band."""

COLOUR = {
    "B01": (0.75, 1.0), "B02": (0.95, 1.05), "B03": (0.93, 1.03), "B04": (0.95, 1.06), "B05": (0.97, 1.1),
    "B06": (0.98, 1.12), "B07": (0.98, 1.13), "B08": (0.96, 1.1), "B8A": (0.98, 1.15), "B09": (0.3, 0.8),
    "B11": (0.45, 0.95), "B12": (0.3, 0.8),
}  # fmt: skip
"""Range of a cloud's reflectance in a band, as a share of its brightness: white, darker where ice and vapour absorb."""

PARALLAX = 0.0085
"""Metres that a point one metre high moves a second: 6.7 km/s of ground speed at 786 km height."""


def add_clouds(images: dict[str, Float], tensors: list[PatchCard], pixel: float, rng: np.random.Generator) -> None:
    """Put one field of clouds over the inputs of a scene, in place.

    Args:
        images: inputs by name, (bands, h, w), DN without offset, all of the same ground.
        tensors: what the inputs are; the first is the finest.
        pixel: side of the finest input's pixel in metres.
        rng: of cover, texture, height, wind and colour.
    """
    finest = images[tensors[0].name]
    shape = (finest.shape[1], finest.shape[2])
    field = fractal(shape, rng.uniform(2.6, 3.6), rng)
    edge = float(np.quantile(field, 1 - rng.uniform(0.3, 0.8)))
    opacity = np.clip((field - edge) / rng.uniform(0.1, 0.9), 0, 1) ** rng.uniform(0.7, 1.5) * rng.uniform(0.7, 1.0)
    relief = 0.22 * fractal(shape, rng.uniform(2.2, 3.2), rng) + 0.1 * np.clip(field - edge, 0, 3)
    light = opacity * np.exp(relief) * rng.uniform(2500, 7500)
    # Neighbouring detectors look forwards and backwards in turn, hence either sign. One in five: fog on the ground.
    height = rng.uniform(0, 6000) * float(rng.random() < 0.8)
    drift = rng.choice([-1.0, 1.0]) * height * PARALLAX + rng.normal(0, 12), rng.normal(0, 12)  # m/s, wind included
    for tensor in tensors:
        coarser = tensor.coarser(tensors[0].resolution)
        for index, band in enumerate(tensor.bands):
            moved = [component * DELAY[band] / pixel for component in drift]
            cover, cloud = (
                degrade(shift(image, moved, order=1, mode="nearest"), coarser) if coarser > 1
                else shift(image, moved, order=1, mode="nearest")
                for image in (opacity.astype(np.float32), light.astype(np.float32))
            )  # fmt: skip
            ground = images[tensor.name][index]
            images[tensor.name][index] = ground * (1 - cover) + cloud * rng.uniform(*COLOUR[band])


def fractal(shape: tuple[int, int], slope: float, rng: np.random.Generator) -> Float:
    """Noise of power spectrum f**-slope (two-dimensional), mean 0, standard deviation 1; nothing beyond 400 pixels."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1
    amplitude = frequency ** (-slope / 2)
    amplitude[frequency < max(1 / 400, 1 / max(shape))] = 0
    amplitude[0, 0] = 0
    noise = np.fft.irfft2(amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape)), s=shape)
    texture: Float = ((noise - noise.mean()) / max(float(noise.std()), 1e-9)).astype(np.float32)
    return texture
