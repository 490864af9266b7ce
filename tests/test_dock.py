"""The dock in a viewer: what a user does, and what the layers then hold."""

import numpy as np
import pytest

napari = pytest.importorskip("napari")
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from dock_helpers import close, dock, expected, noise, settle, viewer
from helpers import QUICK
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import load
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.cr_slider import tick_of

__all__ = ["dock", "viewer"]

ROLES = layers.ROLES


def test_an_image_is_run_and_three_layers_show_it(viewer, dock, quick, qtbot):
    rgb = noise()
    viewer.add_image(rgb, name="tissue")
    settle(dock, qtbot)
    assert dock.message.text() == ""
    maps, nuclei = expected(quick, rgb, dock.asked())
    close(layers.find(viewer, "semantic").data, maps.semantic)
    close(layers.find(viewer, "distance").data, maps.distance)
    np.testing.assert_array_equal(layers.find(viewer, "instances").data, nuclei.labels)
    assert len(viewer.layers) == 5  # the image, ours, and the differences
    assert f"{len(nuclei)} nuclei (dense {len(nuclei)})" in dock.compare.line.text()
    assert "PQ 1.00" in dock.compare.line.text()
    assert dock.image.mpp_from.text() == "assumed"


def test_the_slider_moved_by_the_mouse_changes_the_same_layers(viewer, dock, quick, qtbot):
    rgb = noise()
    viewer.add_image(rgb)
    settle(dock, qtbot)
    before = {role: layers.find(viewer, role) for role in ROLES}
    before["semantic"].opacity = 0.31
    before["semantic"].name = "my name for it"
    slider = dock.pruning.both.slider
    slider.resize(300, 24)
    # A press on the handle and a drag to the place of CR 16.
    place = lambda tick: QPoint(7 + round((slider.width() - 14) * tick / 600), slider.height() // 2)  # noqa: E731
    QTest.mousePress(slider, Qt.MouseButton.LeftButton, pos=place(0))
    for tick in np.linspace(0, tick_of(16), 9):
        QTest.mouseMove(slider, place(tick))
        qtbot.wait(5)
    QTest.mouseRelease(slider, Qt.MouseButton.LeftButton, pos=place(tick_of(16)))
    settle(dock, qtbot)
    assert dock.asked().cr_semantic == 16
    _, nuclei = expected(quick, rgb, dock.asked())
    np.testing.assert_array_equal(layers.find(viewer, "instances").data, nuclei.labels)
    assert {role: layers.find(viewer, role) for role in ROLES} == before
    assert before["semantic"].opacity == pytest.approx(0.31)
    assert before["semantic"].name == "my name for it"
    about = before["instances"].metadata["nucprune"]
    assert (about["cr_semantic"], about["strategy"]) == (16.0, "layer-wise")
    assert about["checkpoint_sha256"] == quick.sha256
    kept = sum(
        int(mask.sum())
        for masks in Ranking(quick).masks(dock.asked()).values()
        for mask in masks.values()
    ) + 2 * QUICK[0]  # fmt: skip
    assert f"kept {kept:,} of" in dock.pruning.kept.text()


def test_split_ratios_reach_each_branch(viewer, dock, quick, qtbot):
    rgb = noise()
    viewer.add_image(rgb)
    settle(dock, qtbot)
    dock.pruning.link.click()
    dock.pruning.distance.set_value(8)
    dock.pruning.strategy.setCurrentText("network-wide")
    settle(dock, qtbot)
    asked = dock.asked()
    assert (asked.strategy, asked.cr_semantic, asked.cr_distance) == ("network-wide", 1, 8)
    maps, _ = expected(quick, rgb, asked)
    close(layers.find(viewer, "distance").data, maps.distance)


def test_a_users_own_layer_of_the_same_name_is_left_alone(viewer, dock, qtbot):
    own = viewer.add_labels(np.ones((5, 5), int), name="instances")
    viewer.add_image(noise())
    settle(dock, qtbot)
    assert own in viewer.layers
    np.testing.assert_array_equal(own.data, np.ones((5, 5), int))
    assert layers.find(viewer, "instances") is not own


@pytest.mark.parametrize("kind", ["rgba", "dask", "multiscale"])
def test_kinds_of_images_that_run(viewer, dock, quick, qtbot, kind):
    rgb = noise(64, 64)
    data = rgb
    if kind == "rgba":
        data = np.dstack([rgb, np.full((64, 64), 255, np.uint8)])
    elif kind == "dask":
        data = pytest.importorskip("dask.array").from_array(rgb, chunks=(32, 32, 3))
    elif kind == "multiscale":
        data = [rgb, rgb[::2, ::2]]
    viewer.add_image(data, rgb=True, multiscale=kind == "multiscale")
    settle(dock, qtbot)
    assert dock.message.text() == ""
    maps, _ = expected(quick, rgb, dock.asked())
    close(layers.find(viewer, "semantic").data, maps.semantic)


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (np.zeros((64, 64), np.uint8), {}, ["no colour", "(64, 64)"]),
        (np.full((64, 64, 3), 200, np.float32), {"rgb": True}, ["float32", "200", "0 to 1"]),
        (np.full((64, 64, 3), 4000, np.uint16), {"rgb": True}, ["16 bits", "4000", "stretch"]),
        (np.zeros((64, 64, 3), np.int32), {"rgb": True}, ["int32", "convert"]),
        (np.zeros((3, 64, 64), np.uint8), {}, ["no colour", "(3, 64, 64)", "Split Stack"]),
    ],
)
def test_what_cannot_run_is_refused_by_a_sentence(viewer, dock, qtbot, data, options, words):
    viewer.add_image(data, name="odd", **options)
    settle(dock, qtbot)
    for word in ["odd", *words]:
        assert word in dock.message.text()
    assert dock.preview is None
    viewer.add_image(noise())
    settle(dock, qtbot)
    assert dock.preview is not None
    assert dock.message.text() == ""


def test_a_result_layer_that_was_deleted_comes_back(viewer, dock, qtbot):
    viewer.add_image(noise())
    settle(dock, qtbot)
    viewer.layers.remove(layers.find(viewer, "distance"))
    dock.pruning.both.set_value(4)
    settle(dock, qtbot)
    assert layers.find(viewer, "distance") is not None


def test_live_off_waits_for_run(viewer, dock, qtbot):
    viewer.add_image(noise())
    settle(dock, qtbot)
    dock.control.live.setChecked(False)
    shown = dock.preview
    dock.pruning.both.set_value(5)
    qtbot.wait(250)
    settle(dock, qtbot)
    assert dock.preview is shown
    assert "79.99% zero" in dock.pruning.kept.text()  # the count needs no run
    QTest.mouseClick(dock.control.run, Qt.MouseButton.LeftButton)
    settle(dock, qtbot)
    assert dock.preview.pruning.cr_semantic == 5


def test_a_bad_checkpoint_changes_nothing(viewer, dock, qtbot, tmp_path, monkeypatch):
    viewer.add_image(noise())
    settle(dock, qtbot)
    session, shown = dock.session, dock.preview
    bad = tmp_path / "holiday.safetensors"
    bad.write_bytes(b"\xff\xd8\xff\xe0 not weights")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (str(bad), ""))
    QTest.mouseClick(dock.checkpoint.open, Qt.MouseButton.LeftButton)
    assert "holiday.safetensors" in dock.message.text()
    assert dock.session is session
    assert dock.preview is shown
    assert dock.checkpoint.choice.currentText() == shipped.DEFAULT


def test_save_checkpoint_labels_and_table(viewer, dock, quick, qtbot, tmp_path, monkeypatch):
    import tifffile

    viewer.add_image(noise(), scale=(0.25, 0.25), units=("um", "um"))
    dock.pruning.both.set_value(4)
    settle(dock, qtbot)
    names = iter(["pruned.safetensors", "labels", "table.csv"])
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *a, **k: (str(tmp_path / next(names)), "")
    )
    for button in (dock.save.checkpoint, dock.save.labels, dock.save.table):
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        assert dock.message.text().startswith("Saved"), dock.message.text()
    pruned = load(tmp_path / "pruned.safetensors")
    assert pruned.parent_sha256 == quick.sha256
    assert pruned.own_cr["semantic"] == pytest.approx(4, rel=0.01)
    labels = tifffile.imread(tmp_path / "labels.tif")
    np.testing.assert_array_equal(labels, layers.find(viewer, "instances").data)
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert len(rows) == 1 + labels.max()
    # The saved network opens, and is the slider's floor.
    monkeypatch.setattr(
        QFileDialog, "getOpenFileName", lambda *a, **k: (str(tmp_path / "pruned.safetensors"), "")
    )
    QTest.mouseClick(dock.checkpoint.open, Qt.MouseButton.LeftButton)
    settle(dock, qtbot)
    assert dock.pruning.both.value == pytest.approx(4, rel=0.01)
    np.testing.assert_array_equal(labels, layers.find(viewer, "instances").data)


def test_pin_keeps_a_copy(viewer, dock, qtbot):
    viewer.add_image(noise())
    dock.pruning.both.set_value(2)
    settle(dock, qtbot)
    QTest.mouseClick(dock.compare.pin, Qt.MouseButton.LeftButton)
    pinned = viewer.layers["instances · layer-wise CR 2"]
    then = pinned.data.copy()
    dock.pruning.both.set_value(32)
    settle(dock, qtbot)
    np.testing.assert_array_equal(pinned.data, then)
    assert pinned not in [layer for _, layer in dock.images.choices()]


def test_all_fits_into_320_pixels(viewer, dock, qtbot):
    viewer.add_image(noise(), name="a very long name of an image " * 4)
    settle(dock, qtbot)
    dock.resize(320, 900)
    qtbot.wait(20)
    for section in (dock.image, dock.checkpoint, dock.pruning, dock.control, dock.compare):
        assert section.minimumSizeHint().width() <= 320 - 16, type(section).__name__
