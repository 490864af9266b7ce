"""What views do with layers: their order, the grid, their looks."""

from __future__ import annotations

from typing import Any

from napari.layers import Layer

PLACE = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")
LOOKS = ("opacity", "blending", "contour", "colormap", "contrast_limits", "gamma")


def grid_of(viewer: Any) -> Any:
    """Return the viewer's grid: napari 0.9 moved it."""
    canvas = getattr(viewer, "canvas", None)
    return viewer.grid if canvas is None else canvas.grid


def sort(viewer: Any, order: list[Layer]) -> None:
    """Bring the layers that are there into an order, lowest first; others go above."""
    layers = viewer.layers
    there = [layer for layer in order if layer in layers]
    for index, layer in enumerate(there):
        at = layers.index(layer)
        if at != index:
            layers.move(at, index)


def place_of(layer: Layer) -> dict[str, Any]:
    """Return where a layer lies."""
    return {name: getattr(layer, name) for name in PLACE}


def copy_looks(source: Layer, target: Layer) -> None:
    """Let a layer look like another of its kind."""
    for name in LOOKS:
        if hasattr(source, name) and hasattr(target, name):
            setattr(target, name, getattr(source, name))
