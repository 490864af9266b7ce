"""Keeps the comparison up to date: what is shown against the reference, computed in the thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer, Signal

from ..difference.compare import Comparer, Comparison
from ..difference.placed import Placed, placed
from ..errors import InputError
from .references import DENSE, NOTHING, SHOWN, References

if TYPE_CHECKING:
    from ..job import Job, Preview
    from ..preview import Session
    from .controls import Controls
    from .runner import Runner

#: After the last stroke on a reference (milliseconds).
EDITED_MS = 250


#: A comparison, or the sentence on why there is none.
Found = Comparison | InputError


@dataclass(frozen=True, eq=False)
class Shown:
    """What the layers show: the job, its image's layer, and what it gave."""

    session: Session
    job: Job
    image: Layer
    preview: Preview


class Comparing(QObject):
    """Compares the chosen result with the chosen reference.

    ``compared(Comparison or None)`` is emitted when there is a new one, or none any more;
    ``dense_ran(Preview)`` when the network with nothing pruned ran on what is shown.

    Parameters
    ----------
    controls, runner
        The dock and its runner.
    """

    compared = Signal(object)
    dense_ran = Signal(object)

    def __init__(self, controls: Controls, runner: Runner) -> None:
        super().__init__()
        self.controls, self.runner = controls, runner
        self.section = controls.compare
        self.references = References(controls.viewer)
        self.shown: Shown | None = None
        self.comparison: Comparison | None = None
        self._comparer: Comparer | None = None
        self._wanted = False
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self.update)
        self._offer()
        self.references.changed.connect(self._offer)
        self.references.edited.connect(self._edited)
        for box in (self.section.result, self.section.reference):
            box.currentIndexChanged.connect(self.update)
        runner.idle.connect(self._idle)

    @property
    def waits(self) -> bool:
        """Whether a comparison is about to be asked for."""
        return self._wanted or self._later.isActive()

    def ahead(self, session: Session, job: Job, image: Layer) -> Callable[[Preview], Found] | None:
        """Return what compares a run's result where it was computed, for numbers with the labels.

        None where the dense network did not run on this field yet, or the run's result is not
        what is compared.
        """
        section = self.section
        if section.result.choice != SHOWN:
            return None
        dense = session.dense(job)
        reference = self._reference(section.reference.choice, dense, image)
        if reference is None:
            return None
        comparer = self._comparer_of(session)

        def compare(preview: Preview) -> Found:
            result = placed(preview, "this result")
            return _compare(comparer, result, reference, job.source.shape, dense)

        return compare

    def show(self, shown: Shown, found: Found | None = None) -> None:
        """Show the comparison of what the layers show now; the runner is between two tasks.

        Parameters
        ----------
        shown
            What the layers show.
        found
            Its comparison, as `ahead` made it; compared anew where nothing was, or where the user
            chose otherwise meanwhile.
        """
        self._comparer_of(shown.session)
        self.shown = shown
        if found is None or self._wanted:
            self._request()
            return
        self._set(found)
        if self.dense() is None:
            self._run_dense(shown)

    def forget(self) -> None:
        """Nothing is shown any more."""
        self.shown = self._comparer = None
        self._set(None)

    def update(self, _: Any = None) -> None:
        """Compare anew, after a run that is still going on: it must not be lost for this."""
        if self.runner.busy:
            self._wanted = True
        else:
            self._request()

    def sides(self) -> tuple[Placed, Placed] | None:
        """Return result and reference as chosen; None where one is not there (yet)."""
        if self.shown is None:
            return None
        result = self._placed(self.section.result.choice)
        reference = self._placed(self.section.reference.choice)
        return None if result is None or reference is None else (result, reference)

    def dense(self) -> Preview | None:
        """Return what the network with nothing pruned gave on what is shown."""
        shown = self.shown
        return None if shown is None else shown.session.dense(shown.job)

    def _placed(self, choice: Any) -> Placed | None:
        shown = self.shown
        if shown is None:
            return None
        if choice == SHOWN:
            return placed(shown.preview, "this result")
        return self._reference(choice, self.dense(), shown.image)

    def _reference(self, choice: Any, dense: Preview | None, image: Layer) -> Placed | None:
        if choice is None or choice == NOTHING:
            return None
        if choice == DENSE:
            return None if dense is None else placed(dense, "dense")
        return self.references.placed(choice, image)

    def _comparer_of(self, session: Session) -> Comparer:
        if self._comparer is None or self._comparer.checkpoint is not session.checkpoint:
            self._comparer = Comparer(session.checkpoint)
        return self._comparer

    def _request(self) -> None:
        self._wanted = False
        shown, comparer = self.shown, self._comparer
        if shown is None or comparer is None:
            return
        dense = self.dense()
        sides = self.sides()
        if self.section.reference.choice == NOTHING:
            self._set(None)
        if sides is None and dense is not None:
            return
        image = shown.job.source.shape

        def work(progress: Any, should_stop: Any) -> Found | None:
            if sides is None:
                return None
            # The first time without the dense network's scores: its run may take a while.
            return _compare(comparer, *sides, image, dense)

        def done(found: Any) -> None:
            if self.shown is not shown:
                return
            if found is not None:
                self._set(found)
            if dense is None:
                self._run_dense(shown)

        self.runner.request(work, done)

    def _run_dense(self, shown: Shown) -> None:
        """Run the network with nothing pruned on the same field, then compare again."""

        def work(progress: Any, should_stop: Any) -> None:
            job = shown.session.dense_job(shown.job)
            shown.session.run(job, progress, should_stop)

        def done(_: None) -> None:
            dense = self.dense()
            if self.shown is shown and dense is not None:
                self.dense_ran.emit(dense)
                self._request()

        self.runner.request(work, done)

    def _set(self, found: Found | None) -> None:
        if isinstance(found, InputError):
            self.section.line.setText(str(found))
            found = None
        elif found is None:
            self.section.line.setText("")
        self.comparison = found
        self.compared.emit(found)

    def _offer(self) -> None:
        section, references = self.section, self.references
        gone = section.result.offer(references.of_result(), SHOWN)
        if section.reference.offer(references.of_reference(), DENSE) or gone:
            self.update()

    def _edited(self, choice: Any) -> None:
        if choice in (self.section.result.choice, self.section.reference.choice):
            self._later.start(EDITED_MS)

    def _idle(self) -> None:
        if self._wanted:
            self._request()


def _compare(
    comparer: Comparer,
    result: Placed,
    reference: Placed,
    image: tuple[int, int],
    dense: Preview | None,
) -> Found:
    start = None if dense is None else placed(dense, "dense")
    try:
        return comparer.compare(result, reference, image, start)
    except InputError as error:
        return error
