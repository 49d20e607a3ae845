"""Measures of sliding windows: SSIM and UIQ, and maps of what they find in every place.

A window counts where it lies in the image and all its pixels count. Sums over windows are built by doubling (of two
neighbours, of four, ...) on pieces that stay in the processor's cache. What a window gives thus depends on its own
pixels alone, to the last bit, and not on the block that it is met in.

Of two images x and y both measures need the sums and spreads only, and those of u = x + y and v = x - y say the same
with less work: 2 (m_x² + m_y²) = m_u² + m_v², 4 m_x m_y = m_u² - m_v², and so the variances. Of equal images v is 0,
and the quality exactly 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..errors import InputError
from .measure import Block, Definition, Float, Mask, Measure, Score, Setup, averaged
from .pixel import angle_map

UIQ_WINDOW = 8
SSIM_WINDOW: dict[Definition, int] = {"reference": 11, "up42": 7}
SSIM_SIGMA = 1.5
PIECE = 64, 512
"""Rows and columns of windows that are worked on at once."""

FLAT = 1e-12
"""Variance over mean square below which a window is flat: float32 knows no better, and 16-bit integers differ more."""


class Windows:
    """Mean of a quality over the windows of each band."""

    title = ""

    def __init__(self, setup: Setup, side: int, before: int) -> None:
        """``side``: of the window. ``before``: its rows above, and columns left of, the pixel that it belongs to."""
        if min(setup.height, setup.width) < side:
            have = f"{setup.height} x {setup.width}"
            raise InputError(f"{self.title} needs images of at least {side} x {side} pixels; these have {have}.")
        self.setup, self.side, self.before = setup, side, before
        self.halo = max(before, side - 1 - before)
        self.sums = np.zeros((2, setup.bands))

    def local(self, x: Float, y: Float) -> Float:
        """The quality of every window in a piece (h, w) of a band, (h - side + 1, w - side + 1)."""
        raise NotImplementedError

    def observe(self, block: Block) -> Float:
        """How many windows count, and the sum of their qualities, (2, bands)."""
        sums = np.zeros_like(self.sums)
        for band in range(self.setup.bands):
            for piece in _pieces(block.own, block.x.shape[1:], self.side, self.before):
                quality = self.local(block.x[band][piece], block.y[band][piece])
                valid = block.valid[band][piece]
                if not valid.all():
                    quality = quality[whole(valid, self.side)]
                sums[:, band] += quality.size, quality.sum()
        return sums

    def take(self, part: Float) -> None:
        """Add a block's sums."""
        self.sums += part

    def score(self) -> Score:
        """See `Accumulator`."""
        count, quality = self.sums
        return averaged(np.divide(quality, count, out=np.full(len(count), np.nan), where=count > 0))

    def map(self, x: Float, y: Float, valid: Mask) -> Float:
        """Mean over bands of the quality of the window around every pixel, (H, W), NaN where no band has one."""
        bands, height, width = x.shape
        total, count = np.zeros((height, width)), np.zeros((height, width))
        middle = self.side // 2
        for piece in _pieces((slice(0, height), slice(0, width)), (height, width), self.side, self.before):
            for band in range(bands):
                quality = self.local(x[band][piece], y[band][piece])
                counts = whole(valid[band][piece], self.side)
                row, col = (part.start + middle for part in piece)
                place = slice(row, row + len(quality)), slice(col, col + quality.shape[1])
                total[place] += np.where(counts, quality, 0.0)
                count[place] += counts
        found: Float = np.divide(total, count, out=np.full((height, width), np.nan), where=count > 0)
        return found


class Uiq(Windows):
    """Reference: Wang and Bovik's, flat windows included; up42: 0 where its fraction is 0 / 0, and one mean of all.

    The spreads come from differences of neighbours' sums (Chan, Golub and LeVeque 1983, doi:10.2307/2683386), of which
    nothing cancels: they are right however small beside the values.
    """

    title = "UIQ"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, UIQ_WINDOW, 0)

    def local(self, x: Float, y: Float) -> Float:
        """See `Windows`."""
        width = x.shape[1]
        total_u, spread_u = _spread(_flat(x, y, np.add, self.side), width)
        total_v, spread_v = _spread(_flat(x, y, np.subtract, self.side), width)
        total_u *= total_u
        total_v *= total_v
        means, spreads = total_u + total_v, spread_u + spread_v
        total_u -= total_v  # from here on: four times the product of the means, and twice the covariance
        spread_u -= spread_v
        reference = self.setup.definition == "reference"
        flat = spreads <= (FLAT * means if reference else 0.0)
        empty = means == 0
        for fraction, part, bottom in ((spread_u, flat, spreads), (total_u, empty, means)):
            if part.any():
                fraction[part], bottom[part] = 1.0 if reference else 0.0, 1.0
        total_u *= spread_u
        means *= spreads
        total_u /= means
        return _windows(total_u, width, self.side)

    def score(self) -> Score:
        """See `Accumulator`."""
        score = super().score()
        count, quality = self.sums.sum(axis=1)
        if self.setup.definition == "reference":
            return score
        return Score(score.bands, float(quality / count) if count else float("nan"))


class Ssim(Windows):
    """Reference: Gaussian windows of 11 x 11, population covariance; up42: uniform ones of 7 x 7, sample covariance."""

    title = "SSIM"

    def __init__(self, setup: Setup) -> None:
        side = SSIM_WINDOW[setup.definition]
        super().__init__(setup, side, side // 2)

    def local(self, x: Float, y: Float) -> Float:
        """See `Windows`."""
        uniform = self.setup.definition == "up42"
        mean = _sum_of_seven if uniform else _gaussian
        # The uniform window's sums stand for its means: everything is n² times as large.
        n = self.side**2 if uniform else 1
        c1 = 2 * n * n * (0.01 * self.setup.data_range) ** 2
        c2 = 2 * n * (n - 1 if uniform else 1) * (0.03 * self.setup.data_range) ** 2
        width = x.shape[1]
        u, v = _flat(x, y, np.add, self.side), _flat(x, y, np.subtract, self.side)
        mean_u, mean_v = mean(u, width), mean(v, width)
        u *= u
        v *= v
        variance_u, variance_v = mean(u, width), mean(v, width)
        mean_u *= mean_u
        mean_v *= mean_v
        if uniform:
            variance_u *= n
            variance_v *= n
        variance_u -= mean_u
        variance_v -= mean_v
        quality = mean_u - mean_v
        quality += c1
        mean_u += mean_v
        mean_u += c1
        covariance = variance_u - variance_v
        covariance += c2
        variance_u += variance_v
        variance_u += c2
        quality *= covariance
        mean_u *= variance_u
        quality /= mean_u
        return _windows(quality, width, self.side)


def local_map(name: str, x: Float, y: Float, valid: Mask, setup: Setup) -> Float:
    """What ``uiq``, ``ssim`` or ``sam`` (degrees) find in every place, (H, W), NaN where no window or spectrum counts.

    ``x``, ``y``, ``valid``: as a `Block` has them, (bands, H, W). UIQ and SSIM are means over the bands, each at the
    middle of its window (UIQ's has 4 pixels before and 3 after it). The map of a block grown by the measure's halo has
    in the block's own part what the map of the whole image has there.
    """
    if name == "sam":
        return angle_map(x, y, valid)
    kinds: dict[str, type[Uiq] | type[Ssim]] = {"uiq": Uiq, "ssim": Ssim}
    if name not in kinds:
        raise InputError(f"There is no map of '{name}'; choose of uiq, ssim, sam.")
    return kinds[name](setup).map(x, y, valid)


def whole(valid: Mask, side: int) -> Mask:
    """Where all pixels of a window count, (h - side + 1, w - side + 1)."""
    for axis in (0, 1):
        valid = valid.swapaxes(0, axis)
        have = 1
        while have < side:
            step = min(have, side - have)
            valid = valid[:-step] & valid[step:]
            have += step
        valid = valid.swapaxes(0, axis)
    return valid


def _pieces(own: tuple[slice, slice], shape: tuple[int, ...], side: int, before: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the pieces whose windows are the block's own."""
    rows, cols = (
        [
            slice(start - before, min(start + step, stop) - before + side - 1)
            for stop in [min(part.stop, length - (side - 1 - before))]
            for start in range(max(part.start, before), stop, step)
        ]
        for part, length, step in zip(own, shape, PIECE, strict=True)
    )
    for row in rows:
        for col in cols:
            yield row, col


def _flat(x: Float, y: Float, operation: np.ufunc, side: int) -> Float:
    """x + y or x - y as one row of pixels, and so much behind it that the sums end with whole rows.

    A window that runs over the end of a row is worked out like any other, and left out in the end: one long row is
    faster than many.
    """
    flat = np.zeros(x.size + side - 1)
    operation(x, y, out=flat[: x.size].reshape(x.shape))
    return flat


def _windows(values: Float, width: int, side: int) -> Float:
    return values.reshape(-1, width)[:, : width - side + 1]


def _spread(total: Float, width: int) -> tuple[Float, Float]:
    """Sum of every window of 8 x 8, and 64 times the sum of its squared differences from its mean."""
    first, second = total[:-1], total[1:]
    spread, total = np.square(first - second), first + second
    for step in (2, 4, width, 2 * width, 4 * width):
        first, second = total[:-step], total[step:]
        between = first - second
        between *= between
        spread = spread[:-step] + spread[step:]
        spread *= 2
        spread += between
        total = first + second
    return total, spread


def _sum_of_seven(values: Float, width: int) -> Float:
    """Sum of every window of 7 x 7."""
    for step in (1, width):
        two = values[:-step] + values[step:]
        four = two[: -2 * step] + two[2 * step :]
        count = len(values) - 6 * step
        seven = four[:count]
        seven += two[4 * step :][:count]
        seven += values[6 * step :]
        values = seven
    return values


def _gaussian(values: Float, width: int) -> Float:
    """Weighted mean of every window of 11 x 11."""
    radius = SSIM_WINDOW["reference"] // 2
    weights = np.exp(-0.5 * (np.arange(radius + 1) / SSIM_SIGMA) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    for step in (1, width):
        count = len(values) - 2 * radius * step
        mean = values[radius * step :][:count] * weights[0]
        for away in range(1, radius + 1):
            pair = values[(radius - away) * step :][:count] + values[(radius + away) * step :][:count]
            pair *= weights[away]
            mean += pair
        values = mean
    return values


MEASURES: tuple[Measure, ...] = (
    Measure(
        "ssim",
        "SSIM",
        "",
        1.0,
        {
            "reference": "Structural similarity, mean of (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x² + m_y² + C1)(s_x² + "
            "s_y² + C2)) over Gaussian windows of 11 x 11 with sigma 1.5, C1 = (0.01 data range)², C2 = (0.03 data "
            "range)²; total: mean of the bands'. Wang et al. 2004, doi:10.1109/TIP.2003.819861.",
            "up42": "The same over uniform windows of 7 x 7 with sample covariance, as scikit-image's default.",
        },
        Ssim,
    ),
    Measure(
        "uiq",
        "UIQ",
        "",
        1.0,
        {
            "reference": "Universal image quality index, mean of 4 s_xy m_x m_y / ((s_x² + s_y²)(m_x² + m_y²)) over "
            "windows of 8 x 8; of two flat windows 2 m_x m_y / (m_x² + m_y²); total: mean of the bands'. Wang and "
            "Bovik 2002, doi:10.1109/97.995823.",
            "up42": "The same, but 0 where both windows are flat; total: mean over all windows of all bands.",
        },
        Uiq,
    ),
)
"""What this module adds to the catalogue."""
