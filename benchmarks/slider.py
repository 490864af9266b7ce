"""From the slider's value to the new layers, against one dense torch forward, in one run.

Opens a real window (use Xvfb where there is no screen): python benchmarks/slider.py [--moves 20]
[--runtime torch] [--recovery slide --ready]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import threading
import time
from pathlib import Path

import numpy as np


def rss_mb() -> float:
    """Resident memory of this process (Linux), else 0."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--runtime", choices=["auto", "torch"], default="auto")
    parser.add_argument("--recovery", choices=["off", "slide", "bundled"], default="off")
    parser.add_argument("--ready", action="store_true", help="only to stops that are ready")
    parser.add_argument("--soak", type=int, default=100, help="further moves for the memory")
    options = parser.parse_args()

    import napari
    import torch
    from qtpy.QtCore import QEventLoop, QTimer
    from qtpy.QtWidgets import QApplication

    from napari_nucprune.checkpoint.unet import build
    from napari_nucprune.doors import BRANCHES
    from napari_nucprune.runtime.auto import AutoRuntime
    from napari_nucprune.samples import tissue
    from napari_nucprune.widgets import layers
    from napari_nucprune.widgets.dock import NucpruneDock

    viewer = napari.Viewer()
    dock = NucpruneDock(viewer)
    viewer.window.add_dock_widget(dock)
    dock.image.area.setCurrentText("whole image")
    dock.pruning.choose_recovery(options.recovery)
    rgb = tissue()
    viewer.add_image(rgb, scale=(0.25, 0.25), units=("um", "um"))
    app = QApplication.instance()
    tick = QTimer()  # so that waiting for events ends; polling would take the network's time
    tick.start(10)

    def settle(done=lambda: True) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            app.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)
            if done() and not dock.runner.busy and not dock._later.isActive():
                return
        raise TimeoutError

    settle(lambda: dock.preview is not None)
    if options.runtime == "torch":
        dock.session._runtime = AutoRuntime()
        dock.session._runtime._sparse = None
    dock.pruning.both.set_value(3)
    settle(lambda: dock.preview.pruning.cr_semantic == 3)
    checkpoint = dock.session.checkpoint
    nets = [build(checkpoint.weights[branch]) for branch in BRANCHES]
    x = torch.from_numpy(rgb).permute(2, 0, 1)[None].float().contiguous()

    def dense() -> float:
        begun = time.perf_counter()
        with torch.inference_mode():
            for net in nets:
                net(x)
        return time.perf_counter() - begun

    for _ in range(3):
        dense()
    shown = []
    instances = layers.find(viewer, "instances")
    instances.events.data.connect(lambda _: shown.append(time.perf_counter()))
    ratios, ours, forwards, others = [], [], [], []
    rng = np.random.default_rng(0)
    for _ in range(options.moves):
        forwards.append(dense())
        value = float(np.round(rng.uniform(1.5, 60), 2))
        if options.ready:
            settle(lambda: dock.runner._running is None)
            ready = {cr for cr, _ in dock.session.ready(dock.whole_job())} - {1.0}
            value = float(rng.choice(sorted(ready - {dock.pruning.both.value})))
        shown.clear()
        begun = time.perf_counter()
        dock.pruning.both.set_value(value)
        settle(lambda: bool(shown))
        ours.append(shown[-1] - begun)
        others.append(1 - dock.preview.network_seconds / ours[-1])
        ratios.append(ours[-1] / forwards[-1])

    gc.collect()
    memory = [rss_mb()]
    for i in range(options.soak):
        dock.pruning.both.set_value(1 + (i * 37) % 63)
        for _ in range(5):
            app.processEvents()
            time.sleep(0.01)
        if (i + 1) % 25 == 0:
            settle()
            gc.collect()
            memory.append(rss_mb())

    def spread(values: list[float]) -> dict[str, float]:
        low, median, high = np.percentile(values, [10, 50, 90])
        return {"median": round(median, 4), "p10": round(low, 4), "p90": round(high, 4)}

    print(
        json.dumps(
            {
                "field": list(rgb.shape),
                "runtime": dock.preview.runtime,
                "recovery": options.recovery + (", ready" if options.ready else ""),
                "threads": torch.get_num_threads(),
                "slider to layers, s": spread(ours),
                "dense torch forward of both branches, s": spread(forwards),
                "ratio": spread(ratios),
                "part that is not the network's": spread(others),
                "memory MB, every 25 moves": [round(m) for m in memory],
                "threads of the dock": sum(
                    t.name.startswith("nucprune") for t in threading.enumerate()
                ),
                "runs": dock.runner.runs,
            },
            indent=2,
        )
    )
    viewer.close()


if __name__ == "__main__":
    main()
