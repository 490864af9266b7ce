"""Errors that are messages: what was found, what was expected, what to do."""

from __future__ import annotations

import errno


class NucpruneError(Exception):
    """Base of all errors whose text is meant to be read by a user as it stands."""

    exit_code = 1


class InputError(NucpruneError):
    """What the user gave is wrong (exit code 2)."""

    exit_code = 2


class EnvironmentStopped(NucpruneError):
    """Disk full, folder read-only, device lost: can be continued (exit code 3)."""

    exit_code = 3


class Cancelled(NucpruneError):
    """The user cancelled (exit code 130)."""

    exit_code = 130


#: What the disk or its owner refuses, and what to do.
REFUSALS = {
    errno.ENOSPC: "is full; make room and repeat what you did",
    errno.EDQUOT: "is full for you; make room and repeat what you did",
    errno.EROFS: "cannot be written; choose another folder",
    errno.EACCES: "may not be used; choose another, or ask for the right to",
    errno.EPERM: "may not be used; choose another, or ask for the right to",
}


def of_environment(error: BaseException) -> EnvironmentStopped | None:
    """Return what the computer refused as a sentence; None where the error is something else."""
    if isinstance(error, MemoryError):
        return EnvironmentStopped(
            "The memory does not hold this; close something else, or take a smaller part."
        )
    if isinstance(error, OSError) and error.errno in REFUSALS:
        what = error.filename or "The disk"
        return EnvironmentStopped(f"{what} {REFUSALS[error.errno]}.")
    return None
