"""The dock's comparison: views that leave all as it was, and keys."""

import numpy as np
import pytest

napari = pytest.importorskip("napari")
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from compare_dock_helpers import compared, settle
from dock_helpers import dock, viewer
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.shortcuts import KEYS

__all__ = ["compared", "dock", "viewer"]


def state_of(viewer):
    """What views must leave as it was."""
    return [
        (layer.name, layer.visible, layer.opacity, id(layer.data)) for layer in viewer.layers
    ], (viewer.canvas.grid.enabled, viewer.canvas.grid.stride, viewer.canvas.grid.shape)


@pytest.mark.window
def test_views_leave_all_as_it_was(viewer, compared, qtbot):
    dock = compared
    viewer.window._qt_window.show()
    qtbot.wait(100)
    before = state_of(viewer)
    look, flip = dock.compare.look, dock.compare.flip
    look.setCurrentIndex(look.findData("swipe"))
    divider = dock.views.divider
    native = divider.parentWidget()
    assert divider.part == 0.5
    QTest.mousePress(divider, Qt.MouseButton.LeftButton, pos=QPoint(7, 50))
    start = divider.x
    for _ in range(5):
        QTest.mouseMove(divider, QPoint(7 + 12, 50))
    QTest.mouseRelease(divider, Qt.MouseButton.LeftButton, pos=QPoint(7, 50))
    assert divider.x == pytest.approx(start + 60, abs=6)
    # What is drawn left of the divider is the dense network's, right of it the pruned one's.
    shown = [viewer.layers["dense semantic"], layers.find(viewer, "semantic")]
    for layer, side in zip(shown, (0, 1), strict=True):
        for other in viewer.layers:
            other.visible = other is layer
        picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
        background = picture[0, 0]
        lit = (np.abs(picture - background).max(axis=2) > 0).any(axis=0)
        x = round(divider.x * picture.shape[1] / native.width())
        halves = lit[: x - 10].any(), lit[x + 10 :].any()
        assert halves == ((True, False) if side == 0 else (False, True))
    look.setCurrentIndex(0)
    for layer, (_, visible, *_) in zip(viewer.layers, before[0], strict=True):
        layer.visible = visible
    assert state_of(viewer) == before
    look.setCurrentIndex(look.findData("side"))
    assert viewer.canvas.grid.enabled
    shape = viewer.canvas.grid.actual_shape(viewer.layers)
    assert shape == (1, 2)
    panes = {
        layer.name: viewer.canvas.grid.position(index, viewer.layers)[1]
        for index, layer in enumerate(viewer.layers)
    }
    assert panes["tissue"] == panes["dense instances"] == panes["dense semantic"] == 0
    assert panes["tissue (right)"] == panes["instances"] == panes["semantic"] == 1
    assert panes["truth"] == -1
    look.setCurrentIndex(0)
    assert state_of(viewer) == before
    flip.click()
    assert viewer.layers["dense instances"].visible
    assert not layers.find(viewer, "instances").visible
    dock.pruning.both.set_value(8)
    settle(dock, qtbot)
    assert viewer.layers["dense instances"].visible
    flip.click()
    after = state_of(viewer)
    assert [own[:3] for own in after[0]] == [own[:3] for own in before[0]]
    # Another reference in mid-swipe, and its deletion.
    look.setCurrentIndex(look.findData("swipe"))
    dock.compare.reference.choose(viewer.layers["truth"])
    settle(dock, qtbot)
    assert viewer.layers["truth"].visible
    viewer.layers.remove(viewer.layers["truth"])
    settle(dock, qtbot)
    assert look.currentData() == "overlay" or dock.views.divider is not None
    look.setCurrentIndex(0)
    assert "dense instances" not in viewer.layers


@pytest.mark.window
def test_keys(viewer, compared, qtbot):
    dock = compared
    window = viewer.window._qt_window
    window.show()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    codes = {".": Qt.Key.Key_Period, ",": Qt.Key.Key_Comma, "Left": Qt.Key.Key_Left}
    codes |= {"Right": Qt.Key.Key_Right}
    codes |= {letter: getattr(Qt.Key, f"Key_{letter}") for letter in "XZADB"}

    def press(keys):
        code = codes[keys.removeprefix("Alt+")]
        QTest.keyClick(window.focusWidget() or window, code, Qt.KeyboardModifier.AltModifier)

    press("Alt+.")
    assert dock.pruning.both.value == 5
    press("Alt+,")
    press("Alt+,")
    assert dock.pruning.both.value == 2
    press("Alt+X")
    assert dock.pruning.strategy.currentText() == "network-wide"
    press("Alt+A")
    assert not dock.control.live.isChecked()
    press("Alt+A")
    settle(dock, qtbot)
    press("Alt+D")
    assert dock.views.divider is not None
    press("Alt+Right")
    assert dock.views.divider.part == pytest.approx(0.52)
    press("Alt+Left")
    press("Alt+D")
    press("Alt+B")
    assert viewer.canvas.grid.enabled
    press("Alt+B")
    press("Alt+Z")
    assert dock.compare.flip.isChecked()
    press("Alt+Z")
    assert not dock.views.on
    for keys, words, _ in KEYS:
        assert f"{keys}: {words}" in dock.files.keys.text()
