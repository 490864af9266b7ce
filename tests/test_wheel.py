"""The mouse wheel over the dock: it scrolls, and changes what has the focus only."""

import pytest

pytest.importorskip("napari")
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QDoubleSpinBox,
    QScrollArea,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from dock_helpers import dock, viewer
from napari_nucprune.widgets.wheel import WheelGuard

__all__ = ["dock", "viewer"]


def box():
    made = QComboBox()
    made.addItems(["layer-wise", "network-wide", "LAMP"])
    return made, made.currentIndex


def number():
    made = QDoubleSpinBox()
    return made, made.value


def slider():
    made = QSlider(Qt.Orientation.Horizontal)
    return made, made.value


def turn(widget, up):
    """Turn the wheel by a notch over a widget; whether it took it (Qt asks its parent if not)."""
    middle = QPointF(widget.rect().center())
    event = QWheelEvent(
        middle,
        QPointF(widget.mapToGlobal(widget.rect().center())),
        QPoint(),
        QPoint(0, 120 if up else -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(widget, event)
    return event.isAccepted()


@pytest.mark.window
@pytest.mark.parametrize("make", [box, number, slider])
def test_the_wheel_scrolls_past_a_control_and_turns_one_that_was_clicked(qtbot, make):
    control, value = make()
    inside, scroll = QWidget(), QScrollArea()
    column = QVBoxLayout(inside)
    column.addWidget(control)
    inside.setMinimumHeight(2000)
    guard = WheelGuard(inside)
    assert guard.parent() is inside
    scroll.setWidget(inside)
    scroll.setWidgetResizable(True)
    scroll.resize(300, 200)
    qtbot.addWidget(scroll)
    with qtbot.waitActive(scroll):
        scroll.show()
        scroll.activateWindow()
    scroll.setFocus()
    before = value()
    for up in (False, True, False):
        assert not turn(control, up)
        assert value() == before
        assert not control.hasFocus()
    control.setFocus()
    assert turn(control, up=not isinstance(control, QComboBox))  # a list goes down, a number up
    assert value() != before


def test_every_control_of_the_dock_leaves_the_wheel_to_it(viewer, dock):
    strategy, mpp, cr = dock.pruning.strategy, dock.image.mpp, dock.pruning.both.slider
    before = (strategy.currentText(), mpp.value(), cr.value(), dock.save.packing.currentText())
    for control in (strategy, mpp, cr, dock.pruning.both.box, dock.save.packing):
        assert not control.hasFocus()
        assert not any(turn(control, up) for up in (True, False, False))
    after = (strategy.currentText(), mpp.value(), cr.value(), dock.save.packing.currentText())
    assert after == before
