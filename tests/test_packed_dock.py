"""Saving packed checkpoints from the dock, and the bytes it shows before."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_nucprune.checkpoint.format import load
from napari_nucprune.preview import Session
from napari_nucprune.widgets import texts
from napari_nucprune.widgets.dock import NucpruneDock


@pytest.fixture
def dock(make_napari_viewer, quick, qtbot):
    viewer = make_napari_viewer()
    dock = NucpruneDock(viewer)
    viewer.window.add_dock_widget(dock, name="nucprune")
    dock.control.live.setChecked(False)
    dock.pruning.choose_recovery("off")
    dock.pruning.both.set_value(8)
    yield dock
    dock.runner.close()
    dock.file_size.close()


def choose(dock, packing):
    dock.save.packing.setCurrentIndex(dock.save.packing.findData(packing))


def test_the_bytes_shown_are_those_saved(dock, qtbot, tmp_path, monkeypatch):
    weights, sizes = {}, {}
    for packing in ("none", "lossless", "half"):
        path = tmp_path / f"{packing}.safetensors"
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, p=path: (str(p), ""))
        choose(dock, packing)
        dock.save.checkpoint.click()
        size = sizes[packing] = texts.megabytes(path.stat().st_size)
        assert size in dock.message.text()
        qtbot.waitUntil(
            lambda size=size: dock.pruning.compute.text().endswith(f"saves as {size}"),
            timeout=20000,
        )
        weights[packing] = load(path).weights["semantic"]["up.0.weight"]
    choose(dock, "none")
    both = f"{sizes['none']}, packed {sizes['lossless']}"
    qtbot.waitUntil(lambda: dock.pruning.compute.text().endswith(both), timeout=20000)
    np.testing.assert_array_equal(weights["none"], weights["lossless"])
    assert 0 < np.abs(weights["half"] - weights["none"]).max() < 1e-3


def test_packing_never_holds_the_slider_up(dock, qtbot, monkeypatch):
    import threading

    go_on, asked = threading.Event(), []

    def slow(self, pruning, job, packing):
        asked.append((pruning.cr_semantic, threading.current_thread() is threading.main_thread()))
        go_on.wait(20)
        return round(pruning.cr_semantic * 1e6)

    monkeypatch.setattr(Session, "packed_bytes", slow)
    qtbot.waitUntil(lambda: dock.session.is_ranked(dock.asked()), timeout=20000)
    choose(dock, "lossless")
    for cr in (2, 4, 5):
        dock.pruning.both.set_value(cr)
        dock._show_cost()
        assert dock.pruning.compute.text().endswith("saves as …")
    go_on.set()
    size = texts.megabytes(5_000_000)
    qtbot.waitUntil(lambda: dock.pruning.compute.text().endswith(f"saves as {size}"), timeout=20000)
    # The first, and of those that waited the last (once more where the readout's timer asked too).
    assert {cr for cr, _ in asked} == {8, 5}
    assert not any(on_main for _, on_main in asked)


def test_it_fits_the_dock(dock):
    assert dock.save.minimumSizeHint().width() <= 320 - 16
