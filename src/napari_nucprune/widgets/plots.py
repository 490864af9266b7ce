"""matplotlib in the dock, in the theme's colours; imported when first needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QPalette, QWheelEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from ..compare.figure import draw
from ..compare.sweep_points import SweepPoint

HEIGHT = 470
#: A click counts for a point within so many pixels.
NEAR = 12.0


class SweepPlot(FigureCanvasQTAgg):
    """A sweep's curves; ``picked(strategy, cr)`` is emitted when a point is clicked.

    Parameters
    ----------
    parent
        Its palette and the viewer's theme give the colours.
    """

    picked = Signal(str, float)

    def __init__(self, parent: QWidget) -> None:
        self.figure = Figure(layout="constrained")
        super().__init__(self.figure)
        self.setParent(parent)
        self.setFixedHeight(HEIGHT)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setToolTip("Click a point: the slider goes there")
        self._drawn: tuple[Any, ...] = ()
        self.colours = ("white", "black")
        self.mpl_connect("button_press_event", self._clicked)

    def show_points(
        self,
        points: Sequence[SweepPoint],
        loss: float,
        largest: Mapping[tuple[str, str], float | None],
        colours: tuple[str, str],
    ) -> None:
        """Draw curves.

        Parameters
        ----------
        points, loss, largest
            As for `compare.figure.draw`.
        colours
            Of text and background.
        """
        self.colours = colours
        text, ground = colours
        self.figure.set_facecolor(ground)
        inked = "text.color axes.labelcolor axes.edgecolor axes.titlecolor xtick.color ytick.color"
        style = dict.fromkeys(inked.split(), text)
        with rc_context({**style, "axes.facecolor": ground, "grid.color": text, "font.size": 8}):
            draw(self.figure, points, loss, largest, columns=1)
        self.draw_idle()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Leave the wheel to the dock, which scrolls."""
        event.ignore()

    def _clicked(self, event: Any) -> None:
        best: tuple[float, str, float] | None = None
        for line in () if event.inaxes is None else event.inaxes.lines:
            if not line.get_gid():
                continue
            places = event.inaxes.transData.transform(line.get_xydata())
            for (x, y), cr in zip(places, line.get_xdata(), strict=True):
                way = ((x - event.x) ** 2 + (y - event.y) ** 2) ** 0.5
                if way <= NEAR and (best is None or way < best[0]):
                    best = way, line.get_gid(), float(cr)
        if best is not None:
            self.picked.emit(best[1], best[2])


def theme_colours(widget: QWidget) -> tuple[str, str]:
    """Return the colours of text and background that a widget has in the viewer's theme."""
    palette = widget.palette()
    text = palette.color(QPalette.ColorRole.WindowText).name()
    return text, palette.color(QPalette.ColorRole.Window).name()
