"""The door of every runtime."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.format import Checkpoint
from ..doors import Field, Maps, Progress, ShouldStop, never, no_progress
from ..errors import InputError
from ..pruning.strategy import Masks
from .tiling import Window, halo_of, pad_to_grid, windows

LARGEST = 8192
TILE = 1024


def check_field(field: Field, checkpoint: Checkpoint, reach: int) -> None:
    """Refuse what the network was not trained for, and what is too large.

    Parameters
    ----------
    field, checkpoint
        What is to run.
    reach
        Pixels that a part of the largest size carries on each side.

    Raises
    ------
    InputError
        See `Runtime.run`.
    """
    if abs(field.mpp / checkpoint.mpp - 1) > 0.05:
        raise InputError(
            f"The field has {field.mpp:.4g} um/px and {checkpoint.name} wants "
            f"{checkpoint.mpp:g}; resample the image first."
        )
    shape = field.rgb.shape[:2]
    if max(shape) > LARGEST + 2 * reach:
        raise InputError(
            f"The area is {shape[1]} x {shape[0]} px at {checkpoint.mpp:g} um/px; at most "
            f"{LARGEST} x {LARGEST} can be run at once: zoom in or choose a smaller part."
        )


def cut(
    field: Field, checkpoint: Checkpoint, depth: int, tile: int
) -> tuple[NDArray[np.uint8], list[Window]]:
    """Check a field, fill it up to the pooling grid and cut it into windows.

    Parameters
    ----------
    field, checkpoint
        What is to run.
    depth
        Levels of the deeper branch.
    tile
        Side of a window's core in pixels.

    Raises
    ------
    InputError
        As `check_field` and `windows` do.
    """
    halo, grid = halo_of(depth)
    check_field(field, checkpoint, halo + grid)
    height, width = field.rgb.shape[:2]
    return pad_to_grid(field.rgb, grid), list(windows((height, width), tile, halo, grid))


class Runtime(Protocol):
    """Runs a pruned checkpoint on fields. One instance is used by one thread at a time."""

    @property
    def name(self) -> str:
        """Of what runs, for people."""
        ...

    @property
    def device(self) -> str:
        """Where it runs, as torch names it."""
        ...

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
