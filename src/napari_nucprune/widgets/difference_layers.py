"""The layers that show differences: fates, their centres, and the maps' differences."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from napari.utils.colormaps import Colormap, DirectLabelColormap
from qtpy.QtCore import QObject

from ..compare.outcome import FATES
from ..difference.colours import FATE_COLOURS
from ..difference.compare import Comparison
from . import layers
from .layers import find, placement, put

if TYPE_CHECKING:
    from .comparing import Comparing
    from .controls import Controls

DIFFERENCES, POINTS = "differences", "fates"
MAPS = {"semantic": "semantic difference", "distance": "distance difference"}
#: Outlines of the differences are wider than the instances' own.
CONTOUR = 3
#: Of the screen's shorter side (um), at most, when the camera goes to a nucleus.
NEAR_UM = 120.0
#: The fates' orange where a map has lost, nothing at 0, their blue where it has more.
DIVERGING = Colormap(
    [
        [0.835, 0.369, 0, 1],
        [1, 0.7, 0.2, 0.7],
        [1, 1, 1, 0],
        [0.35, 0.65, 0.95, 0.7],
        [0, 0.2, 0.627, 1],
    ],
    controls=[0, 0.25, 0.5, 0.75, 1],
    name="nucprune difference",
)


def fate_colours() -> DirectLabelColormap:
    """Return the legend's colours by a fate's code; background is transparent."""
    colours: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    colours |= {code: FATE_COLOURS[name] for code, name in enumerate(FATES, start=1)}
    return DirectLabelColormap(color_dict=colours, name="nucprune fates")


class DifferenceLayers(QObject):
    """Follows the comparison, and what the dock's boxes ask to be shown of it.

    Parameters
    ----------
    controls
        The dock.
    comparing
        What is compared.
    """

    def __init__(self, controls: Controls, comparing: Comparing) -> None:
        super().__init__()
        self.controls, self.comparing = controls, comparing
        self.viewer, self.section = controls.viewer, controls.compare
        self._last: dict[str, tuple[float, float]] = {}
        #: The camera moves by itself: what is shown stays as it is.
        self.travelling = False
        comparing.compared.connect(self.show)
        section = self.section
        for box in (section.differences, section.points, section.maps):
            box.toggled.connect(lambda _: self.show(comparing.comparison))
        section.filled.toggled.connect(self._fill)
        section.legend.asked.connect(self.go)

    def show(self, found: Comparison | None) -> None:
        """Show a comparison, or take the layers away where there is none."""
        self.section.numbers.show_comparison(found)
        self.section.legend.show_fate(None if found is None else found.fate)
        shown = self.comparing.shown
        image = None if shown is None else shown.image
        if found is None or image is None or image not in self.viewer.layers:
            self._remove(DIFFERENCES, POINTS, *MAPS.values())
            return
        self.section.line.setText(line(found))
        place = placement(image, found.transform)
        about = {"result": found.result, "reference": found.reference, "mpp": found.mpp}
        if self.section.differences.isChecked():
            put(self.viewer, DIFFERENCES, found.fate.differences, place, about, self._add_labels)
        else:
            self._remove(DIFFERENCES)
        for kind, role in MAPS.items():
            data = getattr(found, kind)
            if self.section.maps.isChecked() and data is not None:
                put(self.viewer, role, data, place, about, self._add_map)
            else:
                self._remove(role)
        if self.section.points.isChecked():
            self._put_points(found, place, about)
        else:
            self._remove(POINTS)

    def go(self, fate: str, step: int = 1) -> None:
        """Move the camera to the next nucleus of a fate, in the order of rows; round and round."""
        found, shown = self.comparing.comparison, self.comparing.shown
        if found is None or shown is None:
            return
        centres = found.fate.places(fate)
        if not len(centres):
            return
        order = np.lexsort((centres[:, 1], centres[:, 0]))
        centres = centres[order]
        last = self._last.get(fate)
        keys = [tuple(centre) for centre in centres]
        if last is None:
            index = 0 if step > 0 else len(keys) - 1
        elif step > 0:
            index = next((i for i, key in enumerate(keys) if key > last), 0)
        else:
            index = next((i for i in reversed(range(len(keys))) if keys[i] < last), len(keys) - 1)
        self._last[fate] = keys[index]
        y, x = (found.transform @ [*centres[index], 1])[:2]
        self._look_at(shown.image, (float(y), float(x)), found.mpp / found.transform[0, 0])

    def _look_at(self, image: Layer, place: tuple[float, float], mpp: float) -> None:
        camera = layers.camera_of(self.viewer)
        world = np.asarray(image.data_to_world((*(0,) * (image.ndim - 2), *place)), float)
        pixel = np.linalg.norm(
            np.asarray(image.data_to_world((*(0,) * (image.ndim - 2), place[0] + 1, place[1])))
            - world
        )
        canvas = getattr(self.viewer, "canvas", None)
        size = canvas.size if canvas is not None else self.viewer._canvas_size
        nearest = min(size) / (NEAR_UM / mpp * pixel)
        self.travelling = True
        try:
            camera.zoom = max(camera.zoom, nearest)
            camera.center = tuple(world)
        finally:
            self.travelling = False

    def _put_points(self, found: Comparison, place: dict[str, Any], about: dict[str, Any]) -> None:
        fate = found.fate
        centres = np.concatenate([fate.of(name)[1] for name in FATES])
        names = np.repeat(FATES, [len(fate.of(name)[0]) for name in FATES])
        colours = [FATE_COLOURS[name] for name in names]
        own = find(self.viewer, POINTS)
        if own is not None and len(own.data) != len(centres):
            # Other numbers of points need colours and features of the same length at once.
            visible = own.visible
            self.viewer.layers.remove(own)
        else:
            visible = True
        add = partial(
            self.viewer.add_points, size=8, border_width=0.1, border_color="black", ndim=2
        )
        layer = put(self.viewer, POINTS, centres, place, about, add)
        layer.features = {"fate": names}
        if len(centres):
            layer.face_color = colours
        layer.visible = visible

    def _add_labels(self, data: Any, **state: Any) -> Layer:
        layer = self.viewer.add_labels(data, opacity=1.0, colormap=fate_colours(), **state)
        layer.contour = 0 if self.section.filled.isChecked() else CONTOUR
        layer.opacity = 0.6 if self.section.filled.isChecked() else 1.0
        return layer

    def _add_map(self, data: Any, **state: Any) -> Layer:
        layer = self.viewer.add_image(
            data, colormap=DIVERGING, contrast_limits=(-1.0, 1.0), opacity=0.8, **state
        )
        fates = find(self.viewer, DIFFERENCES)
        if fates is not None:  # what became of the nuclei stays on top
            own = self.viewer.layers
            own.move(own.index(layer), own.index(fates))
        return layer

    def _fill(self, filled: bool) -> None:
        layer = find(self.viewer, DIFFERENCES)
        if layer is not None:
            layer.contour = 0 if filled else CONTOUR
            layer.opacity = 0.6 if filled else 1.0

    def _remove(self, *roles: str) -> None:
        for role in roles:
            layer = find(self.viewer, role)
            if layer is not None:
                self.viewer.layers.remove(layer)


def line(found: Comparison) -> str:
    """Return the comparison in one line."""
    scores = found.scores
    return (
        f"{scores.found} nuclei ({found.reference} {scores.truth}), Dice {scores.dice:.2f}, "
        f"PQ {scores.pq:.2f}"
    )
