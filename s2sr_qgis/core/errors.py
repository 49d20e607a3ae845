"""Errors that a user can act on: one clear sentence each (what is wrong, where, what to do)."""

from __future__ import annotations


class S2SRError(Exception):
    """Base of every error whose message is written for the user.

    ``kind`` is the stable word of the worker's ``error`` event.
    """

    kind = "error"


class InputError(S2SRError):
    """A scene, a region or an option that cannot be used as it is."""

    kind = "input"


class ModelError(S2SRError):
    """A model folder that is incomplete, damaged, or does not cover what is asked."""

    kind = "model"


class DatasetError(S2SRError):
    """A dataset folder that is damaged or made for another task."""

    kind = "dataset"


class TrainingError(S2SRError):
    """A training that cannot go on, such as a loss that is not a number."""

    kind = "training"


class OutputError(S2SRError):
    """An output that cannot be written: no folder, no permission, no space."""

    kind = "output"


class MissingPackageError(S2SRError):
    """The worker's environment lacks a package that the job needs."""

    kind = "environment"


class Cancelled(S2SRError):
    """The user asked to stop; nothing half done is left behind."""

    kind = "cancelled"


def first_line(error: BaseException) -> str:
    """The first line of a library's error without its full stop, for one of our own sentences; else its class."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
