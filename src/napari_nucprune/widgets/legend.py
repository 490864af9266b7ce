"""The fates' legend: a colour, a word and a count each; a click goes to the next such nucleus."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import QRect, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QApplication, QGridLayout, QPushButton, QWidget

from ..compare.outcome import FATES, Fate
from ..difference.colours import FATE_COLOURS, FATE_WORDS

SIDE = 14
HOW = "Click: go to the next one. Shift: the last one."
PIECES = "After the +: pieces cut off from nuclei that are found again without them."


def swatch(colour: str) -> QIcon:
    """Return a square of a colour with a thin rim, so that pale and dark ones show on any theme."""
    pixmap = QPixmap(SIDE, SIDE)
    pixmap.fill(QColor(colour))
    painter = QPainter(pixmap)
    painter.setPen(QColor(128, 128, 128))
    painter.drawRect(QRect(0, 0, SIDE - 1, SIDE - 1))
    painter.end()
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Disabled)  # none of a fate: its colour stays
    return icon


class Legend(QWidget):
    """Emits ``asked(fate, step)`` on a click: 1 for the next nucleus, -1 with Shift held."""

    asked = Signal(str, int)

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, QPushButton] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(3)
        for index, name in enumerate(FATES):
            row = QPushButton(swatch(FATE_COLOURS[name]), name)
            row.setStyleSheet("QPushButton { text-align: left; padding: 3px 5px; }")
            row.clicked.connect(partial(self._clicked, name))
            grid.addWidget(row, index // 2, index % 2)
            self.rows[name] = row
        for column in range(2):
            grid.setColumnStretch(column, 1)
        self.show_fate(None)

    def show_fate(self, fate: Fate | None) -> None:
        """Show the counts; without a comparison there is nothing to go to."""
        counts = {} if fate is None else fate.counts
        for name, row in self.rows.items():
            text = f"{name}  {counts[name]:,}" if counts else name
            beside = 0 if fate is None else len(fate.places(name)) - counts[name]
            row.setText(f"{text} + {beside:,}" if beside else text)
            row.setToolTip("\n".join([FATE_WORDS[name], *[PIECES] * bool(beside), HOW]))
            row.setEnabled(bool(counts.get(name) or beside))

    def _clicked(self, name: str, checked: bool = False) -> None:
        held = QApplication.keyboardModifiers() & Qt.KeyboardModifier.ShiftModifier
        self.asked.emit(name, -1 if held else 1)
