"""The line on what a pruning costs: multiply-adds at once, a packed file's bytes soon after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from ..errors import NucpruneError
from . import texts
from .runner import Runner

if TYPE_CHECKING:
    from ..checkpoint.packed import Packing
    from ..doors import Pruning
    from ..preview import Job, Session
    from ..pruning.cost import Cost
    from .controls import Controls


class FileSize(QObject):
    """Shows the size of the file that Save would write now.

    A packed file's is known when it has been packed: in a thread of its own, the latest wins.

    Parameters
    ----------
    controls
        The dock.
    """

    def __init__(self, controls: Controls) -> None:
        super().__init__()
        self.controls = controls
        self.runner = Runner()
        self.runner.failed.connect(self._failed)

    def show(
        self, session: Session, pruning: Pruning, job: Job | None, packing: Packing, spent: Cost
    ) -> None:
        """Show the cost of a pruning, and the bytes of its network as it would be saved."""
        label = self.controls.pruning.compute
        if packing == "none":
            self.runner.cancel()
            label.setText(texts.compute(spent, spent.file_bytes))
            return
        label.setText(texts.compute(spent, None))
        self.runner.request(
            lambda progress, should_stop: session.packed_bytes(pruning, job, packing),
            lambda size: label.setText(texts.compute(spent, size)),
        )

    def close(self) -> None:
        """Wait for the thread."""
        self.runner.close()

    def _failed(self, error: Exception) -> None:
        if isinstance(error, NucpruneError):
            self.controls.say(str(error))
