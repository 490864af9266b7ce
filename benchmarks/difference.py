"""How soon the comparison follows the labels, and what a move of the swipe's divider costs.

Opens a real window (use Xvfb where there is no screen): python benchmarks/difference.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--size", type=int, default=2048, help="the swiped field, in pixels")
    options = parser.parse_args()

    import napari
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest
    from qtpy.QtWidgets import QApplication

    from napari_nucprune.samples import tissue
    from napari_nucprune.synthetic import synthetic
    from napari_nucprune.widgets import layers
    from napari_nucprune.widgets.dock import NucpruneDock

    viewer = napari.Viewer()
    dock = NucpruneDock(viewer)
    viewer.window.add_dock_widget(dock)
    viewer.window._qt_window.resize(1920, 1080)
    dock.image.area.setCurrentText("whole image")
    dock.pruning.choose_recovery("off")
    app = QApplication.instance()

    def settle() -> None:
        end, quiet = time.monotonic() + 300, 0
        while time.monotonic() < end and quiet < 50:
            app.processEvents()
            idle = dock.preview is not None and not dock.runner.busy and not dock.comparing.waits
            quiet = quiet + 1 if idle and not dock._later.isActive() else 0
            time.sleep(0.0005)

    def spread(seconds: list[float]) -> dict[str, Any]:
        ms = [1000 * one for one in seconds]
        return {
            "median_ms": round(statistics.median(ms), 2),
            "p90_ms": round(float(np.percentile(ms, 90)), 2),
            "max_ms": round(max(ms), 2),
            "runs": len(ms),
        }

    small = viewer.add_image(tissue(), scale=(0.25, 0.25), units=("um", "um"))
    settle()
    at: dict[str, float] = {}
    instances = layers.find(viewer, "instances")
    instances.events.data.connect(lambda _: at.update(labels=time.perf_counter()))
    dock.comparing.compared.connect(lambda found: found and at.update(numbers=time.perf_counter()))
    waits = []
    rng = np.random.default_rng(0)
    for move in range(options.moves + 2):
        at.clear()
        dock.pruning.both.set_value(float(rng.choice([1.5, 2, 3, 4])) + 0.01 * move)
        settle()
        waits.append(at["numbers"] - at["labels"])
    result = {"labels_to_numbers_512": spread(waits[2:])}

    viewer.layers.remove(small)
    large, _ = synthetic(seed=0, size=options.size)
    viewer.add_image(large, scale=(0.25, 0.25), units=("um", "um"))
    settle()
    viewer.reset_view()
    dock.compare.look.setCurrentIndex(dock.compare.look.findData("swipe"))
    divider = dock.views.divider
    settle()
    handlers, frames = [], []
    pressed = type(divider).mouseMoveEvent

    def timed(self: Any, event: Any) -> None:
        begun = time.perf_counter()
        pressed(self, event)
        handlers.append(time.perf_counter() - begun)

    type(divider).mouseMoveEvent = timed
    QTest.mousePress(divider, Qt.MouseButton.LeftButton, pos=QPoint(7, 300))
    for move in range(60):
        begun = time.perf_counter()
        QTest.mouseMove(divider, QPoint(7 + (9 if move % 20 < 10 else -9), 300))
        app.processEvents()
        frames.append(time.perf_counter() - begun)
    QTest.mouseRelease(divider, Qt.MouseButton.LeftButton, pos=QPoint(7, 300))
    result["swipe_python"] = spread(handlers)
    result["swipe_python_and_drawing"] = spread(frames)
    result["field"] = [options.size, options.size]
    viewer.close()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
