"""How a running job speaks to whoever started it. The core never prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from .errors import Cancelled

Level = Literal["debug", "info", "warning"]


class Progress:
    """Receives what a job reports. The base class is silent and never cancels; CLI and worker subclass it."""

    def progress(self, percent: float, text: str = "") -> None:
        """Overall progress of the job, 0 to 100, with a short text on the current step."""

    def log(self, text: str, level: Level = "info") -> None:
        """One line for the user."""

    def metric(self, **values: float) -> None:
        """Named figures of a running training, such as ``epoch``, ``loss``, ``valid_rmse``."""

    def artifact(self, name: str, path: str) -> None:
        """A file that the job has completed."""

    def cancelled(self) -> bool:
        """Whether the user asked to stop."""
        return False

    def check(self) -> None:
        """Raise `Cancelled` when the user asked to stop; call it between windows, patches and batches."""
        if self.cancelled():
            raise Cancelled("Cancelled by the user; no output was written.")


class _Passed(Progress):
    """Passes everything on to another progress."""

    def __init__(self, whole: Progress) -> None:
        self.whole = whole

    def progress(self, percent: float, text: str = "") -> None:
        """See `Progress`."""
        self.whole.progress(percent, text)

    def log(self, text: str, level: Level = "info") -> None:
        """See `Progress`."""
        self.whole.log(text, level)

    def metric(self, **values: float) -> None:
        """See `Progress`."""
        self.whole.metric(**values)

    def artifact(self, name: str, path: str) -> None:
        """See `Progress`."""
        self.whole.artifact(name, path)

    def cancelled(self) -> bool:
        """See `Progress`."""
        return self.whole.cancelled()


class Once(_Passed):
    """Passes everything on, but no warning twice: a job may open the same input several times."""

    def __init__(self, whole: Progress) -> None:
        super().__init__(whole)
        self._logged: set[str] = set()

    def log(self, text: str, level: Level = "info") -> None:
        """One line for the user; a warning that was logged before is dropped."""
        if level == "warning":
            if text in self._logged:
                return
            self._logged.add(text)
        self.whole.log(text, level)


class Part(_Passed):
    """A step of a longer job: passes everything on, its own 0 to 100 % as a share of the whole's."""

    def __init__(self, whole: Progress, start: float, stop: float) -> None:
        super().__init__(whole)
        self.start, self.stop = start, stop

    def progress(self, percent: float, text: str = "") -> None:
        """Overall progress of the step, as the whole's between ``start`` and ``stop``."""
        self.whole.progress(self.start + (self.stop - self.start) * percent / 100, text)

    def artifact(self, name: str, path: str) -> None:
        """Not passed on: files of a step are intermediate."""


_running: list[Progress] = []


def current() -> Progress:
    """The progress of the job that runs, for what lies too deep to be handed it; a silent one where no job runs."""
    return _running[-1] if _running else Progress()


@contextmanager
def running(progress: Progress) -> Iterator[None]:
    """Make ``progress`` the `current` one, for every thread, while a job runs."""
    _running.append(progress)
    try:
        yield
    finally:
        _running.remove(progress)
