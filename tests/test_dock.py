"""The dock in a viewer: what a user does, and what the layers then hold."""

import threading
import time

import numpy as np
import pytest

napari = pytest.importorskip("napari")
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from helpers import QUICK
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import load
from napari_nucprune.nuclei.watershed import merge
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.auto import AutoRuntime
from napari_nucprune.slides.field import take
from napari_nucprune.slides.source import Source
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.cr_slider import tick_of
from napari_nucprune.widgets.dock import NucpruneDock

ROLES = layers.ROLES


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def dock(viewer, quick, qtbot):
    dock = NucpruneDock(viewer)
    viewer.window.add_dock_widget(dock, name="nucprune")
    dock.image.area.setCurrentText("whole image")
    dock.pruning.choose_recovery("off")
    yield dock
    dock.runner.close()


def noise(height=96, width=112, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def settle(dock, qtbot, timeout=30_000):
    """Wait until nothing runs, waits or is about to."""

    def idle():
        timers = (dock._later, dock._rested, dock._readout)
        return not dock.runner.busy and not any(t.isActive() for t in timers)

    qtbot.waitUntil(idle, timeout=timeout)


def expected(checkpoint, rgb, pruning):
    """The same by the core alone."""
    runtime = AutoRuntime("cpu")
    if (pruning.cr_semantic, pruning.cr_distance) == (1, 1):
        runtime.load_dense(checkpoint)
    else:
        runtime.load(checkpoint, Ranking(checkpoint, pruning.keep).masks(pruning))
    maps = runtime.run(take(Source([rgb]), checkpoint.mpp).field)
    return maps, merge(maps, checkpoint.merge)


def close(found, wanted):
    """Equal up to the order of sums: which runtime is the faster one is measured, not fixed."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


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


def test_results_lie_where_they_were_computed(viewer, dock, qtbot):
    rgb = noise(64, 80)
    image = viewer.add_image(
        rgb,
        scale=(0.5, 0.5),
        units=("um", "um"),
        translate=(30, -7),
        rotate=25,
        shear=[0.1],
        affine=[[1, 0.2, 3], [0, 1, 4], [0, 0, 1]],
    )
    settle(dock, qtbot)
    assert dock.message.text() == ""
    # A pixel's size is the length of a step in the world.
    steps = [np.subtract(image.data_to_world(p), image.data_to_world((0, 0))) for p in np.eye(2)]
    own = np.linalg.norm(steps, axis=1)
    assert own[0] != pytest.approx(own[1], rel=0.05)
    assert dock.image.mpp.value() == pytest.approx(own[0], abs=1e-4)
    assert dock.image.mpp_from.text() == "from the image"
    result = layers.find(viewer, "semantic")
    assert result.data.shape == (round(64 * own[0] / 0.25), round(80 * own[1] / 0.25))
    assert result.units == image.units
    for point in [(0, 0), (0, 79), (63, 0), (31, 50)]:
        # Both grids start at the image's corner, half a pixel before the first centre.
        wanted = (np.array(point) + 0.5) * own / 0.25 - 0.5
        np.testing.assert_allclose(result.world_to_data(image.data_to_world(point)), wanted)


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


@pytest.mark.window
def test_visible_area_equals_the_crop_of_the_whole(viewer, dock, quick, qtbot):
    rgb = noise(640, 640)
    viewer.add_image(rgb)
    settle(dock, qtbot)
    whole = layers.find(viewer, "semantic").data.copy()
    viewer.window._qt_window.show()  # the visible corners are known after a draw
    dock.image.area.setCurrentText("visible area")
    camera = layers.camera_of(viewer)
    camera.zoom *= 6
    camera.center = (300, 260)
    qtbot.wait(400)
    settle(dock, qtbot)
    layer = layers.find(viewer, "semantic")
    assert layer.data.shape[0] < 400
    y, x = np.rint(layer.translate).astype(int)
    assert (y % 16, x % 16) == (0, 0)
    height, width = layer.data.shape
    np.testing.assert_allclose(layer.data, whole[y : y + height, x : x + width], atol=1e-5)


def test_the_image_deleted_in_mid_run_leaves_no_result(viewer, dock, qtbot):
    image = viewer.add_image(noise(300, 300))
    qtbot.waitUntil(lambda: dock.runner.busy, timeout=5000)
    viewer.layers.remove(image)
    settle(dock, qtbot)
    assert len(viewer.layers) == 0
    assert "Drag an image in" in dock.message.text()


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


def test_pixel_size_typed_by_the_user_is_used(viewer, dock, qtbot):
    viewer.add_image(noise(64, 64))
    settle(dock, qtbot)
    dock.image.mpp.setValue(0.5)
    settle(dock, qtbot)
    assert layers.find(viewer, "semantic").data.shape == (128, 128)
    assert dock.image.mpp_from.text() == "set here"


def test_rectangle(viewer, dock, quick, qtbot):
    rgb = noise(320, 320)
    viewer.add_image(rgb)
    dock.image.area.setCurrentText("rectangle")
    settle(dock, qtbot)
    assert "Draw a rectangle" in dock.message.text()
    shapes = layers.find(viewer, "region")
    shapes.add_rectangles(np.array([[100, 130], [100, 200], [180, 200], [180, 130]]))
    settle(dock, qtbot)
    layer = layers.find(viewer, "semantic")
    np.testing.assert_allclose(layer.translate, (96, 128))
    assert layer.data.shape == (181 - 96, 201 - 128)


def test_a_hundred_moves_leave_one_thread_and_no_stale_result(viewer, dock, qtbot):
    import threading

    viewer.add_image(noise())
    settle(dock, qtbot)
    for i in range(100):
        dock.pruning.both.set_value(1 + (i * 37) % 63)
        qtbot.wait(3)
    settle(dock, qtbot)
    assert dock.preview.pruning == dock.asked()
    threads = [t for t in threading.enumerate() if t.name.startswith("nucprune")]
    assert len(threads) == 1
    assert len(viewer.layers) == 5  # the image, ours, and the differences


def test_closing_in_mid_run_is_clean(viewer, quick, qtbot):
    dock = NucpruneDock(viewer)
    viewer.window.add_dock_widget(dock)
    viewer.add_image(noise(700, 700))
    qtbot.waitUntil(lambda: dock.runner.busy, timeout=5000)
    begun = time.monotonic()
    dock.runner.close()
    assert time.monotonic() - begun < 10
    viewer.window.remove_dock_widget(dock)
    viewer.add_image(noise())
    layers.camera_of(viewer).zoom *= 2
    qtbot.wait(50)


@pytest.mark.window
def test_a_dock_that_is_closed_by_its_x_is_gone(viewer, quick, qtbot):
    """napari keeps the inner widget alive: it went on running at every move of the camera."""
    from qtpy.QtCore import QCoreApplication, QEvent

    before = {t for t in threading.enumerate() if t.name.startswith("nucprune")}
    dock, stays = NucpruneDock(viewer), NucpruneDock(viewer)
    own = viewer.window.add_dock_widget(dock)
    viewer.window.add_dock_widget(stays)
    viewer.add_image(noise())
    settle(dock, qtbot)
    settle(stays, qtbot)
    gone, runs = [], []
    dock.destroyed.connect(lambda: gone.append(True))
    dock.runner.busy_changed.connect(runs.append)
    viewer.window.remove_dock_widget(own)  # what the x does
    qtbot.waitUntil(lambda: bool(gone), timeout=20_000)
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    runs.clear()
    # Nothing of it hears what happens next; the other one does.
    heard = stays.runner.runs
    viewer.add_image(noise(64, 80, seed=5), name="another")
    viewer.layers["another"].scale = (2, 2)
    viewer.layers["another"].name = "renamed"
    viewer.dims.ndisplay = 2
    viewer.theme = "light"
    qtbot.wait(200)
    layers.camera_of(viewer).zoom *= 1.5
    viewer.layers.remove("renamed")
    settle(stays, qtbot)
    assert stays.runner.runs > heard
    assert not runs
    after = {t for t in threading.enumerate() if t.name.startswith("nucprune")} - before
    assert len(after) == 1
    stays.runner.close()


def test_all_fits_into_320_pixels(viewer, dock, qtbot):
    viewer.add_image(noise(), name="a very long name of an image " * 4)
    settle(dock, qtbot)
    dock.resize(320, 900)
    qtbot.wait(20)
    for section in (dock.image, dock.checkpoint, dock.pruning, dock.control, dock.compare):
        assert section.minimumSizeHint().width() <= 320 - 16, type(section).__name__


@pytest.mark.window
def test_a_view_that_is_too_large_is_run_in_its_middle(viewer, dock, qtbot, monkeypatch):
    from napari_nucprune.widgets import images

    monkeypatch.setattr(images, "VISIBLE_LIMIT", 128)
    viewer.window._qt_window.show()
    dock.image.area.setCurrentText("visible area")
    viewer.add_image(noise(400, 300))
    qtbot.wait(400)
    settle(dock, qtbot)
    assert "larger than 128 px" in dock.message.text()
    layer = layers.find(viewer, "semantic")
    assert max(layer.data.shape) <= 128
    centre = layer.translate + np.array(layer.data.shape) / 2
    np.testing.assert_allclose(centre, (200, 150), atol=16)
