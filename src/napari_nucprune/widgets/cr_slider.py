"""The compression-ratio slider: logarithmic, 1 to 64, with stops and a number box."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from qtpy.QtCore import QRectF, QSignalBlocker, Qt, Signal
from qtpy.QtGui import QPainter, QPaintEvent
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QSlider, QVBoxLayout, QWidget

STOPS = (1, 2, 4, 5, 8, 10, 16, 20, 32, 64)
LARGEST = 64.0
#: Slider ticks from CR 1 to CR 64, and within how many of them a drag snaps to a stop.
TICKS = 600
SNAP = 7


def cr_of(tick: int, only: Sequence[float] = ()) -> float:
    """Return the CR of a slider position: a stop where one is near, else three digits.

    The nearest of ``only``, where there are any.
    """
    if only:
        return min(only, key=lambda stop: abs(tick_of(stop) - tick))
    for stop in STOPS:
        if abs(tick_of(stop) - tick) <= SNAP:
            return float(stop)
    return float(f"{LARGEST ** (tick / TICKS):.3g}")


def tick_of(cr: float) -> int:
    """Return the slider position of a CR."""
    return round(TICKS * math.log(cr) / math.log(LARGEST))


class _Scale(QWidget):
    """The stops' numbers under the slider, grey where they cannot be reached.

    A dot under a number: that stop is recovered already.
    """

    def __init__(self, slider: QSlider) -> None:
        super().__init__()
        self.slider = slider
        self.floor, self.ceiling = 1.0, LARGEST
        #: The only stops there are; empty where any ratio can be had.
        self.only: tuple[float, ...] = ()
        self.ready: frozenset[float] = frozenset()
        self.setFixedHeight(19)
        self.setToolTip("A dot under a number: recovered already, moving there shows it at once")

    def reaches(self, stop: float) -> bool:
        """Whether a stop can be had."""
        there = not self.only or stop in self.only
        return there and self.floor - 1e-6 <= stop <= self.ceiling

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw each number under its place."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = self.font()
        font.setPointSizeF(max(font.pointSizeF() * 0.75, 6.0))
        painter.setFont(font)
        handle = 14
        span = self.width() - handle
        for stop in STOPS:
            x = handle / 2 + span * tick_of(stop) / TICKS
            painter.setOpacity(0.9 if self.reaches(stop) else 0.3)
            flags = Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop
            box = painter.boundingRect(self.rect(), int(flags), str(stop))
            left = min(max(int(x - box.width() / 2), 0), self.width() - box.width())
            painter.drawText(left, 11, str(stop))
            if stop in self.ready:
                dot = QRectF(left + box.width() / 2 - 2, 14, 4, 4)
                painter.setBrush(painter.pen().color())
                painter.drawEllipse(dot)


class CRSlider(QWidget):
    """One compression ratio.

    Emits ``changed(float)`` on every new value, from the mouse, the keys or the box.
    """

    changed = Signal(float)

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, TICKS)
        self.slider.setPageStep(100)
        self.slider.setSingleStep(10)
        self.slider.setAccessibleName(f"compression ratio {name}")
        tip = f"Compression ratio ({name}): all weights / weights kept"
        self.slider.setToolTip(tip)
        self.box = QDoubleSpinBox()
        self.box.setRange(1.0, LARGEST)
        self.box.setDecimals(2)
        self.box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
        self.box.setKeyboardTracking(False)
        self.box.setFixedWidth(96)
        self.box.setToolTip(tip)
        self.scale = _Scale(self.slider)
        row = QHBoxLayout()
        row.addWidget(QLabel(f"CR, {name}"), 1)
        row.addWidget(self.box)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(1)
        column.addLayout(row)
        column.addWidget(self.slider)
        column.addWidget(self.scale)
        self._value = 1.0
        self.slider.valueChanged.connect(self._dragged)
        self.slider.sliderReleased.connect(self._snapped)
        self.box.valueChanged.connect(lambda value: self._take(value, move_slider=True))

    @property
    def value(self) -> float:
        """The compression ratio."""
        return self._value

    def set_value(self, value: float) -> None:
        """Set the compression ratio; emits where it is new."""
        self._take(value, move_slider=True)

    def hold(self, only: Sequence[float] | None) -> None:
        """Stop at these ratios alone; None lets the slider go anywhere."""
        if self.scale.only != (held := tuple(only or ())):
            self.scale.only = held
            self.scale.update()
            self._take(self._value, move_slider=True)

    def set_limits(self, floor: float, ceiling: float) -> None:
        """Set the least and the largest CR that can be had; stops beyond are greyed."""
        self.scale.floor, self.scale.ceiling = floor, min(ceiling, LARGEST)
        self.scale.update()
        self._take(self._value, move_slider=True)

    @property
    def stops(self) -> list[float]:
        """The stops that can be had."""
        return [float(stop) for stop in STOPS if self.scale.reaches(stop)]

    def show_ready(self, crs: Collection[float]) -> None:
        """Mark the stops that are recovered already."""
        ready = frozenset(crs).intersection(self.stops)
        if ready != self.scale.ready:
            self.scale.ready = ready
            self.scale.update()

    def _dragged(self, tick: int) -> None:
        self._take(cr_of(tick, self.scale.only), move_slider=False)

    def _snapped(self) -> None:
        if self.scale.only:  # the handle goes where the ratio is
            self._take(self._value, move_slider=True)

    def _take(self, value: float, move_slider: bool) -> None:
        if self.scale.only:
            value = cr_of(tick_of(value), self.scale.only)
        value = min(max(value, self.scale.floor), self.scale.ceiling)
        with QSignalBlocker(self.box):
            self.box.setValue(value)
        if move_slider:
            with QSignalBlocker(self.slider):
                self.slider.setValue(tick_of(value))
        if value != self._value:
            self._value = value
            self.changed.emit(value)
