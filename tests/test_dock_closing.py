"""The dock's runs that are overtaken or closed: no stale result, no thread left."""

import threading
import time

import pytest

napari = pytest.importorskip("napari")
from dock_helpers import dock, noise, settle, viewer
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.dock import NucpruneDock

__all__ = ["dock", "viewer"]


def test_the_image_deleted_in_mid_run_leaves_no_result(viewer, dock, qtbot):
    image = viewer.add_image(noise(300, 300))
    qtbot.waitUntil(lambda: dock.runner.busy, timeout=5000)
    viewer.layers.remove(image)
    settle(dock, qtbot)
    assert len(viewer.layers) == 0
    assert "Drag an image in" in dock.message.text()


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
