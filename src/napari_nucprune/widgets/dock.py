"""The dock: reads what the user set, asks the session, shows what came back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QApplication, QFileDialog

from ..checkpoint import bundled
from ..errors import NucpruneError
from ..preview import Against, Job, Preview, Session
from ..slides.reader import SUFFIXES
from . import layers, saving, texts
from .controls import Controls
from .file_size import FileSize
from .preparing import Preparing
from .runner import Runner

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
        self.preparing = Preparing(self, self.runner)
        self.file_size = FileSize(self)
        self._job: Job | None = None
        self._slow = False
        self._origin = ""
        self._later, self._rested = self._timer(self.run), self._timer(self._camera_rested)
        self._readout = self._timer(self._show_cost)
        self._connect()
        if self.checkpoint.choice.count():
            self._open_checkpoint(self.checkpoint.choice.currentData())
        self.images.refresh()
        if self.images.layer is None:
            self.say(texts.NO_IMAGE)

    def _timer(self, action: Callable[[], Any]) -> QTimer:
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.timeout.connect(action)
        return timer

    def _connect(self) -> None:
        image, pruning, control = self.image, self.pruning, self.control
        self.images.changed.connect(self._image_changed)
        image.area.currentTextChanged.connect(self._area_changed)
        self._button(image.open_slide, self._ask_slide)
        choice = self.checkpoint.choice
        choice.activated.connect(lambda _: self._open_checkpoint(choice.currentData()))
        self._button(self.checkpoint.open, self._ask_checkpoint)
        pruning.strategy.currentTextChanged.connect(self._pruning_changed)
        pruning.recovery.currentIndexChanged.connect(self._recovery_changed)
        pruning.reselect.toggled.connect(self._pruning_changed)
        pruning.link.toggled.connect(pruning.show_linked)
        pruning.link.toggled.connect(self._pruning_changed)
        for slider in pruning.sliders:
            slider.changed.connect(self._pruning_changed)
        control.run.clicked.connect(lambda: self.run())
        control.cancel.clicked.connect(self.cancel)
        control.live.toggled.connect(lambda on: self._changed() if on else self.preparing.stop())
        self._button(self.compare.pin, self._pin)
        self.save.packing.currentIndexChanged.connect(self._show_cost)
        self._button(self.save.checkpoint, self._save_checkpoint)
        self._button(self.save.labels, lambda: saving.labels(self, self.preview))
        self._button(self.save.table, lambda: saving.table(self, self.preview))
        self.runner.progressed.connect(self.show_progress)
        self.runner.failed.connect(lambda error: self.say(texts.error(error)))
        self.runner.busy_changed.connect(self.show_busy)
        self.runner.idle.connect(self.show_idle)
        camera = layers.camera_of(self.viewer)
        camera.events.zoom.connect(self._camera_moved)
        camera.events.center.connect(self._camera_moved)
        app = QApplication.instance()
        for part in (self.runner, self.file_size):
            self.destroyed.connect(part.close)
            if app is not None:
                app.aboutToQuit.connect(part.close)

    def _button(self, button: Any, action: Callable[[], str | None]) -> None:
        """Let a button do ``action``; what it returns or raises is the message."""

        def clicked() -> None:
            try:
                said = action()
            except Exception as error:
                said = texts.error(error)
            if said:
                self.say(said)

        button.clicked.connect(clicked)

    # What the user changes -----------------------------------------------------------------

    def _image_changed(self) -> None:
        self.preparing.show_ready(self.session)
        if self.images.layer is None:
            self.cancel()
            if self.session is not None:
                self.session.forget()
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

    def _recovery_changed(self, _: Any = None) -> None:
        self.pruning.reselect.setEnabled(self.pruning.recovery.currentData() != "off")
        self._pruning_changed()

    def _camera_moved(self, event: Any = None) -> None:
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
        # Idle: at once. In mid-run a slow network is not started anew for every tick of a drag.
        self._later.start(DEBOUNCE_MS if self._slow and self.runner.busy else 0)

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
        self.runner.request(
            lambda progress, should_stop: self._work(session, job, progress, should_stop),
            lambda found: self._show(job, layer, note, *found),
        )

    @staticmethod
    def _work(
        session: Session, job: Job, progress: Any, should_stop: Any
    ) -> tuple[Preview, Against | None]:
        # Here and not when the result is shown: the window must not wait for it.
        layers.warm()
        preview = session.run(job, progress, should_stop)
        return preview, session.against_dense(job, preview)

    def _run_dense(self, job: Job, preview: Preview) -> None:
        """Run the dense network on the same area, for the line only."""
        session = self.session
        assert session is not None

        def work(progress: Any, should_stop: Any) -> Against | None:
            session.run(session.dense_job(job), progress, should_stop)
            return session.against_dense(job, preview)

        def done(against: Against | None) -> None:
            if self.preview is preview:
                self.show_lines(preview, against)

        self.runner.request(work, done)

    def cancel(self) -> None:
        """Stop the running job within one tile, drop what waits."""
        self._later.stop()
        self._rested.stop()
        self.preparing.stop()
        self.runner.cancel()

    # Showing -------------------------------------------------------------------------------

    def _show(
        self, job: Job, layer: Image, note: str, preview: Preview, against: Against | None
    ) -> None:
        if layer not in self.viewer.layers or self.session is None:
            return
        self.preview = preview
        self._slow = preview.seconds > SLOW_RUN
        layers.show_preview(self.viewer, layer, job, preview, self.session.checkpoint.sha256)
        self.preparing.start(self.session, job)
        self.preparing.show_ready(self.session)
        self.say(" ".join(filter(None, (note, preview.note))))
        self.show_lines(preview, against)
        self._show_cost()
        if against is None:
            self._run_dense(job, preview)

    def _show_cost(self, _: Any = None) -> None:
        if self.session is None:
            return
        try:
            spent = self.session.cost(self.asked())
        except NucpruneError as error:
            self.say(str(error))
            return
        self.pruning.kept.setText(texts.kept(spent))
        packing = self.save.packing.currentData()
        self.file_size.show(self.session, self.asked(), self._to_save(), packing, spent)

    # Buttons -------------------------------------------------------------------------------

    def _open_checkpoint(self, origin: str) -> None:
        """Load a checkpoint by bundled name or path; where it fails, all stays as it was."""
        try:
            session = Session(bundled.open_checkpoint(origin))
        except Exception as error:
            self.say(texts.error(error))
            choice = self.checkpoint.choice
            choice.setCurrentIndex(choice.findData(self._origin))
            return
        self.cancel()
        self.session, self.preview, self._job = session, None, None
        self._origin = origin
        self.show_session(session, origin)
        self.preparing.show_ready(session)
        self._show_cost()
        self._changed()

    def _ask_checkpoint(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Open a checkpoint", "", "Checkpoints (*.safetensors *.pt *.pth)"
        )
        if name:
            self._open_checkpoint(name)

    def _ask_slide(self) -> None:
        pattern = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        name, _ = QFileDialog.getOpenFileName(self, "Open a slide", "", f"Slides ({pattern})")
        if name:
            self.viewer.open(name, plugin="napari-nucprune")

    def _pin(self) -> str:
        pruning = self.preview.pruning if self.preview else self.asked()
        pinned = layers.pin(self.viewer, pruning.label)
        return f"Pinned {len(pinned)} layers as “· {pruning.label}”."

    def _save_checkpoint(self) -> str | None:
        if self.session is None:
            return "There is no checkpoint to save; choose one with Open…."
        packing = self.save.packing.currentData()
        return saving.checkpoint(self, self.session, self.asked(), self._to_save(), packing)

    def _to_save(self) -> Job | None:
        """Return what names the recovery of the network that would be saved now."""
        recovery, reselect = self.pruning.repair()
        return self._job and replace(self._job, recovery=recovery, reselect=reselect)

    def closeEvent(self, event: QEvent) -> None:
        """Stop the running job when the dock closes."""
        self.cancel()
        super().closeEvent(event)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let a closing window not wait for a long run."""
        if event.type() == QEvent.Type.Close:
            self.cancel()
        return super().eventFilter(watched, event)

    def showEvent(self, event: QEvent) -> None:
        """Watch the window that the dock is shown in."""
        self.window().installEventFilter(self)
        super().showEvent(event)
