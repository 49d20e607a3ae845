"""Standard output and error of the command line: whatever they are, no text is cut and none stops the program."""

from __future__ import annotations

import codecs
import errno
import os
import sys
from contextlib import suppress
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
        """See `Console.print`. A stream that nobody reads any more is left alone.

        Raises OSError where standard output, with what the job gives, goes to a full disk.
        """
        try:
            super().print(*(_clean(part) for part in objects), **options)
        except OSError as error:
            self.quiet = True
            if not self.stderr and error.errno not in (errno.EBADF, errno.EIO):
                raise

    def on_broken_pipe(self) -> None:
        """The job goes on where nobody reads what it prints."""
        self.quiet = True

    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console.render_str`; the cells of tables come here."""
        return super().render_str(printable(text), **options)


def _clean(part: Any) -> Any:
    return Text(printable(part.plain), style=part.style) if isinstance(part, Text) else part


def open_streams() -> None:
    """Open what was closed before the start (``2>&-``): the next file would be opened in its place and get its text."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115


def end_streams() -> None:
    """Flush both streams; one that takes no text any more is replaced, or Python would end with an error for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)


def name_files_in_utf8() -> None:
    """Start Python again in its UTF-8 mode under a locale of another encoding: GDAL takes names of files in UTF-8."""
    if os.name == "posix" and not sys.flags.utf8_mode and sys.getfilesystemencoding().lower() != "utf-8":
        # The same program with the same arguments, as bytes of the old encoding.
        arguments = [os.fsencode(argument) for argument in sys.orig_argv[1:]]
        os.execv(sys.executable, [os.fsencode(sys.executable), b"-X", b"utf8", *arguments])  # noqa: S606


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
