"""The distance map that an instance map stands for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def distance_target(
    labels: NDArray[np.int32], mpp: float, unit_um: float | None = None
) -> NDArray[np.float32]:
    """Return each nucleus' own Euclidean distance transform.

    Parameters
    ----------
    labels
        (H, W) int32 instances.
    mpp
        um a pixel.
    unit_um
        The map is in multiples of this many um; None or 0 divides by the image's largest value,
        as Mahbod et al. (AMAI 2022) do. That maximum cannot be seen on a crop, a constant can.

    Returns
    -------
    NDArray
        (H, W) float32, 0 outside nuclei.
    """
    from scipy.ndimage import distance_transform_edt, find_objects

    out = np.zeros(labels.shape, np.float32)
    if labels.max(initial=0) > labels.size:  # find_objects makes a list as long as the largest id
        _, inverse = np.unique(np.append(labels, 0), return_inverse=True)
        labels = inverse[:-1].reshape(labels.shape).astype(np.int32)
    for index, box in enumerate(find_objects(labels), start=1):
        if box is None:
            continue
        own = np.pad(labels[box] == index, 1)
        distance = distance_transform_edt(own)[1:-1, 1:-1]
        np.maximum(out[box], distance.astype(np.float32), out=out[box])
    if unit_um:
        return out * np.float32(mpp / unit_um)
    return out / max(float(out.max(initial=0)), 1e-6)
