"""The dock's parts, top to bottom: widgets only, wired by `dock`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from .elided import Elided

#: Data, text and tooltip.
PACKINGS = (
    ("none", "plain", "Every weight, in a safetensors file that any program can load."),
    (
        "lossless",
        "packed",
        "Only the weights that are kept, and where they lie; napari-nucprune loads it.",
    ),
    ("half", "packed, half precision", "The same with the weights rounded to 16 bits."),
)
AREAS = ("visible area", "rectangle", "whole image")


def wrapped(name: str = "") -> QLabel:
    """Return a label that breaks its text instead of widening the dock."""
    label = QLabel()
    label.setWordWrap(True)
    label.setObjectName(name)
    label.setTextFormat(Qt.TextFormat.PlainText)
    # Ignored width: a long file name must not push the dock past 320 px.
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    return label


class Section(QFrame):
    """A titled part of the dock that folds at a click on its title.

    Emits ``opened`` when it is unfolded.
    """

    opened = Signal()

    def __init__(self, title: str, folded: bool = False) -> None:
        super().__init__()
        self.title = title
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 2, 0, 2)
        column.setSpacing(2)
        self.heading = QToolButton()
        self.heading.setText(title)
        self.heading.setCheckable(True)
        self.heading.setAutoRaise(True)
        self.heading.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        # napari's style sheet gives tool buttons the size of an icon.
        self.heading.setStyleSheet(
            "QToolButton { max-width: 320px; min-height: 18px; border: none; padding: 0;"
            " background: transparent; font-weight: bold; }"
        )
        self.content = QWidget()
        self.body = QVBoxLayout(self.content)
        self.body.setContentsMargins(0, 0, 0, 2)
        self.body.setSpacing(4)
        column.addWidget(self.heading)
        column.addWidget(self.content)
        self.heading.toggled.connect(self._show_folded)
        self.heading.setChecked(not folded)
        self._show_folded(not folded)

    def set_folded(self, folded: bool) -> None:
        """Fold or unfold."""
        self.heading.setChecked(not folded)

    @property
    def folded(self) -> bool:
        """Whether only the title shows."""
        return not self.heading.isChecked()

    def _show_folded(self, unfolded: bool) -> None:
        self.content.setVisible(unfolded)
        arrow = Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow
        self.heading.setArrowType(arrow)
        if unfolded:
            self.opened.emit()

    def row(self, *widgets: QWidget | tuple[QWidget, int]) -> QHBoxLayout:
        """Add widgets side by side, a stretch with each where given as a pair."""
        layout = QHBoxLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in widgets:
            layout.addWidget(*(widget if isinstance(widget, tuple) else (widget, 0)))
        self.body.addLayout(layout)
        return layout


class ImageSection(Section):
    """Which layer, which part of it, which pixel size."""

    def __init__(self, choices: Callable[[Any], list[tuple[str, Any]]]) -> None:
        super().__init__("Image")
        self.layer = ComboBox(choices=choices, nullable=False, tooltip="The image to run on")
        self.layer.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.open_slide = QPushButton("Open slide…")
        self.open_slide.setToolTip("Open a whole slide without napari's question which reader")
        Elided(self.layer.native)
        self.row((self.layer.native, 1), self.open_slide)
        self.area = QComboBox()
        self.area.addItems(AREAS)
        self.area.setToolTip("What the network runs on")
        self.row(QLabel("Run on"), (self.area, 1))
        self.mpp = QDoubleSpinBox()
        self.mpp.setRange(0.01, 20)
        self.mpp.setDecimals(4)
        self.mpp.setSingleStep(0.01)
        self.mpp.setKeyboardTracking(False)
        # napari's style sheet holds spin boxes at 90 px, which cuts off four decimals.
        self.mpp.setStyleSheet("min-width: 86px; max-width: 86px;")
        self.mpp_from = QLabel()
        self.row(QLabel("µm/pixel"), self.mpp, (self.mpp_from, 1))


class CheckpointSection(Section):
    """Which network."""

    def __init__(self) -> None:
        super().__init__("Checkpoint")
        self.choice = QComboBox()
        self.choice.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        Elided(self.choice)
        self.open = QPushButton("Open…")
        self.row((self.choice, 1), self.open)
        self.about = wrapped("about")
        self.body.addWidget(self.about)


class RunSection(Section):
    """Live preview, run, progress and cancel."""

    def __init__(self) -> None:
        super().__init__("Run")
        self.live = QCheckBox("Live")
        self.live.setChecked(True)
        self.live.setToolTip("Run again whenever the slider, the image or the view changes")
        self.run = QPushButton("Run")
        self.cancel = QPushButton("Cancel")
        self.cancel.setEnabled(False)
        self.row(self.live, (self.run, 1), (self.cancel, 1))
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.progress.setFormat("idle")
        self.progress.setRange(0, 1)
        self.progress.setValue(0)
        self.body.addWidget(self.progress)


class SaveSection(Section):
    """Saving of the checkpoint, the labels and the table."""

    def __init__(self) -> None:
        super().__init__("Save")
        self.checkpoint = QPushButton("Checkpoint…")
        self.labels = QPushButton("Labels…")
        self.table = QPushButton("Table…")
        self.row((self.checkpoint, 1), (self.labels, 1), (self.table, 1))
        self.packing = QComboBox()
        for index, (data, text, explanation) in enumerate(PACKINGS):
            self.packing.addItem(text, data)
            self.packing.setItemData(index, explanation, Qt.ItemDataRole.ToolTipRole)
        self.packing.setToolTip("How Checkpoint… writes the weights")
        self.packing.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.row(QLabel("Checkpoint as"), (self.packing, 1))


class SessionSection(Section):
    """Sessions, the report, and the keys."""

    def __init__(self, keys: str) -> None:
        super().__init__("Session and keys", folded=True)
        self.save = QPushButton("Save…")
        self.save.setToolTip("The dock's state, the pins and the sweep: one JSON, layers beside it")
        self.open = QPushButton("Open…")
        self.report = QPushButton("Report…")
        self.report.setToolTip("The comparison with pictures, as Markdown and HTML, into a folder")
        self.row((self.save, 1), (self.open, 1), (self.report, 1))
        self.keys = wrapped("keys")
        self.keys.setText(keys)
        self.body.addWidget(self.keys)
