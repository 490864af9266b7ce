"""The two-branch network and its files."""

from __future__ import annotations


def bundled() -> list[str]:
    """Return the names of the checkpoints that ship: the default first, its CR ladder next.

    Each is a name that `shipped.open_checkpoint` and ``--checkpoint`` take.
    """
    from .shipped import names

    return names()
