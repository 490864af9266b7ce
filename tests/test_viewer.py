"""A newcomer's doors in a real window: drop, Open slide… and samples."""

import numpy as np
import pytest

napari = pytest.importorskip("napari")
from napari._qt.dialogs.qt_reader_dialog import QtReaderDialog
from napari.layers import Image
from napari.settings import get_settings
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialogButtonBox, QFileDialog

from dock_helpers import settle
from helpers import is_one_line
from napari_nucprune import samples
from napari_nucprune.errors import InputError
from napari_nucprune.widgets import layers
from viewer_helpers import PLUGIN, dialogs, viewer

__all__ = ["dialogs", "viewer"]

pytestmark = pytest.mark.window

CMU_SHAPE, CMU_MPP = (2967, 2220), 0.499
MONUSEG = "MoNuSeg/MoNuSegTrainingData/Tissue Images/TCGA-B0-5711-01Z-00-DX1.tif"


@pytest.fixture
def dock(viewer, quick, dialogs):
    """The dock as the Plugins menu opens it."""
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN)
    dock.pruning.choose_recovery("off")
    yield dock
    dock.runner.close()


@pytest.fixture
def cmu(shared_data):
    path = shared_data / "WSI" / "CMU-1-Small-Region.svs"
    if not path.exists():
        pytest.skip(f"no {path}")
    return path


def drop(viewer, path):
    """Drop a file on the canvas, as Qt does it: the widget there, then whoever accepts drops."""
    canvas = viewer.window._qt_viewer.canvas.native
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    middle = canvas.rect().center()
    rest = (
        Qt.DropAction.CopyAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    enter = QDragEnterEvent(middle, *rest)
    QApplication.sendEvent(canvas, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(canvas, QDropEvent(QPointF(middle), *rest))


def choose_ours(dialog, remember=True):
    """In napari's "Choose reader": our reader, the checkbox, OK, all by mouse."""
    assert isinstance(dialog, QtReaderDialog)
    buttons = {button.text(): button for button in dialog.reader_btn_group.buttons()}
    assert "NucPrune" in buttons
    assert len(buttons) > 1
    left = Qt.MouseButton.LeftButton
    ours = buttons["NucPrune"]
    QTest.mouseClick(ours, left, pos=QPoint(8, ours.height() // 2))
    assert ours.isChecked()
    box = dialog.persist_checkbox
    assert not box.isChecked()
    if remember:
        QTest.mouseClick(box, left, pos=QPoint(8, box.height() // 2))
        assert box.isChecked()
    QTest.mouseClick(dialog.btn_box.button(QDialogButtonBox.StandardButton.Ok), left)


def is_our_slide(layer, path):
    """Whether a layer came from our reader, with the slide's place in the world."""
    assert isinstance(layer, Image)
    assert layer.rgb
    assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]
    np.testing.assert_allclose(layer.scale, CMU_MPP, atol=5e-4)
    about = layer.metadata["nucprune"]
    assert about["path"] == str(path)
    assert about["mpp"] == pytest.approx((CMU_MPP, CMU_MPP), abs=5e-4)
    assert (layer.data[0] if layer.multiscale else layer.data).shape == (*CMU_SHAPE, 3)
    return True


# Files ------------------------------------------------------------------------------------------


def test_a_dropped_slide_asks_once_and_then_opens_with_our_reader(viewer, cmu, dialogs):
    assert "*.svs" not in get_settings().plugins.extension2reader
    dialogs.answer = choose_ours
    drop(viewer, cmu)
    assert dialogs.seen == ["Choose reader"]
    assert [is_our_slide(layer, cmu) for layer in viewer.layers] == [True]
    assert get_settings().plugins.extension2reader["*.svs"] == PLUGIN

    drop(viewer, cmu)
    assert dialogs.seen == ["Choose reader"]
    assert [is_our_slide(layer, cmu) for layer in viewer.layers] == [True, True]


def test_a_dropped_slide_may_be_opened_without_remembering(viewer, cmu, dialogs):
    before = dict(get_settings().plugins.extension2reader)
    drop(viewer, cmu)  # no answer: the dialog is closed
    assert dialogs.seen == ["Choose reader"]
    assert len(viewer.layers) == 0
    dialogs.answer = lambda dialog: choose_ours(dialog, remember=False)
    drop(viewer, cmu)
    assert dialogs.seen == ["Choose reader"] * 2
    assert is_our_slide(viewer.layers[0], cmu)
    assert get_settings().plugins.extension2reader == before


def test_open_slide_asks_nothing_and_runs_on_what_is_visible(
    viewer, dock, cmu, dialogs, qtbot, monkeypatch
):
    before = dict(get_settings().plugins.extension2reader)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (str(cmu), ""))
    QTest.mouseClick(dock.image.open_slide, Qt.MouseButton.LeftButton)
    assert dialogs.seen == []
    assert get_settings().plugins.extension2reader == before
    slide = viewer.layers[0]
    assert is_our_slide(slide, cmu)
    assert dock.images.layer is slide
    assert dock.image.mpp.value() == pytest.approx(CMU_MPP, abs=5e-4)
    assert dock.image.mpp_from.text() == "from the image"
    settle(dock, qtbot)
    # All of it in view may be too much for one run: then a sentence says to zoom in.
    assert "zoom in" in dock.message.text() or layers.find(viewer, "semantic") is not None

    layers.camera_of(viewer).zoom *= 12
    qtbot.wait(400)
    settle(dock, qtbot)
    assert dock.message.text() == ""
    result = layers.find(viewer, "semantic")
    assert result.units == slide.units
    (low, high), (slide_low, slide_high) = result.extent.world, slide.extent.world
    assert (low >= slide_low - 0.5).all()
    assert (high <= slide_high + 0.5).all()
    # What is visible and little more: a twelfth of the slide's height, not all of it.
    assert (high - low)[0] < (slide_high - slide_low)[0] / 6
    # The middle of the view is in the middle of the result.
    centre = np.asarray(layers.camera_of(viewer).center)[-2:]
    np.testing.assert_allclose((low + high) / 2, centre, atol=0.1 * (high - low).max())


def test_open_slide_cancelled_does_nothing(viewer, dock, dialogs, monkeypatch):
    said = dock.message.text()
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: ("", ""))
    QTest.mouseClick(dock.image.open_slide, Qt.MouseButton.LeftButton)
    assert (len(viewer.layers), dock.message.text(), dialogs.seen) == (0, said, [])


def test_a_dropped_lzw_tiff_opens_as_rgb_and_is_chosen(viewer, dock, shared_data, dialogs, qtbot):
    path = shared_data / MONUSEG
    if not path.exists():
        pytest.skip(f"no {path}")
    dock.control.live.setChecked(False)
    drop(viewer, path)
    assert dialogs.seen == []
    (image,) = viewer.layers
    assert image.rgb
    assert image.data.shape == (1000, 1000, 3)
    assert image.data.dtype == np.uint8
    assert dock.images.layer is image
    assert dock.image.layer.native.currentText() == path.stem
    assert dock.message.text() == ""
    assert dock.preview is None
    QTest.mouseClick(dock.control.run, Qt.MouseButton.LeftButton)
    settle(dock, qtbot)
    assert dock.message.text() == ""
    assert layers.find(viewer, "instances") is not None


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<html>404 not found</html>", "no slide that OpenSlide knows"),
        (0.5, "cut off"),  # before the TIFF's first directory
        (0.9, "cut off"),  # before its last one
    ],
    ids=["empty", "html", "half", "nearly all"],
)
def test_a_broken_slide_is_one_sentence(
    viewer, dock, cmu, dialogs, tmp_path, monkeypatch, start, words
):
    if isinstance(start, float):
        start = cmu.read_bytes()[: round(start * cmu.stat().st_size)]
    broken = tmp_path / "x.svs"
    broken.write_bytes(start)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (str(broken), ""))
    QTest.mouseClick(dock.image.open_slide, Qt.MouseButton.LeftButton)
    said = dock.message.text()
    assert is_one_line(said)
    assert "x.svs" in said
    assert "fault of ours" not in said
    assert words in said
    assert dock.message.isVisible()
    assert len(viewer.layers) == 0
    assert dialogs.seen == []


# Samples ----------------------------------------------------------------------------------------


def sample_menu(viewer):
    """Title -> action of our part of File > Open Sample."""
    file_menu = viewer.window.file_menu
    file_menu.aboutToShow.emit()

    def sub(menu, title):
        (found,) = (a for a in menu.actions() if a.menu() and a.text().replace("&", "") == title)
        found.menu().aboutToShow.emit()
        return found.menu()

    ours = sub(sub(file_menu, "Open Sample"), "NucPrune")
    return {action.text(): action for action in ours.actions() if action.text()}


def test_samples_open_from_the_menu_and_the_dock_takes_the_images(viewer, dock, dialogs, qtbot):
    menu = sample_menu(viewer)
    titles = sorted(menu)
    assert [title.split()[0] for title in titles] == ["Synthetic", "Tissue", "Whole"]

    menu[titles[0]].trigger()
    names = [layer.name for layer in viewer.layers][:2]
    assert names == ["synthetic H&E", "ground truth"]
    assert dock.images.layer is viewer.layers["synthetic H&E"]
    assert [layer.name for _, layer in dock.images.choices()] == ["synthetic H&E"]
    assert dock.image.mpp_from.text() == "from the image"
    truth = viewer.layers["ground truth"].data.copy()
    settle(dock, qtbot)
    assert dock.message.text() == ""
    np.testing.assert_array_equal(viewer.layers["ground truth"].data, truth)
    # The results lie on the image.
    found, image = layers.find(viewer, "instances"), viewer.layers["synthetic H&E"]
    assert (found.extent.world[0] >= image.extent.world[0] - 0.25).all()
    assert (found.extent.world[1] <= image.extent.world[1] + 0.25).all()

    menu[titles[1]].trigger()
    assert dock.images.layer is viewer.layers[samples.TISSUE_NAME]
    assert dock.image.mpp_from.text() == "assumed"
    settle(dock, qtbot)
    assert dock.message.text() == ""
    assert dialogs.seen == []


def test_samples_open_by_name(viewer):
    (tissue,) = viewer.open_sample(PLUGIN, "tissue")
    assert tissue.rgb
    image, truth = viewer.open_sample(PLUGIN, "synthetic")
    assert image.rgb
    assert (image.data.shape[:2], image.units) == (truth.data.shape, truth.units)
    np.testing.assert_allclose(image.scale, truth.scale)
    assert truth.data.max() > 10


def test_the_slide_sample(viewer, cmu, monkeypatch):
    import pooch

    def offline(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(InputError) as caught:
        viewer.open_sample(PLUGIN, "slide")
    assert is_one_line(caught.value)
    assert "Open slide" in str(caught.value)
    assert len(viewer.layers) == 0

    monkeypatch.setattr(pooch, "retrieve", lambda *a, **k: str(cmu))
    (slide,) = viewer.open_sample(PLUGIN, "slide")
    assert is_our_slide(slide, cmu)
