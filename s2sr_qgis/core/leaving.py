"""How a process of our own ends when something in it does not: a read from a server that stalls, a full disk."""

from __future__ import annotations

import errno
import os
import sys
import threading
from contextlib import suppress

from .outputs import FULL, discard_all

_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "start new thread", "start thread")
"""How libraries that raise errors of their own speak of memory that they did not get."""


def leave(status: int) -> None:
    """End the process when its job is done, without waiting for threads that a server keeps; else return."""
    main = threading.main_thread()
    if any(thread is not main and not thread.daemon and thread.is_alive() for thread in threading.enumerate()):
        leave_now(status)


def leave_now(status: int) -> None:
    """End the process at once, from any thread; its unfinished outputs are removed."""
    with suppress(Exception):
        discard_all()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def resource_sentence(error: BaseException) -> str | None:
    """One sentence for an error, or its cause, that is a lack of memory, threads, files or space; None for others."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if isinstance(seen, MemoryError) or any(word in text for word in _MEMORY):
            return (
                "There is not enough memory, or no thread could be started; free some, raise the limit of the process, "
                "or lower the memory, threads or tile size of the job."
            )
        if isinstance(seen, OSError) and seen.errno in FULL:
            place = f" ({os.fsdecode(seen.filename)})" if isinstance(seen.filename, str | bytes) else ""
            return f"The disk is full{place}; free some space or choose another output."
        if isinstance(seen, OSError) and seen.errno in (errno.EMFILE, errno.ENFILE):
            return "Too many files are open; raise the limit of open files (ulimit -n) and try again."
        seen = seen.__cause__ or seen.__context__
    return None
