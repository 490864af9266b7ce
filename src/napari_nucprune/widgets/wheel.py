"""The mouse wheel scrolls the dock: a control under it changes only after it was clicked."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QSlider, QWidget


class WheelGuard(QObject):
    """Leaves the wheel to what scrolls, except over a control that has the focus.

    Qt's own controls take it wherever the mouse is: who scrolled the dock changed the strategy, the
    um/px or the packing that happened to pass under it.

    Parameters
    ----------
    inside
        Holds the controls; what it holds by then is guarded.
    """

    def __init__(self, inside: QWidget) -> None:
        super().__init__(inside)
        for kind in (QComboBox, QAbstractSpinBox, QSlider):
            for control in inside.findChildren(kind):
                # Not by the wheel, which would give it the focus first.
                control.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
                control.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Hand the wheel on to the parent."""
        if (
            event.type() == QEvent.Type.Wheel
            and isinstance(watched, QWidget)
            and not watched.hasFocus()
        ):
            event.ignore()
            return True
        return False
