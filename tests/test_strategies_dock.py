"""The dock lists whatever is registered, and says what N:M cannot do."""

import numpy as np
import pytest

pytest.importorskip("napari")
from qtpy.QtCore import Qt

from napari_nucprune.pruning.strategy import STRATEGIES, Ranking
from napari_nucprune.widgets import layers
from test_dock import dock, expected, noise, settle, viewer  # noqa: F401


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
        assert dock.pruning.reselect.isEnabled() == (name != "random")
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
