"""*Open…* by the mouse, with a network of others that comes one branch a file."""

import time

import numpy as np
import pytest

napari = pytest.importorskip("napari")
pytest.importorskip("h5py")
from qtpy.QtCore import Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import (
    QApplication,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFileDialog,
    QInputDialog,
    QLineEdit,
)

from dock_helpers import close, settle
from foreign_helpers import WIDTHS, check, two, write_keras
from helpers import is_one_line, noise
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.foreign import open_foreign
from napari_nucprune.doors import BRANCHES
from napari_nucprune.slides.field import take
from napari_nucprune.slides.source import Source
from napari_nucprune.widgets.dock import NucpruneDock

__all__ = ["two"]  # a fixture

pytestmark = pytest.mark.window

CANCEL = object()


class Hands:
    """Fills one modal dialog after the other, and presses its button by the mouse."""

    def __init__(self, *answers):
        self.answers, self.titles = list(answers), []
        self.answer = CANCEL
        self._handled, self._begun = None, time.monotonic()
        self._timer = QTimer()
        self._timer.timeout.connect(self._look)
        self._timer.start(50)

    def _look(self):
        dialog = QApplication.activeModalWidget()
        if dialog is None:
            return
        if dialog is self._handled:
            # A click too early, while the folder is being read, does nothing.
            if time.monotonic() - self._begun < 10:
                self._press(dialog)
            else:
                dialog.close()  # it would hang the test
            return
        self._handled, self._begun = dialog, time.monotonic()
        self.titles.append(dialog.windowTitle())
        self.answer = self.answers.pop(0) if self.answers else CANCEL
        if self.answer is not CANCEL and isinstance(dialog, QFileDialog):
            dialog.findChild(QLineEdit, "fileNameEdit").setText(str(self.answer))
        elif self.answer is not CANCEL:
            assert isinstance(dialog, QInputDialog)
            dialog.findChild(QDoubleSpinBox).setValue(self.answer)
        self._press(dialog)

    def _press(self, dialog):
        buttons = dialog.findChild(QDialogButtonBox)
        which = buttons.StandardButton
        if self.answer is CANCEL:
            button = which.Cancel
        else:
            button = which.Open if isinstance(dialog, QFileDialog) else which.Ok
        QTest.mouseClick(buttons.button(button), Qt.MouseButton.LeftButton)

    def stop(self):
        self._timer.stop()


@pytest.fixture
def hands(qapp):
    """Qt's own dialogs, which hands here can reach, on every system."""
    attribute = Qt.ApplicationAttribute.AA_DontUseNativeDialogs
    before = QApplication.testAttribute(attribute)
    QApplication.setAttribute(attribute, True)
    made = []

    def make(*answers):
        made.append(Hands(*answers))
        return made[-1]

    yield make
    for own in made:
        own.stop()
    QApplication.setAttribute(attribute, before)


@pytest.fixture
def dock(make_napari_viewer, quick, qtbot):
    viewer = make_napari_viewer()
    dock = NucpruneDock(viewer)
    viewer.window.add_dock_widget(dock, name="nucprune")
    dock.image.area.setCurrentText("whole image")
    dock.pruning.choose_recovery("off")
    viewer.add_image(noise(1, 64, 64))
    settle(dock, qtbot)
    yield dock
    dock.runner.close()


@pytest.fixture
def files(tmp_path, two):
    paths = {branch: tmp_path / f"my_{branch}.h5" for branch in BRANCHES}
    for branch, path in paths.items():
        write_keras(path, two[branch], WIDTHS)
    return paths


def click_open(dock):
    QTest.mouseClick(dock.checkpoint.open, Qt.MouseButton.LeftButton)


def test_two_files_and_a_pixel_size_make_the_network_that_runs(dock, files, two, hands, qtbot):
    done = hands(files["distance"], files["semantic"], 0.4)
    click_open(dock)
    settle(dock, qtbot)
    assert len(done.titles) == 3
    assert "open the semantic branch" in done.titles[1]
    check(dock.session.checkpoint, two)
    assert dock.session.checkpoint.mpp == 0.4
    # What is shown is what the core makes of these files.
    from napari_nucprune.runtime.torch_runtime import TorchRuntime

    checkpoint = open_foreign(files["semantic"], files["distance"], 0.4)
    runtime = TorchRuntime("cpu")
    runtime.load(checkpoint)
    wanted = runtime.run(take(Source([noise(1, 64, 64)]), 0.4).field)
    close(dock.preview.maps.semantic, wanted.semantic)
    np.testing.assert_allclose(dock.preview.maps.distance, wanted.distance, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_cancelled_anywhere_all_stays_as_it_was(dock, files, hands, at):
    session, shown = dock.session, dock.preview
    answers = [files["semantic"], files["distance"], 0.4]
    done = hands(*answers[:at], CANCEL)
    click_open(dock)
    assert len(done.titles) == at + 1
    assert dock.session is session
    assert dock.preview is shown
    assert dock.checkpoint.choice.currentText() == shipped.DEFAULT


def test_two_files_that_make_no_network_are_a_sentence(dock, files, tmp_path, hands):
    (tmp_path / "other.h5").write_bytes(b"no")
    session, shown = dock.session, dock.preview
    hands(files["semantic"], tmp_path / "other.h5", 0.4)
    click_open(dock)
    assert dock.session is session
    assert dock.preview is shown
    assert "other.h5" in dock.message.text()
    assert is_one_line(dock.message.text())
