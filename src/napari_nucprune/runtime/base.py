"""The door of every runtime."""

from __future__ import annotations

from typing import Protocol

from ..checkpoint.format import Checkpoint
from ..doors import Field, Maps, Progress, ShouldStop, never, no_progress
from ..pruning.strategy import Masks


class Runtime(Protocol):
    """Runs a pruned checkpoint on fields. One instance is used by one thread at a time."""

    name: str
    device: str

    def load(self, checkpoint: Checkpoint, masks: Masks | None = None) -> None:
        """Take a checkpoint with masks (None: as stored); quick when only the masks change."""
        ...

    def run(
        self,
        field: Field,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> Maps:
        """Run both branches on a field at the checkpoint's um/px.

        Raises
        ------
        Cancelled
            Within one tile after ``should_stop`` says so.
        InputError
            Where the field's um/px is not the checkpoint's, or the field is too large.
        """
        ...
