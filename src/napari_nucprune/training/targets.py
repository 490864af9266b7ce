"""What the branches learn, and where it counts most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..nuclei.distance import distance_target

__all__ = ["crowding", "distance_target"]

#: Distance in which a neighbour is felt, um (5 px of U-Net's at 0.2 um/px).
NEAR_UM = 1.0


def crowding(labels: NDArray[np.int32], mpp: float) -> NDArray[np.float32]:
    """Return how near every pixel lies to two nuclei at once.

    Parameters
    ----------
    labels
        (H, W) int32 instances.
    mpp
        um a pixel.

    Returns
    -------
    NDArray
        (H, W) float32: 1 on the border between nuclei that touch, 0 far from any two.

    Notes
    -----
    The second term of U-Net's weight map (Ronneberger et al. 2015, eq. 2), without its factor:
    ``exp(-(d1 + d2)^2 / (2 sigma^2))``, d1 and d2 the distances to the nearest two nuclei. Inside
    a nucleus d1 is 0, so that both sides of a border count.
    """
    from scipy.ndimage import distance_transform_edt, find_objects

    out = np.zeros(labels.shape, np.float32)
    if not labels.any():
        return out
    sigma = NEAR_UM / mpp
    margin = int(np.ceil(3 * sigma))
    _, nearest = distance_transform_edt(labels == 0, return_indices=True)
    # To each nucleus the pixels that it is the nearest of.
    territory = labels[tuple(nearest)]
    for index, box in enumerate(find_objects(territory), start=1):
        if box is None:
            continue
        wide = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in box)
        own, other = labels[wide] == index, (labels[wide] != index) & (labels[wide] != 0)
        if not other.any():
            continue
        near = distance_transform_edt(~own) + distance_transform_edt(~other)
        mine = territory[wide] == index
        out[wide][mine] = np.exp(-0.5 * (near[mine] / sigma) ** 2)
    return out
