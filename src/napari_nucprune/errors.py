"""Errors that are messages: what was found, what was expected, what to do."""


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
