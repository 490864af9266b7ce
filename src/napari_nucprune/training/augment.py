"""Crops for training: random place, scale, D4, stain and colour jitter in optical density."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Prepared:
    """A training image with its targets at the network's um/px.

    Attributes
    ----------
    name, patient
        From the data set.
    rgb
        (H, W, 3) uint8.
    targets
        (H, W, 2) float32: inside a nucleus (0/1) and the distance target; (H, W, 3) with
        `targets.crowding` where that counts.
    weight
        How often it is drawn, relative to the others.
    """

    name: str
    patient: str
    rgb: NDArray[np.uint8]
    targets: NDArray[np.float32]
    weight: float


def random_crop(
    rng: np.random.Generator,
    image: Prepared,
    size: int,
    scale: tuple[float, float],
    colour: float,
    scale_distance: bool,
    stain: float = 0.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw one crop.

    Parameters
    ----------
    rng
        Source of all randomness.
    image
        The image.
    size
        Side of the crop in pixels.
    scale
        Range of the zoom, log-uniform.
    colour
        Strength of the optical-density jitter, 0 for none.
    scale_distance
        Whether the distance target grows with the zoom (a target in um does, one divided by the
        image's maximum does not).
    stain
        Strength of the stains' jitter, 0 for none.

    Returns
    -------
    rgb
        (3, size, size) float32 in 0..255.
    targets
        (2, size, size) float32, or (3, size, size).
    """
    height, width = image.rgb.shape[:2]
    zoom = float(np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1]))))
    span = size / zoom
    top = rng.uniform(0, max(height - span, 0)) if height > span else (height - span) / 2
    left = rng.uniform(0, max(width - span, 0)) if width > span else (width - span) / 2
    # Output pixel centres (i + 0.5) / zoom + top: cv2 maps index to index.
    matrix = np.array(
        [[1 / zoom, 0, left + 0.5 / zoom - 0.5], [0, 1 / zoom, top + 0.5 / zoom - 0.5]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REFLECT_101
    rgb = cv2.warpAffine(image.rgb, matrix, (size, size), flags=flags, borderMode=border)
    targets = cv2.warpAffine(image.targets, matrix, (size, size), flags=flags, borderMode=border)
    inside = (targets[..., 0] >= 0.5).astype(np.float32)
    distance = targets[..., 1] * (zoom if scale_distance else 1.0)
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    maps = [inside[..., None], distance[..., None], targets[..., 2:]]
    stack = np.concatenate([_jitter(rng, rgb, colour, stain), *maps], 2)
    stack = np.rot90(stack, turns)
    if flip:
        stack = stack[:, ::-1]
    stack = np.ascontiguousarray(stack.transpose(2, 0, 1), dtype=np.float32)
    return stack[:3], stack[3:]


def stained(
    rng: np.random.Generator, density: NDArray[np.float32], strength: float
) -> NDArray[np.float32]:
    """Return optical densities (H, W, 3) with more or less of each stain.

    Tellez et al. (IEEE TMI 2018), "Whole-slide mitosis detection": haematoxylin, eosin and the
    residual, parted by Ruifrok & Johnston's colour deconvolution, are scaled and shifted apart. At
    a strength of 1 by up to a fifth, and by up to 0.05 (natural logarithm).
    """
    from skimage.color import hed_from_rgb, rgb_from_hed

    gain = 1 + strength * rng.uniform(-0.2, 0.2, 3)
    shift = strength * rng.uniform(-0.05, 0.05, 3)
    # One matrix: apart, scaled, together.
    mixed = hed_from_rgb @ np.diag(gain) @ rgb_from_hed
    return density @ mixed.astype(np.float32) + (shift @ rgb_from_hed).astype(np.float32)


def _jitter(
    rng: np.random.Generator, rgb: NDArray[np.uint8], strength: float, stain: float
) -> NDArray[np.float32]:
    """Scale and shift optical density, of each stain and each channel; now and then blur."""
    image = rgb.astype(np.float32)
    if strength == 0 and stain == 0:
        return image
    if strength == 0:
        return _limited(_intensity(stained(rng, _density(image), stain)))
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.2))
    density = _density(image)
    if stain:
        density = stained(rng, density, stain)
    gain = np.exp(rng.normal(0, 0.15 * strength)) * np.exp(rng.normal(0, 0.12 * strength, 3))
    shift = rng.normal(0, 0.03 * strength, 3)
    density = density * gain.astype(np.float32) + shift.astype(np.float32)
    image = _intensity(density)
    if rng.random() < 0.3:
        return _limited(image + rng.normal(0, rng.uniform(0, 6), image.shape))
    return _limited(image)


def _density(image: NDArray[np.float32]) -> NDArray[np.float32]:
    density: NDArray[np.float32] = -np.log((image + 1) / 256)
    return density


def _intensity(density: NDArray[np.float32]) -> NDArray[np.float32]:
    image: NDArray[np.float32] = 256 * np.exp(-density) - 1
    return image


def _limited(image: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.clip(image, 0, 255).astype(np.float32)
