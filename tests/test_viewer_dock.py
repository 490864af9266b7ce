"""The dock in a real window: the plugin menu, a run beside it, and the exit."""

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

napari = pytest.importorskip("napari")
from qtpy.QtCore import QTimer

from dock_helpers import settle
from helpers import PUBLISHED, put_checkpoint
from napari_nucprune import samples
from napari_nucprune.checkpoint import shipped
from napari_nucprune.widgets.dock import NucpruneDock
from viewer_helpers import PLUGIN, dialogs, viewer

__all__ = ["dialogs", "viewer"]

pytestmark = pytest.mark.window


def test_the_plugins_menu_opens_the_dock(viewer, quick, dialogs, qtbot):
    menu = viewer.window.plugins_menu
    menu.aboutToShow.emit()
    entries = {a.text().replace("&", ""): a for a in menu.actions()}
    (title,) = (text for text in entries if "NucPrune" in text)
    entries[title].trigger()
    (dock,) = viewer.window._qt_window.findChildren(NucpruneDock)

    qtbot.waitUntil(dock.isVisible)
    assert dock.checkpoint.choice.currentText() == shipped.DEFAULT
    assert "Open Sample" in dock.message.text()
    dock.runner.close()


def test_the_docks_command_opens_one_dock(viewer, quick, dialogs):
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN)
    assert isinstance(dock, NucpruneDock)
    assert viewer.window.add_plugin_dock_widget(PLUGIN)[1] is dock
    dock.runner.close()


def python(code, timeout, **env):
    """Run code in a fresh interpreter on this screen."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_importing_the_dock_imports_no_torch():
    done = python(
        "import napari_nucprune.widgets.dock, sys; print('torch' in sys.modules)", timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


QUIT = """
import sys, time
from pathlib import Path
import numpy as np
import napari
from qtpy.QtCore import QTimer
from napari_nucprune.checkpoint import shipped

shipped.FOLDER = Path({folder!r})
viewer = napari.Viewer()
begun = time.monotonic()
_, dock = viewer.window.add_plugin_dock_widget("napari-nucprune")
print("dock", round(time.monotonic() - begun, 2), "torch" in sys.modules)
dock.image.area.setCurrentText("whole image")
armed, closed = [], []

def close():
    print("closing", dock.runner.busy, dock.control.progress.format(), flush=True)
    begun = time.monotonic()
    viewer.window._qt_window.close()
    print("window closed after", round(time.monotonic() - begun, 2), flush=True)
    closed.append(time.monotonic())

def arm(*_):
    if not armed:
        armed.append(1)
        QTimer.singleShot(1000, close)

if {during!r} == "start":
    dock.runner.busy_changed.connect(arm)
else:
    dock.runner.progressed.connect(lambda text, *_: arm() if text.startswith("Proc") else None)
viewer.add_image(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8))
napari.run()
print("run over after", round(time.monotonic() - closed[0], 2), "s", flush=True)
"""


@pytest.mark.parametrize("during", ["start", "tiles"])
def test_quitting_in_mid_run_is_clean(qapp, tmp_path, monkeypatch, during):
    # As large as the bundled network, so that the run is still going after a second.
    put_checkpoint(tmp_path, monkeypatch, PUBLISHED)
    config = str(tmp_path / "settings.yaml")
    code = QUIT.format(folder=str(shipped.FOLDER), during=during)
    done = python(code, timeout=60, NAPARI_CONFIG=config)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    for word in ("Traceback", "QThread: Destroyed", "Aborted", "Error", "deleted"):
        assert word not in done.stderr
    assert "closing True" in done.stdout
    assert "run over" in done.stdout
    dock = next(line.split() for line in done.stdout.splitlines() if line.startswith("dock"))
    # Generous: 0.2 s on two busy cores.
    assert float(dock[1]) < 5
    assert dock[2] == "False", "opening the dock imported torch"


def test_the_window_stays_responsive_during_a_run(viewer, dialogs, qtbot):
    if shipped.DEFAULT not in shipped.names():
        pytest.skip("no bundled checkpoint")
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN)
    dock.image.area.setCurrentText("whole image")
    rgb, _ = samples.synthetic(0, 512)
    ticks = []
    timer = QTimer()
    timer.timeout.connect(lambda: dock.runner.busy and ticks.append(time.perf_counter()))
    timer.start(10)
    viewer.add_image(rgb, scale=(0.25, 0.25), units=("um", "um"))
    settle(dock, qtbot, timeout=60_000)
    timer.stop()
    dock.runner.close()
    assert dock.preview is not None
    assert dock.message.text() == ""
    longest = np.diff(ticks).max()
    print(f"run {dock.preview.seconds:.2f} s, {len(ticks)} ticks, gap {longest * 1e3:.0f} ms")
    # Ticks, not seconds: on a busy machine all is late, but a blocked window gets none at all.
    assert len(ticks) >= 10
