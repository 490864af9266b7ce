"""The dock's controls from top to bottom, without what they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QScrollArea, QVBoxLayout, QWidget

from ..checkpoint import shipped
from ..doors import Pruning
from ..errors import InputError
from ..job import Job, Preview
from ..preview import Session
from ..pruning.strategy import STRATEGIES
from ..tuned import rungs
from . import sections, texts
from .compare_section import CompareSection
from .images import Images
from .layer_bars import LayersSection
from .pruning_section import PruningSection
from .runner import Seldom
from .shortcuts import help_text
from .sweep_section import SweepSection
from .wheel import WheelGuard
from .whole import WholeSection

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image

    from ..pruning.cost import Cost


class Controls(QWidget):
    """One column of sections, 320 px wide.

    Parameters
    ----------
    napari_viewer
        The viewer whose images are offered.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session: Session | None = None
        self.progressing = Seldom(self.show_progress, self)
        self._build()

    def _build(self) -> None:
        self.images = Images(self.viewer)
        self.image = self.images.section
        self.checkpoint = sections.CheckpointSection()
        self.pruning = PruningSection()
        self.control = sections.RunSection()
        self.message = sections.wrapped("message")
        self.message.hide()
        self.compare = CompareSection()
        self.sweep = SweepSection()
        self.layers = LayersSection()
        self.save = sections.SaveSection()
        self.whole = WholeSection(self.viewer, self.whole_asked, self.say)
        self.files = sections.SessionSection(help_text())
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(8, 4, 8, 4)
        column.setSpacing(4)
        top = (self.image, self.checkpoint, self.pruning, self.control, self.message)
        below = (self.compare, self.sweep, self.layers, self.save, self.whole, self.files)
        for part in (*top, *below):
            column.addWidget(part)
        column.addStretch(1)
        WheelGuard(inside)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll)
        self.setMinimumWidth(320)
        for index, strategy in enumerate(STRATEGIES.values()):
            self.pruning.strategy.addItem(strategy.name)
            role = Qt.ItemDataRole.ToolTipRole
            self.pruning.strategy.setItemData(index, strategy.explanation, role)
        self.pruning.strategy.currentTextChanged.connect(self._explain_strategy)
        self._explain_strategy(self.pruning.strategy.currentText())
        for name in shipped.dense_names():
            self.checkpoint.choice.addItem(name, name)

    def _explain_strategy(self, name: str) -> None:
        strategy = STRATEGIES[name]
        self.pruning.explained.setText(strategy.explanation)
        self.pruning.show_repair(strategy.reselect)

    def asked(self) -> Pruning:
        """Return the pruning that the dock's controls say."""
        semantic, distance = self.pruning.ratios()
        strategy = self.pruning.strategy.currentText()
        return Pruning(strategy, semantic, distance, self.layers.keep)

    def job(self) -> tuple[Job, Image, str]:
        """Return what the controls say is to be run; see `Images.job`."""
        return self.images.job(self.asked(), *self.pruning.repair())

    def whole_job(self) -> Job:
        """Return the same for the whole image, wherever the view is."""
        return self.images.whole_job(self.asked(), *self.pruning.repair())

    def whole_asked(self) -> tuple[Session, Image, Pruning, Job]:
        """Return what a whole slide is to be segmented with; see `WholeSection`."""
        session, layer, job = self.session, self.images.layer, self.whole_job()
        if session is None or layer is None:
            raise InputError("There is no checkpoint; choose one with Open….")
        return session, layer, job.pruning, job

    def show_session(self, session: Session, origin: str) -> None:
        """Show a checkpoint: where it is from, one line about it, and the CRs that can be had."""
        checkpoint, choice = session.checkpoint, self.checkpoint.choice
        if choice.findData(origin) < 0:
            choice.addItem(Path(origin).name, origin)
        choice.setCurrentIndex(choice.findData(origin))
        spent = session.cost(session.stored())
        self.checkpoint.about.setText(texts.about(checkpoint, spent))
        self.pruning.offer(rungs(checkpoint))
        self.show_limits(session)
        self.images.network_mpp = checkpoint.mpp
        self.images.show_mpp()

    def show_limits(self, session: Session) -> None:
        """Show the CRs that can be had with the layers that are kept dense."""
        floor = session.checkpoint.own_cr
        ceiling = {branch: session.largest_cr(branch, self.layers.keep) for branch in floor}
        pruning = self.pruning
        pruning.semantic.set_limits(floor["semantic"], ceiling["semantic"])
        pruning.distance.set_limits(floor["distance"], ceiling["distance"])
        pruning.both.set_limits(max(floor.values()), min(ceiling.values()))

    def show_cost(self, session: Session, pruning: Pruning) -> Cost:
        """Show what a pruning keeps, in all and by layer, and return its cost.

        Raises
        ------
        InputError
            Where its ratio is out of reach.
        """
        spent = session.cost(pruning)
        self.pruning.kept.setText(texts.kept(spent))
        if not self.layers.folded:
            self.layers.show_shares(session.by_layer(pruning))
        return spent

    def show_time(self, preview: Preview | None, dense: Preview | None) -> None:
        """Show the measured time, against the dense network's where that ran."""
        if preview is not None:
            self.pruning.time.setText(texts.time(preview, dense))

    def show_progress(self, text: str, done: int, total: int) -> None:
        """Show a step of a run."""
        bar = self.control.progress
        # Not the bar that moves by itself: it would draw the whole window 25 times a second.
        bar.setRange(0, total or 1)
        bar.setValue(done)
        bar.setFormat(f"{text} {done}/{total}" if total else text)

    def show_busy(self, busy: bool) -> None:
        """Show whether anything runs."""
        self.control.cancel.setEnabled(busy)
        if not busy:
            self.show_idle()

    def show_idle(self) -> None:
        """Show that nothing runs."""
        self.progressing.stop()
        self.show_progress("idle", 0, 0)

    def say(self, text: str) -> None:
        """Show a message; an empty one takes no room."""
        self.message.setText(text)
        self.message.setVisible(bool(text))

    def timer(self, action: Callable[[], Any]) -> QTimer:
        """Return a single-shot timer that does ``action``, a method of an object of Qt's.

        PyQt drops a method with its object. A lambda it would call after Python's collector took
        it, where the timer lives on until Qt's next turn: the process dies of that.
        """
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.timeout.connect(action)
        return timer

    def button(self, button: Any, action: Callable[[], str | None]) -> None:
        """Let a button do ``action``; what it returns or raises is the message."""

        def clicked() -> None:
            try:
                said = action()
            except Exception as error:
                said = texts.error(error)
            if said:
                self.say(said)

        button.clicked.connect(clicked)
