"""Writing outputs: beside the target under a hidden name, renamed when complete, nothing left otherwise."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError

_SIDECARS = ("", ".aux.xml", ".ovr", ".ovr.tmp", ".msk")


@contextmanager
def atomic(target: str | os.PathLike[str], folder: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``target``; renamed to it when the block succeeds, removed when it does not.

    The temporary name is hidden and keeps the target's suffix. With ``folder``, it is an empty folder to fill, and the
    target must be absent or an empty folder. Raises `OutputError` for a folder that is absent or cannot be written, a
    target that is in the way, and a full disk; every other exception of the block passes unchanged.
    """
    path = Path(target).expanduser().absolute()
    check_target(path, folder)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        if folder:
            temporary.mkdir()
        yield temporary
        if folder and path.is_dir():
            path.rmdir()
        os.replace(temporary, path)
    except OSError as error:
        if not concerns(error, temporary):
            raise
        raise OutputError(output_sentence(error, path)) from error
    finally:
        discard(temporary)


def check_target(path: Path, folder: bool = False) -> None:
    """Raise `OutputError` when an output cannot be created at ``path``."""
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist; create it or choose another output.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"The folder {path.parent} cannot be written to; choose another output.")
    if not folder and path.is_dir():
        raise OutputError(f"{path} is a folder; name a file to write.")
    if folder and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} exists and is not an empty folder; delete it or choose another output.")


def concerns(error: OSError, temporary: Path) -> bool:
    """Whether an OS error is about writing this output, rather than about reading something else."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        return True
    return any(str(name).startswith(str(temporary)) for name in (error.filename, error.filename2) if name)


def output_sentence(error: OSError, path: Path) -> str:
    """What an OS error means for the output at ``path``, in one sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"The disk is full: {path} could not be written; free some space or choose another output."
    return f"{path} could not be written: {error.strerror or error}; choose another output."


def discard(temporary: Path) -> None:
    """Remove a temporary output, file or folder, with what GDAL puts beside it."""
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
        return
    for suffix in _SIDECARS:
        temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
