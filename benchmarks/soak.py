"""A seeded monkey at the dock: no exception, nothing leaked, memory flat.

    xvfb-run -a python benchmarks/soak.py [--actions 300] [--seed 0] [--network quick|NAME]
                                          [--delete-programs]

Does what users do, in any order: sliders, strategies, recovery, deleting and renaming layers,
themes, zoom and pan, other images and stacks, bad checkpoints, closing the dock in mid-run, a
second viewer. Prints one line of JSON: exceptions, faults of ours that the dock told of, threads
and docks that are left, and memory before and after (the first half warms up). Exit code 1 where
anything is wrong.

GL programs of deleted layers are kept, unless --delete-programs: plain napari without a plugin ends
by a segmentation fault in glDrawArrays or glDrawElements when a stack is deleted beside a plane
(`add_image((3, 9, 9)); add_image((9, 9)); del layers[0]`, each drawn; napari 0.6.6 and 0.9.2, vispy
0.17, Mesa 22.3 in software, one viewer or two), and lives where vispy deletes no program.
Plain napari also keeps about 118 widgets and 2.6 MB of each image layer that comes and goes (90 and
2.3 MB of a Labels layer; napari 0.9.2 without a plugin). So the layers that went are counted, what
napari keeps of one is measured in the same process after the end, and `grown_without_napari` is
what remains: that has to be flat.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import napari
import numpy as np
import psutil
from qtpy.QtWidgets import QApplication

from napari_nucprune import samples
from napari_nucprune.checkpoint import shipped
from napari_nucprune.widgets import layers
from napari_nucprune.widgets.dock import NucpruneDock

FLAT = 0.05


def quick_network(folder: Path) -> None:
    """Put a small network of random weights in the place of the bundled one."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from helpers import QUICK, make_checkpoint
    from napari_nucprune.checkpoint.format import save

    save(make_checkpoint(QUICK, name=shipped.DEFAULT), folder / f"{shipped.DEFAULT}.safetensors")
    shipped.FOLDER = folder


def keep_programs() -> None:
    """Let vispy delete no GL program; the module's docstring says why."""
    from vispy.gloo.glir import GlirProgram

    GlirProgram.delete = lambda self: None


class Monkey:
    """Acts on up to two viewers."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = np.random.default_rng(seed)
        self.folder = folder
        self.app = QApplication.instance() or QApplication([])
        self.images = [samples.synthetic(seed=i, size=160 + 32 * i)[0] for i in range(4)]
        self.viewers: list[tuple[Any, Any]] = []
        self.done: Counter[str] = Counter()
        self.told: list[str] = []
        #: Layers that went, of all viewers.
        self.gone = 0
        self.open_viewer()

    def open_viewer(self) -> None:
        """Open a viewer with the dock and an image; two at most."""
        if len(self.viewers) < 2:
            viewer = napari.Viewer(show=True)
            viewer.layers.events.removed.connect(self._count)
            _, dock = viewer.window.add_plugin_dock_widget("napari-nucprune")
            self.viewers.append((viewer, dock))
            self.add_image()

    def _count(self, event: Any) -> None:
        self.gone += 1

    def close_viewer(self) -> None:
        """Close the second viewer, in mid-run or not."""
        if len(self.viewers) == 2:
            viewer, _ = self.viewers.pop()
            viewer.close()

    def close_dock(self) -> None:
        """Close the dock, most likely in mid-run, and open it anew."""
        viewer, dock = self.viewers[-1]
        dock.run()
        self.wait(0.05)
        viewer.window.remove_dock_widget(dock)
        _, dock = viewer.window.add_plugin_dock_widget("napari-nucprune")
        self.viewers[-1] = (viewer, dock)

    def add_image(self) -> None:
        """Open another image: plain, with a pixel size, turned, 16 bits, a stack; six at most."""
        viewer, _ = self.viewers[-1]
        rgb = self.images[self.rng.integers(4)]
        kind = self.rng.integers(5)
        place: dict[str, Any] = {"name": "image", "rgb": True}
        if kind == 1:
            place |= {"scale": (0.25, 0.25), "units": ("um", "um")}
        elif kind == 2:
            place |= {"scale": (0.5, 0.4), "rotate": 30, "units": ("um", "um")}
        data = (
            rgb.astype(np.uint16) * 257 if kind == 3 else np.stack([rgb] * 3) if kind == 4 else rgb
        )
        if len(viewer.layers) < 10:
            viewer.add_image(data, **place)

    def delete_layer(self) -> None:
        """Delete any layer, ours too."""
        viewer, _ = self.viewers[-1]
        if len(viewer.layers):
            del viewer.layers[int(self.rng.integers(len(viewer.layers)))]

    def rename_layer(self) -> None:
        """Rename any layer to a name that may be taken."""
        viewer, _ = self.viewers[-1]
        if len(viewer.layers):
            layer = viewer.layers[int(self.rng.integers(len(viewer.layers)))]
            layer.name = str(self.rng.choice(["semantic", "instances", "größe", "image"]))

    def slide(self) -> None:
        """Drag a slider over several places."""
        _, dock = self.viewers[-1]
        for value in self.rng.uniform(1, 64, 5):
            dock.pruning.sliders[int(self.rng.integers(3))].set_value(float(value))
            self.wait(0.01)

    def act(self) -> str:
        """Do one thing."""
        viewer, dock = self.viewers[-1]
        rng = self.rng

        def choose(box: Any) -> None:
            box.setCurrentIndex(int(rng.integers(box.count())))

        def zoom() -> None:
            layers.camera_of(viewer).zoom *= float(rng.uniform(0.5, 2))

        def pan() -> None:
            layers.camera_of(viewer).center = (0, *rng.uniform(0, 200, 2))

        def theme() -> None:
            viewer.theme = str(rng.choice(["dark", "light"]))

        def bad_checkpoint() -> None:
            path = self.folder / "bad.safetensors"
            path.write_bytes(rng.bytes(200))
            dock.open_checkpoint(str(path))

        def stack_slider() -> None:
            if viewer.dims.ndim > 2:
                viewer.dims.set_current_step(0, int(rng.integers(3)))

        actions = {
            "slider": (5, self.slide),
            "strategy": (2, lambda: choose(dock.pruning.strategy)),
            "recovery": (1, lambda: choose(dock.pruning.recovery)),
            "area": (2, lambda: choose(dock.image.area)),
            "split": (1, dock.pruning.link.toggle),
            "live": (1, dock.control.live.toggle),
            "run": (2, dock.run),
            "cancel": (1, dock.cancel),
            "zoom": (2, zoom),
            "pan": (2, pan),
            "theme": (1, theme),
            "pixel size": (1, lambda: dock.image.mpp.setValue(float(rng.uniform(0.2, 0.6)))),
            "3D and back": (1, lambda: setattr(viewer.dims, "ndisplay", 5 - viewer.dims.ndisplay)),
            "stack slider": (1, stack_slider),
            "pin": (1, dock.compare.pin.click),
            "bad checkpoint": (1, bad_checkpoint),
            "good checkpoint": (1, lambda: dock.open_checkpoint(shipped.DEFAULT)),
            "add image": (2, self.add_image),
            "delete layer": (4, self.delete_layer),
            "rename layer": (1, self.rename_layer),
            "close dock": (1, self.close_dock),
            "second viewer": (1, self.open_viewer),
            "close viewer": (1, self.close_viewer),
        }
        weights = np.array([weight for weight, _ in actions.values()], float)
        name = str(rng.choice(list(actions), p=weights / weights.sum()))
        actions[name][1]()
        self.done[name] += 1
        self.wait(float(rng.choice([0, 0.02, 0.2])))
        text = self.viewers[-1][1].message.text()
        if "fault of ours" in text:
            self.told.append(f"{name}: {text}")
        return name

    def wait(self, seconds: float) -> None:
        """Let Qt work."""
        end = time.monotonic() + seconds
        while True:
            self.app.processEvents()
            if time.monotonic() >= end:
                return
            time.sleep(0.005)

    def settle(self, seconds: float = 60) -> None:
        """Wait until no dock runs anything, and collect what is gone."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and any(dock.runner.busy for _, dock in self.viewers):
            self.wait(0.05)
        self.wait(0.5)
        gc.collect()
        self.wait(0.1)

    def rest(self) -> int:
        """Bring everything to one plain state and return the memory in bytes."""
        self.close_viewer()
        viewer, dock = self.viewers[-1]
        viewer.dims.ndisplay = 2
        viewer.layers.clear()
        viewer.add_image(self.images[0], name="image", rgb=True)
        dock.run()
        self.settle()
        return resident()

    def kept_by_napari(self, layers: int = 15) -> float:
        """Return bytes that napari keeps of a layer that comes and goes, the dock being closed."""
        viewer, dock = self.viewers[-1]
        viewer.window.remove_dock_widget(dock)
        sizes = []
        for count in (4, layers):  # the first ones warm up
            for _ in range(count):
                layer = viewer.add_image(self.images[0], rgb=True)
                self.wait(0.05)
                viewer.layers.remove(layer)
                self.wait(0.05)
            gc.collect()
            sizes.append(resident())
        return max(sizes[1] - sizes[0], 0) / layers


def resident() -> int:
    """Return the memory in bytes."""
    with suppress(OSError, AttributeError):  # glibc alone; what it keeps for later is no leak
        ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def main() -> int:
    """Soak, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--actions", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", default="quick")
    parser.add_argument("--delete-programs", action="store_true", help="as vispy does it")
    options = parser.parse_args()
    raised: list[str] = []
    if not options.delete_programs:
        keep_programs()

    def caught(kind: Any, error: Any, trace: Any) -> None:
        frames = traceback.extract_tb(trace)[-5:] if trace else []
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
        raised.append(f"{kind.__name__}: {error} at {where}")

    with tempfile.TemporaryDirectory(prefix="nucprune-soak-") as name:
        folder = Path(name)
        if options.network == "quick":
            quick_network(folder)
        monkey = Monkey(options.seed, folder)
        sys.excepthook = caught
        threading.excepthook = lambda args: caught(*args[:3])
        # napari keeps what was raised in a slot for itself.
        napari.utils.notifications.notification_manager.notification_ready.connect(
            lambda event: raised.append(str(event)) if str(event.severity) == "error" else None
        )
        middle = gone = 0
        for number in range(options.actions):
            try:
                done = monkey.act()
            except Exception as error:
                caught(type(error), error, error.__traceback__)
                done = "raised"
            print(f"\r{number + 1}/{options.actions} {done:20}", end="", file=sys.stderr)
            if number + 1 == options.actions // 2:
                middle, gone = monkey.rest(), monkey.gone
        last = monkey.rest()
        gone = monkey.gone - gone
        threads = [t.name for t in threading.enumerate() if t.name.startswith("nucprune")]
        docks = sum(isinstance(w, NucpruneDock) for w in monkey.app.allWidgets())
        layer = monkey.kept_by_napari()
        grown, ours = last / max(middle, 1) - 1, (last - gone * layer) / max(middle, 1) - 1
        bad = bool(raised or monkey.told or len(threads) > 2 or docks > 1 or ours > FLAT)
        print()
        print(json.dumps({
            "seed": options.seed, "actions": dict(sorted(monkey.done.items())),
            "raised": raised[:9], "told": monkey.told[:9], "threads": len(threads),
            "docks": docks, "half_mb": round(middle / 1e6), "end_mb": round(last / 1e6),
            "grown": round(grown, 3), "layers_gone": gone,
            "napari_mb_a_layer": round(layer / 1e6, 2), "grown_without_napari": round(ours, 3),
            "ok": not bad,
        }))  # fmt: skip
        for viewer, _ in monkey.viewers:
            viewer.close()
    return bad


if __name__ == "__main__":
    sys.exit(main())
