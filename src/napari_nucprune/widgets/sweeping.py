"""The sweep on this field: run in the background, drawn point by point, clicked, exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer
from qtpy.QtWidgets import QFileDialog

from ..compare.sweep_points import CLAIMS, SweepPoint, largest_cr_within
from ..difference.export import export
from ..difference.field_sweep import FieldSweep
from ..errors import Cancelled, NucpruneError
from .references import DENSE, NOTHING

if TYPE_CHECKING:
    from .comparing import Comparing
    from .controls import Controls
    from .plots import SweepPlot
    from .runner import Runner

STRATEGIES = ("layer-wise", "network-wide")
HOW = {"off": "one-shot", "slide": "recovered on this slide",
       "bundled": "recovered on bundled tissue", "fine-tuned": "fine-tuned"}  # fmt: skip


class Sweeping(QObject):
    """Drives a sweep through the runner's background, one run a task.

    Parameters
    ----------
    controls, runner, comparing
        The dock, its runner, and what is compared.
    """

    def __init__(self, controls: Controls, runner: Runner, comparing: Comparing) -> None:
        super().__init__()
        self.controls, self.runner, self.comparing = controls, runner, comparing
        self.section = controls.sweep
        self.sweep: FieldSweep | None = None
        #: Restored from a file: shown, and never gone on with.
        self.points: list[SweepPoint] = []
        self.plot: SweepPlot | None = None
        self.running = False
        self._find = ""
        self._about = ""
        self._redraw = QTimer(self)
        self._redraw.setSingleShot(True)
        self._redraw.timeout.connect(self._draw)
        section = self.section
        section.start.clicked.connect(lambda: self.start())
        section.cancel.clicked.connect(self.cancel)
        section.set_largest.clicked.connect(lambda: self.find_largest())
        section.loss.valueChanged.connect(lambda _: self.show())
        section.opened.connect(self.show)
        section.export.clicked.connect(self._ask_export)
        runner.idle.connect(self._go_on)
        theme = getattr(controls.viewer.events, "theme", None)
        if theme is not None:
            theme.connect(self._theme_changed)

    def _theme_changed(self, event: Any = None) -> None:
        # A method and no lambda: napari would keep that, and with it the dock, alive.
        self._redraw.start(100)

    # Running --------------------------------------------------------------------------------

    def start(self) -> bool:
        """Begin a sweep on the field that is shown; says whether it could."""
        shown = self.comparing.shown
        if shown is None:
            self.section.status.setText("There is no result to sweep around yet; run first.")
            return False
        choice = self.comparing.section.reference.choice
        if choice in (NOTHING, DENSE) or choice is None:
            reference, name = None, "the dense network"
        else:
            reference = self.comparing.references.placed(choice, shown.image)
            name = reference.name if reference is not None else "the dense network"
        pruning = self.controls.asked()
        job = shown.job
        try:
            self.sweep = FieldSweep(
                shown.session, job, reference,
                [*(STRATEGIES if job.recovery != "fine-tuned" else ()), pruning.strategy],
                self.controls.pruning.both.stops,
            )  # fmt: skip
        except NucpruneError as error:
            self.section.status.setText(str(error))
            return False
        self._about = f"{HOW[job.recovery]}, against {name}"
        self.points, self._find = [], ""
        self._set_running(True)
        self.show()
        self._go_on()
        return True

    def cancel(self) -> None:
        """Stop; what has run stays."""
        if self.running:
            self._set_running(False)
            self._find = ""
            self.runner.stop_background()
            self.show()

    def find_largest(self) -> None:
        """Set the largest ratio within the loss; sweeps first where this field has not been."""
        shown, strategy = self.comparing.shown, self.controls.asked().strategy
        ready = (
            self.sweep is not None
            and shown is not None
            and strategy in self.sweep.strategies
            and self._same_field()
        )
        if not ready and not self.start():
            return
        self._find = strategy
        self._set_running(True)
        self._go_on()

    def _same_field(self) -> bool:
        shown, sweep = self.comparing.shown, self.sweep
        if shown is None or sweep is None or shown.session is not sweep.session:
            return False
        reference = sweep.reference
        choice = self.comparing.section.reference.choice
        if choice in (NOTHING, DENSE):
            same = reference is None
        else:
            now = self.comparing.references.placed(choice, shown.image)
            same = reference is not None and now is not None and reference.key == now.key
        job, own = shown.job, sweep.job
        return same and (job.scope, job.box, job.pruning.keep) == (
            own.scope, own.box, own.pruning.keep
        )  # fmt: skip

    def _go_on(self) -> None:
        sweep, find = self.sweep, self._find
        if not self.running or sweep is None or self.runner.busy:
            return
        loss = self.section.loss.value() / 100

        def work(progress: Any, should_stop: Any) -> Any:
            try:
                if sweep.left:
                    return sweep.step(progress, should_stop)
                return sweep.largest(find, loss, True, progress, should_stop)
            except Cancelled:
                raise
            except Exception as error:  # the background is silent, this must not be
                return error

        def done(found: Any) -> None:
            if self.sweep is not sweep or not self.running:
                return
            if isinstance(found, Exception):
                self._set_running(False)
                self.controls.say(str(found))
            elif isinstance(found, dict):
                self._set_running(False)
                self._apply(find, found)
            elif not sweep.left and not self._find:
                self._set_running(False)
            self.show()
            self._go_on()

        if sweep.left or find:
            # Stops what prepares the stops; where that was, `idle` leads here again.
            self.runner.stop_background()
            self.runner.background(work, done)
        else:
            self._set_running(False)

    def _apply(self, strategy: str, largest: dict[str, float | None]) -> None:
        pruning = self.controls.pruning
        semantic, distance = largest["semantic"], largest["distance"]
        self._find = ""
        if semantic is None or distance is None:
            self.section.status.setText("The loss cannot be said on this field.")
            return
        pruning.strategy.setCurrentText(strategy)
        if semantic == distance:
            pruning.both.set_value(semantic)
            pruning.link.setChecked(True)
            pruning.both.set_value(semantic)
        else:
            pruning.link.setChecked(False)
            pruning.semantic.set_value(semantic)
            pruning.distance.set_value(distance)

    def _set_running(self, running: bool) -> None:
        self.running = running
        self.section.cancel.setEnabled(running)
        self.section.start.setEnabled(not running)

    # Showing --------------------------------------------------------------------------------

    def shown_points(self) -> list[SweepPoint]:
        """Return what the curves show."""
        if self.sweep is None:
            return self.points
        return [point for own in self.sweep.strategies for point in self.sweep.of(own)]

    def restore(self, points: list[SweepPoint], about: str) -> None:
        """Show the points of a saved session."""
        self.cancel()
        self.sweep, self.points, self._about = None, points, about
        self.show()

    @property
    def about(self) -> str:
        """How the shown points were made."""
        return self._about

    def largest(self) -> dict[str, dict[str, float | None]]:
        """Return the largest ratio within the loss among the points, by strategy and claim."""
        loss = self.section.loss.value() / 100
        points = self.shown_points()
        return {
            strategy: {
                claim: largest_cr_within(
                    (p for p in points if p.strategy == strategy), metrics, loss
                )
                for claim, metrics in CLAIMS.items()
            }
            for strategy in dict.fromkeys(point.strategy for point in points)
        }

    def show(self) -> None:
        """Show state, table and curves."""
        points = self.shown_points()
        section = self.section
        section.export.setEnabled(bool(points))
        if self.sweep is not None:
            done = self.sweep.total - self.sweep.left
            state = f"{done} of {self.sweep.total}" if self.running else f"{len(points)} points"
            state = "looking between the stops" if self.running and not self.sweep.left else state
            notes = " ".join(self.sweep.skipped[:2])
            section.status.setText(f"{self._about}: {state}. {notes}".strip())
        elif points:
            section.status.setText(f"{self._about}: {len(points)} points.")
        section.table.setText(self._table())
        if not section.folded and points:
            self._redraw.start(0)

    def _table(self) -> str:
        largest = self.largest()
        if not largest:
            return ""
        loss = self.section.loss.value()
        lines = [f"Largest CR that loses at most {loss:g} %, and all smaller ones too:"]
        for strategy, own in largest.items():
            said = ", ".join(f"{c} {'–' if v is None else f'{v:.3g}'}" for c, v in own.items())
            lines.append(f"{strategy}: {said}")
        return "\n".join(lines)

    def _draw(self) -> None:
        points = self.shown_points()
        if self.section.folded or not points:
            return
        from .plots import SweepPlot, theme_colours

        if self.plot is None:
            self.plot = SweepPlot(self.section)
            self.plot.picked.connect(self._picked)
            self.section.place.addWidget(self.plot)
        ticks = {
            (strategy, metric): own[claim]
            for strategy, own in self.largest().items()
            for claim, metrics in CLAIMS.items()
            for metric in metrics
        }
        colours = theme_colours(self.section)
        self.plot.show_points(points, self.section.loss.value() / 100, ticks, colours)

    def _picked(self, strategy: str, cr: float) -> None:
        pruning = self.controls.pruning
        if not pruning.has(strategy, cr):
            about = f"{strategy} to CR {cr:g}"
            self.controls.say(f"None was fine-tuned {about}: choose another Recovery to see it.")
            return
        pruning.strategy.setCurrentText(strategy)
        pruning.link.setChecked(True)
        pruning.both.set_value(cr)

    def _ask_export(self) -> None:
        name, chosen = QFileDialog.getSaveFileName(
            self.controls, "Export the sweep", "sweep.csv",
            "Scores (*.csv);;Picture (*.png);;Drawing (*.svg)",
        )  # fmt: skip
        if not name:
            return
        path = Path(name)
        if not path.suffix:
            path = path.with_suffix(
                next(s for s in (".csv", ".png", ".svg") if s in chosen + ".csv")
            )
        try:
            export(path, self.shown_points(), self.section.loss.value() / 100)
        except NucpruneError as error:
            self.controls.say(str(error))
            return
        self.controls.say(f"Saved the sweep as {path.name}.")
