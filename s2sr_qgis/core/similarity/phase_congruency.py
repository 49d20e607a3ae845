"""Phase congruency: where the Fourier components of an image are in phase, which is where edges and lines lie.

Kovesi, "Image features from phase congruency", Videre 1(3), 1999. Log-Gabor filters of four scales (wavelengths of 6 to
48 pixels) in several orientations, each with an even and an odd answer: the real and imaginary part of one complex
convolution. The two definitions of FSIM differ in the filters' shape, in the noise threshold and in how orientations
are put together:

- ``reference``, Zhang et al. 2011 with the constants of the authors' code: 4 orientations with a Gaussian spread, the
  sum of the orientations' energies over the sum of their amplitudes.
- ``up42``, phasepack 1.5 as image-similarity-measures calls it: 6 orientations with a spread of a cosine, the sum of
  the orientations' ratios, each weighted by how many scales answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from .measure import Definition, Float, Mask

Complex = NDArray[np.complex128]

SCALES, WAVELENGTH, OCTAVE = 4, 6, 2
_CUTOFF, _SHARPNESS = 0.45, 15
_NOISE = np.sqrt(np.pi / 2) + 2 * np.sqrt(2 - np.pi / 2)  # mean and two deviations of a Rayleigh distribution
_REFERENCE_SIGMA, _REFERENCE_SPREAD, _OVERRATED = 0.55, np.pi / (4 * 1.2), 1.7
_UP42_SIGMA, _UP42_EPSILON, _UP42_WIDTH, _UP42_GAIN = 0.5978, 1e-4, 0.5, 10
_STRIP = 2**15
"""Pixels that are worked on at once: what four scales of them hold stays in the processor's cache."""


@dataclass
class _Answers:
    """What the filters of one orientation give, each (H, W).

    ``energy``: sum over scales of A (cos d - |sin d|), A the amplitude and d the deviation from the mean phase.
    ``amplitude``: sum over scales. ``largest`` and ``finest``: the largest and that of the smallest scale.
    """

    energy: Float
    amplitude: Float
    largest: Float
    finest: Float


class PhaseCongruency:
    """Filters for images of one size."""

    def __init__(self, height: int, width: int, definition: Definition) -> None:
        self._up42 = definition == "up42"
        self._orientations = 6 if self._up42 else 4
        y, x = _frequencies(height)[:, np.newaxis], _frequencies(width)
        radius = np.hypot(x, y)
        low_pass = 1 / (1 + (radius / _CUTOFF) ** (2 * _SHARPNESS))
        radius[0, 0] = 1
        self._cosine, self._sine = x / radius, -y / radius
        sigma = _UP42_SIGMA if self._up42 else _REFERENCE_SIGMA
        self._radial = np.empty((SCALES, height, width))
        logarithm = np.log(radius * WAVELENGTH)
        for scale, radial in enumerate(self._radial):
            radial[:] = low_pass * np.exp(-((logarithm + scale * np.log(OCTAVE)) ** 2) / (2 * np.log(sigma) ** 2))
            radial[0, 0] = 0

    def of(self, images: list[Float], valid: Mask) -> list[Float]:
        """The congruency of each image, (H, W), 0 or more; images given at once share the work on the filters.

        ``images``: (H, W). ``valid``: bool (H, W), some of it True: the noise threshold looks at these pixels alone;
        give the others a value that makes no edges.
        """
        # The filters take no notice of the mean; without it, a flat image has no rounding that could look like phase.
        spectra = [fft.fft2(image - image.flat[0]) for image in images]
        energy, amplitude = ([np.zeros(valid.shape) for _ in images] for _ in range(2))
        for orientation in range(self._orientations):
            filters, columns = self._filters(orientation * np.pi / self._orientations)
            for index, spectrum in enumerate(spectra):
                answers = self._answers(spectrum[:, columns], filters)
                if self._up42:
                    energy[index] += _weighted(answers, valid)
                else:
                    energy[index] += np.maximum(answers.energy - _reference_noise(answers, filters, valid), 0)
                    amplitude[index] += answers.amplitude
        if self._up42:
            return energy
        return [_ratio(above, below) for above, below in zip(energy, amplitude, strict=True)]

    def _filters(self, angle: float) -> tuple[Float, slice]:
        """The filters of one orientation at the frequencies' columns where they are not zero, and these columns."""
        cosine = self._cosine * np.cos(angle) + self._sine * np.sin(angle)
        if self._up42:  # (1 + cos 3d) / 2 up to a distance d of 60°
            spread = np.where(cosine > 0.5, 0.5 + cosine * (2 * cosine * cosine - 1.5), 0.0)
        else:
            distance = np.arccos(np.clip(cosine, -1, 1))
            spread = np.exp(-(distance**2) / (2 * _REFERENCE_SPREAD**2))
        used = np.flatnonzero(spread.any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1)
        return self._radial[:, :, columns] * spread[:, columns], columns

    def _answers(self, spectrum: Complex, filters: Float) -> _Answers:
        """``spectrum``, ``filters``: some columns of frequencies that follow each other, (H, n) and (scales, H, n).

        Where these columns begin turns the phase of all scales by the same angle, which none of the answers sees.
        """
        height, width = self._sine.shape[0], self._cosine.shape[1]
        upright = fft.ifft(spectrum * filters, axis=1, overwrite_x=True)
        answers = _Answers(*(np.empty((height, width)) for _ in range(4)))
        epsilon = _UP42_EPSILON if self._up42 else np.finfo(np.float64).eps
        step = max(1, _STRIP // width)
        for top in range(0, height, step):
            rows = slice(top, top + step)
            both = fft.ifft(upright[:, rows], n=width, axis=2)
            even, odd = np.ascontiguousarray(both.real), np.ascontiguousarray(both.imag)
            # Not np.hypot, which guards against overflow and takes twice as long.
            amplitude = np.sqrt(even * even + odd * odd)
            np.sum(amplitude, axis=0, out=answers.amplitude[rows])
            np.max(amplitude, axis=0, out=answers.largest[rows])
            answers.finest[rows] = amplitude[0]
            mean_even, mean_odd = even.sum(axis=0), odd.sum(axis=0)
            length = np.sqrt(mean_even * mean_even + mean_odd * mean_odd)
            mean_even /= length + epsilon
            mean_odd /= length + epsilon
            even *= mean_odd
            odd *= mean_even
            even -= odd
            np.abs(even, out=even)
            answers.energy[rows] = length * (length / (length + epsilon)) - even.sum(axis=0)
        return answers


def _frequencies(length: int) -> Float:
    """Frequencies in cycles per pixel, the zero first; those of an odd length are stretched to reach ± 0.5."""
    return np.asarray(np.fft.fftfreq(length) * (length / max(length - length % 2, 1)), np.float64)


def _reference_noise(answers: _Answers, filters: Float, valid: Mask) -> float:
    """The threshold from the smallest scale's median power and the filters' own, Kovesi 1999 with Zhang's factor."""
    powers, gain = answers.finest[valid], float((filters[0] ** 2).sum())
    if not gain:  # an image of one pixel
        return 0.0
    middle = (powers.size - 1) // 2
    power = float(np.partition(powers, middle)[middle]) ** 2 / (np.log(2) * gain)
    whole = filters.sum(axis=0)
    even = (whole + np.roll(whole[::-1, ::-1], 1, axis=(0, 1))) / 2
    return float(np.sqrt(power * float((even**2).sum())) * _NOISE / _OVERRATED)


def _weighted(answers: _Answers, valid: Mask) -> Float:
    """Congruency of one orientation after phasepack."""
    tau = float(np.median(answers.finest[valid])) / np.sqrt(np.log(4))
    threshold = max(tau * (1 - 0.5**SCALES) / 0.5 * _NOISE, _UP42_EPSILON)
    width = (answers.amplitude / (answers.largest + _UP42_EPSILON) - 1) / (SCALES - 1)
    energy = np.maximum(answers.energy - threshold, 0) / (1 + np.exp(_UP42_GAIN * (_UP42_WIDTH - width)))
    return _ratio(energy, answers.amplitude)


def _ratio(above: Float, below: Float) -> Float:
    """0 where both are: an image without detail has no phase."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
