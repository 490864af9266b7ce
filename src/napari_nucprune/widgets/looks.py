"""How the result layers look when they are made; afterwards their looks are the user's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Layer
from napari.utils.colormaps import Colormap, CyclicLabelColormap
from numpy.typing import NDArray

#: From transparent to opaque, so that the tissue stays visible where there is nothing.
COLORMAPS = {
    "semantic": Colormap([[0, 0.75, 0.55, 0], [0, 0.75, 0.55, 0.75]], name="nucprune semantic"),
    "distance": Colormap(
        [[0.2, 0, 0.3, 0], [0.6, 0.1, 0.5, 0.5], [1, 0.45, 0.1, 0.8], [1, 1, 0.6, 1]],
        name="nucprune distance",
    ),
}
#: Least part of a channel in an instance's colour; the rest tells neighbours apart.
PALE = 0.72


def instance_colours() -> CyclicLabelColormap:
    """Return pale colours by id: saturated ones would be taken for those of the fates."""
    hues = np.random.default_rng(0).permutation(48)[:, None] / 48
    # A cosine a channel, a third of the circle apart.
    waves = 0.5 + 0.5 * np.cos(2 * np.pi * (hues - np.arange(3) / 3))
    colours = np.c_[PALE + (1 - PALE) * waves, np.ones(len(hues))]
    colours[0] = 0  # the background
    return CyclicLabelColormap(colors=colours, name="nucprune instances")


def map_layer(viewer: Any, kind: str) -> Callable[..., Layer]:
    """Return what adds a layer that looks like a semantic map, a distance map or instances."""
    if kind == "instances":

        def labels(data: NDArray[Any], **state: Any) -> Layer:
            layer = viewer.add_labels(data, opacity=0.9, colormap=instance_colours(), **state)
            layer.contour = 2
            return layer

        return labels
    return partial(
        viewer.add_image, colormap=COLORMAPS[kind], contrast_limits=(0.0, 1.0), opacity=0.5
    )
