"""The dock's part of an image: what is run, and where its results lie."""

import numpy as np
import pytest

napari = pytest.importorskip("napari")
from qtpy.QtWidgets import QDockWidget

from dock_helpers import dock, noise, settle, viewer
from napari_nucprune.widgets import layers

__all__ = ["dock", "viewer"]


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


def test_a_view_of_nothing_says_nothing(dock):
    """A resized window must not replace what the dock said of the last session."""
    assert dock.control.live.isChecked()
    dock.image.area.setCurrentText("visible area")
    dock._camera_moved()
    assert not dock._rested.isActive()


@pytest.mark.window
def test_a_larger_window_shows_the_result_of_more(viewer, dock, qtbot):
    window = viewer.window._qt_window
    window.resize(900, 500)
    window.show()
    viewer.add_image(noise(900, 900))
    dock.image.area.setCurrentText("visible area")
    layers.camera_of(viewer).zoom = 1
    qtbot.wait(600)
    settle(dock, qtbot)
    small = layers.find(viewer, "semantic").data.shape
    assert small[0] < 700
    window.resize(900, 950)
    qtbot.waitUntil(lambda: layers.find(viewer, "semantic").data.shape[0] > small[0] + 100)
    settle(dock, qtbot)
    # And a canvas that another dock was beside.
    narrow = layers.find(viewer, "semantic").data.shape[1]
    for side in window.findChildren(QDockWidget):
        if not side.isAncestorOf(dock):
            side.hide()
    qtbot.waitUntil(lambda: layers.find(viewer, "semantic").data.shape[1] > narrow + 50)
    settle(dock, qtbot)
