"""The pixel size of an image layer, from its units and transform or from what its reader wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from napari.layers import Layer
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from ..slides.image import plausible_mpp

#: What napari-wsi puts into a layer's metadata; without a transform it tells the size only there.
NAPARI_WSI = {"path", "resolution", "color_space"}


def mpp_of(layer: Layer) -> tuple[float, float] | None:
    """Return um a pixel (y, x) of a layer.

    The length of one step along each axis of the plane, by the layer's whole transform: an affine
    may scale, too. Where the units are pixels, what napari-wsi says in the metadata.

    Returns
    -------
    tuple or None
        None where nothing says it, or says what no microscope has: readers turn the 72 dpi of a
        printer into 353 um.
    """
    import pint

    factors = []
    for unit in layer.units[-2:]:
        try:
            factors.append(float((1 * unit).to("micrometer").magnitude))
        except pint.DimensionalityError:
            return _said_by_wsi(layer.metadata)
    steps = np.diag(factors) @ linear_of(layer)[-2:, -2:]
    y, x = (float(size) for size in np.linalg.norm(steps, axis=0))
    if (y, x) == (1, 1) and set(layer.metadata) >= NAPARI_WSI:
        # It says um and 1 also of slides whose size it does not know.
        return _said_by_wsi(layer.metadata)
    return plausible_mpp(y, x)


def linear_of(layer: Layer) -> NDArray[np.float64]:
    """Return the (ndim, ndim) matrix of a layer's whole transform, without its shift."""
    own = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear, ndim=layer.ndim)
    return np.asarray(layer.affine.linear_matrix @ own.linear_matrix, float)


def _said_by_wsi(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return napari-wsi's resolution, (y, x) in um."""
    if not set(metadata) >= NAPARI_WSI:
        return None
    try:
        y, x = (float(size) for size in metadata["resolution"])
    except (TypeError, ValueError):
        return None
    return plausible_mpp(y, x)
