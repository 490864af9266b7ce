"""A real window, a quick network in it, and dialogs that are answered."""

import time

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from helpers import QUICK, make_checkpoint
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import save

PLUGIN = "napari-nucprune"


class Dialogs:
    """Answers modal dialogs, so that none can hang a test.

    The next dialog goes to ``answer``; one without an answer, or still open after it, is closed.
    """

    def __init__(self):
        self.seen = []
        self.answer = None
        self._handled = None
        self._timer = QTimer()
        self._timer.timeout.connect(self._look)
        self._timer.start(50)
        self._begun = 0.0

    def _look(self):
        dialog = QApplication.activeModalWidget()
        if dialog is None:
            self._handled = None
        elif dialog is not self._handled:
            self._handled, self._begun = dialog, time.monotonic()
            self.seen.append(dialog.windowTitle())
            answer, self.answer = self.answer, None
            if answer is None:
                dialog.close()
            else:
                answer(dialog)
        elif time.monotonic() - self._begun > 5:
            dialog.close()

    def stop(self):
        self._timer.stop()


@pytest.fixture
def dialogs(qapp):
    dialogs = Dialogs()
    yield dialogs
    dialogs.stop()


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """A small network of random weights in the place of the bundled one."""
    return put_checkpoint(tmp_path, monkeypatch, QUICK)


def put_checkpoint(tmp_path, monkeypatch, widths):
    folder = tmp_path / "weights"
    folder.mkdir()
    checkpoint = make_checkpoint(widths, seed=3, name=shipped.DEFAULT)
    save(checkpoint, folder / f"{shipped.DEFAULT}.safetensors")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return checkpoint


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


def settle(dock, qtbot, timeout=30_000):
    """Wait until nothing runs, waits or is about to."""

    def idle():
        timers = (dock._later, dock._rested, dock._readout)
        return not dock.runner.busy and not any(t.isActive() for t in timers)

    qtbot.waitUntil(idle, timeout=timeout)
