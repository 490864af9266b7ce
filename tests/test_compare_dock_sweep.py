"""The dock's comparison: the sweep, the layers' bars and sessions."""

import json

import numpy as np
import pytest

napari = pytest.importorskip("napari")
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from compare_dock_helpers import click, compared, settle
from dock_helpers import dock, viewer
from helpers import is_one_line
from napari_nucprune.widgets.pins import pins

__all__ = ["compared", "dock", "viewer"]


def rest(dock, qtbot, timeout=60_000):
    settle(dock, qtbot)
    qtbot.waitUntil(
        lambda: dock.runner._running is None and not dock.sweeping.running, timeout=timeout
    )


def test_a_sweep_gives_way_to_the_slider_and_is_clicked(
    viewer, compared, qtbot, monkeypatch, tmp_path
):
    dock = compared
    dock.sweep.set_folded(False)
    click(dock.sweep.start)
    qtbot.waitUntil(lambda: len(dock.sweeping.shown_points()) >= 2, timeout=30_000)
    dock.pruning.both.set_value(10)
    rest(dock, qtbot)
    assert dock.preview.pruning.cr_semantic == 10
    points = dock.sweeping.shown_points()
    assert {p.strategy for p in points} == {"layer-wise", "network-wide"}
    assert [p.cr for p in points if p.strategy == "layer-wise"] == dock.pruning.both.stops
    # The dock's numbers at a stop are the curve's.
    (own,) = (p for p in points if (p.strategy, p.cr) == ("layer-wise", 10))
    assert own.scores == dock.comparing.comparison.scores.as_dict()
    plot = dock.sweeping.plot
    qtbot.waitUntil(lambda: len(plot.figure.axes) == 4)
    plot.draw()
    # A point that lies apart from the other curve's.
    axis = plot.figure.axes[3]
    other, line = (
        next(own for own in axis.lines if own.get_gid() == name)
        for name in ("layer-wise", "network-wide")
    )
    apart = np.abs(np.subtract(line.get_ydata(), other.get_ydata()))
    cr = line.get_xdata()[apart.argmax()]
    x, y = axis.transData.transform((cr, line.get_ydata()[apart.argmax()]))
    ratio = plot.device_pixel_ratio
    place = QPointF(x / ratio, plot.height() - y / ratio).toPoint()
    QTest.mouseClick(plot, Qt.MouseButton.LeftButton, pos=place)
    assert dock.asked().strategy == "network-wide"
    assert dock.asked().cr_semantic == cr
    name = tmp_path / "curve"
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *a, **k: (str(name), "Scores (*.csv)")
    )
    click(dock.sweep.export)
    assert len((tmp_path / "curve.csv").read_text().splitlines()) == len(points) + 1
    dock.sweep.loss.setValue(5)
    click(dock.sweep.set_largest)
    rest(dock, qtbot)
    largest = dock.sweeping.sweep.largest("network-wide", 0.05, bisect=True)
    assert dock.asked().cr_semantic == pytest.approx(largest["semantic"])
    assert dock.asked().cr_distance == pytest.approx(largest["distance"])
    click(dock.sweep.start)
    qtbot.wait(20)
    click(dock.sweep.cancel)
    rest(dock, qtbot)
    assert dock.sweeping.sweep.left > 0


def test_a_clicked_layer_stays_dense_and_the_ratio_holds(viewer, compared, quick, qtbot):
    dock = compared
    dock.layers.set_folded(False)
    bars = dock.layers.bars
    row = bars.names.index("encoder.0.conv2")
    QTest.mouseClick(bars, Qt.MouseButton.LeftButton, pos=QPoint(60, 16 + 17 * row + 8))
    settle(dock, qtbot)
    assert dock.asked().keep == ("encoder.0.conv2", "head")
    assert dock.preview.pruning == dock.asked()
    shares = dock.session.by_layer(dock.asked())
    assert all(s.kept == 1 for s in shares if s.name in dock.asked().keep)
    total, kept = sum(s.weights for s in shares), sum(s.nonzero for s in shares)
    assert total / kept == pytest.approx(4, rel=0.01)
    QTest.mouseClick(bars, Qt.MouseButton.LeftButton, pos=QPoint(60, 16 + 17 * row + 8))
    settle(dock, qtbot)
    assert dock.asked().keep is None


def test_a_session_comes_back(viewer, compared, qtbot, monkeypatch, tmp_path):
    dock = compared
    click(dock.compare.pin)
    dock.compare.reference.choose("pin-1")
    dock.compare.filled.setChecked(True)
    dock.pruning.strategy.setCurrentText("network-wide")
    dock.pruning.link.click()
    dock.pruning.semantic.set_value(7)
    dock.pruning.distance.set_value(12)
    dock.layers.set_keep(("up.1", "head"))
    click(dock.sweep.start)
    rest(dock, qtbot)
    wanted, numbers = dock.asked(), dock.comparing.comparison.scores
    points = dock.sweeping.shown_points()
    name = str(tmp_path / "mine.json")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (name, ""))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (name, ""))
    click(dock.files.save)
    assert dock.message.text().startswith("Saved mine.json and 3 layers of 1 pins")
    pinned = pins(viewer)[0].layers["instances"]
    data, place = pinned.data.copy(), pinned.translate
    for layer in list(pins(viewer)[0].layers.values()):
        viewer.layers.remove(layer)
    dock.pruning.link.click()
    dock.pruning.both.set_value(1)
    dock.layers.set_keep(None)
    dock.compare.filled.setChecked(False)
    dock.sweeping.restore([], "")
    settle(dock, qtbot)
    assert dock.compare.reference.choice == "dense"
    click(dock.files.open)
    assert dock.message.text() == "Opened mine.json."
    rest(dock, qtbot)
    assert dock.asked() == wanted
    assert dock.compare.reference.choice == "pin-1"
    assert dock.compare.filled.isChecked()
    assert dock.comparing.comparison.scores == numbers
    assert dock.sweeping.shown_points() == points
    (pin,) = pins(viewer)
    np.testing.assert_array_equal(pin.layers["instances"].data, data)
    np.testing.assert_array_equal(pin.layers["instances"].translate, place)

    good = json.loads((tmp_path / "mine.json").read_text())
    bad = [
        "{", "[]", "{}", json.dumps({**good, "version": 7}), json.dumps({**good, "pins": 3}),
        json.dumps({**good, "pruning": {**good["pruning"], "cr": "x"}}),
        json.dumps({**good, "pruning": {**good["pruning"], "cr": 0.5}}),
        json.dumps({**good, "live": None}),
        json.dumps(good).replace("mine-pin-1-semantic.tif", "gone.tif"),
        json.dumps(good).replace("mine-pin-1-semantic.tif", "../mine.tif"),
        json.dumps(good).replace("mine-pin-1-semantic.tif", "mine-pin-1-instances.tif"),
    ]  # fmt: skip
    count = len(viewer.layers)
    for text in bad:
        (tmp_path / "mine.json").write_text(text)
        click(dock.files.open)
        assert is_one_line(dock.message.text()), text[:60]
        assert "fault of ours" not in dock.message.text()
        assert "mine.json" in dock.message.text()
        assert dock.asked() == wanted
        assert len(viewer.layers) == count
