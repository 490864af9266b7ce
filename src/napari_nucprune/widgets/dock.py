"""The dock: reads what the user set, asks the session, shows what came back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication, QMainWindow

from ..errors import NucpruneError
from ..job import Job, Preview
from ..preview import Session
from . import buttons, layers, texts, warming
from .comparing import Comparing, Found, Shown
from .controls import Controls
from .difference_layers import DifferenceLayers
from .file_size import FileSize
from .leaving import Leaving
from .memory import Memory
from .opening import Opening
from .preparing import Preparing
from .runner import Runner
from .shortcuts import Actions
from .sweeping import Sweeping
from .views import Views

if TYPE_CHECKING:
    from napari import Viewer

#: Where a run takes longer (seconds), the slider has to rest first (milliseconds).
SLOW_RUN, DEBOUNCE_MS = 0.25, 150
CAMERA_MS = 300


class NucpruneDock(Controls):
    """The dock widget of napari-nucprune.

    Parameters
    ----------
    napari_viewer
        The viewer it is docked in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.session: Session | None = None
        self.preview: Preview | None = None
        self.runner = Runner()
        self.comparing = Comparing(self, self.runner)
        self.sweeping = Sweeping(self, self.runner, self.comparing)
        self.preparing = Preparing(
            self, self.runner, lambda: self.sweeping.running or self.whole.job is not None
        )
        self.opening, self.memory = Opening(), Memory(self)
        self.differences = DifferenceLayers(self, self.comparing)
        self.views = Views(self, self.comparing)
        self.actions_of_keys = Actions(self)
        self.file_size = FileSize(self, self.runner)
        self.leaving = Leaving(self)
        self._job: Job | None = None
        self._slow = False
        self.origin = ""
        self._later, self._rested = self.timer(self.run), self.timer(self._camera_rested)
        self._readout = self.timer(self._show_cost)
        self._connect()
        if self.checkpoint.choice.count():
            self.memory.restore(self.open_checkpoint, self.checkpoint.choice.currentData())
        self.images.refresh()
        if self.memory.said or self.images.layer is None:
            self.say(self.memory.said or texts.NO_IMAGE)
        warming.begin()

    def _connect(self) -> None:
        image, pruning, control = self.image, self.pruning, self.control
        self.images.changed.connect(self._image_changed)
        image.area.currentTextChanged.connect(self._area_changed)
        buttons.connect(self)
        choice = self.checkpoint.choice
        choice.activated.connect(lambda _: self.open_checkpoint(choice.currentData()))
        pruning.strategy.currentTextChanged.connect(self._pruning_changed)
        pruning.recovery.currentIndexChanged.connect(self._recovery_changed)
        pruning.reselect.toggled.connect(self._pruning_changed)
        pruning.link.toggled.connect(pruning.show_linked)
        pruning.link.toggled.connect(self._pruning_changed)
        for slider in pruning.sliders:
            slider.changed.connect(self._moved)
        self.layers.kept.connect(self._keep_changed)
        self.layers.opened.connect(self._show_cost)
        control.run.clicked.connect(lambda: self.run())
        control.cancel.clicked.connect(self.cancel)
        control.live.toggled.connect(lambda on: self._changed() if on else self.preparing.stop())
        self.save.packing.currentIndexChanged.connect(self._show_cost)
        self.comparing.dense_ran.connect(lambda dense: self.show_time(self.preview, dense))
        self.runner.progressed.connect(self.progressing.take)
        self.runner.failed.connect(lambda error: self.say(texts.error(error)))
        self.runner.busy_changed.connect(self.show_busy)
        self.runner.idle.connect(self.show_idle)
        camera = layers.camera_of(self.viewer)
        camera.events.zoom.connect(self._camera_moved)
        camera.events.center.connect(self._camera_moved)
        app = QApplication.instance()
        for close in (self.runner.close, self.file_size.close, self.whole.close_down):
            self.destroyed.connect(close)
            if app is not None:
                app.aboutToQuit.connect(close)

    # What the user changes -----------------------------------------------------------------

    def _image_changed(self) -> None:
        self.preparing.show_ready(self.session)
        if self.images.layer is None:
            self.cancel()
            if self.session is not None:
                self.session.forget()
            self.comparing.forget()
            self.say(texts.NO_IMAGE)
            return
        self.say("")
        self._changed()

    def _area_changed(self, area: str) -> None:
        layer = self.images.layer
        if area == "rectangle" and layer is not None:
            shapes = layers.region_layer(self.viewer, layer)
            shapes.events.data.disconnect(self._drawn)
            shapes.events.data.connect(self._drawn)
            self.viewer.layers.selection.active = shapes
        self._changed()

    def _drawn(self, event: Any = None) -> None:
        if self.image.area.currentText() == "rectangle":
            self._changed()

    def _pruning_changed(self, _: Any = None) -> None:
        if not self._readout.isActive():
            self._readout.start(30)
        self.preparing.show_ready(self.session)
        self._changed()

    def _keep_changed(self) -> None:
        if self.session is not None:
            self.show_limits(self.session)
        self._pruning_changed()

    def _recovery_changed(self, _: Any = None) -> None:
        self._explain_strategy(self.pruning.strategy.currentText())
        self._pruning_changed()

    def _camera_moved(self, event: Any = None) -> None:
        if self.differences.travelling or self.images.layer is None:
            return
        if self.control.live.isChecked() and self.image.area.currentText() == "visible area":
            self._rested.start(CAMERA_MS)

    def _camera_rested(self) -> None:
        try:
            job, *_ = self.job()
        except NucpruneError as error:
            self.say(str(error))
            return
        if self._job is None or job.box != self._job.box:
            self._changed()

    def _changed(self) -> None:
        if not self.control.live.isChecked() or self.images.layer is None:
            return
        # In mid-run a slow network is not started anew for every tick of a drag.
        self._later.start(DEBOUNCE_MS if self._slow and self.runner.busy else 0)

    def _moved(self, _: Any = None) -> None:
        """Follow a slider: where nothing runs, before the window is drawn anew."""
        self._pruning_changed()
        if self._later.isActive() and not self.runner.busy:
            self.run()

    # Running -------------------------------------------------------------------------------

    def run(self) -> None:
        """Run what the controls say, now; a running job is asked to stop."""
        self.preparing.stop()
        session = self.session
        if session is None:
            self.say("There is no checkpoint; choose one with Open….")
            return
        try:
            job, layer, note = self.job()
        except NucpruneError as error:
            self.say(str(error))
            return
        self._job = job
        self._later.stop()
        compare = self.comparing.ahead(session, job, layer)

        def work(progress: Any, should_stop: Any) -> tuple[Preview, Found | None]:
            # Here and not when the result is shown: the window must not wait for it.
            layers.warm()
            preview = session.run(job, progress, should_stop)
            return preview, None if compare is None or should_stop() else compare(preview)

        self.runner.request(work, lambda ran: self._show(session, job, layer, note, *ran))

    def cancel(self) -> None:
        """Stop the running job within one tile, drop what waits."""
        self._later.stop()
        self._rested.stop()
        self.preparing.stop()
        self.runner.cancel()

    # Showing -------------------------------------------------------------------------------

    def _show(
        self,
        session: Session,
        job: Job,
        layer: Image,
        note: str,
        preview: Preview,
        found: Found | None,
    ) -> None:
        if layer not in self.viewer.layers or self.session is not session:
            return
        self.preview = preview
        self._slow = preview.seconds > SLOW_RUN
        layers.show_preview(self.viewer, layer, job, preview, session.checkpoint.sha256)
        # First: where it is not there yet, it is computed while the rest is shown.
        self.comparing.show(Shown(session, job, layer, preview), found)
        # A packed file's size is known by what came back.
        self._show_cost()
        self.preparing.start(session, job)
        self.preparing.show_ready(session)
        self.say(" ".join(filter(None, (note, preview.note, texts.damaged_here(preview.damaged)))))
        self.show_time(preview, session.dense(job))

    def _show_cost(self, _: Any = None) -> None:
        session, asked = self.session, self.asked()
        if session is None:
            return
        if not session.is_ranked(asked):
            self.pruning.kept.setText("kept …")
            self.pruning.compute.setText("")
            # Sorting takes a while: the run that follows does it, or this.
            if not self.control.live.isChecked() or self.images.layer is None:
                self.runner.request(lambda *_: session.cost(asked), lambda _: self._show_cost())
            return
        try:
            spent = self.show_cost(session, asked)
        except NucpruneError as error:
            self.say(str(error))
            return
        packing = self.save.packing.currentData()
        self.file_size.show(session, asked, self.to_save(), packing, spent)

    # Buttons -------------------------------------------------------------------------------

    def open_checkpoint(self, origin: str) -> bool:
        """Load a checkpoint by bundled name or path; where it fails, all stays as it was."""
        try:
            session = Session(self.opening.load(origin), self.memory.device)
        except Exception as error:
            self.say(texts.error(error))
            choice = self.checkpoint.choice
            choice.setCurrentIndex(choice.findData(self.origin))
            return False
        self.cancel()
        self.session, self.preview, self._job = session, None, None
        self.comparing.forget()
        self.origin = origin
        self.show_session(session, origin)
        self.preparing.show_ready(session)
        self._show_cost()
        self._changed()
        if not self.opening.is_joined(origin):
            self.memory.opened(origin)
        return True

    def to_save(self) -> Job | None:
        """Return what names the recovery of the network that would be saved now."""
        recovery, reselect = self.pruning.repair()
        return self._job and replace(self._job, recovery=recovery, reselect=reselect)

    def closeEvent(self, event: QEvent) -> None:
        """Stop the running job when the dock closes."""
        self.memory.flush()
        self.cancel()
        self.whole.stop()
        super().closeEvent(event)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let a closing window not wait for a long run, and a larger one show more."""
        if event.type() == QEvent.Type.Close:
            self.memory.flush()
            self.cancel()
        elif event.type() == QEvent.Type.Resize:
            self._camera_moved()
        return super().eventFilter(watched, event)

    def showEvent(self, event: QEvent) -> None:
        """Watch the window that the dock is shown in."""
        window = self.window()
        window.installEventFilter(self)
        # Its canvas, which other docks make smaller too; a dock that floats has no such window.
        if isinstance(window, QMainWindow) and (central := window.centralWidget()):
            central.installEventFilter(self)
        super().showEvent(event)
