"""The dock's part on what was lost: what with what, fates, scores, ways to look."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QLabel, QPushButton, QSizePolicy

from ..difference.colours import FATE_COLOURS
from .elided import Elided
from .legend import Legend
from .numbers import Numbers
from .sections import Section, wrapped

#: Ways to look at result and reference: data, text and tooltip.
LOOKS = (
    ("overlay", "Overlay", "Everything on one canvas."),
    ("side", "Side by side", "The reference left, the result right, one camera for both."),
    ("swipe", "Swipe", "A divider to drag over the canvas: the reference left, the result right."),
)

MAPS_LEGEND = (
    f'<span style="color: {FATE_COLOURS["lost"]}">■</span> less than the reference, '
    f'<span style="color: {FATE_COLOURS["added"]}">■</span> more; clear where both agree'
)


class Choice(QComboBox):
    """A list whose entries carry any object, found again by identity or equality."""

    def __init__(self, tip: str) -> None:
        super().__init__()
        self.setToolTip(tip)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        Elided(self)
        self._choices: list[Any] = []

    @property
    def choice(self) -> Any:
        """The chosen object."""
        index = self.currentIndex()
        return self._choices[index] if 0 <= index < len(self._choices) else None

    def choose(self, choice: Any) -> bool:
        """Choose an object where it is offered; says whether."""
        for index, own in enumerate(self._choices):
            if own is choice or (isinstance(own, str) and own == choice):
                self.setCurrentIndex(index)
                return True
        return False

    def offer(self, entries: list[tuple[str, Any]], otherwise: Any) -> bool:
        """Offer (text, object) pairs and keep what was chosen.

        Returns
        -------
        bool
            Whether what was chosen is gone, and ``otherwise`` is now.
        """
        before = self.choice
        with QSignalBlocker(self):
            self.clear()
            self._choices = [choice for _, choice in entries]
            self.addItems([text for text, _ in entries])
            kept = self.choose(before)
            if not kept:
                self.choose(otherwise)
        return not kept


class CompareSection(Section):
    """The reference, the scores, the legend, and how to look."""

    def __init__(self) -> None:
        super().__init__("Compare")
        self.result = Choice("What is compared: what the controls above give, or a pinned result")
        self.reference = Choice(
            "What it is compared with: the dense network, a pinned result, or any Labels layer "
            "(your own outlines; drop an annotation on the viewer)"
        )
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(3)
        for row, (text, box) in enumerate((("Compare", self.result), ("with", self.reference))):
            grid.addWidget(QLabel(text), row, 0)
            grid.addWidget(box, row, 1)
        grid.setColumnStretch(1, 1)
        self.body.addLayout(grid)
        self.line = wrapped("line")
        self.line.setToolTip(
            "Dice: overlap of the nuclei's areas. PQ: panoptic quality, found nuclei and their "
            "outlines together. 1 means the same as the reference."
        )
        self.body.addWidget(self.line)
        self.numbers = Numbers()
        self.body.addWidget(self.numbers)
        self.differences = QCheckBox("Differences")
        self.differences.setChecked(True)
        self.differences.setToolTip("A layer that colours every nucleus by what became of it")
        self.filled = QCheckBox("filled")
        self.filled.setToolTip("Filled areas instead of outlines")
        self.points = QCheckBox("points")
        self.points.setToolTip("A points layer with every nucleus' centre in its colour")
        self.row(self.differences, (self.filled, 1), (self.points, 1))
        self.legend = Legend()
        self.body.addWidget(self.legend)
        self.maps = QCheckBox("Differences of the maps")
        self.maps.setToolTip(
            "Two layers, result minus reference of the semantic and of the distance map, both on "
            "the same scale from -1 to 1"
        )
        self.body.addWidget(self.maps)
        self.maps_legend = wrapped("maps legend")
        self.maps_legend.setTextFormat(Qt.TextFormat.RichText)
        self.maps_legend.setText(MAPS_LEGEND)
        self.maps_legend.hide()
        self.maps.toggled.connect(self.maps_legend.setVisible)
        self.body.addWidget(self.maps_legend)
        self.look = QComboBox()
        for data, text, tip in LOOKS:
            self.look.addItem(text, data)
            self.look.setItemData(self.look.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.look.setToolTip("How result and reference are shown")
        self.flip = QPushButton("Flip")
        self.flip.setCheckable(True)
        self.flip.setToolTip("Show the reference in the place of the result (Alt+Z)")
        self.row(QLabel("Look"), (self.look, 1), self.flip)
        self.pin = QPushButton("Pin this result")
        self.pin.setToolTip("Keep a copy of the three layers to compare with")
        self.body.addWidget(self.pin)
