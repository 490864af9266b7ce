"""The dock's part on the sweep: widgets only."""

from __future__ import annotations

from qtpy.QtWidgets import QDoubleSpinBox, QPushButton, QVBoxLayout

from .sections import Section, wrapped


class SweepSection(Section):
    """Start, curves, the largest ratio, export."""

    def __init__(self) -> None:
        super().__init__("Sweep on this field", folded=True)
        self.start = QPushButton("Sweep")
        self.start.setToolTip(
            "Run every stop of the slider under both strategies, in the background, with the "
            "recovery that is chosen above"
        )
        self.cancel = QPushButton("Cancel")
        self.cancel.setEnabled(False)
        self.row((self.start, 1), (self.cancel, 1))
        self.loss = QDoubleSpinBox()
        self.loss.setRange(0.1, 50.0)
        self.loss.setValue(2.0)
        self.loss.setDecimals(1)
        self.loss.setSuffix(" %")
        self.loss.setKeyboardTracking(False)
        self.loss.setToolTip("Largest loss against the network with nothing pruned")
        self.set_largest = QPushButton("Set the largest CR within")
        self.set_largest.setToolTip(
            "For the chosen strategy: the largest stop whose lower stops all lose no more, then "
            "what lies between it and the next one; sets the CR of each branch by its own score"
        )
        self.row((self.set_largest, 1), self.loss)
        self.status = wrapped("status")
        self.body.addWidget(self.status)
        self.place = QVBoxLayout()
        self.body.addLayout(self.place)
        self.table = wrapped("largest")
        self.body.addWidget(self.table)
        self.export = QPushButton("Export the sweep…")
        self.export.setToolTip("The scores as CSV, or the curves as PNG or SVG")
        self.export.setEnabled(False)
        self.body.addWidget(self.export)
        self.status.setText("Not run yet.")
