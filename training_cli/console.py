"""Standard output and error of the command line: whatever they are, no text is cut and none stops the program."""

from __future__ import annotations

import codecs
import sys
from typing import IO, Any

from rich.console import Console
from rich.text import Text

from s2sr_qgis.core.redaction import printable

WIDE = 1_000_000
"""Columns where no terminal bounds them: a name in a pipe or a log must be whole."""

_PLAIN = {"°": "deg", "∞": "inf", "–": "-", "—": "-", "…": "...", "×": "x", "²": "2", "→": "->", "±": "+-", "µ": "u"}


class _Clean(Console):
    """A console that prints no token, no password and no character that steers the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        """See `Console.print`."""
        super().print(*(_clean(part) for part in objects), **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console.render_str`; the cells of tables come here."""
        return super().render_str(printable(text), **options)


def _clean(part: Any) -> Any:
    return Text(printable(part.plain), style=part.style) if isinstance(part, Text) else part


def make_printable() -> None:
    """Let both streams replace what their encoding lacks (cp1252, ASCII, names of files that are no UTF-8)."""
    codecs.register_error("s2sr", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="s2sr")


def console(stderr: bool = False) -> Console:
    """A console on standard output or error; where that is no terminal, as wide as any text."""
    stream = sys.stderr if stderr else sys.stdout
    return _Clean(stderr=stderr, highlight=False, markup=False, width=None if is_terminal(stream) else WIDE)


def is_terminal(stream: IO[str] | Any) -> bool:
    """Whether a stream is a terminal, whatever FORCE_COLOR and the like say."""
    try:
        return bool(stream.isatty())
    except (AttributeError, OSError, ValueError):  # closed, or absent as under pythonw
        return False


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(_PLAIN.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in text)
    return plain, error.end
