"""The dock: reads what the user set, asks the session, shows what came back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import QApplication, QFileDialog, QScrollArea, QVBoxLayout, QWidget

from ..checkpoint import bundled
from ..doors import Pruning
from ..errors import NucpruneError
from ..preview import Against, Job, Preview, Session
from ..pruning.strategy import STRATEGIES
from ..slides.reader import SUFFIXES
from . import layers, saving, sections, texts
from .images import Images
from .runner import Runner

if TYPE_CHECKING:
    from napari import Viewer

#: Where a run takes longer (seconds), the slider has to rest first (milliseconds).
SLOW_RUN, DEBOUNCE_MS = 0.25, 150
CAMERA_MS = 300
#: Most network pixels a side of the visible area; a rectangle or an image may be larger.
VISIBLE_LIMIT, LIMIT = 4096, 8192


class NucpruneDock(QWidget):
    """The dock widget of napari-nucprune.

    Parameters
    ----------
    napari_viewer
        The viewer it is docked in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.session: Session | None = None
        self.preview: Preview | None = None
        self.runner = Runner()
        self._job: tuple[Job, Image] | None = None
        self._slow = False
        self._build()
        self._later, self._rested = self._timer(self.run), self._timer(self._camera_rested)
        self._readout = self._timer(self._show_cost)
        self._connect()
        if self.checkpoint.choice.count():
            self._open_checkpoint(self.checkpoint.choice.currentText())
        self.images.refresh()
        if self.images.layer is None:
            self._say(texts.NO_IMAGE)

    # Building ------------------------------------------------------------------------------

    def _build(self) -> None:
        self.images = Images(self.viewer)
        self.image = self.images.section
        self.checkpoint = sections.CheckpointSection()
        self.pruning = sections.PruningSection()
        self.control = sections.RunSection()
        self.message = sections.wrapped("message")
        self.message.hide()
        self.compare = sections.CompareSection()
        self.save = sections.SaveSection()
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(8, 4, 8, 4)
        column.setSpacing(4)
        for part in (self.image, self.checkpoint, self.pruning, self.control, self.message,
                     self.compare, self.save):  # fmt: skip
            column.addWidget(part)
        column.addStretch(1)
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
        self.checkpoint.choice.addItems(bundled.names())

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
        self.checkpoint.choice.textActivated.connect(self._open_checkpoint)
        self._button(self.checkpoint.open, self._ask_checkpoint)
        pruning.strategy.currentTextChanged.connect(self._pruning_changed)
        pruning.link.toggled.connect(pruning.show_linked)
        pruning.link.toggled.connect(self._pruning_changed)
        for slider in pruning.sliders:
            slider.changed.connect(self._pruning_changed)
        control.run.clicked.connect(lambda: self.run())
        control.cancel.clicked.connect(self.cancel)
        control.live.toggled.connect(lambda on: self._changed() if on else None)
        self._button(self.compare.pin, self._pin)
        self._button(self.save.checkpoint, self._save_checkpoint)
        self._button(self.save.labels, lambda: saving.labels(self, self.preview))
        self._button(self.save.table, lambda: saving.table(self, self.preview))
        self.runner.progressed.connect(self._show_progress)
        self.runner.failed.connect(lambda error: self._say(texts.error(error)))
        self.runner.busy_changed.connect(self._show_busy)
        camera = layers.camera_of(self.viewer)
        camera.events.zoom.connect(self._camera_moved)
        camera.events.center.connect(self._camera_moved)
        self.destroyed.connect(self.runner.close)
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.runner.close)

    def _button(self, button: Any, action: Callable[[], str | None]) -> None:
        """Let a button do ``action``; what it returns or raises is the message."""

        def clicked() -> None:
            try:
                said = action()
            except Exception as error:
                said = texts.error(error)
            if said:
                self._say(said)

        button.clicked.connect(clicked)

    # What the user changes -----------------------------------------------------------------

    def _image_changed(self) -> None:
        if self.images.layer is None:
            self.cancel()
            self._say(texts.NO_IMAGE)
            return
        self._say("")
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
        self._changed()

    def _camera_moved(self, event: Any = None) -> None:
        if self.control.live.isChecked() and self.image.area.currentText() == "visible area":
            self._rested.start(CAMERA_MS)

    def _camera_rested(self) -> None:
        try:
            job = self._make_job()
        except NucpruneError as error:
            self._say(str(error))
            return
        if self._job is None or job[0].box != self._job[0].box:
            self._changed()

    def _changed(self) -> None:
        if not self.control.live.isChecked() or self.images.layer is None:
            return
        # Idle: at once. In mid-run a slow network is not started anew for every tick of a drag.
        self._later.start(DEBOUNCE_MS if self._slow and self.runner.busy else 0)

    # Running -------------------------------------------------------------------------------

    def asked(self) -> Pruning:
        """Return the pruning that the dock's controls say."""
        semantic, distance = self.pruning.ratios()
        return Pruning(self.pruning.strategy.currentText(), semantic, distance)

    def _make_job(self) -> tuple[Job, Image]:
        source, layer = self.images.source(), self.images.layer
        assert layer is not None
        area, box, limit = self.image.area.currentText(), None, LIMIT
        if area == "visible area":
            box, limit = layers.visible_box(layer), VISIBLE_LIMIT
        elif area == "rectangle":
            box = layers.rectangle_box(layers.find(self.viewer, "region"), layer)
        return Job(source, box, self.asked(), self.images.key(), limit), layer

    def run(self) -> None:
        """Run what the controls say, now; a running job is asked to stop."""
        session = self.session
        if session is None:
            self._say("There is no checkpoint; choose one with Open….")
            return
        try:
            job, layer = self._job = self._make_job()
        except NucpruneError as error:
            self._say(str(error))
            return
        self._later.stop()
        self.runner.request(
            lambda progress, should_stop: self._work(session, job, progress, should_stop),
            lambda found: self._show(job, layer, *found),
        )

    @staticmethod
    def _work(
        session: Session, job: Job, progress: Any, should_stop: Any
    ) -> tuple[Preview, Against | None]:
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
                self._show_lines(preview, against)

        self.runner.request(work, done)

    def cancel(self) -> None:
        """Stop the running job within one tile, drop what waits."""
        self._later.stop()
        self._rested.stop()
        self.runner.cancel()

    # Showing -------------------------------------------------------------------------------

    def _show(self, job: Job, layer: Image, preview: Preview, against: Against | None) -> None:
        if layer not in self.viewer.layers or self.session is None:
            return
        self.preview = preview
        self._slow = preview.seconds > SLOW_RUN
        place = layers.placement(layer, preview.transform)
        about = {
            "checkpoint_sha256": self.session.checkpoint.sha256,
            "strategy": preview.pruning.strategy,
            "cr_semantic": preview.pruning.cr_semantic,
            "cr_distance": preview.pruning.cr_distance,
            "box": job.box,
            "mpp": preview.maps.mpp,
            "mpp_assumed": preview.mpp_assumed,
        }
        results = (preview.maps.semantic, preview.maps.distance, preview.nuclei.labels)
        for role, data in zip(layers.ROLES, results, strict=True):
            layers.show(self.viewer, role, data, place, about)
        self._say("")
        self._show_lines(preview, against)
        if against is None:
            self._run_dense(job, preview)

    def _show_lines(self, preview: Preview, against: Against | None) -> None:
        self.pruning.time.setText(texts.time(preview, against))
        self.compare.line.setText(texts.line(preview, against))

    def _show_cost(self) -> None:
        if self.session is None:
            return
        try:
            spent = self.session.cost(self.asked())
        except NucpruneError as error:
            self._say(str(error))
            return
        self.pruning.kept.setText(texts.kept(spent))
        self.pruning.compute.setText(texts.compute(spent))

    def _show_progress(self, text: str, done: int, total: int) -> None:
        bar = self.control.progress
        bar.setRange(0, total)
        bar.setValue(done)
        bar.setFormat(f"{text} {done}/{total}" if total else text)

    def _show_busy(self, busy: bool) -> None:
        self.control.cancel.setEnabled(busy)
        if not busy:
            self._show_progress("idle", 0, 0)
            self.control.progress.setRange(0, 1)

    def _say(self, text: str) -> None:
        self.message.setText(text)
        self.message.setVisible(bool(text))

    # Buttons -------------------------------------------------------------------------------

    def _open_checkpoint(self, name: str | Path) -> None:
        """Load a checkpoint; where it fails, all stays as it was."""
        choice = self.checkpoint.choice
        try:
            session = Session(bundled.open_checkpoint(name))
            spent = session.cost(session.stored())
        except Exception as error:
            self._say(texts.error(error))
            if self.session is not None:
                choice.setCurrentText(self.session.checkpoint.name)
            return
        self.cancel()
        self.session, self.preview, self._job = session, None, None
        if choice.findText(session.checkpoint.name) < 0:
            choice.addItem(session.checkpoint.name, str(name))
        choice.setCurrentText(session.checkpoint.name)
        self.checkpoint.about.setText(texts.about(session.checkpoint, spent))
        own = session.checkpoint.own_cr
        self.pruning.semantic.set_limits(own["semantic"], session.largest_cr("semantic"))
        self.pruning.distance.set_limits(own["distance"], session.largest_cr("distance"))
        self.pruning.both.set_limits(
            max(own.values()), min(session.largest_cr(b) for b in own)
        )  # fmt: skip
        self.images.network_mpp = session.checkpoint.mpp
        self.images.show_mpp()
        self._show_cost()
        self._changed()

    def _ask_checkpoint(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Open a checkpoint", "", "Checkpoints (*.safetensors *.pt *.pth)"
        )
        if name:
            self._open_checkpoint(Path(name))

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
        return saving.checkpoint(self, self.session, self.asked())

    def closeEvent(self, event: QEvent) -> None:
        """Stop the running job when the dock closes."""
        self.cancel()
        super().closeEvent(event)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let a closing window not wait for a long run."""
        if event.type() == QEvent.Type.Close:
            self.runner.cancel()
        return super().eventFilter(watched, event)

    def showEvent(self, event: QEvent) -> None:
        """Watch the window that the dock is shown in."""
        self.window().installEventFilter(self)
        super().showEvent(event)
