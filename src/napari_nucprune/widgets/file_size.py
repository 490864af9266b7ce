"""The line on what a pruning costs: multiply-adds at once, a packed file's bytes soon after."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from ..errors import NucpruneError
from . import texts
from .runner import Runner, Work

if TYPE_CHECKING:
    from ..checkpoint.packed import Packing
    from ..doors import Pruning
    from ..job import Job
    from ..preview import Session
    from ..pruning.cost import Cost
    from .controls import Controls

#: After the last change, before a file that is not asked for is packed to show its size.
RESTED_MS = 400


class FileSize(QObject):
    """Shows the size of the file that Save would write now.

    A packed file's is known when it has been packed: in a thread of its own, the latest wins. Where
    a plain one is saved, the packed one's is shown beside it.

    Parameters
    ----------
    controls
        The dock.
    runs
        What runs the network: packing waits for it.
    """

    def __init__(self, controls: Controls, runs: Runner) -> None:
        super().__init__()
        self.controls = controls
        self.runs = runs
        self.runner = Runner()
        self.runner.failed.connect(self._failed)
        self._wanted: tuple[Work, Callable[[int], None]] | None = None
        self._later = controls.timer(self._ask)

    def show(
        self, session: Session, pruning: Pruning, job: Job | None, packing: Packing, spent: Cost
    ) -> None:
        """Show the cost of a pruning, and the bytes of its network as it would be saved."""
        label = self.controls.pruning.compute
        plain = packing == "none"
        label.setText(texts.compute(spent, spent.file_bytes if plain else None))
        if plain and spent.kept == spent.total:
            self.runner.cancel()
            self._later.stop()
            return
        wanted: Packing = "lossless" if plain else packing

        def show(size: int) -> None:
            text = texts.compute(spent, spent.file_bytes, size) if plain else None
            label.setText(text or texts.compute(spent, size))

        self._wanted = (
            lambda progress, should_stop: session.packed_bytes(pruning, job, wanted),
            show,
        )
        if plain:  # packing takes as long as a run: not beside one, nor while the slider is dragged
            self.runner.cancel()
            self._later.stop()
            if not self.runs.busy:
                self._later.start(RESTED_MS)
        else:
            self._later.stop()
            self._ask()

    def close(self) -> None:
        """Wait for the thread."""
        self._later.stop()
        self.runner.close()

    def _ask(self) -> None:
        if self._wanted is not None:
            self.runner.request(*self._wanted)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, NucpruneError):
            self.controls.say(str(error))
