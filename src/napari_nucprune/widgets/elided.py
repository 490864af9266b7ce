"""Lists whose chosen text is shortened by an ellipsis where it does not fit."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QComboBox, QStyle, QStyleOptionComboBox, QStylePainter

#: Of the text's room, what a theme's padding takes at its ends.
PADDING = 6


class Elided(QObject):
    """Paints a list's chosen text with an ellipsis in its middle: file names differ at their ends.

    Parameters
    ----------
    box
        Any list, whoever made it.
    """

    def __init__(self, box: QComboBox) -> None:
        super().__init__(box)
        self.box = box
        box.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Paint in place of the list."""
        if watched is not self.box or event is None or event.type() != QEvent.Type.Paint:
            return False
        box: Any = self.box
        option: Any = QStyleOptionComboBox()
        box.initStyleOption(option)
        painter = QStylePainter(box)
        control, field = QStyle.ComplexControl.CC_ComboBox, QStyle.SubControl.SC_ComboBoxEditField
        painter.drawComplexControl(control, option)
        room = box.style().subControlRect(control, option, field, box)
        option.currentText = option.fontMetrics.elidedText(
            option.currentText, Qt.TextElideMode.ElideMiddle, room.width() - PADDING
        )
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        painter.end()
        return True
