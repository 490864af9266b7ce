"""A dock that shows a pruned result beside a truth."""

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from dock_helpers import noise
from dock_helpers import settle as settle_soon
from test_difference import blobs


def settle(dock, qtbot):
    """With patience: the first Labels layer of a process takes seconds, more on a busy machine."""
    settle_soon(dock, qtbot, timeout=120_000)


def click(button):
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.fixture
def compared(viewer, dock, qtbot):
    """A dock that shows CR 4 of an image with a truth."""
    viewer.add_labels(blobs(3, 96, 112), name="truth", visible=False)
    viewer.add_image(noise(), name="tissue")
    dock.pruning.both.set_value(4.0)
    settle(dock, qtbot)
    return dock
