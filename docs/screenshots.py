"""Make the docs' pictures: python docs/screenshots.py [IMAGE [ANNOTATIONS]].

A screen or Xvfb is needed.

ANNOTATIONS: what can be dropped on the viewer, such as MoNuSeg's XML.

Writes every view at two sizes and in both themes to ``docs/shots`` (not kept), and the README's to
``docs/images``, which show the plugin's sample picture.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QApplication

from napari_nucprune.widgets import layers
from napari_nucprune.widgets.window import open_viewer

FOLDER = Path(__file__).parent
SIZES = ((1280, 800), (1920, 1080))
KEPT = {
    "lost-dark-1280": "difference.png",
    "dock-dark-1280": "dock.png",
    # The tour's, small.
    "side-dark-1280": "side-by-side.jpg",
    "sweep-dark-1280": "sweep.jpg",
    "layers-light-1280": "layers.jpg",
}


class Shots:
    """A window that is brought into one view after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.viewer, self.dock = open_viewer(options.image)
        self.app = QApplication.instance()
        self.window = self.dock.window()
        self.folder = FOLDER / "shots"
        self.folder.mkdir(exist_ok=True)
        #: Pixels of somebody's image must not get into the README.
        self.keeps = options.image is None
        self.dock.pruning.choose_recovery("bundled")
        self.dock.image.area.setCurrentText("whole image")
        if options.mpp:
            self.dock.image.mpp.setValue(options.mpp)
        if options.labels:
            (self.truth,) = self.viewer.open(options.labels, plugin="napari-nucprune")
            self.truth.visible = False

    def settle(self, seconds: float = 300) -> None:
        """Wait until all is shown."""
        end, quiet = time.monotonic() + seconds, 0
        while time.monotonic() < end and quiet < 40:
            self.app.processEvents()
            time.sleep(0.01)
            dock = self.dock
            idle = dock.preview is not None and not dock.runner.busy and not dock.comparing.waits
            idle = idle and not dock._later.isActive() and not dock.sweeping.running
            quiet = quiet + 1 if idle else 0

    def unfold(self, *sections: Any) -> None:
        """Fold all sections but these."""
        dock = self.dock
        for part in (dock.image, dock.checkpoint, dock.pruning, dock.control, dock.compare,
                     dock.sweep, dock.layers, dock.save, dock.whole, dock.files):  # fmt: skip
            part.set_folded(part not in sections)

    def shoot(self, name: str) -> None:
        """Grab the window in both sizes and themes."""
        for theme in ("light", "dark"):
            self.viewer.theme = theme
            for size in SIZES:
                self.window.resize(*size)
                end = time.monotonic() + 1.0
                while time.monotonic() < end:
                    self.app.processEvents()
                    time.sleep(0.01)
                title = f"{name}-{theme}-{size[0]}"
                picture = self.window.grab()
                picture.save(str(self.folder / f"{title}.png"))
                if self.keeps and title in KEPT:
                    picture.save(str(FOLDER / "images" / KEPT[title]))


def main() -> None:
    """Open the viewer, go through the views, write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?")
    parser.add_argument("labels", nargs="?")
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--zoom", type=float, default=1.6)
    parser.add_argument("--cr", type=float, default=8.0)
    parser.add_argument("--no-sweep", action="store_true")
    options = parser.parse_args()
    shots = Shots(options)
    dock, viewer = shots.dock, shots.viewer
    shots.window.resize(*SIZES[0])
    shots.settle()
    dock.pruning.strategy.setCurrentText("network-wide")
    dock.pruning.both.set_value(options.cr)
    shots.settle()
    viewer.reset_view()
    layers.camera_of(viewer).zoom *= options.zoom
    shots.unfold(dock.pruning, dock.compare)
    shots.shoot("dock")
    shots.unfold(dock.compare)
    if options.labels:
        dock.compare.reference.choose(shots.truth)
        shots.settle()
        shots.shoot("truth")
        dock.compare.reference.choose("dense")
        shots.settle()
    for look in ("swipe", "side"):
        dock.compare.look.setCurrentIndex(dock.compare.look.findData(look))
        shots.shoot(look)
    dock.compare.look.setCurrentIndex(0)
    # Outlines and fates alone: what was lost, without the maps.
    kinds = [layers.find(viewer, kind) for kind in ("semantic", "distance")]
    for layer in kinds:
        layer.visible = False
    dock.compare.filled.setChecked(True)
    dock.compare.look.setCurrentIndex(dock.compare.look.findData("swipe"))
    shots.shoot("lost")
    dock.compare.look.setCurrentIndex(0)
    for layer in kinds:
        layer.visible = True
    for box in (dock.compare.filled, dock.compare.points):
        box.setChecked(True)
    shots.shoot("filled")
    for box in (dock.compare.filled, dock.compare.points):
        box.setChecked(False)
    dock.compare.maps.setChecked(True)
    shots.shoot("maps")
    dock.compare.maps.setChecked(False)
    shots.unfold(dock.layers)
    shots.shoot("layers")
    shots.unfold(dock.image, dock.checkpoint, dock.control, dock.save, dock.whole, dock.files)
    shots.shoot("rest")
    if not options.no_sweep:
        shots.unfold(dock.sweep)
        dock.sweep.start.click()
        shots.settle(900)
        shots.shoot("sweep")
    viewer.close()


if __name__ == "__main__":
    main()
