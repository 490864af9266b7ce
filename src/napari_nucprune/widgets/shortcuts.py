"""Keys for what is done again and again; one list for the keys, the dock's help and the README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtGui import QKeySequence, QShortcut

if TYPE_CHECKING:
    from .dock import NucpruneDock

#: Keys, what they do, and the method of `Actions`. Plain letters belong to napari's layers.
KEYS = (
    ("Alt+.", "next CR stop", "more"),
    ("Alt+,", "previous CR stop", "less"),
    ("Alt+X", "other strategy (layer-wise, network-wide)", "strategy"),
    ("Alt+Z", "flip between result and reference", "flip"),
    ("Alt+A", "live on or off", "live"),
    ("Alt+D", "swipe on or off", "swipe"),
    ("Alt+B", "side by side on or off", "side"),
    ("Alt+Left", "divider to the left", "left"),
    ("Alt+Right", "divider to the right", "right"),
)
PAIR = ("layer-wise", "network-wide")


def help_text() -> str:
    """Return the list of keys, one a line."""
    return "\n".join(f"{keys}: {text}" for keys, text, _ in KEYS)


class Actions:
    """What the keys do.

    Parameters
    ----------
    dock
        Whose controls are moved, just as the mouse would.
    """

    def __init__(self, dock: NucpruneDock) -> None:
        self.dock = dock
        for keys, _, name in KEYS:
            shortcut = QShortcut(QKeySequence(keys), dock)
            shortcut.activated.connect(getattr(self, name))

    def more(self) -> None:
        """Go to the next stop, of both branches."""
        for slider in self._sliders():
            slider.set_value(
                min((s for s in slider.stops if s > slider.value), default=slider.value)
            )

    def less(self) -> None:
        """Go to the previous stop."""
        for slider in self._sliders():
            slider.set_value(
                max((s for s in slider.stops if s < slider.value), default=slider.value)
            )

    def strategy(self) -> None:
        """Go to the other of the two strategies."""
        box = self.dock.pruning.strategy
        box.setCurrentText(PAIR[box.currentText() == PAIR[0]])

    def flip(self) -> None:
        """Show the other side."""
        self.dock.compare.flip.toggle()

    def live(self) -> None:
        """Switch live."""
        self.dock.control.live.toggle()

    def swipe(self) -> None:
        """Switch the divider."""
        self._look("swipe")

    def side(self) -> None:
        """Switch the two panes."""
        self._look("side")

    def left(self) -> None:
        """Move the divider."""
        self.dock.views.step(-1)

    def right(self) -> None:
        """Move the divider."""
        self.dock.views.step(1)

    def _look(self, look: str) -> None:
        box = self.dock.compare.look
        box.setCurrentIndex(0 if box.currentData() == look else box.findData(look))

    def _sliders(self) -> tuple:
        pruning = self.dock.pruning
        linked = pruning.link.isChecked()
        return (pruning.both,) if linked else (pruning.semantic, pruning.distance)
