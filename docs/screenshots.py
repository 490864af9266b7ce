"""Make the README's screenshot: python docs/screenshots.py [IMAGE [ZOOM]] (screen or Xvfb needed).

The one in the README shows OpenSlide's CMU-1-Small-Region.svs (CC0), zoomed 16 times.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from qtpy.QtWidgets import QApplication

from napari_nucprune.widgets import layers
from napari_nucprune.widgets.window import open_viewer

FOLDER = Path(__file__).parent / "images"


def main() -> None:
    """Open the viewer, prune, wait, and write ``docs/images/dock.png``."""
    viewer, dock = open_viewer(sys.argv[1] if len(sys.argv) > 1 else None)
    window = dock.window()
    window.resize(1500, 940)
    app = QApplication.instance()

    def settle(seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        quiet = 0
        while time.monotonic() < end and quiet < 50:
            app.processEvents()
            time.sleep(0.01)
            idle = dock.preview is not None and not dock.runner.busy
            quiet = quiet + 1 if idle and not dock._later.isActive() else 0

    settle()
    layers.camera_of(viewer).zoom *= float(sys.argv[2]) if len(sys.argv) > 2 else 1.7
    settle()
    dock.pruning.strategy.setCurrentText("network-wide")
    dock.pruning.both.set_value(8.0)
    settle()
    # Time for some of the stops around it.
    end = time.monotonic() + 25
    while time.monotonic() < end:
        app.processEvents()
        time.sleep(0.01)
    FOLDER.mkdir(exist_ok=True)
    window.grab().save(str(FOLDER / "dock.png"))
    viewer.close()


if __name__ == "__main__":
    main()
