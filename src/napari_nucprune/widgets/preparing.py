"""While nothing runs: recovers the stops around the slider's, and marks those that are ready."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from qtpy.QtCore import QObject

from ..errors import Cancelled, NucpruneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..doors import Progress, ShouldStop
    from ..job import Job
    from ..preview import Session
    from .controls import Controls
    from .runner import Runner


def around(value: float, stops: list[float]) -> list[float]:
    """Return stops by their nearness to a value: itself, both neighbours, then on outwards."""
    below = [stop for stop in reversed(stops) if stop < value]
    above = [stop for stop in stops if stop > value]
    pairs = chain.from_iterable(zip_longest(below, above))
    return [stop for stop in stops if stop == value] + [s for s in pairs if s is not None]


class Preparing(QObject):
    """Recovers stops in the runner's background, nearest first, one a task.

    Parameters
    ----------
    controls
        The dock.
    runner
        Its runner.
    held
        Says whether other background work comes first.
    """

    def __init__(
        self, controls: Controls, runner: Runner, held: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__()
        self.held = held
        self.controls = controls
        self.runner = runner
        self._next: tuple[Session, Job] | None = None
        runner.idle.connect(self._go_on)

    def start(self, session: Session, job: Job) -> None:
        """Prepare the stops for a job that has been shown, as soon as the runner is idle."""
        self._next = (session, job)

    def stop(self) -> None:
        """Prepare nothing until the next start."""
        self._next = None
        self.runner.stop_background()

    def show_ready(self, session: Session | None) -> None:
        """Mark what is ready for what the controls say now."""
        pruning, ready = self.controls.pruning, set()
        try:
            if session is not None:
                ready = session.ready(self.controls.whole_job())
        except NucpruneError:
            pass  # no image, or none that can run: nothing is ready
        semantic, distance = pruning.ratios()
        pruning.both.show_ready({s for s, d in ready if s == d})
        pruning.semantic.show_ready({s for s, d in ready if d == distance})
        pruning.distance.show_ready({d for s, d in ready if s == semantic})

    def _go_on(self) -> None:
        task = self._next
        if task is None or not self.controls.control.live.isChecked() or self.held():
            return
        session, job = task
        if job.recovery == "off":
            return
        stops = self.controls.pruning.both.stops
        # A pair of stops makes each ready for either branch.
        order = (around(job.pruning.cr(branch), stops) for branch in ("semantic", "distance"))
        crs = list(dict.fromkeys(chain.from_iterable(zip(*order, strict=True))))

        def work(progress: Progress, should_stop: ShouldStop) -> object:
            try:
                return session.prepare(job, [(cr, cr) for cr in crs], progress, should_stop)
            except Cancelled:
                raise
            except Exception:  # tried again at every idle moment, it would fail for ever
                return None

        def done(prepared: object) -> None:
            self.show_ready(session)
            if prepared is None and self._next is task:
                self._next = None

        # What is stopped delivers nothing: the next idle moment begins it anew.
        self.runner.background(work, done)
