"""The dock's part on whole slides: run, pause, cancel; results come onto the slide as they do."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QFileDialog, QProgressBar, QPushButton

from ..errors import Cancelled, InputError
from ..files import no_file
from ..wholejob import SlideJob, ask_for, pyramid_of
from . import layers, texts
from .runner import Seldom
from .sections import Section, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..doors import Pruning
    from ..job import Job
    from ..preview import Session

ROLE = "slide instances"
#: Milliseconds between two updates of the layer while results come.
_REFRESH_MS = 1000


class WholeSection(Section):
    """Whole slide: a button, progress, pause and cancel.

    Parameters
    ----------
    viewer
        Whose layers show the results.
    asked
        Returns the session, the chosen layer, the pruning and its job; raises where there is none.
    say
        Shows a message.
    """

    _progressed = Signal(str, int, int)
    _ended = Signal(object)

    def __init__(
        self,
        viewer: Any,
        asked: Callable[[], tuple[Session, Image, Pruning, Job]],
        say: Callable[[str], None],
    ) -> None:
        super().__init__("Whole slide")
        self.viewer, self._asked, self._say = viewer, asked, say
        self.start = QPushButton("Segment the slide…")
        self.start.setToolTip("Asks for a folder; the same folder goes on with what was cut off")
        self.pause = QPushButton("Pause")
        self.pause.setCheckable(True)
        self.cancel = QPushButton("Cancel")
        self.row((self.start, 1), self.pause, self.cancel)
        self.progress = QProgressBar()
        self.line = wrapped("line")
        self.body.addWidget(self.progress)
        self.body.addWidget(self.line)
        self.job: SlideJob | None = None
        self._image: Image | None = None
        self._refresh = QTimer(self)
        self._refresh.timeout.connect(self._show_preview)
        self.start.clicked.connect(self._ask_folder)
        self.pause.toggled.connect(self._paused)
        self.cancel.clicked.connect(self.stop)
        # Emitted in the job's thread, received on the main one.
        queued = Qt.ConnectionType.QueuedConnection
        self._progressing = Seldom(self._show_progress, self)
        self._progressed.connect(self._progressing.take, queued)
        self._ended.connect(self._show_end, queued)
        self._thread: threading.Thread | None = None
        self._show_running(False)

    def _ask_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "A folder for the slide's results")
        if name:
            self.run(Path(name))

    def run(self, output: Path) -> None:
        """Segment the chosen slide into a folder, or go on there."""
        if self.job is not None:
            return
        try:
            session, image, pruning, job = self._asked()
            path = _path_of(image)
            made = SlideJob(ask_for(session, pruning, job, path, output))
        except Exception as error:
            self._say(texts.error(error))
            return
        self._image = image
        self.job = made
        self._show_running(True)
        self._refresh.start(_REFRESH_MS)
        self._thread = threading.Thread(target=self._work, args=(self.job,), name="nucprune-whole")
        self._thread.start()

    def stop(self) -> None:
        """Stop within a tile; what is done stays in the folder."""
        if self.job is not None:
            self.job.hooks.stop.set()

    def close_down(self) -> None:
        """Stop, and wait for the thread; nothing is shown any more."""
        self._refresh.stop()
        self._progressing.stop()
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _work(self, job: SlideJob) -> None:
        try:
            found: Any = job.run(self._progressed.emit)
        except BaseException as error:
            found = error
        self._ended.emit(found)

    def _paused(self, on: bool) -> None:
        self.pause.setText("Go on" if on else "Pause")
        if self.job is not None:
            (self.job.hooks.pause.set if on else self.job.hooks.pause.clear)()

    def _show_progress(self, text: str, done: int, total: int) -> None:
        self.progress.setFormat("%v/%m tiles" if text.startswith("Segmenting") else "%p%")
        self.progress.setRange(0, max(total, 1))
        self.progress.setValue(done)
        self.line.setText(text.rstrip(";"))

    def _show_preview(self) -> None:
        job, image = self.job, self._image
        if job is None or image is None or image not in self.viewer.layers:
            return
        found = job.preview()
        if found is not None:
            data, transform = found
            self._show(data, transform, False)

    def _show_end(self, found: Any) -> None:
        self._refresh.stop()
        self._progressing.stop()
        job, self.job = self.job, None
        if self._thread is not None:
            self._thread.join()
        if isinstance(found, Cancelled):
            self.line.setText("Stopped; the same folder goes on from here.")
        elif isinstance(found, BaseException):
            self.line.setText("")
            self._say(texts.error(found))
        elif job is not None:
            self.line.setText(
                f"{found['nuclei']:,} nuclei on {found['tissue_mm2']:.2f} mm² in {job.ask.output}"
                + texts.damaged(found["bad_tiles"])
            )
        self._show_running(False)
        if job is None or isinstance(found, BaseException):
            return
        if self._image is not None and self._image in self.viewer.layers:
            self._show(*pyramid_of(job.ask.output, found), True)

    def _show(self, data: Any, transform: Any, multiscale: bool) -> None:
        """Put labels onto the slide; a layer cannot become a multiscale one, so it is made anew."""
        assert self._image is not None
        layer = layers.find(self.viewer, ROLE)
        if layer is not None and not multiscale and not layer.multiscale:
            layer.data = data
            return
        if layer is not None:
            self.viewer.layers.remove(layer)
        active = self.viewer.layers.selection.active
        made = self.viewer.add_labels(
            data,
            multiscale=multiscale,
            name="instances (slide)",
            metadata={layers.KEY: {"role": ROLE}},
            opacity=0.7,
            **layers.placement(self._image, np.asarray(transform)),
        )
        made.editable = False
        if active is not None and active in self.viewer.layers:
            self.viewer.layers.selection.active = active

    def _show_running(self, running: bool) -> None:
        self.start.setEnabled(not running)
        self.pause.setEnabled(running)
        self.cancel.setEnabled(running)
        self.progress.setVisible(running)
        # Empty, it would be a gap.
        self.line.setVisible(running or bool(self.line.text()))
        if not running:
            self.pause.setChecked(False)


def _path_of(image: Image) -> Path:
    """Return the file that a layer shows.

    Raises
    ------
    InputError
        Where it is of no file.
    """
    path = image.metadata.get(layers.KEY, {}).get("path") or image.source.path
    if path and Path(path).is_dir():
        raise no_file(Path(path), "a slide")
    if not path or not Path(path).is_file():
        raise InputError(f"{image.name} is of no file; open the slide from its file to segment it.")
    return Path(path)
