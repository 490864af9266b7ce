"""The fixed lattice that a whole slide is cut by: the same cores whatever runs them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

#: (row, column) of a core.
Core = tuple[int, int]
#: (y0, x0, y1, x1) in network pixels.
Box = tuple[int, int, int, int]

#: Side of a core, what a window adds for the network, and what it adds for the merge.
CORE, HALO, REACH = 1024, 96, 128


@dataclass(frozen=True)
class Lattice:
    """Cores over a slide, from its level-0 origin, all sizes in network pixels.

    Attributes
    ----------
    shape
        (H, W) of the slide.
    core
        Side of a core; those at the far edges are cut off.
    halo
        Added on each side for the network, whose receptive radius is below it.
    reach
        Added on each side for the merge: what an object may stick out of its owner.
    """

    shape: tuple[int, int]
    core: int = CORE
    halo: int = HALO
    reach: int = REACH

    @property
    def rows(self) -> int:
        """Rows of cores."""
        return -(-self.shape[0] // self.core)

    @property
    def columns(self) -> int:
        """Columns of cores."""
        return -(-self.shape[1] // self.core)

    def __len__(self) -> int:
        return self.rows * self.columns

    def cores(self) -> Iterator[Core]:
        """Yield all cores, row by row: the order that decides between them."""
        for row in range(self.rows):
            for column in range(self.columns):
                yield row, column

    def box(self, core: Core, margin: int = 0) -> Box:
        """Return a core's box with a margin, cut off at the slide's edges."""
        y, x = core[0] * self.core, core[1] * self.core
        return (
            max(y - margin, 0),
            max(x - margin, 0),
            min(y + self.core + margin, self.shape[0]),
            min(x + self.core + margin, self.shape[1]),
        )

    def around(self, core: Core) -> list[Core]:
        """Return the core and those that touch it, in order."""
        row, column = core
        return [
            (r, c)
            for r in range(max(row - 1, 0), min(row + 2, self.rows))
            for c in range(max(column - 1, 0), min(column + 2, self.columns))
        ]

    def groups(self, tile: int) -> dict[Core, list[Core]]:
        """Group cores into tasks.

        Parameters
        ----------
        tile
            Side of a group in network pixels, rounded up to whole cores.

        Returns
        -------
        dict
            (row, column) of each group to its cores. Results don't depend on it.
        """
        side = max(1, math.ceil(tile / self.core))
        found: dict[Core, list[Core]] = {}
        for row, column in self.cores():
            found.setdefault((row // side, column // side), []).append((row, column))
        return found
