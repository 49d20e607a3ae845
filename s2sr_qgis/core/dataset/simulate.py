"""A Sentinel-2 image out of a finer one: the sensor's blur, its sampling, its noise. The job `simulate`.

Blur: a Gaussian point spread function whose response at the Nyquist frequency of the simulated grid is the band's MTF
(`mtf.MTF_AT_NYQUIST`); the finer image's own blur comes on top of it. Sampling: the blurred image at the centres of the
pixels; the MTF holds the pixel's own extent already. Noise: white and Gaussian, of a variance that grows with the
signal as that of photons does, and of the signal-to-noise ratio that MSI was specified for at its reference radiance
(`REFERENCE`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..jobs import SimulateJob
from ..progress import Progress
from ..raster.grid import Grid, Window
from ..raster.image import FileImage
from ..raster.targets import check_outputs
from ..raster.tiles import tiles
from ..raster.writer import FileOptions, OutputBand, assumed, write_raster
from ..scene.bands import BANDS, band_name
from ..scene.mtf import MTF_AT_NYQUIST, sensor_sigma

Float = NDArray[np.float32]

REFERENCE: dict[str, tuple[float, float, float]] = {
    "B01": (129, 129, 1884.69),
    "B02": (128, 154, 1959.66),
    "B03": (128, 168, 1823.24),
    "B04": (108, 142, 1512.06),
    "B05": (74.5, 117, 1424.64),
    "B06": (68, 89, 1287.61),
    "B07": (67, 105, 1162.08),
    "B08": (103, 174, 1041.63),
    "B8A": (52.5, 72, 955.32),
    "B09": (9, 114, 812.92),
    "B11": (4, 100, 245.59),
    "B12": (1.5, 100, 85.25),
}
"""Reference radiance (W m-2 sr-1 um-1) and the signal-to-noise ratio required there: MSI's specification, table 1 of
Drusch et al. 2012, doi:10.1016/j.rse.2011.11.026. Then the solar irradiance (W m-2 um-1) of Sentinel-2A's products
(SOLAR_IRRADIANCE in MTD_MSIL1C.xml), which makes reflectance of radiance."""

SUN_ZENITH = 45.0
"""Degrees; with the irradiance it tells which reflectance the reference radiance is."""

QUANTIFICATION = 10000.0
TRUNCATE = 4.0
"""Where the Gaussian is cut, in sigmas."""

FINE_SIDE = 4096
"""About how many pixels of the finer image a window is wide: bounds the memory."""


def simulate(job: SimulateJob, progress: Progress) -> dict[str, Any]:
    """Simulate the image and write it as a GeoTIFF of named bands, DN without offset (reflectance x 10000), uint16.

    The grid has the finer image's upper-left corner and pixels of ``job.spacing``; what is left of the image at its
    right and lower edge, less than a pixel, is dropped. A pixel is nodata (0) where any of the image's pixels in it is.
    Returns ``output``, ``width``, ``height``, ``bands`` and ``ratio``, how much coarser the result is.
    Raises `InputError`, `OutputError`, `Cancelled`.
    """
    output = job.output.expanduser().absolute()
    check_outputs(rasters=[output], inputs=[job.image])
    with FileImage(Path(job.image).expanduser()) as image:
        work = _Simulation(image, _bands(job.bands, image), _spacing(job, image.grid), job)
        bands = [
            OutputBand(name, BANDS[name].wavelength, BANDS[name].bandwidth, 1 / QUANTIFICATION) for name in work.bands
        ]
        for warning in image.warnings:
            progress.log(warning, "warning")
        tags = {"TIFFTAG_SOFTWARE": "s2sr", "SIMULATED_FROM": Path(job.image).name, **assumed(image.warnings)}
        options = FileOptions(nodata=0, block=work.block, tags=tags)
        with write_raster(output, work.grid, bands, options, progress.check) as writer:
            parts = tiles(work.grid.window, work.block, 0, 1)
            for number, tile in enumerate(parts, start=1):
                progress.check()
                writer.write(tile.core, work.window(tile.core))
                progress.progress(95 * number / len(parts), f"Window {number} of {len(parts)}")
    progress.log(
        f"{job.image}: {', '.join(work.bands)} from {image.grid.spacing:g} m to {job.spacing:g} m, "
        f"{work.grid.width} x {work.grid.height} pixels{'' if job.noise else ', without noise'}"
    )
    progress.progress(100, "Done")
    progress.artifact("output", str(output))
    return {
        "output": str(output),
        "width": work.grid.width,
        "height": work.grid.height,
        "bands": list(work.bands),
        "ratio": work.ratio,
        "assumptions": list(image.warnings),
    }


def reference(band: str) -> tuple[float, float]:
    """MSI's reference radiance as DN (reflectance x 10000) under a sun of `SUN_ZENITH`, and the noise there in DN."""
    radiance, ratio, irradiance = REFERENCE[band]
    level = QUANTIFICATION * math.pi * radiance / (irradiance * math.cos(math.radians(SUN_ZENITH)))
    return level, level / ratio


@dataclass
class _Simulation:
    """The work on one window. ``bands``: place in the image (from 0) by name; ``spacing`` in the CRS's unit."""

    image: FileImage
    bands: dict[str, int]
    spacing: float
    job: SimulateJob

    def __post_init__(self) -> None:
        fine = self.image.grid
        self.ratio = self.spacing / fine.spacing
        tiny = 1e-6  # a whole ratio such as 6 / 0.6 is none in binary numbers
        width, height = (math.floor(side / self.ratio + tiny) for side in (fine.width, fine.height))
        if not width or not height:
            raise InputError(
                f"{self.image.path} covers {fine.width * fine.spacing:g} x {fine.height * fine.spacing:g} m, which is "
                f"less than one pixel of {self.job.spacing:g} m; simulate a smaller spacing or take a larger image."
            )
        self.grid = Grid(fine.crs, fine.x, fine.y, self.spacing, width, height)
        self.block = min(max(int(FINE_SIDE / self.ratio) // 16 * 16, 64), 512)
        self.reach = TRUNCATE * self.ratio * max(sensor_sigma(name) for name in self.bands)

    def window(self, window: Window) -> dict[str, NDArray[np.uint16]]:
        """DN of a window of the simulated grid, by band."""
        rows = self._span(window.row, window.height, self.image.grid.height)
        cols = self._span(window.col, window.width, self.image.grid.width)
        pixels = self.image.read(Window(cols[0], rows[0], cols[1] - cols[0], rows[1] - rows[0]))
        own = self._inside(window.row, window.height, rows), self._inside(window.col, window.width, cols)
        images = {}
        for name, place in self.bands.items():
            data = pixels[place].astype(np.float32)
            valid = np.isfinite(data)
            if self.image.nodata is not None and not math.isnan(self.image.nodata):
                valid &= pixels[place] != self.image.nodata
            sigma = self.ratio * sensor_sigma(name)
            down = self._weights(window.row, window.height, rows, sigma)
            across = self._weights(window.col, window.width, cols, sigma)
            weight = valid.astype(np.float32)
            total = down @ np.where(valid, data, np.float32(0)) @ across.T
            weights = down @ weight @ across.T
            whole = own[0] @ (1 - weight) @ own[1].T == 0
            signal = np.divide(total, weights, out=np.zeros_like(total), where=whole) * np.float32(self.job.gain)
            if self.job.noise:
                signal = self._noisy(signal, name, window)
            images[name] = np.where(whole, np.clip(np.rint(signal), 1, 65535), 0).astype(np.uint16)
        return images

    def _span(self, first: int, count: int, size: int) -> tuple[int, int]:
        """First and last (exclusive) fine pixel that a run of simulated pixels depends on."""
        start = math.floor(self._centre(first) - self.reach)
        stop = math.ceil(self._centre(first + count - 1) + self.reach) + 1
        return max(start, 0), min(stop, size)

    def _centre(self, pixel: Any) -> Any:
        """Where the centre of a simulated pixel lies, in fine pixels counted from the first one's centre."""
        return (pixel + 0.5) * self.ratio - 0.5

    def _weights(self, first: int, count: int, span: tuple[int, int], sigma: float) -> Float:
        """The Gaussian around each simulated pixel, (count, fine pixels)."""
        away = np.arange(*span) - self._centre(first + np.arange(count))[:, np.newaxis]
        gaussian = np.exp(-0.5 * np.square(away / sigma))
        return np.where(np.abs(away) <= TRUNCATE * sigma, gaussian, 0).astype(np.float32)

    def _inside(self, first: int, count: int, span: tuple[int, int]) -> Float:
        """1 where a fine pixel's centre lies in a simulated pixel, (count, fine pixels)."""
        away = np.arange(*span) - self._centre(first + np.arange(count))[:, np.newaxis]
        return np.asarray(np.abs(away) <= self.ratio / 2, np.float32)

    def _noisy(self, signal: Float, band: str, window: Window) -> Float:
        level, sigma = reference(band)
        # Seeded by place and band, so that neither the order of windows nor the other bands matter.
        rng = np.random.default_rng((self.job.seed, BANDS[band].band_id, window.row, window.col))
        deviation = sigma * np.sqrt(np.maximum(signal, 0) / level)
        return np.asarray(signal + deviation * rng.standard_normal(signal.shape, np.float32), np.float32)


def _bands(names: list[str], image: FileImage) -> dict[str, int]:
    """Place of each named band in the image; '-' names none. Raises `InputError`."""
    if len(names) != len(image.bands):
        raise InputError(
            f"{image.path} has {len(image.bands)} bands, but {len(names)} names are given ({', '.join(names)}); name "
            "each band in file order, with '-' for one to leave out."
        )
    found: dict[str, int] = {}
    for place, text in enumerate(names):
        if text.strip() == "-":
            continue
        name = band_name(text)
        if name in found:
            raise InputError(f"Two bands of {image.path} are named {name}; name each band once.")
        if name not in MTF_AT_NYQUIST:
            raise InputError(f"{name} cannot be simulated; the bands that can are {', '.join(MTF_AT_NYQUIST)}.")
        found[name] = place
    resolutions = sorted({BANDS[name].resolution for name in found})
    if not found:
        raise InputError(f"No band of {image.path} is named; name at least one, such as B04.")
    if len(resolutions) > 1:
        raise InputError(
            f"{', '.join(found)} cannot be simulated on one grid: Sentinel-2 records them at "
            f"{' and '.join(map(str, resolutions))} m; name bands of one resolution, and '-' for the others."
        )
    return found


def _spacing(job: SimulateJob, grid: Grid) -> float:
    """The simulated pixel's size in the unit of the image's CRS. Raises `InputError`."""
    if grid.crs is not None and grid.crs.is_geographic:
        raise InputError(f"{job.image} is in degrees; warp it to a projected CRS such as UTM first, with gdalwarp.")
    if grid.y_spacing is not None:
        raise InputError(
            f"The pixels of {job.image} are not square ({grid.spacing:g} x {grid.y_spacing:g}); warp it first, with "
            "gdalwarp -tr."
        )
    metres = float(grid.crs.linear_units_factor[1]) if grid.crs else 1.0
    spacing = job.spacing / metres
    if spacing < 2 * grid.spacing * (1 - 1e-9):
        raise InputError(
            f"{job.image} has pixels of {grid.spacing * metres:g} m, too coarse to simulate {job.spacing:g} m from: "
            "they must be half as wide at most."
        )
    return spacing
