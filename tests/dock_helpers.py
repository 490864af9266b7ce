"""A viewer with the dock, and the same results by the core alone."""

import numpy as np
import pytest

pytest.importorskip("napari")
from napari_nucprune.nuclei.watershed import merge
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.auto import AutoRuntime
from napari_nucprune.slides.field import take
from napari_nucprune.slides.source import Source
from napari_nucprune.widgets.dock import NucpruneDock


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
