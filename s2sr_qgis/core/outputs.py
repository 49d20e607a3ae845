"""Atomic outputs: written in a hidden folder beside the target, renamed when complete, nothing left otherwise.

The hidden folder, `.NAME-xxxxxxxx.part`, is made for one output by one process, which holds a lock in it as long as it
lives. What a killed process left is therefore known, and the next run with the same output removes it.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk, quota or file size that is used up."""

LOCK = "lock"
_GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
_NAME_MAX = 255
"""Bytes of a file's name that file systems allow."""

OWN = (".aux.xml", ".ovr", ".msk", ".msk.ovr", ".ovr.msk", ".ovr.ovr", ".ovr.aux.xml", ".msk.aux.xml")
"""What GDAL keeps beside a file, appended to its whole name; it may be written with the new file too."""

_DATABASE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a GeoPackage; of another database, it destroys this one."""

_WORLD = (".tfw", ".tifw", ".tiffw", ".aux", ".rrd")
"""In the place of a GeoTIFF's suffix."""

_RASTERS = (".tif", ".tiff")
_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".jp2", ".webp")
"""Whose world file may be called ``.wld``, as a GeoTIFF's."""

_open: dict[Path, int] = {}
"""Hidden folders of this process, with the descriptors of their locks."""


@contextmanager
def atomic(target: str | os.PathLike[str], folder: bool = False) -> Iterator[Path]:
    """Give a temporary path for ``target``; renamed to it when the block succeeds, removed when it does not.

    The temporary path has the target's own name, in a hidden folder beside it. With ``folder``, it is an empty folder
    to fill, and the target must be absent or an empty folder. What killed runs left of this target is removed first.
    Raises `OutputError` for a folder that is absent or cannot be written, a target that is in the way, and a full disk;
    every other exception of the block passes unchanged.
    """
    path = Path(target).expanduser().absolute()
    check_target(path, folder)
    sweep(path)
    hidden: Path | None = None
    try:
        hidden = _make_hidden(path)
        temporary = hidden / path.name
        if folder:
            temporary.mkdir()
        yield temporary
        flush(temporary)
        if folder and path.is_dir():
            path.rmdir()
        put_in_place(temporary, path)
        with suppress(OSError):
            _flush_one(path.parent)
    except OSError as error:
        if not concerns(error, path):
            raise
        raise OutputError(output_sentence(error, path)) from error
    finally:
        if hidden:
            _remove(hidden)


def write_text(target: Path, text: str) -> None:
    """Write a text file, UTF-8, that is complete or as it was before. Raises `OutputError`."""
    with atomic(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def reserve(path: Path, size: int) -> None:
    """See that the disk has room for a file of ``size`` bytes at ``path``, which is absent again then. Raises OSError.

    For libraries that do not survive a full disk.
    """
    with path.open("wb") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, size)
    path.unlink()


def check_target(path: Path, folder: bool = False) -> None:
    """Raise `OutputError` when an output cannot be created at ``path``."""
    longest = len(os.fsencode(f".{path.name}-12345678.part"))
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            longest = _NAME_MAX + 1
    if longest > _NAME_MAX:
        raise OutputError(f"The name {path.name[:40]}… is too long for an output; choose a shorter one.")
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist; create it or choose another output.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"The folder {path.parent} cannot be written to; choose another output.")
    if not folder and path.is_dir():
        raise OutputError(f"{path} is a folder; name a file to write.")
    if folder and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path} exists and is not an empty folder; delete it or choose another output.")


def concerns(error: OSError, path: Path) -> bool:
    """Whether an OS error is about writing the output at ``path``, rather than about reading something else."""
    if error.errno in (*FULL, errno.EROFS):
        return True
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    hidden = str(path.with_name(f".{path.name}-"))
    return any(name in (str(path), str(path.parent)) or name.startswith(hidden) for name in names)


def output_sentence(error: OSError, path: Path) -> str:
    """What an OS error means for the output at ``path``, in one sentence."""
    if error.errno in FULL:
        return f"The disk is full: {path} could not be written; free some space or choose another output."
    if error.errno in _GONE and not path.parent.is_dir():
        return f"The folder {path.parent} is gone, so {path.name} could not be written; make it again and start anew."
    return f"{path} could not be written: {error.strerror or error}; choose another output."


def sweep(path: Path) -> None:
    """Remove what killed processes left of the output at ``path``; what a living one writes stays."""
    start = f".{path.name}-"
    try:
        names = os.listdir(path.parent)
    except OSError:
        return
    for name in names:
        if name.startswith(start) and name.endswith(".part") and len(name) == len(start) + 13:
            left = path.with_name(name)
            lock = None if left in _open or left.is_symlink() else _lock(left)
            if lock is not None:
                _remove(left, lock)


def discard_all() -> None:
    """Remove every unfinished output of this process, which is about to end without ado."""
    for hidden in list(_open):
        _remove(hidden)


def _make_hidden(path: Path) -> Path:
    """A new folder of this process alone, with its lock."""
    for _ in range(100):
        hidden = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.part")
        with suppress(FileExistsError):
            hidden.mkdir(mode=0o700)  # never opens what another process has put there
            try:
                lock = _lock(hidden, own=True)
            except OSError:
                shutil.rmtree(hidden, ignore_errors=True)
                raise
            # None: between the two lines, another process took the folder for one that was left.
            if lock is not None:
                _open[hidden] = lock
                return hidden
    raise OutputError(f"{path} could not be written: no temporary folder can be kept beside it; choose another output.")


def _lock(hidden: Path, own: bool = False) -> int | None:
    """Take the lock of a hidden folder, ``own`` where this process made it; None where another process may live."""
    file = hidden / LOCK
    if sys.platform == "win32":
        # A file that a living process has open cannot be deleted there.
        try:
            file.unlink(missing_ok=True)
            return os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        except OSError:
            return None
    import fcntl

    try:
        descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if own and error.errno not in _GONE:
            raise
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == file.stat().st_ino:
            return descriptor
    except OSError as error:
        # Without locks on this file system, the owner goes on, and nobody else knows whether it lives.
        if own and error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            return descriptor
    os.close(descriptor)
    return None


def _remove(hidden: Path, lock: int | None = None) -> None:
    """Remove a hidden folder and let its lock go. What cannot be removed is left for a later run."""
    lock = _open.pop(hidden, lock)
    if lock is not None and sys.platform == "win32":
        os.close(lock)
    shutil.rmtree(hidden, ignore_errors=True)
    if lock is not None and sys.platform != "win32":
        os.close(lock)


def flush(path: Path) -> None:
    """Have a complete file, or all of a folder, on the disk: some file systems notice only then that it is full."""
    for folder, _, names in os.walk(path):
        for name in names:
            _flush_one(Path(folder, name))
        _flush_one(Path(folder))
    if path.is_file():
        _flush_one(path)


def _flush_one(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # this file system cannot
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)


def put_in_place(temporary: Path, target: Path) -> None:
    """Rename a complete file to its name; side files of an older file there go, those of the new one come with it.

    Raises `OutputError` where an old side file cannot be removed, for GDAL would read it with the new file.
    """
    os.replace(temporary, target)
    for side in stale(target):
        try:
            side.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{target} is complete, but {side.name} beside it belongs to an older file and cannot be removed "
                f"({error.strerror or error}); delete it, or QGIS and GDAL will use it."
            ) from error
    for suffix in OWN:
        own = temporary.with_name(temporary.name + suffix)
        if own.exists():
            os.replace(own, target.with_name(target.name + suffix))


def stale(target: Path) -> list[Path]:
    """Side files that lie beside ``target`` now."""
    names = [target.name + suffix for suffix in OWN]
    if target.suffix.lower() == ".gpkg":
        names += [target.name + suffix for suffix in _DATABASE]
    if target.suffix.lower() in _RASTERS:
        names += [target.stem + suffix for suffix in _WORLD]
        if not any(target.with_suffix(suffix).exists() for suffix in _IMAGES):
            names.append(target.stem + ".wld")
    # A folder of such a name, or a file of it that is an output too, is none of GDAL's.
    return [path for path in map(target.with_name, names) if path.is_file() or path.is_symlink()]
