"""Maps as whole numbers, so that every computer that smooths them gets the same bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Codes of a distance unit; a code of `ZERO` is distance 0, so that -1 to 7 units are held.
STEP = ZERO = 8192
#: A probability of 1.
ONE = 65535
#: Sum of a smoothing kernel: two passes turn 16 bits into at most 40, of which 24 are kept.
_SUM, _DROP, _GAIN = 1 << 12, 1 << 16, 1 << 8


def semantic_codes(semantic: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return probabilities (H, W) in [0, 1] in steps of 1 / 65535."""
    return np.rint(np.clip(semantic, 0, 1) * np.float32(ONE)).astype(np.uint16)


def distance_codes(distance: NDArray[np.float32]) -> tuple[NDArray[np.uint16], int]:
    """Return distances (H, W) in steps of 1 / 8192 unit, and how many pixels were beyond 7 units.

    What is below -1 unit is ground whatever its value.
    """
    codes = np.rint(distance * np.float32(STEP)) + np.float32(ZERO)
    beyond = int(np.count_nonzero(codes > ONE))
    return np.clip(codes, 0, ONE).astype(np.uint16), beyond


def distances(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the distances (H, W) that codes stand for."""
    return (codes.astype(np.float32) - np.float32(ZERO)) * np.float32(1 / STEP)


def threshold_code(threshold: float) -> int:
    """Return the least semantic code that is nucleus; 0, the code of glass, never is."""
    return max(1, int(np.ceil(threshold * ONE)))


def half_width(sigma: float) -> int:
    """Return how far a Gaussian of `sigma` pixels reaches: 4 sigma, as in `nuclei`."""
    return int(4 * sigma + 0.5)


def kernel(sigma: float) -> NDArray[np.int64]:
    """Return a Gaussian of `sigma` pixels as whole numbers (2 * half + 1,) that sum to 4096."""
    half = half_width(sigma)
    if half == 0:
        return np.array([_SUM])
    x = np.arange(-half, half + 1)
    weights = np.exp(-0.5 * (x / sigma) ** 2)
    whole = np.rint(weights / weights.sum() * _SUM).astype(np.int64)
    whole[half] += _SUM - whole.sum()
    return whole


def landscape(codes: NDArray[np.uint16], sigma: float) -> NDArray[np.float32]:
    """Smooth a distance map on integers.

    Parameters
    ----------
    codes
        (H, W) uint16, as of `distance_codes`.
    sigma
        Of the Gaussian, in pixels; the map's edges are reflected.

    Returns
    -------
    NDArray
        (H, W) float32 that holds whole numbers below 2**24, 0 where the distance is 0.

    Notes
    -----
    The sums are whole numbers below 2**53 in float64, so that no order of adding, no vector
    width and no fused multiply-add changes a bit, and a part shows the same values as the whole.
    """
    import cv2

    weights = kernel(sigma)
    if len(weights) == 1:
        return (codes.astype(np.float32) - np.float32(ZERO)) * np.float32(_GAIN)
    taps = weights.astype(np.float64)
    sums = cv2.sepFilter2D(codes, cv2.CV_64F, taps, taps, borderType=cv2.BORDER_REFLECT)
    np.multiply(sums, 1 / _DROP, out=sums)
    sums += 0.5
    np.floor(sums, out=sums)
    sums -= ZERO * _GAIN
    return sums.astype(np.float32)
