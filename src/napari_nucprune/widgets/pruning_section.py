"""The dock's pruning: strategy, repair and compression ratios, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from qtpy.QtCore import Qt
from qtpy.QtGui import QStandardItem, QStandardItemModel
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QPushButton, QSizePolicy

from ..recovered import Recovery
from .cr_slider import CRSlider
from .sections import Section, wrapped

#: Data, text and tooltip.
RECOVERIES = (
    ("off", "off (one-shot)", "Small weights go and the rest stays as it was."),
    (
        "slide",
        "on this slide",
        "The weights that stay are refitted, without labels, until the pruned network says what "
        "the dense one says on tissue of the open image.",
    ),
    (
        "bundled",
        "bundled",
        "The same on a picture of other tissue that comes with the plugin, so that the image "
        "needs to hold none. It repairs less.",
    ),
    (
        "fine-tuned",
        "fine-tuned",
        "Networks that were trained on after pruning and come with the plugin, at the compression "
        "ratios that the slider then stops at.",
    ),
)
RESELECT = (
    "Recovery also chooses anew, by the dense network's responses, which weights of a layer stay: "
    "as many as the strategy keeps there. Off: those that the strategy keeps are refitted."
)


class PruningSection(Section):
    """Strategy and compression ratios, and what they cost."""

    def __init__(self) -> None:
        super().__init__("Pruning")
        self.strategy = QComboBox()
        self.link = QPushButton()
        self.link.setCheckable(True)
        self.link.setChecked(True)
        self.link.setText("Split")
        self.link.setToolTip("Linked: one compression ratio for both branches. Split: one for each")
        self.row(QLabel("Strategy"), (self.strategy, 1), self.link)
        self.explained = wrapped("explained")
        self.body.addWidget(self.explained)
        self.recovery = QComboBox()
        self._tuned: dict[str, tuple[float, ...]] = {}
        for data, text, explanation in RECOVERIES:
            self.recovery.addItem(text, data)
            self._explain_recovery(data, explanation)
        self.recovery.setToolTip("Repair of what pruning breaks, before the network runs")
        self.choose_recovery("slide")
        self.reselect = QCheckBox("reselect")
        self.reselect.setChecked(True)
        self.reselect.setToolTip(RESELECT)
        # Its longest entry beside the box would push the dock past 320 px.
        self.recovery.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.row(QLabel("Recovery"), (self.recovery, 1), self.reselect)
        self.both = CRSlider("both branches")
        self.semantic = CRSlider("semantic branch")
        self.distance = CRSlider("distance branch")
        for slider in self.sliders:
            self.body.addWidget(slider)
        self.kept, self.compute, self.time = wrapped("kept"), wrapped("compute"), wrapped("time")
        self.compute.setToolTip(
            "Multiply-adds of the weights kept, and the file that Save would write. Packed: "
            "kept weights and where they lie, if chosen under Save"
        )
        for label in (self.kept, self.compute, self.time):
            self.body.addWidget(label)
        self.show_linked(True)

    def repair(self) -> tuple[Recovery, bool]:
        """Return the recovery, and whether weights are chosen anew."""
        return self.recovery.currentData(), self.reselect.isChecked()

    def choose_recovery(self, mode: str) -> None:
        """Choose a recovery: off, slide, bundled or fine-tuned; where there is none, slide."""
        index = self.recovery.findData(mode)
        if not _item(self.recovery, index).isEnabled():
            index = self.recovery.findData("slide")
        self.recovery.setCurrentIndex(index)

    def offer(self, tuned: Mapping[str, Iterable[float]]) -> None:
        """Take the ratios at which there are fine-tuned networks, by strategy."""
        self._tuned = {strategy: (1.0, *crs) for strategy, crs in tuned.items()}
        index = self.recovery.findData("fine-tuned")
        _item(self.recovery, index).setEnabled(bool(self._tuned))
        if not self._tuned and self.recovery.currentIndex() == index:
            self.choose_recovery("slide")
        self.show_repair(self.reselect.isEnabled())

    def has(self, strategy: str, cr: float) -> bool:
        """Whether the chosen recovery has networks of a strategy at a ratio for both branches."""
        if self.recovery.currentData() != "fine-tuned":
            return True
        return cr in self._tuned.get(strategy, ())

    def show_repair(self, can_reselect: bool) -> None:
        """Hold the other controls to the recovery that is chosen."""
        mode = self.recovery.currentData()
        tuned = mode == "fine-tuned"
        self.reselect.setEnabled(can_reselect and mode in ("slide", "bundled"))
        for index in range(self.strategy.count()):
            own = not tuned or self.strategy.itemText(index) in self._tuned
            _item(self.strategy, index).setEnabled(own)
        if tuned and self.strategy.currentText() not in self._tuned:
            self.strategy.setCurrentText(next(iter(self._tuned)))
        held = self._tuned.get(self.strategy.currentText()) if tuned else None
        for slider in self.sliders:
            slider.hold(held)

    def _explain_recovery(self, mode: str, text: str) -> None:
        role = Qt.ItemDataRole.ToolTipRole
        self.recovery.setItemData(self.recovery.findData(mode), text, role)

    @property
    def sliders(self) -> tuple[CRSlider, CRSlider, CRSlider]:
        """Both, semantic, distance."""
        return self.both, self.semantic, self.distance

    def show_linked(self, linked: bool) -> None:
        """Show one slider, or one a branch; values carry over."""
        if linked:
            self.both.set_value(min(self.semantic.value, self.distance.value))
        else:
            self.semantic.set_value(self.both.value)
            self.distance.set_value(self.both.value)
        self.link.setText("Split" if linked else "Link")
        self.both.setVisible(linked)
        self.semantic.setVisible(not linked)
        self.distance.setVisible(not linked)

    def ratios(self) -> tuple[float, float]:
        """Return the compression ratios (semantic, distance)."""
        if self.link.isChecked():
            return self.both.value, self.both.value
        return self.semantic.value, self.distance.value


def _item(box: QComboBox, index: int) -> QStandardItem:
    model = box.model()
    assert isinstance(model, QStandardItemModel)
    item = model.item(index)
    assert item is not None
    return item
