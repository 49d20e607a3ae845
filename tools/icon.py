"""Draws the plugin's icon: coarse pixels that turn fine. Writes icons/s2sr.svg and icons/s2sr.png (needs PyQt)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from qgis.PyQt.QtCore import QRectF
from qgis.PyQt.QtGui import QGuiApplication, QImage, QPainter
from qgis.PyQt.QtSvg import QSvgRenderer

ICONS = Path(__file__).resolve().parents[1] / "s2sr_qgis" / "icons"
SIDE = 64.0


def height(x: float, y: float) -> float:
    """A river valley between hills: 0 is water, 1 the hilltop."""
    river = abs(y - (34 + 13 * ((x - 32) / 26) ** 3 - 9 * (x - 32) / 26))
    return min(1.0, (river / 30) ** 0.8)


def colour(value: float) -> str:
    stops = [(0.0, (24, 92, 160)), (0.18, (52, 150, 190)), (0.3, (226, 208, 130)), (0.55, (110, 170, 70)),
             (1.0, (26, 92, 56))]  # fmt: skip
    for (low, a), (high, b) in pairwise(stops):
        if value <= high:
            part = (value - low) / (high - low)
            return "#" + "".join(f"{round(p + (q - p) * part):02x}" for p, q in zip(a, b, strict=True))
    return "#1a5c38"


def squares() -> list[str]:
    """Cells of 16, 8 and 4 units from left to right, each in the mean colour of its ground."""
    found = []
    for left, right, side in ((2, 18, 15.0), (17, 32, 7.5), (32, 62, 3.75)):
        x = float(left)
        while x < right - 0.01:
            y = 2.0
            while y < 61.99:
                mean = sum(height(x + side * (i + 0.5) / 4, y + side * (j + 0.5) / 4)
                           for i in range(4) for j in range(4)) / 16  # fmt: skip
                found.append(f'<rect x="{x:g}" y="{y:g}" width="{side + 0.1:g}" height="{side + 0.1:g}" '
                             f'fill="{colour(mean)}"/>')  # fmt: skip
                y += side
            x += side
    return found


def main() -> None:
    svg = "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE:g} {SIDE:g}" width="{SIDE:g}" height="{SIDE:g}">',
        '<g shape-rendering="crispEdges">', *squares(), "</g>", "</svg>", "",
    ])  # fmt: skip
    (ICONS / "s2sr.svg").write_text(svg, encoding="utf-8")
    application = QGuiApplication([])
    image = QImage(256, 256, QImage.Format.Format_ARGB32)
    image.fill(0)
    painter = QPainter(image)
    QSvgRenderer(svg.encode()).render(painter, QRectF(0, 0, 256, 256))
    painter.end()
    image.save(str(ICONS / "s2sr.png"))
    application.quit()


if __name__ == "__main__":
    main()
