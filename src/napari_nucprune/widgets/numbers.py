"""The table of scores: now, with nothing pruned, and what was lost."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from ..difference.compare import METRICS, Comparison

TIPS = {
    "semantic_dice": "Semantic branch: overlap of its thresholded map with the reference's nuclei, "
    "2 x shared / (both areas). 1 is the same, 0 is nothing shared.",
    "distance_r2": "Distance branch: 1 - mean squared error / variance of the reference's distance "
    "map. 1 is the same; at 0 or below a constant would do as well.",
    "dice": "Overlap of the nuclei's areas after the merge of both branches, whichever nucleus a "
    "pixel belongs to.",
    "aji": "Aggregated Jaccard index: overlap nucleus by nucleus; what is lost, added, split or "
    "merged counts against it.",
    "pq": "Panoptic quality, DQ x SQ: finding the nuclei and drawing them, in one number.",
    "dq": "Detection quality: how many nuclei have a partner (IoU > 0.5), as an F1.",
    "sq": "Segmentation quality: mean IoU of those that have a partner.",
}
HEADINGS = (
    ("", ""),
    ("now", "Against the reference, at the compression ratios of the sliders."),
    ("CR 1", "The same for the network with nothing pruned."),
    ("loss", "1 - now / CR 1: the part of the score that pruning took."),
)


class Numbers(QWidget):
    """One row a score."""

    def __init__(self) -> None:
        super().__init__()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(1)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for column, (text, tip) in enumerate(HEADINGS):
            heading = QLabel(text)
            heading.setToolTip(tip)
            heading.setEnabled(False)
            grid.addWidget(heading, 0, column, right)
        self.cells: dict[str, tuple[QLabel, QLabel, QLabel]] = {}
        for row, (metric, name) in enumerate(METRICS.items(), start=1):
            label = QLabel(name)
            label.setToolTip(TIPS[metric])
            grid.addWidget(label, row, 0)
            cells = QLabel(), QLabel(), QLabel()
            for column, cell in enumerate(cells, start=1):
                cell.setToolTip(TIPS[metric])
                grid.addWidget(cell, row, column, right)
            self.cells[metric] = cells
        grid.setColumnStretch(0, 1)
        for column in (1, 2, 3):
            grid.setColumnMinimumWidth(column, 52)
        self.show_comparison(None)

    def show_comparison(self, found: Comparison | None) -> None:
        """Show the scores; a dash where one cannot be said."""
        for metric, cells in self.cells.items():
            now, start, loss = (None, None, None) if found is None else found.row(metric)
            for cell, text in zip(cells, (number(now), number(start), part(loss)), strict=True):
                cell.setText(text)


def number(value: float | None) -> str:
    """Return three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def part(value: float | None) -> str:
    """Return a part as per cent; a lost distance map's R2 has no bottom."""
    if value is None:
        return "–"
    return "> 999 %" if value > 9.99 else f"{100 * value + 0.0:.1f} %"
