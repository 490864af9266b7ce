"""Image layers to sources, results to layers; found again by role, never by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer, Shapes
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from ..errors import InputError
from ..slides.reader import SUFFIXES, read_slide
from ..slides.source import Source, plane_source
from .looks import map_layer
from .pixel_size import linear_of, mpp_of

if TYPE_CHECKING:
    from ..job import Job, Preview

ROLES = ("semantic", "distance", "instances")
KEY = "nucprune"


def plane_shape(layer: Image) -> tuple[int, int]:
    """Return (H, W) of an image layer's planes at full resolution."""
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    height, width = shape[-3:-1] if layer.rgb else shape[-2:]
    return int(height), int(width)


def source_of(layer: Layer | None, point: Sequence[float] = ()) -> Source:
    """Return the source of an image layer.

    Parameters
    ----------
    layer
        The image.
    point
        Where the viewer's sliders are, in world coordinates; of a stack, that plane is taken.

    Raises
    ------
    InputError
        Where the layer is no RGB image that can be run; says what was found and what to do.
    """
    if layer is None:
        raise InputError("There is no image: drag one in, or use File > Open Sample > NucPrune.")
    if not isinstance(layer, Image):
        raise InputError(f"{layer.name} is a {type(layer).__name__} layer; choose an image.")
    levels = list(layer.data) if layer.multiscale else [layer.data]
    if not layer.rgb:
        raise InputError(_no_colour(layer, tuple(int(n) for n in levels[0].shape)))
    return plane_source(levels, plane_index(layer, point), mpp_of(layer), layer.name)


def plane_index(layer: Layer, point: Sequence[float]) -> tuple[int, ...]:
    """Return the position of a stack's shown plane on the axes before it; () of a single one.

    Raises
    ------
    InputError
        Where the layer's transform mixes the plane with the axes before it.
    """
    stack = layer.ndim - 2
    if not stack:
        return ()
    linear = linear_of(layer)
    if linear[:stack, stack:].any() or linear[stack:, :stack].any():
        raise InputError(
            f"{layer.name} is a stack that is turned out of its planes; reset its rotate, shear "
            "and affine on these axes, or choose a layer with one RGB plane."
        )
    world = np.zeros(layer.ndim)
    known = np.asarray(point, float)[-layer.ndim :]
    world[len(world) - len(known) :] = known
    return tuple(int(np.rint(p)) for p in np.asarray(layer.world_to_data(world))[:stack])


def _no_colour(layer: Image, shape: tuple[int, ...]) -> str:
    """Return the sentence for a layer that napari does not show as RGB."""
    found = f"{layer.name} has no colour (shape {shape}, {layer.dtype})"
    if len(shape) > 2 and shape[0] in (3, 4):
        return (
            f"{found}: its channels seem to come first. Right-click the layer > Split Stack, give "
            "the parts the colormaps red, green and blue, select them, right-click > Merge to RGB."
        )
    return (
        f"{found}; the model wants 3 channels: open the RGB image, or merge its channels (give "
        "their layers the colormaps red, green and blue, select them, right-click > Merge to RGB)."
    )


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
    height, width = plane_shape(layer)
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
    stack = np.zeros(layer.ndim - 2)
    points = np.array([layer.world_to_data((*stack, *point))[-2:] for point in world])
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
    # Of a stack the plane's own part; `plane_index` has seen that nothing mixes them.
    shear = np.asarray(image.shear)
    shear = shear[-1:] if shear.ndim == 1 else shear[-2:, -2:]
    rotate = np.asarray(image.rotate)[-2:, -2:]
    scale, affine = np.asarray(image.scale)[-2:], image.affine
    linear = Affine(scale=scale, rotate=rotate, shear=shear, ndim=2).linear_matrix
    if image.ndim > 2:
        matrix = np.eye(3)
        matrix[:2, :2] = affine.linear_matrix[-2:, -2:]
        matrix[:2, 2] = affine.translate[-2:]
        affine = Affine(affine_matrix=matrix)
    return {
        "scale": scale * ratio,
        "translate": np.asarray(image.translate)[-2:] + linear @ offset,
        "rotate": rotate,
        "shear": shear,
        "affine": affine,
        "units": image.units[-2:],
        "axis_labels": image.axis_labels[-2:],
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


def open_slide(viewer: Any, path: str) -> None:
    """Add a file as a slide, whatever its name.

    Raises
    ------
    InputError
        Where it is none.
    """
    if Path(path).suffix.lower() in SUFFIXES:
        viewer.open(path, plugin="napari-nucprune")
        return
    # The manifest doesn't claim TIFFs, so napari would not let our reader have one.
    for data in read_slide(path):
        viewer.add_layer(Layer.create(*data))


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
