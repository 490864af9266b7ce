"""Dropped annotations become Labels layers that lie on their image in the viewer."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Image

from ..annotations import NAMELESS, is_annotation, read_annotation
from ..slides.reader import LayerData
from . import layers

PathOrPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """Give napari `read` where every file is an annotation, None for anything else."""
    return read if all(is_annotation(p) for p in _paths(path)) else None


def read(path: PathOrPaths) -> list[LayerData]:
    """Read annotations as Labels layers.

    Where the viewer holds the image (a layer that was opened from a file of the same name, or has
    that name; for ``RoiSet.zip`` the only image), the labels get its size and whole transform.
    Else see `annotations.read_annotation`.

    Raises
    ------
    InputError
        As `annotations.read_annotation` does.
    """
    found: list[LayerData] = []
    for one in _paths(path):
        image = _layer_of(Path(one))
        if image is None:
            found += read_annotation(one)
            continue
        for labels, attributes, kind in read_annotation(one, layers.plane_shape(image)):
            place = layers.placement(image, np.eye(3))
            found.append((labels, attributes | place, kind))
    return found


def _paths(path: PathOrPaths) -> list[str | os.PathLike[str]]:
    return [path] if isinstance(path, str | os.PathLike) else list(path)


def _layer_of(path: Path) -> Image | None:
    viewer: Any = napari.current_viewer()
    if viewer is None:
        return None
    images = [
        layer
        for layer in viewer.layers
        if isinstance(layer, Image) and "role" not in layer.metadata.get(layers.KEY, {})
    ]
    for layer in images:
        opened_from = layer.source.path
        if path.stem in (layer.name, Path(str(opened_from)).stem if opened_from else None):
            return layer
    nameless = path.stem.lower() in NAMELESS
    return images[0] if nameless and len(images) == 1 else None
