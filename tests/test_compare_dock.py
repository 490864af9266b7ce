"""The dock's comparison: references, fates, scores, maps, pins and the report."""

import json

import numpy as np
import pytest
import tifffile

napari = pytest.importorskip("napari")
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from compare_dock_helpers import click, compared, settle
from dock_helpers import dock, noise, viewer
from napari_nucprune.compare.fate import fates
from napari_nucprune.compare.outcome import FATES
from napari_nucprune.difference.compare import METRICS
from napari_nucprune.preview import Session
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.pins import pins

__all__ = ["compared", "dock", "viewer"]

MONUSEG = "MoNuSeg/MoNuSegTrainingData"


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
