"""Recovery in the dock: on by default, prepared in the background, marked on the slider."""

import threading
import time

import numpy as np
import pytest

napari = pytest.importorskip("napari")
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog

from helpers import noise
from napari_nucprune.checkpoint.format import load
from napari_nucprune.doors import BRANCHES
from napari_nucprune.errors import Cancelled
from napari_nucprune.preview import Session
from napari_nucprune.pruning.recovery import Calibration
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.auto import AutoRuntime
from napari_nucprune.slides.field import take
from napari_nucprune.slides.source import Source
from napari_nucprune.widgets import cr_slider, layers
from napari_nucprune.widgets.dock import NucpruneDock
from napari_nucprune.widgets.images import Images
from napari_nucprune.widgets.preparing import around

RGB = noise(2, 64, 64)


@pytest.fixture
def dock(make_napari_viewer, quick, monkeypatch):
    # Four stops: each costs a refit.
    monkeypatch.setattr(cr_slider, "STOPS", (1, 4, 8, 16))
    viewer = make_napari_viewer()
    dock = NucpruneDock(viewer)
    viewer.window.add_dock_widget(dock, name="nucprune")
    dock.image.area.setCurrentText("whole image")
    yield dock
    dock.runner.close()


@pytest.fixture
def calls(monkeypatch):
    """The compression ratios that were really computed."""
    calls = []
    real = Calibration.recover

    def recover(self, pruning, *rest):
        calls.append(pruning.cr_semantic)
        return real(self, pruning, *rest)

    monkeypatch.setattr(Calibration, "recover", recover)
    return calls


def settle(dock, qtbot, timeout=60_000):
    """Wait until nothing runs, waits or is about to; the background may go on."""

    def idle():
        timers = (dock._later, dock._rested, dock._readout)
        return not dock.runner.busy and not any(t.isActive() for t in timers)

    qtbot.waitUntil(idle, timeout=timeout)


def rest(dock, qtbot, timeout=60_000):
    """Wait until the background is done too."""
    settle(dock, qtbot)
    qtbot.waitUntil(lambda: dock.runner._running is None, timeout=timeout)


def ready(dock):
    return sorted(dock.pruning.both.scale.ready)


def run_by_the_core(checkpoint, masks=None, rgb=RGB):
    runtime = AutoRuntime("cpu")
    runtime.load(checkpoint, masks)
    return runtime.run(take(Source([rgb]), checkpoint.mpp).field)


def shown(dock, role="semantic"):
    return layers.find(dock.viewer, role)


def test_recovery_is_on_by_default_and_off_gives_what_pruning_alone_gives(dock, quick, qtbot):
    assert dock.pruning.recovery.currentText() == "on this slide"
    dock.viewer.add_image(RGB, name="tissue")
    dock.pruning.both.set_value(5)
    settle(dock, qtbot)
    assert dock.message.text() == ""
    assert shown(dock).metadata["nucprune"]["recovery"] == "slide"
    assert "recovered in" in dock.pruning.time.text()
    assert "PQ" in dock.compare.line.text()
    recovered = shown(dock).data.copy()

    dock.pruning.choose_recovery("off")
    settle(dock, qtbot)
    assert shown(dock).metadata["nucprune"]["recovery"] == "off"
    assert "recovered" not in dock.pruning.time.text()
    maps = run_by_the_core(quick, Ranking(quick).masks(dock.asked()))
    np.testing.assert_array_equal(shown(dock).data, maps.semantic)
    assert not np.array_equal(recovered, maps.semantic)
    assert ready(dock) == []

    # The stop was kept: back at once.
    dock.pruning.choose_recovery("slide")
    settle(dock, qtbot)
    np.testing.assert_array_equal(shown(dock).data, recovered)
    assert "recovered in" not in dock.pruning.time.text()


def test_stops_are_prepared_marked_and_then_moved_to_without_recovery(dock, qtbot, calls):
    states = []
    dock.runner.busy_changed.connect(states.append)
    dock.viewer.add_image(RGB)
    dock.pruning.both.set_value(8)
    rest(dock, qtbot)
    assert ready(dock) == [1, 4, 8, 16]
    assert calls == [8, 4, 16]  # the one asked for, then its neighbours
    assert states[-1] is False
    assert dock.control.progress.format() == "idle"
    calls.clear()
    dock.pruning.both.set_value(16)
    settle(dock, qtbot)
    assert dock.preview.pruning.cr_semantic == 16
    assert dock.preview.recovered
    assert "recovered in" not in dock.pruning.time.text()
    rest(dock, qtbot)
    assert calls == []
    # Split, the stops hold for either branch.
    dock.pruning.link.click()
    dock.pruning.distance.set_value(4)
    rest(dock, qtbot)
    assert dock.preview.recovered
    assert sorted(dock.pruning.semantic.scale.ready) == [4, 8, 16]
    assert calls == []


def test_marks_follow_image_strategy_recovery_and_checkpoint(dock, qtbot):
    first = dock.viewer.add_image(RGB, name="first")
    dock.pruning.both.set_value(8)
    rest(dock, qtbot)
    assert ready(dock) == [1, 4, 8, 16]
    dock.control.live.setChecked(False)
    dock.pruning.strategy.setCurrentText("network-wide")
    assert ready(dock) == [1]
    dock.pruning.strategy.setCurrentText("layer-wise")
    assert ready(dock) == [1, 4, 8, 16]
    dock.pruning.choose_recovery("off")
    assert ready(dock) == []
    dock.pruning.choose_recovery("slide")
    dock.image.mpp.setValue(0.5)
    assert ready(dock) == [1]
    dock.image.mpp.setValue(0.25)  # typed, as the image itself does not say
    second = dock.viewer.add_image(RGB[::-1], name="second")
    assert ready(dock) == [1]
    dock.viewer.layers.remove(second)
    dock.viewer.layers.remove(first)
    assert ready(dock) == []
    assert dock.session._recoveries is None
    dock.open_checkpoint(dock.checkpoint.choice.currentData())
    assert ready(dock) == []


def test_a_move_pre_empts_preparing(dock, qtbot, monkeypatch):
    real, begun, stopped = Calibration.recover, threading.Event(), []

    def recover(self, pruning, masks, progress, should_stop, branches):
        if pruning.cr_semantic != 4:  # never ends by itself
            return real(self, pruning, masks, progress, should_stop, branches)
        begun.set()
        progress("deep in it", 1, 2)
        while not should_stop():
            time.sleep(0.002)
        stopped.append(pruning.cr_semantic)
        raise Cancelled("stopped")

    monkeypatch.setattr(Calibration, "recover", recover)
    dock.viewer.add_image(RGB)
    dock.pruning.both.set_value(8)
    qtbot.waitUntil(begun.is_set, timeout=60_000)
    qtbot.waitUntil(lambda: "Preparing CR 4" in dock.control.progress.format(), timeout=5000)
    assert not dock.runner.busy
    assert not dock.control.cancel.isEnabled()
    dock.pruning.both.set_value(16)
    qtbot.waitUntil(lambda: dock.preview.pruning.cr_semantic == 16, timeout=60_000)
    assert stopped
    assert dock.message.text() == ""
    # Live off ends it as well, and starts no more.
    qtbot.waitUntil(lambda: "Preparing CR 4" in dock.control.progress.format(), timeout=60_000)
    dock.control.live.setChecked(False)
    rest(dock, qtbot)
    assert dock.control.progress.format() == "idle"
    assert ready(dock) == [1, 8, 16]


def test_preparing_goes_on_after_other_work(dock, qtbot, monkeypatch):
    """A changed comparison, a report or a sweep takes the runner for a while."""
    begun = threading.Event()
    real = Calibration.recover

    def recover(self, pruning, masks, progress, should_stop, branches=BRANCHES):
        if pruning.cr_semantic == 4 and not begun.is_set():
            begun.set()
            while not should_stop():
                time.sleep(0.002)
            raise Cancelled("stopped")
        return real(self, pruning, masks, progress, should_stop, branches)

    monkeypatch.setattr(Calibration, "recover", recover)
    dock.viewer.add_image(RGB)
    dock.pruning.both.set_value(8)
    qtbot.waitUntil(begun.is_set, timeout=60_000)
    did = []
    dock.runner.request(lambda *_: 1, did.append)
    qtbot.waitUntil(lambda: bool(did), timeout=60_000)
    qtbot.waitUntil(lambda: ready(dock) == [1, 4, 8, 16], timeout=60_000)
    rest(dock, qtbot)
    assert dock.preparing._next is None


def test_preparing_that_fails_ends(dock, qtbot, monkeypatch):
    tried = []
    monkeypatch.setattr(Session, "prepare", lambda *_: tried.append(1) or 1 / 0)
    dock.viewer.add_image(RGB)
    dock.pruning.both.set_value(8)
    rest(dock, qtbot)
    qtbot.wait(200)
    assert len(tried) == 1
    assert dock.message.text() == ""


def test_glass_shows_the_sentence_and_still_a_result(dock, quick, qtbot, calls):
    glass = np.full((64, 64, 3), 244, np.uint8)
    dock.viewer.add_image(glass, name="slip")
    dock.pruning.both.set_value(8)
    rest(dock, qtbot)
    assert "glass" in dock.message.text()
    assert "not recovered" in dock.message.text()
    assert shown(dock).metadata["nucprune"]["recovery"] == "off"
    maps = run_by_the_core(quick, Ranking(quick).masks(dock.asked()), glass)
    np.testing.assert_array_equal(shown(dock).data, maps.semantic)
    assert ready(dock) == [1]
    assert calls == []


def test_the_saved_checkpoint_is_what_runs(dock, quick, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *a, **k: (str(tmp_path / "saved.safetensors"), "")
    )
    dock.viewer.add_image(RGB, name="tissue")
    dock.pruning.both.set_value(8)
    settle(dock, qtbot)
    QTest.mouseClick(dock.save.checkpoint, Qt.MouseButton.LeftButton)
    assert dock.message.text().endswith(", recovered).")
    saved = load(tmp_path / "saved.safetensors")
    maps = run_by_the_core(saved)
    np.testing.assert_array_equal(shown(dock, "semantic").data, maps.semantic)
    np.testing.assert_array_equal(shown(dock, "distance").data, maps.distance)
    assert saved.pruning["cr_semantic"] == 8
    assert (saved.pruning["recovery"]["method"], saved.pruning["recovery"]["origin"]) == (
        "refit",
        "tissue",
    )
    assert saved.parent_sha256 == quick.sha256
    dock.control.live.setChecked(False)
    dock.pruning.both.set_value(9)
    QTest.mouseClick(dock.save.checkpoint, Qt.MouseButton.LeftButton)
    assert "not recovered" in dock.message.text()
    assert "recovery" not in load(tmp_path / "saved.safetensors").pruning


def test_reselection_can_be_switched_off(dock, quick, qtbot):
    pruning = dock.pruning
    assert pruning.reselect.isChecked()
    dock.viewer.add_image(RGB, name="tissue")
    pruning.both.set_value(5)
    settle(dock, qtbot)
    assert shown(dock).metadata["nucprune"]["reselected"]
    masks = Ranking(quick).masks(dock.asked())

    def has_the_strategys_mask():
        found, recovered = dock.session.pruned(dock.asked(), dock._job)
        assert recovered
        return all(
            np.array_equal(found.weights[branch][f"{layer}.weight"] != 0, mask)
            for branch in masks
            for layer, mask in masks[branch].items()
        )

    assert not has_the_strategys_mask()
    chosen = shown(dock).data.copy()
    pruning.reselect.setChecked(False)
    settle(dock, qtbot)
    assert not shown(dock).metadata["nucprune"]["reselected"]
    assert has_the_strategys_mask()
    assert (shown(dock).data != chosen).any()
    pruning.choose_recovery("off")
    assert not pruning.reselect.isEnabled()
    pruning.choose_recovery("bundled")
    assert pruning.reselect.isEnabled()


def test_nearest_stops_first():
    assert around(8, [1, 4, 8, 16, 32, 64]) == [8, 4, 16, 1, 32, 64]
    assert around(3, [1, 4, 8]) == [1, 4, 8]
    assert around(1, [1, 4, 8]) == [1, 4, 8]


def test_a_new_layer_never_has_the_key_of_a_deleted_one(qtbot):
    viewer, keys = ViewerModel(), set()
    images = Images(viewer)
    qtbot.addWidget(images.section)
    for _ in range(20):
        viewer.layers.clear()
        viewer.add_image(RGB)
        keys.add(images.key())
    assert len(keys) == 20
