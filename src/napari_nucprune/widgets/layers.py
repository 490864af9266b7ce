"""Image layers to sources, results to layers; found again by role, never by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer, Shapes
from napari.utils.colormaps import Colormap
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from ..errors import InputError
from ..slides.source import Source

if TYPE_CHECKING:
    from ..preview import Job, Preview

ROLES = ("semantic", "distance", "instances")
KEY = "nucprune"
#: From transparent to opaque, so that the tissue stays visible where there is nothing.
COLORMAPS = {
    "semantic": Colormap([[0, 0.75, 0.55, 0], [0, 0.75, 0.55, 0.75]], name="nucprune semantic"),
    "distance": Colormap(
        [[0.2, 0, 0.3, 0], [0.6, 0.1, 0.5, 0.5], [1, 0.45, 0.1, 0.8], [1, 1, 0.6, 1]],
        name="nucprune distance",
    ),
}


def mpp_of(layer: Layer) -> tuple[float, float] | None:
    """Return um a pixel (y, x) of a layer, None where its units are pixels."""
    import pint

    sizes = []
    for unit, scale in zip(layer.units[-2:], layer.scale[-2:], strict=True):
        try:
            factor = float((1 * unit).to("micrometer").magnitude)
        except pint.DimensionalityError:
            return None
        sizes.append(abs(float(scale)) * factor)
    return (sizes[0], sizes[1]) if min(sizes) > 0 else None


def source_of(layer: Layer | None) -> Source:
    """Return the source of an image layer.

    Raises
    ------
    InputError
        Where the layer is not a plain RGB image; says what was found.
    """
    if layer is None:
        raise InputError("There is no image: drag one in, or use File > Open Sample > NucPrune.")
    if not isinstance(layer, Image):
        raise InputError(f"{layer.name} is a {type(layer).__name__} layer; choose an image.")
    levels = list(layer.data) if layer.multiscale else [layer.data]
    shape = tuple(int(n) for n in levels[0].shape)
    if not layer.rgb:
        raise InputError(
            f"{layer.name} has no colour (shape {shape}, {levels[0].dtype}); the model wants 3 "
            "channels: open the RGB image, or merge its channels (layer menu > Merge to RGB)."
        )
    if len(shape) != 3:
        raise InputError(
            f"{layer.name} is a stack (shape {shape}); choose a layer with one RGB plane."
        )
    if np.dtype(levels[0].dtype) != np.uint8:
        raise InputError(
            f"{layer.name} holds {levels[0].dtype} values; the model wants 8 bits a channel: "
            "convert the image to uint8 in 0..255."
        )
    return Source(levels, mpp_of(layer), layer.name)


def camera_of(viewer: Any) -> Any:
    """Return the viewer's camera: napari 0.9 moved it."""
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


def visible_box(layer: Image) -> tuple[float, float, float, float]:
    """Return the visible part of a layer as (y0, x0, y1, x1) in level-0 pixels."""
    corners = np.asarray(layer.corner_pixels, float)[:, -2:]
    corners[1] += 1  # the last pixel is visible too
    if layer.multiscale:
        corners *= np.asarray(layer.downsample_factors[layer.data_level])[-2:]
    height, width = (layer.data[0] if layer.multiscale else layer.data).shape[:2]
    (y0, x0), (y1, x1) = corners
    box = (max(y0, 0), max(x0, 0), min(y1, height), min(x1, width))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise InputError(f"Nothing of {layer.name} is visible; press Home to see it.")
    return box


def rectangle_box(shapes: Shapes | None, layer: Image) -> tuple[float, float, float, float]:
    """Return the bounding box of the last drawn rectangle in level-0 pixels of a layer.

    Raises
    ------
    InputError
        Where nothing has been drawn.
    """
    if shapes is None or not len(shapes.data):
        raise InputError("Draw a rectangle on the image: it is the area that will be run.")
    world = [shapes.data_to_world(vertex) for vertex in shapes.data[-1]]
    points = np.array([layer.world_to_data(point)[-2:] for point in world])
    low, high = points.min(axis=0), points.max(axis=0)
    return (float(low[0]), float(low[1]), float(high[0]) + 1, float(high[1]) + 1)


def warm() -> None:
    """Make the first Labels layer of this process: it loads numba, which takes seconds."""
    Labels(np.ones((2, 2), np.int32))


def find(viewer: Any, role: str) -> Layer | None:
    """Return our layer of a role."""
    for layer in viewer.layers:
        if layer.metadata.get(KEY, {}).get("role") == role:
            return layer
    return None


def placement(image: Layer, transform: NDArray[np.float64]) -> dict[str, Any]:
    """Return the transform of a result layer on an image.

    Parameters
    ----------
    image
        The layer that was run.
    transform
        3x3, diagonal and offset: result pixels to the image's data pixels.

    Returns
    -------
    dict
        scale, translate, rotate, shear, affine, units and axis_labels: the image's own, with
        scale and translate changed so that every result pixel lies where it was computed.
    """
    ratio, offset = np.diag(transform)[:2], transform[:2, 2]
    shear, rotate = np.asarray(image.shear), np.asarray(image.rotate)
    linear = Affine(scale=image.scale, rotate=rotate, shear=shear, ndim=2).linear_matrix
    return {
        "scale": np.asarray(image.scale) * ratio,
        "translate": np.asarray(image.translate) + linear @ offset,
        "rotate": rotate,
        "shear": shear,
        "affine": image.affine,
        "units": image.units,
        "axis_labels": image.axis_labels,
    }


def put(
    viewer: Any,
    role: str,
    data: Any,
    place: dict[str, Any],
    about: dict[str, Any],
    make: Callable[..., Layer],
) -> Layer:
    """Put data into the layer of a role; made once, then updated in place with the user's looks.

    Parameters
    ----------
    viewer, role, data
        Where it goes, and what.
    place
        As from `placement`.
    about
        For the layer's metadata.
    make
        ``make(data, name=..., metadata=..., **place)`` adds the layer where there is none.
    """
    metadata = {KEY: {"role": role, **about}}
    layer = find(viewer, role)
    if layer is None:
        active = viewer.layers.selection.active
        layer = make(data, name=role, metadata=metadata, **place)
        # The user's image stays the chosen layer.
        if active is not None:
            viewer.layers.selection.active = active
        return layer
    layer.data = data
    for name, value in place.items():
        if name == "affine":
            same = np.array_equal(layer.affine.affine_matrix, value.affine_matrix)
        else:
            same = np.array_equal(np.asarray(getattr(layer, name)), np.asarray(value))
        if not same:
            setattr(layer, name, value)
    layer.metadata = metadata
    return layer


def map_layer(viewer: Any, kind: str) -> Callable[..., Layer]:
    """Return what adds a layer that looks like a semantic map, a distance map or instances."""
    if kind == "instances":

        def labels(data: NDArray[Any], **state: Any) -> Layer:
            layer = viewer.add_labels(data, opacity=0.9, **state)
            layer.contour = 2
            return layer

        return labels
    return partial(
        viewer.add_image, colormap=COLORMAPS[kind], contrast_limits=(0.0, 1.0), opacity=0.5
    )


def show_preview(viewer: Any, image: Layer, job: Job, preview: Preview, sha256: str) -> None:
    """Put a preview of an image into our layers, with what it was made by in their metadata."""
    about = {
        "checkpoint_sha256": sha256,
        "strategy": preview.pruning.strategy,
        "cr_semantic": preview.pruning.cr_semantic,
        "cr_distance": preview.pruning.cr_distance,
        "recovery": job.recovery if preview.recovered else "off",
        "reselected": job.reselect and preview.recovered,
        "box": job.box,
        "mpp": preview.maps.mpp,
        "mpp_assumed": preview.mpp_assumed,
    }
    place = placement(image, preview.transform)
    results = (preview.maps.semantic, preview.maps.distance, preview.nuclei.labels)
    for role, data in zip(ROLES, results, strict=True):
        put(viewer, role, data, place, about, map_layer(viewer, role))


def region_layer(viewer: Any, image: Layer) -> Shapes:
    """Return the Shapes layer that the rectangle is drawn on, made when first needed."""
    layer = find(viewer, "region")
    if layer is None:
        layer = viewer.add_shapes(
            name="region",
            metadata={KEY: {"role": "region"}},
            ndim=2,
            edge_color="yellow",
            face_color="transparent",
            edge_width=2,
            **placement(image, np.eye(3)),
        )
        layer.mode = "add_rectangle"
    return layer
