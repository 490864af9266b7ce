"""What a view changes of layers, their order and the grid, to be put back without a trace."""

from __future__ import annotations

from typing import Any

from napari.layers import Layer

from .panes import grid_of, sort


class Undo:
    """Remembers what was before.

    Parameters
    ----------
    viewer
        Whose layers and grid are changed.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        #: Of every layer that was shown or hidden: before, and what was set.
        self._visible: dict[Layer, tuple[bool, bool]] = {}
        self._order: list[Layer] = []
        self._grid: dict[str, Any] = {}

    def show(self, layer: Layer, visible: bool) -> None:
        """Show or hide a layer."""
        before = self._visible.get(layer, (layer.visible, visible))[0]
        self._visible[layer] = before, visible
        layer.visible = visible

    def arrange(self, panes: list[Layer], others: list[Layer]) -> None:
        """Put layers lowest, in this order, and of all show these alone.

        Parameters
        ----------
        panes
            Lowest first.
        others
            That will be removed: they have no place to go back to.
        """
        layers = self.viewer.layers
        self._order = [layer for layer in layers if layer not in others]
        for layer in layers:
            self.show(layer, layer in panes)
        sort(self.viewer, [*panes, *(layer for layer in layers if layer not in panes)])

    def split(self, stride: int) -> None:
        """Show two panes side by side, of so many layers each."""
        grid = grid_of(self.viewer)
        self._grid = {name: getattr(grid, name) for name in ("stride", "shape", "enabled")}
        grid.stride, grid.shape, grid.enabled = stride, (1, 2), True

    def join(self) -> None:
        """Put the grid back."""
        grid = grid_of(self.viewer)
        for name, value in self._grid.items():
            setattr(grid, name, value)
        self._grid = {}

    def restore(self) -> None:
        """Put the layers back, but for those that the user has switched since."""
        layers = self.viewer.layers
        for layer, (before, ours) in self._visible.items():
            if layer in layers and layer.visible == ours:
                layer.visible = before
        if self._order:
            sort(self.viewer, self._order)
        self._order = []
        self._visible.clear()
