"""What the project's reports have in common: one HTML file with its style, its pictures, and no link to anything."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOLDER = Path(__file__).parent


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


def png(figure: Figure, dpi: float | None = None) -> str:
    """A figure as the address of a PNG that holds its own bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    if dpi is not None:
        figure.set_dpi(dpi)
    FigureCanvasAgg(figure).print_png(stream)  # type: ignore[no-untyped-call]
    return address(stream.getvalue(), "image/png")


def address(content: bytes, kind: str) -> str:
    """Bytes of a media type as an address."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
