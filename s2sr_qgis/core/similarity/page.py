"""What the project's reports have in common: one HTML file with its style, its pictures, and no link to anything."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOLDER = Path(__file__).parent
_NATURAL = ("B04", "B03", "B02")


@dataclass(frozen=True)
class Picture:
    """A picture of a page.

    Attributes:
        address: ``data:`` address that holds the picture's own bytes, as `png` gives it.
        alt: what it shows, for who cannot see it.
        caption: a line below it.
    """

    address: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures that belong together, so many beside each other on a wide page, and the bar of their colours.

    ``charts``: they have text, so that a narrow page shows them below each other.
    """

    title: str
    text: str
    pictures: Sequence[Picture]
    columns: int
    bar: Picture | None = None
    charts: bool = False


def render(template: Path, **values: Any) -> str:
    """The page that a Jinja template makes of these values; it may extend ``page.html``. All text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, _FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)


def png(figure: Figure, dpi: float = 144, colours: int | None = 128) -> str:
    """A figure as the address of a PNG that holds its own bytes; few colours (None: all) keep it small."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]
    stream = io.BytesIO()
    (picture.quantize(colours) if colours else picture).save(stream, "PNG", optimize=True)
    return address(stream.getvalue(), "image/png")


def address(content: bytes, kind: str) -> str:
    """Bytes of a media type as an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def composite(bands: Sequence[str]) -> list[int]:
    """Which bands a picture shows: red, green, blue by name, else the first three, else the first."""
    names = list(bands)
    if all(name in names for name in _NATURAL):
        return [names.index(name) for name in _NATURAL]
    return [0, 1, 2] if len(names) >= 3 else [0]
