"""A sweep on the field that is being looked at: one run a step, so that others can come between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..compare.sweep import STOPS
from ..compare.sweep_points import CLAIMS, SweepPoint, largest_cr_within
from ..doors import Progress, Pruning, ShouldStop, never, no_progress
from ..errors import InputError
from ..job import Job, Preview
from ..preview import Session
from ..pruning.strategies import STRATEGIES
from ..pruning.strategy import Ranking
from .compare import Comparer
from .placed import Placed, placed


class FieldSweep:
    """Scores over compression ratios on one field, against one reference.

    Runs go through the session, so that weights which were recovered for the slider serve here
    too, and the scores are those that the dock shows for the same ratio. One thread at a time.

    Parameters
    ----------
    session, job
        The network, and the field with the way of recovery.
    reference
        What to score against; None for the dense network's own result.
    strategies, stops
        Names and ratios.

    Attributes
    ----------
    points
        By strategy and ratio, in the order in which they were run.
    skipped
        Sentences on what could not be run, or ran without the recovery that was asked for.
    """

    def __init__(
        self,
        session: Session,
        job: Job,
        reference: Placed | None,
        strategies: Sequence[str],
        stops: Sequence[float] = STOPS,
    ) -> None:
        self.session, self.job, self.reference = session, job, reference
        self.strategies = tuple(dict.fromkeys(strategies))
        self.points: dict[tuple[str, float], SweepPoint] = {}
        self.skipped: list[str] = []
        self._comparer = Comparer(session.checkpoint)
        self._todo = [(s, cr) for s in self.strategies for cr in self._ratios(s, stops)]
        self._stops = frozenset(self._todo)
        self.total = len(self._todo)

    @property
    def left(self) -> int:
        """How many runs are still to be done."""
        return len(self._todo)

    def step(
        self, progress: Progress = no_progress, should_stop: ShouldStop = never
    ) -> SweepPoint | None:
        """Run the next ratio.

        Returns
        -------
        SweepPoint or None
            None where that ratio cannot be had (see ``skipped``) or nothing is left.

        Raises
        ------
        Cancelled
            Within one tile after ``should_stop`` says so; the next call does the same again.
        """
        if not self._todo:
            return None
        strategy, cr = self._todo[0]
        try:
            found = self.at(strategy, cr, progress, should_stop)
        except InputError as error:
            found = None
            self._skip(str(error))
        self._todo.pop(0)
        return found

    def at(
        self,
        strategy: str,
        cr: float,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> SweepPoint:
        """Return the point of a ratio, from memory where it has run.

        Raises
        ------
        InputError, Cancelled
            As `Session.run` and `Comparer.compare` do.
        """
        known = self.points.get((strategy, cr))
        if known is not None:
            return known
        dense = self._dense(progress, should_stop)
        pruning = self._pruning(strategy, cr)
        if pruning is None:
            preview = dense
        else:
            preview = self.session.run(replace(self.job, pruning=pruning), progress, should_stop)
            if preview.note:
                self._skip(preview.note)
        start = placed(dense, "dense")
        reference = self.reference or start
        found = self._comparer.compare(
            placed(preview, "swept"), reference, self.job.source.shape, start
        )
        assert found.start is not None
        point = SweepPoint(strategy, cr, "both", found.scores.as_dict(), found.start.as_dict())
        self.points[strategy, cr] = point
        return point

    def of(self, strategy: str) -> list[SweepPoint]:
        """Return a strategy's points by growing ratio."""
        own = [point for (name, _), point in self.points.items() if name == strategy]
        return sorted(own, key=lambda point: point.cr)

    def largest(
        self,
        strategy: str,
        loss: float,
        bisect: bool = False,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> dict[str, float | None]:
        """Return the largest ratio within a loss, by what is claimed (`CLAIMS`).

        Parameters
        ----------
        strategy
            Whose points are looked at.
        loss
            Largest relative loss.
        bisect
            Look between the last stop that passes and the next one too; those runs are
            remembered, and count for the curve.

        Raises
        ------
        Cancelled
            Where ``should_stop`` says so; what has run is remembered.
        """
        # Only stops decide where the curve breaks; what an earlier bisection ran must not.
        stops = [point for point in self.of(strategy) if (strategy, point.cr) in self._stops]

        def at(cr: float) -> SweepPoint:
            # As the number box shows it, so that what is set is what was measured.
            return self.at(strategy, round(cr, 2), progress, should_stop)

        free = STRATEGIES[strategy].fixed_cr is None and self.job.recovery != "fine-tuned"
        found = {}
        for claim, metrics in CLAIMS.items():
            largest = largest_cr_within(stops, metrics, loss, at if bisect and free else None)
            found[claim] = None if largest is None else round(largest, 2)
        return found

    def _ratios(self, strategy: str, stops: Sequence[float]) -> list[float]:
        own = self.session.checkpoint.own_cr
        floor = max(own.values())
        if STRATEGIES[strategy].fixed_cr is not None:
            fixed = Ranking(self.session.checkpoint, self.job.pruning.keep).fixed_crs(strategy)
            assert fixed is not None
            return [floor, max(fixed.values())]
        return [floor, *(cr for cr in sorted(set(stops)) if cr > floor)]

    def _pruning(self, strategy: str, cr: float) -> Pruning | None:
        own, keep = self.session.checkpoint.own_cr, self.job.pruning.keep
        if cr <= max(own.values()):
            return None
        if STRATEGIES[strategy].fixed_cr is None:
            return Pruning(strategy, cr, cr, keep)
        fixed = Ranking(self.session.checkpoint, keep).fixed_crs(strategy)
        assert fixed is not None
        return Pruning(strategy, fixed["semantic"], fixed["distance"], keep)

    def _dense(self, progress: Progress, should_stop: ShouldStop) -> Preview:
        dense = self.session.dense(self.job)
        if dense is None:
            dense = self.session.run(self.session.dense_job(self.job), progress, should_stop)
        return dense

    def _skip(self, text: str) -> None:
        if text not in self.skipped:
            self.skipped.append(text)
