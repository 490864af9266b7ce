"""The built wheel through napari's own plugin dialog, in a clean environment: by drop and by name.

    xvfb-run -a python tests/menu_install.py [--napari 0.6.6] [--how name] [--with "torch==2.13.0"]

Makes a virtual environment with napari and PyQt6 only, builds the wheel of this checkout, opens
Plugins > Install, drops the wheel on the dialog and presses Install (pip gets what else it needs
from where pip gets it), then uses widget, samples and readers at once and in a new process. Prints
one line a step; exit code 1 where one fails. Takes minutes and about 2 GB, so it is no test of the
suite.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

IN_NAPARI = r"""
import os, sys, time
from pathlib import Path
import napari, npe2
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QTimer, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QApplication
how, wheel = sys.argv[1:]
from napari_plugin_manager import base_qt_plugin_dialog, qt_plugin_dialog
viewer = napari.Viewer()
app = QApplication.instance()
dialog = qt_plugin_dialog.QtPluginDialog(viewer.window._qt_window)
dialog.setModal(False)
dialog.show()
def close_modal():
    box = app.activeModalWidget()
    if box is not None and box is not dialog:
        kind = type(box).__name__
        print("dialog closed:", kind)
        box.close()
        if kind != "RestartWarningDialog":
            print("unexpected:", getattr(box, "text", str)()); sys.stdout.flush(); os._exit(1)
timer = QTimer(); timer.timeout.connect(close_modal); timer.start(200)
if how == "drop":
    data = QMimeData(); data.setUrls([QUrl.fromLocalFile(wheel)])
    dialog.dropEvent(QDropEvent(QPointF(9, 9), Qt.DropAction.CopyAction, data,
                                Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier))
    assert dialog.direct_entry_edit.text() == wheel
else:
    dialog.direct_entry_edit.setText("napari-nucprune")
dialog.direct_entry_btn.click()
end = time.monotonic() + 900
while time.monotonic() < end and (dialog.installer.hasJobs() or not dialog.installer):
    app.processEvents(); time.sleep(0.05)
for _ in range(40):
    app.processEvents(); time.sleep(0.05)
print("installed:", "napari-nucprune" in [m.name for m in npe2.PluginManager.instance().iter_manifests()])
log = dialog.stdout_text.toPlainText()
if "napari-nucprune" not in [m.name for m in npe2.PluginManager.instance().iter_manifests()]:
    print(log[-3000:]); sys.exit(1)
"""

USE = r"""
import sys, time
from pathlib import Path
import numpy as np
def use(viewer):
    from qtpy.QtWidgets import QApplication
    app = QApplication.instance()
    menu = viewer.window.plugins_menu
    menu.aboutToShow.emit()
    assert any("NucPrune" in a.text() for a in menu.actions()), [a.text() for a in menu.actions()]
    layers = viewer.open_sample("napari-nucprune", "synthetic")
    assert [l.name for l in layers] == ["synthetic H&E", "ground truth"], layers
    _, dock = viewer.window.add_plugin_dock_widget("napari-nucprune")
    end = time.monotonic() + 300
    while time.monotonic() < end and dock.preview is None:
        app.processEvents(); time.sleep(0.02)
    assert dock.preview is not None, dock.message.text()
    print("widget and samples:", len(dock.preview.nuclei), "nuclei,", dock.preview.runtime)
    path = sys.argv[-1]
    (labels,) = viewer.open(path, plugin="napari-nucprune")
    assert labels.data.max() == 1
    print("reader: labels", labels.data.shape)
    (tissue,) = viewer.open_sample("napari-nucprune", "tissue")
    assert tissue.rgb
    import tifffile
    slide = Path(path).with_name("a.svs")
    tifffile.imwrite(slide, np.full((512, 512, 3), 180, np.uint8), tile=(128, 128),
                     photometric="rgb", metadata=None)
    (shown,) = viewer.open(str(slide), plugin="napari-nucprune")
    level = shown.data[0] if shown.multiscale else shown.data
    assert shown.rgb and level.shape[:2] == (512, 512), level.shape
    print("tissue and a slide:", tissue.data.shape, type(level).__name__)
    while dock.runner.busy and time.monotonic() < end:
        app.processEvents(); time.sleep(0.02)
    viewer.close()
"""

XML = (
    "<Annotations><Annotation><Regions><Region><Vertices>"
    '<Vertex X="5" Y="5"/><Vertex X="25" Y="5"/><Vertex X="25" Y="25"/>'
    "</Vertices></Region></Regions></Annotation></Annotations>"
)


def call(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command that must succeed and return what it says."""
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"FAILED {command[:3]}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        sys.exit(1)
    return done.stdout


def main() -> int:
    """Do all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--napari", default="", help="a version; the newest by default")
    parser.add_argument("--how", default="drop", choices=["drop", "name"])
    parser.add_argument(
        "--with", dest="extra", default="", help="installed before, e.g. a CPU torch"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nucprune-menu-") as name:
        folder = Path(name)
        call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        (folder / "a.xml").write_text(XML)
        # By name, the dialog's pip or uv finds the wheel here, as it will find a release in an index.
        links = os.environ.get("PIP_FIND_LINKS", "").split()
        os.environ["PIP_FIND_LINKS"] = " ".join([str(folder), *links])
        os.environ["UV_FIND_LINKS"] = ",".join([str(folder), *links])
        call(sys.executable, "-m", "venv", folder / "venv")
        python = folder / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        napari = f"napari=={options.napari}" if options.napari else "napari"
        call(python, "-m", "pip", "install", "-q", napari, "PyQt6", "napari-plugin-manager",
             *options.extra.split())  # fmt: skip
        print(f"clean environment with {napari}: {wheel.name}")
        both = IN_NAPARI + USE + "\nuse(viewer)\n"
        print(call(python, "-c", both.replace("sys.argv[1:]", "sys.argv[1:3]"), options.how, wheel,
                   folder / "a.xml"), end="")  # fmt: skip
        again = USE + "\nimport napari\nuse(napari.Viewer())\n"
        print("after a restart:")
        print(call(python, "-c", again, folder / "a.xml"), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
