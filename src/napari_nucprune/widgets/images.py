"""Which image the dock runs on: follows the viewer's layers, their pixels and pixel sizes."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QObject, QSignalBlocker, Signal

from ..doors import Pruning
from ..errors import InputError
from ..job import Job
from ..recovered import Recovery
from ..slides.field import middle
from ..slides.source import Source
from . import layers
from .pixel_size import mpp_of
from .sections import ImageSection

if TYPE_CHECKING:
    from napari import Viewer

#: Most network pixels a side of the visible area; a rectangle or an image may be larger.
VISIBLE_LIMIT = 2048
WATCHED = ("data", "scale", "translate", "rotate", "shear", "affine", "units")


class Images(QObject):
    """The user's image layers behind the dock's first part.

    ``changed`` is emitted on another image, and on new pixels, transform or pixel size of it.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.section = ImageSection(lambda _: self.choices())
        self.network_mpp = 0.25
        self._known: set[Image] = set()
        self._versions: dict[Image, int] = {}
        # Not the layer's id: another layer may get that of a deleted one.
        self._count = itertools.count()
        self._typed: dict[Image, float] = {}
        self._plane: tuple[int, ...] = ()
        self.section.layer.changed.connect(self._chosen)
        self.section.mpp.valueChanged.connect(self._mpp_typed)
        viewer.layers.events.inserted.connect(self.refresh)
        viewer.layers.events.removed.connect(self.refresh)
        viewer.dims.events.current_step.connect(self._moved)

    @property
    def layer(self) -> Image | None:
        """The chosen layer."""
        value = self.section.layer.value
        return value if isinstance(value, Image) else None

    def choices(self) -> list[tuple[str, Image]]:
        """Return the user's image layers: ours have a role."""
        return [
            (layer.name, layer)
            for layer in self.viewer.layers
            if isinstance(layer, Image) and "role" not in layer.metadata.get(layers.KEY, {})
        ]

    def typed_mpp(self) -> float | None:
        """Return the pixel size that was typed for the chosen image."""
        return self._typed.get(self.layer)

    def source(self) -> Source:
        """Return the chosen image with the pixel size that the box says, where one was typed.

        Raises
        ------
        InputError
            Where there is none, or it is no RGB image that can be run.
        """
        source = layers.source_of(self.layer, self.viewer.dims.point)
        typed = self._typed.get(self.layer)
        return source if typed is None else replace(source, mpp=(typed, typed))

    def key(self) -> Hashable:
        """Return what names the chosen image's pixels now, of a stack the shown plane's."""
        return self._versions.get(self.layer), self._shown_plane()

    def _shown_plane(self) -> tuple[int, ...]:
        if self.layer is None or self.layer.ndim == 2:
            return ()
        try:
            return layers.plane_index(self.layer, self.viewer.dims.point)
        except InputError:
            return ()

    def whole_job(
        self, pruning: Pruning, recovery: Recovery = "off", reselect: bool = False
    ) -> Job:
        """Return a job on the whole chosen image.

        Raises
        ------
        InputError
            As `source` does.
        """
        return Job(self.source(), None, pruning, self.key(), recovery=recovery, reselect=reselect)

    def job(
        self, pruning: Pruning, recovery: Recovery = "off", reselect: bool = False
    ) -> tuple[Job, Image, str]:
        """Return what is to be run, on which layer, and what to tell about it.

        Raises
        ------
        InputError
            Where there is no image that can be run, or no part of it was chosen.
        """
        whole, layer = self.whole_job(pruning, recovery, reselect), self.layer
        assert layer is not None
        area, box, note = self.section.area.currentText(), None, ""
        if area == "visible area":
            self._check_view(layer)
            seen = layers.visible_box(layer)
            box = middle(whole.source, self.network_mpp, seen, VISIBLE_LIMIT)
            if box != seen:
                note = (
                    f"The view is larger than {VISIBLE_LIMIT} px at {self.network_mpp:g} µm/px: "
                    "its middle was run. Zoom in to see all of the view."
                )
        elif area == "rectangle":
            box = layers.rectangle_box(layers.find(self.viewer, "region"), layer)
        return replace(whole, box=box), layer, note

    def _check_view(self, layer: Image) -> None:
        """Refuse views in which what is visible is no part of a plane."""
        dims = self.viewer.dims
        flat = tuple(sorted(dims.displayed)) == (dims.ndim - 2, dims.ndim - 1)
        if dims.ndisplay != 2 or not flat:
            raise InputError(
                f"{layer.name} is shown in 3D or from the side; switch to the 2D view of its last "
                "two axes, or run on the whole image."
            )

    def refresh(self, event: Any = None) -> None:
        """Follow added and removed layers; a newly dropped image is chosen."""
        found = [layer for _, layer in self.choices()]
        new = [layer for layer in found if layer not in self._known]
        if set(found) == self._known:
            return
        for layer in new:
            self._versions[layer] = next(self._count)
            layer.events.name.connect(self._renamed)
            for name in WATCHED:
                getattr(layer.events, name).connect(self._data_changed)
        self._known = set(found)
        for memory in (self._versions, self._typed):
            for layer in set(memory) - self._known:
                del memory[layer]
        before = self.layer
        with self.section.layer.changed.blocked():
            self.section.layer.reset_choices()
            if new:
                self.section.layer.value = new[-1]
        if self.layer is not before:
            self._chosen()

    def show_mpp(self) -> None:
        """Show the pixel size and where it is from."""
        layer, box, origin = self.layer, self.section.mpp, self.section.mpp_from
        own = None if layer is None else mpp_of(layer)
        typed = self._typed.get(layer)
        with QSignalBlocker(box):
            box.setValue(typed or (own[0] if own else self.network_mpp))
        origin.setText("set here" if typed else "from the image" if own else "assumed")
        unset = not typed and not own
        origin.setToolTip(
            "Pixel size is not set in the image: results may be inaccurate. Type it in the box."
            if unset
            else ""
        )

    def _moved(self, event: Any = None) -> None:
        """Follow the sliders of a stack."""
        plane = self._shown_plane()
        if plane != self._plane:
            self._plane = plane
            self.changed.emit()

    def _chosen(self, _: Any = None) -> None:
        self._plane = self._shown_plane()
        self.show_mpp()
        self.changed.emit()

    def _renamed(self, event: Any = None) -> None:
        with self.section.layer.changed.blocked():
            self.section.layer.reset_choices()

    def _data_changed(self, event: Any) -> None:
        layer = event.source
        self._versions[layer] = next(self._count)
        if layer is self.layer:
            self._chosen()

    def _mpp_typed(self, value: float) -> None:
        if self.layer is not None:
            self._typed[self.layer] = value
            self._chosen()
