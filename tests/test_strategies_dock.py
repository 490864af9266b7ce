"""The dock lists whatever is registered, and says what N:M cannot do."""

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt

from dock_helpers import dock, expected, noise, settle, viewer  # noqa: F401
from napari_nucprune.pruning.strategy import STRATEGIES, Ranking
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.pruning_section import PruningSection


@pytest.mark.parametrize("mode", ["off", "slide", "bundled", "fine-tuned"])
@pytest.mark.parametrize("can", [True, False])
def test_reselect_goes_with_a_refit_by_a_strategy_that_can(mode, can, qtbot):
    section = PruningSection()
    qtbot.addWidget(section)
    section.strategy.addItems(["LAMP", "layer-wise", "network-wide"])
    section.offer({"layer-wise": [5], "network-wide": [16]})
    section.choose_recovery(mode)
    section.show_repair(can)
    assert section.reselect.isEnabled() == (can and mode in ("slide", "bundled"))
    model = section.strategy.model()
    free = mode != "fine-tuned"
    assert [model.item(i).isEnabled() for i in range(3)] == [free, True, True]
    assert section.strategy.currentText() == ("LAMP" if free else "layer-wise")


def test_strategies_in_the_dock(viewer, dock, quick, qtbot):  # noqa: F811
    box = dock.pruning.strategy
    shown = {
        box.itemText(i): box.itemData(i, Qt.ItemDataRole.ToolTipRole) for i in range(box.count())
    }
    assert shown == {s.name: s.explanation for s in STRATEGIES.values()}
    rgb = noise()
    viewer.add_image(rgb)
    settle(dock, qtbot)
    dock.pruning.both.set_value(5.0)
    for name in ("LAMP", "ERK", "random"):
        box.setCurrentText(name)
        assert dock.pruning.explained.text() == STRATEGIES[name].explanation
        assert not dock.pruning.reselect.isEnabled()  # nothing is recovered here
        settle(dock, qtbot)
        assert dock.message.text() == ""
        maps, _ = expected(quick, rgb, dock.asked())
        np.testing.assert_array_equal(layers.find(viewer, "semantic").data, maps.semantic)
    box.setCurrentText("2:4")
    settle(dock, qtbot)
    assert "keeps 2 of every 4 weights" in dock.message.text()
    dock.pruning.both.set_value(round(Ranking(quick).fixed_crs("2:4")["semantic"], 2))
    settle(dock, qtbot)
    assert dock.message.text() == ""
    maps, _ = expected(quick, rgb, dock.asked())
    np.testing.assert_array_equal(layers.find(viewer, "semantic").data, maps.semantic)
