"""Bars of what each layer keeps, with its shares of weights and compute; a click keeps it dense."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QEvent, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFontMetrics, QHelpEvent, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from ..pruning.by_layer import LayerShare, finest
from .sections import Section, wrapped

ROW, HEAD_ROW = 17, 16
#: Okabe & Ito's blue and orange: the two branches.
SEMANTIC, DISTANCE = QColor("#0072B2"), QColor("#E69F00")
DEFAULT_KEEP = ("head",)


class LayerBars(QWidget):
    """One row a layer: its name, two bars (semantic, distance), shares of weights and compute.

    ``toggled(name)`` is emitted at a click on a row.
    """

    toggled = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self._shares: dict[tuple[str, str], LayerShare] = {}
        self._weights = self._macs = 1.0
        self.keep: frozenset[str] = frozenset(DEFAULT_KEEP)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def sizeHint(self) -> QSize:
        """As high as its rows."""
        return QSize(280, HEAD_ROW + ROW * len(self.names))

    def show_shares(self, shares: Sequence[LayerShare], keep: frozenset[str]) -> None:
        """Show layers, and which of them are kept dense."""
        self._shares = {(share.branch, share.name): share for share in shares}
        names = list(dict.fromkeys(share.name for share in shares))
        self._weights = float(sum(share.weights for share in shares))
        self._macs = sum(share.macs for share in shares)
        self.keep = keep
        if names != self.names:
            self.names = names
            self.setFixedHeight(self.sizeHint().height())
        self.update()

    def row_at(self, y: float) -> str | None:
        """Return the layer of a row."""
        index = int((y - HEAD_ROW) // ROW)
        return self.names[index] if 0 <= index < len(self.names) else None

    def of(self, name: str) -> list[LayerShare]:
        """Return a layer in both branches."""
        pairs = ((branch, name) for branch in ("semantic", "distance"))
        return [self._shares[pair] for pair in pairs if pair in self._shares]

    def text(self, name: str) -> tuple[str, str]:
        """Return a layer's shares of all weights and of all compute."""
        own = self.of(name)
        weights = sum(share.weights for share in own) / self._weights
        macs = sum(share.macs for share in own) / self._macs
        return _per_cent(weights), _per_cent(macs)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """Keep the clicked layer dense, or no longer."""
        name = self.row_at(event.pos().y())
        if event.button() == Qt.MouseButton.LeftButton and name is not None:
            self.toggled.emit(name)

    def event(self, event: QEvent) -> bool:
        """Say the numbers of the row under the mouse."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            name = self.row_at(event.pos().y())
            if name is None:
                QToolTip.hideText()
                return True
            lines = [
                f"{share.branch}: {share.nonzero:,} of {share.weights:,} kept"
                for share in self.of(name)
            ]
            lines.append(
                "kept dense; click: prune it" if name in self.keep else "click: keep dense"
            )
            QToolTip.showText(event.globalPos(), "\n".join([name, *lines]), self)
            return True
        return super().event(event)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw heading and rows."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = self.font()
        font.setPointSizeF(max(font.pointSizeF() * 0.85, 7.0))
        painter.setFont(font)
        text = self.palette().windowText().color()
        metrics = QFontMetrics(font)
        left = max((metrics.horizontalAdvance(name) for name in self.names), default=0) + 20
        share = metrics.horizontalAdvance("compute") + 8
        bars = max(self.width() - left - 2 * share, 20)
        ends = self.width() - share, self.width()
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        middle = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        painter.setPen(text)
        painter.setOpacity(0.6)
        painter.drawText(QRectF(left, 0, bars, HEAD_ROW), middle, "kept")
        for end, word in zip(ends, ("weights", "compute"), strict=True):
            painter.drawText(QRectF(end - share, 0, share, HEAD_ROW), right, word)
        for index, name in enumerate(self.names):
            top = HEAD_ROW + index * ROW
            painter.setOpacity(1.0)
            painter.setPen(text)
            if name in self.keep:
                painter.drawText(QRectF(0, top, 14, ROW), middle, "●")
            painter.drawText(QRectF(14, top, left - 14, ROW), middle, name)
            for end, word in zip(ends, self.text(name), strict=True):
                painter.drawText(QRectF(end - share, top, share, ROW), right, word)
            painter.setPen(Qt.PenStyle.NoPen)
            for line, (own, colour) in enumerate(
                zip(self.of(name), (SEMANTIC, DISTANCE), strict=False)
            ):
                y = top + 3 + 6 * line
                painter.setOpacity(0.18)
                painter.setBrush(text)
                painter.drawRect(QRectF(left, y, bars, 5))
                painter.setOpacity(1.0)
                painter.setBrush(colour)
                painter.drawRect(QRectF(left, y, bars * own.kept, 5))


class LayersSection(Section):
    """The bars, and what they teach."""

    def __init__(self) -> None:
        super().__init__("Layers", folded=True)
        self.fact = wrapped("fact")
        self.body.addWidget(self.fact)
        self.key = wrapped("key")
        self.key.setTextFormat(Qt.TextFormat.RichText)
        self.key.setText(
            f'<span style="color:{SEMANTIC.name()}">■</span> semantic '
            f'<span style="color:{DISTANCE.name()}">■</span> distance branch; ● kept dense. '
            "Click a layer to keep it dense: the others then make up for it."
        )
        self.body.addWidget(self.key)
        self.bars = LayerBars()
        self.body.addWidget(self.bars)
        self._keep: tuple[str, ...] = DEFAULT_KEEP
        self.bars.toggled.connect(self._toggle)

    kept = Signal()

    @property
    def keep(self) -> tuple[str, ...] | None:
        """For `Pruning.keep`: None where only the heads are kept."""
        return None if self._keep == DEFAULT_KEEP else self._keep

    def set_keep(self, keep: Sequence[str] | None) -> None:
        """Keep layers dense, by name; emits ``kept`` where they are others."""
        asked = DEFAULT_KEEP if keep is None else tuple(sorted(keep))
        if asked != self._keep:
            self._keep = asked
            self.kept.emit()

    def show_shares(self, shares: Sequence[LayerShare]) -> None:
        """Show what each layer keeps."""
        self.bars.show_shares(shares, frozenset(self._keep))
        names, weights, macs = finest(shares)
        self.fact.setText(
            f"The {len(names)} layers at full resolution hold {_per_cent(weights)} of the weights "
            f"and do {_per_cent(macs)} of the computing: CR is not speed."
        )
        self.fact.setToolTip(", ".join(names))

    def _toggle(self, name: str) -> None:
        self.set_keep(sorted(set(self._keep) ^ {name}))


def _per_cent(part: float) -> str:
    return f"{100 * part:.2f} %" if part < 0.001 else f"{100 * part:.1f} %"
