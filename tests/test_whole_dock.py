"""The dock's part on whole slides, in a viewer."""

import json
import threading

import numpy as np
import pytest
import tifffile

napari = pytest.importorskip("napari")
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from napari_nucprune import wholejob
from napari_nucprune.wholejob import SlideJob
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.dock import NucpruneDock
from napari_nucprune.widgets.whole import ROLE


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def slide(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 200, (600, 700, 3)).astype(np.uint8)
    path = tmp_path / "slide.svs"
    with tifffile.TiffWriter(path) as tif:
        tif.write(rgb, tile=(128, 128), photometric="rgb", compression="deflate",
                  resolution=(2e4, 2e4), resolutionunit="CENTIMETER", metadata=None)  # fmt: skip
    return path


@pytest.fixture
def dock(viewer, quick):
    from napari_nucprune.checkpoint import shipped
    from napari_nucprune.checkpoint.format import save

    quick.weights["distance"]["head.weight"][:] *= 0.2
    save(quick, shipped.FOLDER / f"{shipped.DEFAULT}.safetensors")
    made = NucpruneDock(viewer)
    viewer.window.add_dock_widget(made, name="nucprune")
    made.control.live.setChecked(False)
    made.pruning.choose_recovery("off")
    yield made
    made.whole.close_down()
    made.runner.close()


def click(button):
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def test_a_slide_is_run_from_the_dock_cancelled_and_continued(viewer, dock, slide, qtbot, tmp_path):
    said = []
    dock.whole._say = said.append
    dock.whole.run(tmp_path / "out")
    assert "no image" in said[-1]
    viewer.open(str(slide), plugin="napari-nucprune")
    dock.whole.run(tmp_path / "out")
    assert dock.whole.job is not None, said
    dock.whole.cancel.click()
    qtbot.waitUntil(lambda: dock.whole.job is None, timeout=60_000)
    assert not (tmp_path / "out" / "run.json").exists()
    assert "goes on" in dock.whole.line.text()
    dock.whole.run(tmp_path / "out")
    qtbot.waitUntil(lambda: dock.whole.job is None, timeout=60_000)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert f"{run['nuclei']:,} nuclei" in dock.whole.line.text()
    layer = layers.find(viewer, ROLE)
    assert layer.multiscale
    assert layer.data[0].shape == (1200, 1400)
    image = viewer.layers["slide"]
    # The centre of label pixel (2i, 2i) and (2i + 1, 2i + 1) are half a pixel around i's.
    middle = (np.asarray(layer.data_to_world((20, 40))) + layer.data_to_world((21, 41))) / 2
    np.testing.assert_allclose(image.world_to_data(middle)[:2], (10, 20), atol=1e-6)


def test_pause_holds_the_work_and_results_come_meanwhile(
    viewer, dock, slide, qtbot, tmp_path, monkeypatch
):
    viewer.open(str(slide), plugin="napari-nucprune")
    asked = []
    folder = tmp_path / "new"
    monkeypatch.setattr(
        QFileDialog, "getExistingDirectory", lambda *a, **k: asked.append(a) or str(folder)
    )
    gate, reached = threading.Event(), threading.Event()
    real = SlideJob._done

    def held(self, stage, core, about):
        real(self, stage, core, about)
        if stage == "nuclei":
            reached.set()
            assert gate.wait(60)

    monkeypatch.setattr(SlideJob, "_done", held)
    monkeypatch.setattr(wholejob, "LARGEST", 50)
    click(dock.whole.start)
    assert asked
    assert not dock.whole.start.isEnabled()
    try:
        qtbot.waitUntil(reached.is_set, timeout=60_000)
        qtbot.waitUntil(lambda: layers.find(viewer, ROLE) is not None, timeout=10_000)
        early = layers.find(viewer, ROLE)
        assert dock.whole.job is not None
        assert not early.multiscale
        small = np.array(early.data)
        assert small.any()
        assert small.shape == (38, 44)  # every 32nd of 1200 x 1400
        click(dock.whole.pause)
        assert dock.whole.pause.text() == "Go on"
    finally:
        gate.set()
    marks = folder / ".nucprune" / "marks"
    qtbot.wait(700)  # what was in work ends
    before = sorted(marks.glob("*/*.json"))
    qtbot.wait(700)
    assert sorted(marks.glob("*/*.json")) == before
    assert dock.whole.job is not None
    click(dock.whole.pause)
    qtbot.waitUntil(lambda: dock.whole.job is None, timeout=60_000)
    assert "nuclei on" in dock.whole.line.text()
    late = layers.find(viewer, ROLE)
    assert late.multiscale
    assert np.mean(np.asarray(late.data[0])[::32, ::32][small > 0] > 0) > 0.9
    assert (folder / "run.json").exists()


def test_the_layers_own_pixel_size_is_the_runs(viewer, dock, slide, qtbot, tmp_path):
    """Scaled by the user, differently on both axes: what is shown is what is run."""
    viewer.open(str(slide), plugin="napari-nucprune")
    image = viewer.layers["slide"]
    image.scale = (0.5, 0.4)
    dock.whole.run(tmp_path / "out")
    qtbot.waitUntil(lambda: dock.whole.job is None, timeout=60_000)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["mpp"] == [0.5, 0.4]
    assert run["labels_shape"] == [1200, 1120]


def test_what_was_not_recovered_yet_is_recovered_first(viewer, dock, slide, qtbot, tmp_path):
    """Live off, the slider just moved: the run must not take the network that is only pruned."""
    viewer.open(str(slide), plugin="napari-nucprune")
    dock.pruning.choose_recovery("slide")
    dock.pruning.both.set_value(8)
    dock.whole.run(tmp_path / "out")
    qtbot.waitUntil(lambda: dock.whole.job is None, timeout=60_000)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["recovery"]["crops"] > 0
    assert run["recovery"]["origin"] == "slide"
    dock.pruning.both.set_value(1)
    dock.whole.run(tmp_path / "dense")
    qtbot.waitUntil(lambda: dock.whole.job is None, timeout=60_000)
    assert json.loads((tmp_path / "dense" / "run.json").read_text())["recovery"] is None


def test_a_slide_that_cannot_be_recovered_on_is_refused(viewer, dock, qtbot, tmp_path):
    path = tmp_path / "glass.svs"
    with tifffile.TiffWriter(path) as tif:
        tif.write(np.full((600, 700, 3), 245, np.uint8), tile=(128, 128), photometric="rgb",
                  resolution=(2e4, 2e4), resolutionunit="CENTIMETER", metadata=None)  # fmt: skip
    viewer.open(str(path), plugin="napari-nucprune")
    dock.pruning.choose_recovery("slide")
    dock.pruning.both.set_value(8)
    said = []
    dock.whole._say = said.append
    dock.whole.run(tmp_path / "out")
    qtbot.waitUntil(lambda: dock.whole.job is None, timeout=60_000)
    assert "glass" in said[-1]
    assert "recovery off" in said[-1]
    assert not (tmp_path / "out" / "run.json").exists()


def test_damage_in_the_field_is_said(viewer, dock, slide, qtbot):
    with tifffile.TiffFile(slide) as tif:
        offset, count = tif.pages[0].dataoffsets[0], tif.pages[0].databytecounts[0]
    with slide.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    viewer.open(str(slide), plugin="napari-nucprune")
    dock.image.area.setCurrentText("whole image")
    dock.run()
    qtbot.waitUntil(lambda: dock.preview is not None, timeout=60_000)
    assert dock.preview.damaged == 1
    assert "1 damaged place was taken as glass" in dock.message.text()
