"""A real window, a quick network in it, and dialogs that are answered."""

import time

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

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
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)
