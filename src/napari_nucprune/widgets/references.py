"""What can be compared with what: the dense network, pins, and any Labels layer."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from ..difference.placed import Placed
from .layers import KEY
from .pins import Pin, pins

NOTHING, DENSE, SHOWN = "nothing", "dense", "shown"
#: What changes a reference's pixels or place.
WATCHED = ("data", "paint", "labels_update", "scale", "translate", "rotate", "shear", "affine")


class References(QObject):
    """Follows the viewer's layers.

    ``changed`` is emitted when a choice comes, goes or is renamed; ``edited(choice)`` when a
    layer's pixels or place are new. A choice is `NOTHING`, `DENSE`, `SHOWN`, a pin's ident or a
    Labels layer.
    """

    changed = Signal()
    edited = Signal(object)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.viewer = viewer
        self._count = itertools.count()
        self._versions: dict[Layer, int] = {}
        viewer.layers.events.inserted.connect(self._follow)
        viewer.layers.events.inserted.connect(self._inserted)
        viewer.layers.events.removed.connect(self._follow)
        self._follow()

    def of_result(self) -> list[tuple[str, Any]]:
        """Return what can be compared, as (text, choice)."""
        return [("this result", SHOWN), *self._pins()]

    def of_reference(self) -> list[tuple[str, Any]]:
        """Return what it can be compared with, as (text, choice)."""
        annotations = [(layer.name, layer) for layer in self.viewer.layers if is_annotation(layer)]
        return [("nothing", NOTHING), ("dense network", DENSE), *self._pins(), *annotations]

    def pin(self, ident: Any) -> Pin | None:
        """Return a pin."""
        return next((own for own in pins(self.viewer) if own.ident == ident), None)

    def layers_of(self, choice: Any) -> dict[str, Layer]:
        """Return the layers of a pin or an annotation, by role of what they show."""
        if isinstance(choice, Layer):
            return {"instances": choice} if choice in self.viewer.layers else {}
        pin = self.pin(choice)
        return {} if pin is None else pin.layers

    def placed(self, choice: Any, image: Layer) -> Placed | None:
        """Return a pin or an annotation as it lies on an image; None where it is gone."""
        found = self.layers_of(choice)
        if "instances" not in found:
            return None
        layer = found["instances"]
        pin = None if isinstance(choice, Layer) else self.pin(choice)
        maps = {kind: np.asarray(own.data) for kind, own in found.items() if kind != "instances"}
        if any(own.shape != layer.data.shape for own in maps.values()):
            maps = {}
        key = tuple((kind, id(own), self._versions.get(own)) for kind, own in found.items())
        return Placed(
            layer.name if pin is None else pin.label,
            layer.data[0] if layer.multiscale else layer.data,
            transform_between(layer, image),
            key,
            maps.get("semantic"),
            maps.get("distance"),
        )

    def _pins(self) -> list[tuple[str, Any]]:
        return [(f"pin: {own.label}", own.ident) for own in pins(self.viewer)]

    def _follow(self, event: Any = None) -> None:
        own = [
            layer
            for layer in self.viewer.layers
            if is_annotation(layer) or "pin" in layer.metadata.get(KEY, {})
        ]
        new = [layer for layer in own if layer not in self._versions]
        gone = [layer for layer in self._versions if layer not in own]
        for layer in gone:
            del self._versions[layer]
            layer.events.name.disconnect(self._renamed)
            for name in WATCHED:
                if hasattr(layer.events, name):
                    getattr(layer.events, name).disconnect(self._touched)
        for layer in new:
            self._versions[layer] = next(self._count)
            layer.events.name.connect(self._renamed)
            for name in WATCHED:
                if hasattr(layer.events, name):
                    getattr(layer.events, name).connect(self._touched)
        if new or gone:
            self.changed.emit()

    def _inserted(self, event: Any) -> None:
        layer = event.value
        if is_annotation(layer) and KEY in layer.metadata:
            # Not within napari's own insertion.
            QTimer.singleShot(0, lambda: show_outlines(self.viewer, layer))

    def _renamed(self, event: Any = None) -> None:
        self.changed.emit()

    def _touched(self, event: Any) -> None:
        layer = event.source
        if layer in self._versions:
            self._versions[layer] = next(self._count)
            self.edited.emit(layer.metadata.get(KEY, {}).get("pin", layer))


def is_annotation(layer: Layer) -> bool:
    """Whether a layer is a Labels layer of the user's."""
    return isinstance(layer, Labels) and "role" not in layer.metadata.get(KEY, {})


def show_outlines(viewer: Any, layer: Labels) -> None:
    """Show a dropped annotation as outlines below the results: filled, it would hide the tissue."""
    if layer not in viewer.layers:
        return
    layer.contour = 1
    own = [i for i, other in enumerate(viewer.layers) if "role" in other.metadata.get(KEY, {})]
    index = viewer.layers.index(layer)
    if own and index > own[0]:
        viewer.layers.move(index, own[0])


def transform_between(layer: Layer, image: Layer) -> NDArray[np.float64]:
    """Return 3x3, homogeneous (y, x, 1): a layer's pixels to an image's level-0 pixels."""
    points = [image.world_to_data(layer.data_to_world(p)) for p in plane_points(layer)]
    origin, down, right = (np.asarray(p, float)[-2:] for p in points)
    found = np.eye(3)
    found[:2, 0], found[:2, 1], found[:2, 2] = down - origin, right - origin, origin
    # Layers that lie on each other must not differ by rounding.
    near = np.rint(found * 64) / 64
    return np.where(np.abs(found - near) < 1e-7, near, found)


def plane_points(layer: Layer) -> list[tuple[float, ...]]:
    """Return the first pixel, the one below and the one right of it."""
    rest = (0.0,) * (layer.ndim - 2)
    return [(*rest, 0.0, 0.0), (*rest, 1.0, 0.0), (*rest, 0.0, 1.0)]
