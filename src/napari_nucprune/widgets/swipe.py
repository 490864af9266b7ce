"""A divider over the canvas, and layers that are drawn on one side of it only."""

from __future__ import annotations

from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QEvent, QObject, QPoint, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QLabel, QWidget

from ..errors import InputError

WIDTH = 15
#: A key moves the divider by this part of the canvas.
STEP = 0.02
LEFT, RIGHT = "left", "right"


def canvas_of(widget: QWidget) -> Any:
    """Return the vispy canvas of the napari window that a widget is docked in.

    napari has no public way to draw a part of a layer, so this is its inside.

    Raises
    ------
    InputError
        Where this napari keeps it elsewhere.
    """
    parent: Any = widget
    while parent is not None and not hasattr(parent, "_qt_viewer"):
        parent = parent.parent()
    canvas = getattr(getattr(parent, "_qt_viewer", None), "canvas", None)
    if not hasattr(canvas, "native") or not hasattr(canvas, "layer_to_visual"):
        raise InputError("This view does not work here: no window, or another version of napari.")
    return canvas


class Curtain:
    """Draws layers only left or only right of a line, on the graphics card: no pixels are copied.

    Parameters
    ----------
    canvas
        As from `canvas_of`.
    """

    def __init__(self, canvas: Any) -> None:
        self.canvas = canvas
        self._clips: dict[Layer, tuple[Any, Any, str]] = {}
        self._x = 0.0

    def clip(self, layer: Layer, side: str) -> None:
        """Draw a layer on one side only; again after its node was made anew."""
        from vispy.visuals.filters import Clipper

        visual = self.canvas.layer_to_visual.get(layer)
        if visual is None:
            return
        known = self._clips.get(layer)
        if known is not None and known[0] is visual.node:
            self._clips[layer] = (*known[:2], side)
        else:
            clipper = Clipper()
            visual.node.attach(clipper)
            self._clips[layer] = visual.node, clipper, side
        self.move(self._x)

    def move(self, x: float) -> None:
        """Move the line to ``x``, in the canvas' own (logical) pixels from its left edge."""
        self._x = x
        native = self.canvas.native
        scale = native.devicePixelRatioF()
        far = 1e6
        for _, clipper, side in self._clips.values():
            start = -far if side == LEFT else x * scale
            clipper.bounds = (start, -far, (x * scale + far) if side == LEFT else far, 2 * far)
        native.update()

    def open(self) -> None:
        """Draw all layers whole again."""
        for layer, (node, clipper, _) in self._clips.items():
            if layer in self.canvas.layer_to_visual:
                node.detach(clipper)
        self._clips.clear()
        self.canvas.native.update()


class Divider(QWidget):
    """The line, to be dragged; ``moved(x)`` is emitted in the canvas' logical pixels.

    Parameters
    ----------
    native
        The canvas' Qt widget.
    """

    moved = Signal(float)

    def __init__(self, native: QWidget) -> None:
        super().__init__(native)
        self.part = 0.5
        self._grab: int | None = None
        self.setCursor(Qt.CursorShape.SplitHCursor)
        self.setToolTip("Drag, or Alt+Left and Alt+Right: reference left, result right")
        native.installEventFilter(self)
        self.place()
        self.show()
        self.raise_()

    @property
    def x(self) -> float:
        """Where the line is, in the canvas' logical pixels."""
        return self.part * self.parentWidget().width()

    def move_to(self, part: float) -> None:
        """Move to a part of the canvas, 0 is its left edge."""
        self.part = min(max(part, 0.0), 1.0)
        self.place()

    def place(self) -> None:
        """Follow the canvas."""
        parent = self.parentWidget()
        self.setGeometry(round(self.x) - WIDTH // 2, 0, WIDTH, parent.height())
        self.moved.emit(self.x)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the canvas' size."""
        if event.type() == QEvent.Type.Resize:
            self.place()
        return False

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take hold."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._grab = event.pos().x() - WIDTH // 2
            event.accept()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Follow the mouse."""
        if self._grab is not None:
            x = self.mapToParent(QPoint(event.pos().x() - self._grab, 0)).x()
            self.move_to(x / max(self.parentWidget().width(), 1))
            event.accept()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Let go."""
        self._grab = None
        event.accept()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw a white line with dark rims, and a handle."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        middle = WIDTH // 2
        painter.fillRect(middle - 2, 0, 5, self.height(), QColor(0, 0, 0, 140))
        painter.fillRect(middle - 1, 0, 3, self.height(), QColor(255, 255, 255))
        painter.setPen(QColor(0, 0, 0, 160))
        painter.setBrush(QColor(255, 255, 255))
        painter.drawRoundedRect(middle - 6, self.height() // 2 - 16, 12, 32, 4, 4)


class Names(QObject):
    """Two words over the canvas, at the top of its left and right half.

    Parameters
    ----------
    native
        The canvas' Qt widget.
    """

    def __init__(self, native: QWidget) -> None:
        super().__init__()
        self.native = native
        self.labels = tuple(QLabel(native) for _ in range(2))
        for label in self.labels:
            label.setStyleSheet(
                "background: rgba(0, 0, 0, 170); color: white; padding: 2px 6px; border-radius: 3px"
            )
            label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            label.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
            label.show()
        native.installEventFilter(self)

    def say(self, left: str, right: str, beside: float | None = None) -> None:
        """Show two names: at the halves' left edges, or both beside a divider at ``beside``."""
        width = self.native.width()
        for label, text in zip(self.labels, (left, right), strict=True):
            label.setText(text)
            label.adjustSize()
        first, second = self.labels
        if beside is None:
            first.move(8, 8)
            second.move(width // 2 + 8, 8)
        else:
            first.move(int(beside) - first.width() - 12, 8)
            second.move(int(beside) + 12, 8)
        self._said = (left, right, beside)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the canvas' size."""
        if event.type() == QEvent.Type.Resize and self._said[2] is None:
            self.say(*self._said)
        return False

    _said: tuple[str, str, float | None] = ("", "", None)

    def close(self) -> None:
        """Take the words away."""
        self.native.removeEventFilter(self)
        for label in self.labels:
            label.hide()
            label.deleteLater()
