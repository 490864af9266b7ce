# ruff: noqa: F811
"""The dock's comparison: references, fates, scores, views, sweep, layers, keys, sessions."""

import json

import numpy as np
import pytest
import tifffile

napari = pytest.importorskip("napari")
from PIL import Image
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from helpers import is_one_line
from napari_nucprune.compare.fate import fates
from napari_nucprune.compare.outcome import FATES
from napari_nucprune.difference.compare import METRICS
from napari_nucprune.preview import Session
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.pins import pins
from napari_nucprune.widgets.shortcuts import KEYS
from test_difference import blobs
from test_dock import dock, noise, viewer  # noqa: F401
from test_dock import settle as settle_soon

MONUSEG = "MoNuSeg/MoNuSegTrainingData"


def settle(dock, qtbot):
    """With patience: the first Labels layer of a process takes seconds, more on a busy machine."""
    settle_soon(dock, qtbot, timeout=120_000)


def click(button):
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def state_of(viewer):
    """What views must leave as it was."""
    return [
        (layer.name, layer.visible, layer.opacity, id(layer.data)) for layer in viewer.layers
    ], (viewer.canvas.grid.enabled, viewer.canvas.grid.stride, viewer.canvas.grid.shape)


@pytest.fixture
def compared(viewer, dock, qtbot):
    """A dock that shows CR 4 of an image with a truth."""
    viewer.add_labels(blobs(3, 96, 112), name="truth", visible=False)
    viewer.add_image(noise(), name="tissue")
    dock.pruning.both.set_value(4.0)
    settle(dock, qtbot)
    return dock


def rest(dock, qtbot, timeout=60_000):
    settle(dock, qtbot)
    qtbot.waitUntil(
        lambda: dock.runner._running is None and not dock.sweeping.running, timeout=timeout
    )


def test_numbers_are_those_of_evaluate(viewer, dock, quick, qtbot, tmp_path, shared_data):
    from napari_nucprune.checkpoint import shipped
    from napari_nucprune.cli import main

    name = "TCGA-18-5592-01Z-00-DX1"
    rgb = Image.open(shared_data / MONUSEG / "Tissue Images" / f"{name}.tif")
    rgb = np.asarray(rgb.convert("RGB"))[:200, :280]
    truth = np.asarray(Image.open(shared_data / MONUSEG / "labels" / f"{name}.png"))[:200, :280]
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.fromarray(rgb).save(tmp_path / "images" / "one.png")
    tifffile.imwrite(tmp_path / "labels" / "one.tif", truth.astype(np.int32))
    scale = {"scale": (0.4, 0.4), "units": ("um", "um")}
    viewer.add_image(rgb, name="tissue", **scale)
    own = viewer.add_labels(truth.astype(np.int32), name="truth", **scale)
    dock.pruning.link.click()
    dock.pruning.semantic.set_value(3)
    dock.pruning.distance.set_value(5)
    dock.compare.reference.choose(own)
    settle(dock, qtbot)
    main([
        "evaluate", str(tmp_path), "--layout", "pairs", "--mpp", "0.4", "--cr-semantic", "3",
        "--cr-distance", "5", "--checkpoint", str(shipped.FOLDER / f"{shipped.DEFAULT}.safetensors"),
        "--json", str(tmp_path / "out.json"),
    ])  # fmt: skip
    (expected,) = json.loads((tmp_path / "out.json").read_text())["images"]
    for metric in METRICS:
        assert dock.compare.numbers.cells[metric][0].text() == f"{expected[metric]:.3f}", metric
    assert f"(truth {expected['truth']})" in dock.compare.line.text()
    # The dense network's scores came after.
    assert all(cells[1].text() != "–" for cells in dock.compare.numbers.cells.values())


def test_another_reference_needs_no_run(viewer, compared, qtbot, monkeypatch):
    dock = compared
    runs = []
    real = Session.run
    monkeypatch.setattr(Session, "run", lambda *a, **k: runs.append(1) or real(*a, **k))
    assert "(dense" in dock.compare.line.text()
    dock.compare.reference.choose(viewer.layers["truth"])
    settle(dock, qtbot)
    found = dock.comparing.comparison
    truth, result = viewer.layers["truth"], layers.find(viewer, "instances")
    expected = fates(truth.data, result.data, 0.25)
    np.testing.assert_array_equal(layers.find(viewer, "differences").data, expected.differences)
    for name, count in expected.counts.items():
        beside = f" + {len(expected.cut_off)}" * (name == "split" and len(expected.cut_off) > 0)
        assert dock.compare.legend.rows[name].text() == f"{name}  {count}{beside}"
        assert dock.compare.legend.rows[name].isEnabled() == bool(count or beside)
    assert found.start is not None
    dock.compare.reference.choose("nothing")
    settle(dock, qtbot)
    assert layers.find(viewer, "differences") is None
    assert dock.compare.line.text() == ""
    assert not runs


def test_a_painted_truth_counts_at_once_and_a_deleted_one_gives_way(viewer, compared, qtbot):
    dock, truth = compared, viewer.layers["truth"]
    dock.compare.reference.choose(truth)
    settle(dock, qtbot)
    before = dock.comparing.comparison.scores.truth
    truth.selected_label = 99
    truth.brush_size = 9
    truth.paint((5, 100), 99)
    qtbot.waitUntil(lambda: not dock.comparing.waits)
    settle(dock, qtbot)
    assert dock.comparing.comparison.scores.truth == before + 1
    truth.name = "my outlines"
    assert dock.compare.reference.currentText() == "my outlines"
    viewer.layers.remove(truth)
    settle(dock, qtbot)
    assert dock.compare.reference.choice == "dense"
    assert "(dense" in dock.compare.line.text()


def test_a_dropped_annotation_is_outlines_below_the_results(viewer, compared, qtbot, tmp_path):
    corners = ((20, 20), (60, 20), (60, 50), (20, 50))
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
    (tmp_path / "tissue.xml").write_text(
        f"<Annotations><Annotation><Regions><Region><Vertices>{vertices}</Vertices></Region>"
        "</Regions></Annotation></Annotations>"
    )
    viewer.window._qt_viewer._qt_open([str(tmp_path / "tissue.xml")], stack=False)
    (dropped,) = (layer for layer in viewer.layers if layer.name == "tissue nuclei")
    qtbot.waitUntil(lambda: dropped.contour == 1, timeout=5000)
    assert dropped.data.shape == (96, 112)
    above = [layer.name for layer in viewer.layers[viewer.layers.index(dropped) + 1 :]]
    assert above[:3] == ["semantic", "distance", "instances"]
    assert "tissue" not in above
    compared.compare.reference.choose(dropped)
    settle(compared, qtbot)
    assert compared.comparing.comparison.scores.truth == 1


def test_the_legend_leads_to_the_nuclei(viewer, compared, qtbot):
    dock = compared
    dock.compare.reference.choose(viewer.layers["truth"])
    settle(dock, qtbot)
    found = dock.comparing.comparison
    name = max(FATES, key=lambda own: found.fate.counts[own])
    _, centres = found.fate.of(name)
    expected = sorted(map(tuple, centres))
    assert len(expected) > 1
    seen = []
    camera = layers.camera_of(viewer)
    for _ in range(len(expected) + 1):
        click(dock.compare.legend.rows[name])
        seen.append(tuple(camera.center[-2:]))
    np.testing.assert_allclose(seen, [*expected, expected[0]])
    QTest.mouseClick(
        dock.compare.legend.rows[name],
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.ShiftModifier,
    )
    assert dock.comparing.comparison is found


def test_points_filled_and_maps(viewer, compared, qtbot):
    dock = compared
    dock.compare.points.click()
    dock.compare.maps.click()
    dock.compare.filled.click()
    found = dock.comparing.comparison
    points = layers.find(viewer, "fates")
    assert len(points.data) == sum(found.fate.counts.values())
    counts = {name: int((points.features["fate"] == name).sum()) for name in FATES}
    assert counts == found.fate.counts
    assert layers.find(viewer, "differences").contour == 0
    for kind in ("semantic", "distance"):
        layer = layers.find(viewer, f"{kind} difference")
        np.testing.assert_array_equal(layer.data, getattr(found, kind))
        assert tuple(layer.contrast_limits) == (-1, 1)
        middle = layer.colormap.map(np.array([0.5]))[0]
        assert middle[3] == pytest.approx(0, abs=0.02)
    dock.pruning.both.set_value(16)
    settle(dock, qtbot)
    assert len(points.data) or layers.find(viewer, "fates") is not points
    dock.compare.maps.click()
    dock.compare.points.click()
    assert layers.find(viewer, "fates") is layers.find(viewer, "semantic difference") is None


def test_pins_compare_with_each_other(viewer, compared, qtbot):
    dock = compared
    click(dock.compare.pin)
    kept = {role: layers.find(viewer, role).data.copy() for role in layers.ROLES}
    dock.pruning.both.set_value(16)
    settle(dock, qtbot)
    click(dock.compare.pin)
    first, second = pins(viewer)
    assert (first.label, second.label) == ("layer-wise CR 4", "layer-wise CR 16")
    dock.pruning.both.set_value(1)
    settle(dock, qtbot)
    dock.compare.result.choose(second.ident)
    dock.compare.reference.choose(first.ident)
    settle(dock, qtbot)
    found = dock.comparing.comparison
    assert (found.result, found.reference) == (second.label, first.label)
    np.testing.assert_array_equal(found.reference_labels, kept["instances"])
    np.testing.assert_array_equal(found.semantic, second.layers["semantic"].data - kept["semantic"])
    viewer.layers.remove(second.layers["instances"])
    settle(dock, qtbot)
    assert dock.compare.result.choice == "shown"


@pytest.mark.window
def test_views_leave_all_as_it_was(viewer, compared, qtbot):
    dock = compared
    viewer.window._qt_window.show()
    qtbot.wait(100)
    before = state_of(viewer)
    look, flip = dock.compare.look, dock.compare.flip
    look.setCurrentIndex(look.findData("swipe"))
    divider = dock.views.divider
    native = divider.parentWidget()
    assert divider.part == 0.5
    QTest.mousePress(divider, Qt.MouseButton.LeftButton, pos=QPoint(7, 50))
    start = divider.x
    for _ in range(5):
        QTest.mouseMove(divider, QPoint(7 + 12, 50))
    QTest.mouseRelease(divider, Qt.MouseButton.LeftButton, pos=QPoint(7, 50))
    assert divider.x == pytest.approx(start + 60, abs=6)
    # What is drawn left of the divider is the dense network's, right of it the pruned one's.
    shown = [viewer.layers["dense semantic"], layers.find(viewer, "semantic")]
    for layer, side in zip(shown, (0, 1), strict=True):
        for other in viewer.layers:
            other.visible = other is layer
        picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(int)
        background = picture[0, 0]
        lit = (np.abs(picture - background).max(axis=2) > 0).any(axis=0)
        x = round(divider.x * picture.shape[1] / native.width())
        halves = lit[: x - 10].any(), lit[x + 10 :].any()
        assert halves == ((True, False) if side == 0 else (False, True))
    look.setCurrentIndex(0)
    for layer, (_, visible, *_) in zip(viewer.layers, before[0], strict=True):
        layer.visible = visible
    assert state_of(viewer) == before
    look.setCurrentIndex(look.findData("side"))
    assert viewer.canvas.grid.enabled
    shape = viewer.canvas.grid.actual_shape(viewer.layers)
    assert shape == (1, 2)
    panes = {
        layer.name: viewer.canvas.grid.position(index, viewer.layers)[1]
        for index, layer in enumerate(viewer.layers)
    }
    assert panes["tissue"] == panes["dense instances"] == panes["dense semantic"] == 0
    assert panes["tissue (right)"] == panes["instances"] == panes["semantic"] == 1
    assert panes["truth"] == -1
    look.setCurrentIndex(0)
    assert state_of(viewer) == before
    flip.click()
    assert viewer.layers["dense instances"].visible
    assert not layers.find(viewer, "instances").visible
    dock.pruning.both.set_value(8)
    settle(dock, qtbot)
    assert viewer.layers["dense instances"].visible
    flip.click()
    after = state_of(viewer)
    assert [own[:3] for own in after[0]] == [own[:3] for own in before[0]]
    # Another reference in mid-swipe, and its deletion.
    look.setCurrentIndex(look.findData("swipe"))
    dock.compare.reference.choose(viewer.layers["truth"])
    settle(dock, qtbot)
    assert viewer.layers["truth"].visible
    viewer.layers.remove(viewer.layers["truth"])
    settle(dock, qtbot)
    assert look.currentData() == "overlay" or dock.views.divider is not None
    look.setCurrentIndex(0)
    assert "dense instances" not in viewer.layers


@pytest.mark.window
def test_keys(viewer, compared, qtbot):
    dock = compared
    window = viewer.window._qt_window
    window.show()
    window.activateWindow()
    qtbot.waitUntil(window.isActiveWindow)
    codes = {".": Qt.Key.Key_Period, ",": Qt.Key.Key_Comma, "Left": Qt.Key.Key_Left}
    codes |= {"Right": Qt.Key.Key_Right}
    codes |= {letter: getattr(Qt.Key, f"Key_{letter}") for letter in "XZADB"}

    def press(keys):
        code = codes[keys.removeprefix("Alt+")]
        QTest.keyClick(window.focusWidget() or window, code, Qt.KeyboardModifier.AltModifier)

    press("Alt+.")
    assert dock.pruning.both.value == 5
    press("Alt+,")
    press("Alt+,")
    assert dock.pruning.both.value == 2
    press("Alt+X")
    assert dock.pruning.strategy.currentText() == "network-wide"
    press("Alt+A")
    assert not dock.control.live.isChecked()
    press("Alt+A")
    settle(dock, qtbot)
    press("Alt+D")
    assert dock.views.divider is not None
    press("Alt+Right")
    assert dock.views.divider.part == pytest.approx(0.52)
    press("Alt+Left")
    press("Alt+D")
    press("Alt+B")
    assert viewer.canvas.grid.enabled
    press("Alt+B")
    press("Alt+Z")
    assert dock.compare.flip.isChecked()
    press("Alt+Z")
    assert not dock.views.on
    for keys, words, _ in KEYS:
        assert f"{keys}: {words}" in dock.files.keys.text()


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


def test_a_report_holds_the_numbers(viewer, compared, qtbot, monkeypatch, tmp_path):
    dock = compared
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a, **k: str(tmp_path / "out"))
    click(dock.files.report)
    settle(dock, qtbot)
    folder = tmp_path / "out"
    names = {path.name for path in folder.iterdir()}
    assert names == {"report.md", "report.html", "overlay.png", "differences.png"}
    text, page = (folder / "report.md").read_text(), (folder / "report.html").read_text()
    for metric, cells in dock.compare.numbers.cells.items():
        assert f"| {METRICS[metric]} | {cells[0].text()} | {cells[1].text()} |" in text
        assert f"<td>{cells[0].text()}</td>" in page
    found = dock.comparing.comparison
    for name, count in found.fate.counts.items():
        assert f"| {count} |" in next(
            row for row in text.splitlines() if row.startswith(f"| {name}")
        )
    picture = np.asarray(Image.open(folder / "differences.png"))
    assert picture.shape == (*found.fate.differences.shape, 3)
    outside = found.fate.differences == 0
    np.testing.assert_array_equal(picture[outside], noise()[outside])
    dock.compare.reference.choose("nothing")
    settle(dock, qtbot)
    click(dock.files.report)
    assert "no comparison" in dock.message.text()
