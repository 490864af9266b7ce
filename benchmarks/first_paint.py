"""How soon a slide shows: from opening it in a running viewer to a painted frame with tissue.

    python benchmarks/pyramid.py slide.tif --size 60000
    python benchmarks/first_paint.py slide.tif --runs 5
    xvfb-run -a python benchmarks/first_paint.py slide.tif    # without a screen

Each run is a process of its own, with the viewer and the dock open and idle; what the first slide
imports counts. The clock stops when a screenshot of the canvas shows tissue, a little after the
frame itself. `open` is the part within ``viewer.open``. A TIFF is linked under a slide's suffix,
since the reader claims no plain TIFF.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: A pixel of tissue is this much darker than white, mean of the channels.
STAINED = 30
#: Seconds after which a run is given up.
LIMIT = 60


def measure(path: Path, dock: bool) -> dict[str, float]:
    """Return seconds of one opening in this process."""
    import napari
    import numpy as np
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer()
    if dock:
        viewer.window.add_plugin_dock_widget("napari-nucprune")
    idle = time.perf_counter() + 3
    while time.perf_counter() < idle:
        QApplication.processEvents()
        time.sleep(0.01)
    started = time.perf_counter()
    viewer.open(path, plugin="napari-nucprune")
    opened = time.perf_counter()
    while True:
        frame = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(np.float32)
        painted = time.perf_counter()
        # The canvas around the slide is dark and without colour.
        colour = np.ptp(frame, axis=2)
        tissue = float(((frame.mean(2) < 255 - STAINED) & (colour > 12)).mean())
        if tissue > 0.01:
            break
        if painted - started > LIMIT:
            sys.exit(f"{path.name} showed no tissue within {LIMIT} s")
        QApplication.processEvents()
    found = {"open": opened - started, "painted": painted - started, "tissue": tissue}
    viewer.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-dock", action="store_true", help="the reader alone")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.slide, not given.no_dock)))
        return
    times = []
    with tempfile.TemporaryDirectory() as folder:
        path = given.slide.resolve()
        if path.suffix.lower() in (".tif", ".tiff"):
            link = Path(folder) / f"{path.stem}.svs"
            link.symlink_to(path)
            path = link
        more = ["--no-dock"] if given.no_dock else []
        command = [sys.executable, __file__, str(path), "--one", *more]
        for _ in range(given.runs):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            times.append(json.loads(done.stdout.splitlines()[-1]))
            print(", ".join(f"{k} {v:.3f}" for k, v in times[-1].items()), flush=True)
    painted = [run["painted"] for run in times]
    print(
        f"{given.slide.name}: painted after {statistics.median(painted):.2f} s "
        f"(median of {len(times)}; {min(painted):.2f} to {max(painted):.2f})"
    )


if __name__ == "__main__":
    main()
