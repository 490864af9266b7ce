"""Ways to look at reference and result: swipe, side by side, flip; undone without a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QObject, QSignalBlocker

from ..errors import InputError
from .layers import KEY, ROLES, find, placement
from .looks import map_layer
from .panes import copy_looks, place_of
from .references import DENSE, SHOWN
from .swipe import LEFT, RIGHT, STEP, Curtain, Divider, Names, canvas_of
from .undo import Undo

if TYPE_CHECKING:
    from ..difference.compare import Comparison
    from .comparing import Comparing
    from .controls import Controls

NOTHING_TO_SHOW = "Choose what to compare with first: there is no reference to look at."


class Views(QObject):
    """Shows pairs of layers, the reference's and the result's.

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
        self.divider: Divider | None = None
        self._curtain: Curtain | None = None
        self._names: Names | None = None
        self._look = ""
        self._pairs: list[tuple[Layer, Layer]] = []
        self._choices: tuple[Any, Any] = (None, None)
        self._made: list[Layer] = []
        self._undo = Undo(self.viewer)
        self.section.look.currentIndexChanged.connect(self._chosen)
        self.section.flip.toggled.connect(self._chosen)
        comparing.compared.connect(self._compared)
        self.viewer.layers.events.removed.connect(self._removed)

    @property
    def on(self) -> bool:
        """Whether anything differs from the plain overlay."""
        return bool(self._look)

    def step(self, by: int) -> None:
        """Move the divider by steps, to the right where positive."""
        if self.divider is not None:
            self.divider.move_to(self.divider.part + by * STEP)

    def close(self) -> None:
        """Leave everything as it was."""
        self._leave()
        with QSignalBlocker(self.section.look), QSignalBlocker(self.section.flip):
            self.section.look.setCurrentIndex(0)
            self.section.flip.setChecked(False)

    # Entering and leaving -------------------------------------------------------------------

    def _asked(self) -> str:
        look = str(self.section.look.currentData())
        if look == "overlay":
            return "flip" if self.section.flip.isChecked() else ""
        return look

    def _chosen(self, _: Any = None) -> None:
        asked = self._asked()
        if asked == self._look and asked:  # a flip of sides
            self._arrange()
            return
        self._leave()
        if not asked:
            return
        try:
            self._enter(asked)
        except InputError as error:
            self.close()
            self.controls.say(str(error))

    def _enter(self, look: str) -> None:
        self._look, self._choices = look, self._chosen_sides()
        kinds = [
            kind for kind, layer in self._right().items() if layer.visible or kind == "instances"
        ]
        left = self._left(kinds)
        right = self._right()
        self._pairs = [(left[kind], right[kind]) for kind in kinds if kind in left]
        if not self._pairs:
            raise InputError(NOTHING_TO_SHOW)
        if look == "side":
            self._split()
        elif look == "swipe":
            self._curtain = Curtain(canvas_of(self.controls))
            native = canvas_of(self.controls).native
            self._names = Names(native)
            self.divider = Divider(native)
            self.divider.moved.connect(self._moved)
        self._arrange()

    def _leave(self) -> None:
        self._look = ""
        if self._curtain is not None:
            self._curtain.open()
        if self._names is not None:
            self._names.close()
        if self.divider is not None:
            self.divider.hide()
            self.divider.deleteLater()
        self._curtain = self.divider = self._names = None
        self._undo.join()
        made, self._made = self._made, []
        for layer in made:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)
        self._undo.restore()
        self._pairs = []

    def _arrange(self) -> None:
        flipped = self.section.flip.isChecked()
        for left, right in self._pairs:
            self._undo.show(left, self._look != "flip" or flipped)
            self._undo.show(right, self._look != "flip" or not flipped)
            if self._curtain is not None:
                self._curtain.clip(left, RIGHT if flipped else LEFT)
                self._curtain.clip(right, LEFT if flipped else RIGHT)
        if self.divider is not None:
            self.divider.place()
            self.divider.raise_()
        elif self._names is not None:
            self._names.say(*self._titles())

    # Which layers ---------------------------------------------------------------------------

    def _chosen_sides(self) -> tuple[Any, Any]:
        return self.section.result.choice, self.section.reference.choice

    def _right(self) -> dict[str, Layer]:
        choice = self.section.result.choice
        if choice != SHOWN:
            return self.comparing.references.layers_of(choice)
        found = {role: find(self.viewer, role) for role in ROLES}
        return {role: layer for role, layer in found.items() if layer is not None}

    def _left(self, kinds: list[str]) -> dict[str, Layer]:
        choice = self.section.reference.choice
        if choice != DENSE:
            return self.comparing.references.layers_of(choice)
        dense, shown = self.comparing.dense(), self.comparing.shown
        if dense is None or shown is None:
            return {}
        maps = {"semantic": dense.maps.semantic, "distance": dense.maps.distance,
                "instances": dense.nuclei.labels}  # fmt: skip
        place = placement(shown.image, dense.transform)
        looks = self._right()
        found = {}
        for kind in kinds:
            layer = self._make(map_layer(self.viewer, kind), maps[kind], f"dense {kind}", place)
            if kind in looks:
                copy_looks(looks[kind], layer)
            found[kind] = layer
        return found

    def _make(self, add: Any, data: Any, name: str, place: dict[str, Any]) -> Layer:
        active = self.viewer.layers.selection.active
        metadata = {KEY: {"role": f"view {name}"}}
        layer = add(data, name=name, metadata=metadata, **place)
        self._made.append(layer)
        fates = find(self.viewer, "differences")
        if fates is not None:  # what became of the nuclei stays on top
            layers = self.viewer.layers
            layers.move(layers.index(layer), layers.index(fates))
        if active is not None:
            self.viewer.layers.selection.active = active
        return layer

    def _titles(self) -> tuple[str, str]:
        found = self.comparing.comparison
        left = found.reference if found is not None else "reference"
        right = found.result if found is not None else "result"
        shown = self.comparing.shown
        if right == "this result" and shown is not None:
            right = shown.preview.pruning.label
        return (right, left) if self.section.flip.isChecked() else (left, right)

    # Side by side ---------------------------------------------------------------------------

    def _split(self) -> None:
        shown = self.comparing.shown
        if shown is None or shown.image not in self.viewer.layers:
            raise InputError(NOTHING_TO_SHOW)
        image = shown.image
        data, state, _ = image.as_layer_data_tuple()
        for name in ("name", "metadata", "visible"):
            del state[name]
        twin = self._make(self.viewer.add_image, data, f"{image.name} (right)", state)
        left = [image, *(pair[0] for pair in self._pairs)]
        right = [twin, *(pair[1] for pair in self._pairs)]
        fates = find(self.viewer, "differences")
        if fates is not None and fates.visible:
            pad = self._make(
                self.viewer.add_labels, np.array(fates.data), "differences (left)", place_of(fates)
            )
            pad.colormap, pad.contour, pad.opacity = fates.colormap, fates.contour, fates.opacity
            left.append(pad)
            right.append(fates)
        if self.section.flip.isChecked():
            left, right = right, left
        self._undo.arrange([*left, *right], self._made)
        self._undo.split(len(left))
        self._names = Names(canvas_of(self.controls).native)

    # What happens meanwhile -----------------------------------------------------------------

    def _moved(self, x: float) -> None:
        if self._curtain is not None:
            self._curtain.move(x)
        if self._names is not None:
            self._names.say(*self._titles(), beside=x)

    def _compared(self, found: Comparison | None) -> None:
        if not self._look:
            return
        look = self._look
        same = self._chosen_sides() == self._choices and found is not None
        if same and self.section.reference.choice == DENSE:
            same = self._renew()
        if same and all(own in self.viewer.layers for pair in self._pairs for own in pair):
            self._arrange()
            return
        self._leave()
        if found is None:
            self.close()
            return
        try:
            self._enter(look)
        except InputError as error:
            self.close()
            self.controls.say(str(error))

    def _renew(self) -> bool:
        """Show the dense network's result on another field in the layers that are there."""
        dense, shown = self.comparing.dense(), self.comparing.shown
        if dense is None or shown is None or self._look == "side":
            return self._look == "side" and dense is not None and self._same_field(dense)
        maps = {"dense semantic": dense.maps.semantic, "dense distance": dense.maps.distance,
                "dense instances": dense.nuclei.labels}  # fmt: skip
        place = placement(shown.image, dense.transform)
        for layer in self._made:
            if layer.name in maps and layer.data is not maps[layer.name]:
                layer.data = maps[layer.name]
                layer.scale, layer.translate = place["scale"], place["translate"]
        return True

    def _same_field(self, dense: Any) -> bool:
        instances = next((own for own in self._made if own.name == "dense instances"), None)
        return instances is None or instances.data is dense.nuclei.labels

    def _removed(self, event: Any) -> None:
        layer = event.value
        if self._look and layer not in self._made and any(layer in pair for pair in self._pairs):
            self._leave()
            self.close()
        elif layer in self._made:
            self._made.remove(layer)
            self._leave()
            self.close()
