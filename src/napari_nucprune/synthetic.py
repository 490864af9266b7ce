"""Synthetic H&E fields with exact ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

#: Optical densities (R, G, B) of Ruifrok & Johnston, Anal Quant Cytol Histol 2001; 23:291.
HAEMATOXYLIN = np.array((0.650, 0.704, 0.286))
EOSIN = np.array((0.072, 0.990, 0.105))

#: Share, half axes in um (mean, spread), haematoxylin (mean, spread), chromatin contrast.
_KINDS: tuple[tuple[float, tuple[float, float], tuple[float, float], float, float], ...] = (
    (0.62, (4.1, 0.5), (3.3, 0.4), 0.62, 0.45),  # epithelial, vesicular
    (0.22, (2.9, 0.3), (2.6, 0.25), 1.05, 0.2),  # lymphocyte
    (0.16, (5.4, 0.8), (1.7, 0.25), 0.85, 0.3),  # fibroblast
)


@dataclass(frozen=True)
class _Shape:
    """A nucleus' outline around the origin, in pixels, and its look."""

    axes: tuple[float, float]
    angle: float
    waves: NDArray[np.float64]
    stain: float
    contrast: float

    def covers(self, dy: NDArray[Any], dx: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether points at these offsets lie inside (a shape is star-shaped)."""
        along = dx * np.cos(self.angle) + dy * np.sin(self.angle)
        across = dy * np.cos(self.angle) - dx * np.sin(self.angle)
        theta = np.arctan2(across, along)
        wobble = 1 + sum(a * np.cos(k * theta + p) for k, (a, p) in enumerate(self.waves, 2))
        return np.hypot(along / self.axes[0], across / self.axes[1]) <= wobble


def synthetic(
    seed: int = 0, size: int = 512, density: float = 5e3, touching: float = 0.3, mpp: float = 0.25
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Make a field that looks like H&E, with its exact nuclei.

    Parameters
    ----------
    seed
        The same seed gives the same field.
    size
        Height and width in pixels.
    density
        Nuclei per square millimetre; fewer are made where no more find room.
    touching
        Share of the nuclei that touch another one.
    mpp
        um a pixel.

    Returns
    -------
    rgb
        (size, size, 3) uint8.
    labels
        (size, size) int32, 0 is background, 1..n; each nucleus is one 4-connected component.

    Raises
    ------
    InputError
        Where a number is out of its range.
    """
    if size < 1 or not (np.isfinite(density) and density >= 0):
        raise InputError(
            f"The size is {size} and the density {density}; give at least 1 pixel and 0 nuclei."
        )
    if not 0 <= touching <= 1 or not 0.05 <= mpp <= 1:
        raise InputError(
            f"The touching share is {touching} and the pixel size {mpp} um; "
            "give a share from 0 to 1 and a pixel size from 0.05 to 1 um."
        )
    rng = np.random.default_rng(seed)
    labels, shapes = _place(rng, size, density, touching, mpp)
    return _stain(rng, labels, shapes, mpp), labels


def _shape(rng: np.random.Generator, mpp: float) -> _Shape:
    kind = _KINDS[rng.choice(len(_KINDS), p=[k[0] for k in _KINDS])]
    _, long, short, stain, contrast = kind
    axes = tuple(max(rng.normal(*axis) / mpp, 1.0) for axis in (long, short))
    # Low waves only, and falling: the outline stays one that a nucleus could have.
    amplitude = rng.normal(0, 0.05, 4) / np.arange(1, 5) ** 0.5
    waves = np.stack([amplitude.clip(-0.12, 0.12), rng.uniform(0, 2 * np.pi, 4)], axis=1)
    return _Shape(
        (axes[0], axes[1]), rng.uniform(0, np.pi), waves, stain * rng.uniform(0.8, 1.2), contrast
    )


def _place(
    rng: np.random.Generator, size: int, density: float, touching: float, mpp: float
) -> tuple[NDArray[np.int32], list[_Shape]]:
    """Place groups of touching nuclei and single ones, each group apart from all others."""
    labels = np.zeros((size, size), np.int32)
    wanted = round(density * (size * mpp / 1000) ** 2)
    grouped = round(touching * wanted)
    # No group of one: a nucleus left over joins the one before.
    groups: list[int] = []
    while grouped > 1:
        count = min(int(rng.integers(2, 5)), grouped)
        groups.append(count + 1 if grouped - count == 1 else count)
        grouped -= groups[-1]
    shapes: list[_Shape] = []
    for count in groups + [1] * (wanted - sum(groups)):
        _place_group(rng, labels, shapes, count, mpp)
    return labels, shapes


def _place_group(
    rng: np.random.Generator, labels: NDArray[Any], shapes: list[_Shape], count: int, mpp: float
) -> None:
    size, before, margin = labels.shape[0], len(shapes), 1.0 / mpp
    for _ in range(60):
        centre = rng.uniform(0, size, 2)
        shape = _shape(rng, mpp)
        if _draw(labels, shape, centre, len(shapes) + 1, before, margin, touch=False):
            shapes.append(shape)
            break
    else:
        return
    centres = [centre]
    for _ in range(120):
        if len(centres) == count:
            return
        shape, turn = _shape(rng, mpp), rng.uniform(0, 2 * np.pi)
        step = np.array((np.sin(turn), np.cos(turn)))
        near = centres[rng.integers(len(centres))]
        # From overlapping outwards: the first place with little overlap is one of contact.
        for distance in np.arange(2.0, 14.0, 0.25) / mpp:
            centre = near + step * distance
            if _draw(labels, shape, centre, len(shapes) + 1, before, margin, touch=True):
                shapes.append(shape)
                centres.append(centre)
                break


def _draw(
    labels: NDArray[np.int32],
    shape: _Shape,
    centre: NDArray[np.float64],
    label: int,
    before: int,
    margin: float,
    touch: bool,
) -> bool:
    """Draw a nucleus where it fits: away from labels up to ``before``, beside later ones."""
    from scipy import ndimage

    if centre.min() < 0 or centre.max() >= labels.shape[0]:
        return False
    reach = int(1.4 * max(shape.axes) + margin) + 2
    y0, x0 = (max(int(c) - reach, 0) for c in centre)
    window = labels[y0 : int(centre[0]) + reach + 1, x0 : int(centre[1]) + reach + 1]
    dy, dx = np.ogrid[: window.shape[0], : window.shape[1]]
    inside = shape.covers(dy + (y0 - centre[0]), dx + (x0 - centre[1]))
    others = (window > 0) & (window <= before)
    if not inside.any() or (ndimage.distance_transform_edt(~inside)[others] <= margin).any():
        return False
    own = inside & (window == 0)
    if ndimage.label(own)[1] != 1 or own.sum() < max(0.88 * inside.sum(), 12):
        return False
    if touch and not (ndimage.binary_dilation(own) & (window > before)).any():
        return False
    window[own] = label
    return True


def _noise(rng: np.random.Generator, size: int, sigma: float | tuple[float, float]) -> Any:
    """Smooth noise with mean 0 and standard deviation 1."""
    from scipy import ndimage

    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), sigma, mode="wrap")
    return (field - field.mean()) / max(field.std(), 1e-6)


def _stain(
    rng: np.random.Generator, labels: NDArray[np.int32], shapes: list[_Shape], mpp: float
) -> NDArray[np.uint8]:
    """Mix the stains' densities by Beer and Lambert."""
    from scipy import ndimage

    size, um = labels.shape[0], 1 / mpp
    inside = labels > 0
    stain = np.array([0.0, *(s.stain for s in shapes)])[labels]
    contrast = np.array([0.0, *(s.contrast for s in shapes)])[labels]
    depth = ndimage.distance_transform_edt(inside) * mpp
    away = ndimage.distance_transform_edt(~inside) * mpp if shapes else np.full_like(depth, 99.0)

    # Chromatin: clumps, fine grain, and a rim where it lies against the envelope.
    clumps = 0.7 * _noise(rng, size, 0.55 * um) + 0.4 * _noise(rng, size, 0.25 * um)
    rim = 0.9 * np.exp(-(((depth - 0.35) / 0.4) ** 2)) - 0.2
    blue = inside * stain * (1 + contrast * (0.8 * clumps + rim)).clip(0.35, 2.2)

    # Stroma: straight fibres, bent by displacing them far and smoothly.
    fibres = _noise(rng, size, (0.4 * um, 6 * um)) + 0.6 * _noise(rng, size, (1.2 * um, 9 * um))
    bend = [grid + 7 * um * _noise(rng, size, 14 * um) for grid in np.indices(labels.shape)]
    weave = 0.8 * ndimage.map_coordinates(fibres, bend, order=1, mode="grid-wrap")
    cells = np.exp(-away / 3.5)
    grain = 0.6 * _noise(rng, size, 0.4 * um) + 0.4 * _noise(rng, size, 2.5 * um)
    pink = (0.24 + 0.07 * weave) * (1 - cells) + (0.30 + 0.05 * grain) * cells
    pink *= 1 + 0.15 * _noise(rng, size, 12 * um)
    # Gaps in the tissue, never close to a nucleus, and the clear halo around many nuclei.
    gaps = 1 / (1 + np.exp((_noise(rng, size, 7 * um) - 1.3) * 8)) + np.exp(-((away / 2.5) ** 2))
    halo = 1 - 0.35 * np.exp(-(((away - 0.5) / 0.4) ** 2)) * ~inside
    pink = pink.clip(0.02) * gaps.clip(0.06, 1) * halo
    pink = np.where(inside, 0.55 * pink, pink)
    blue = blue + ~inside * (0.05 + 0.08 * cells) * gaps.clip(0, 1) * (1 + 0.2 * grain)

    density = blue[..., None] * HAEMATOXYLIN + pink[..., None] * EOSIN
    light = np.array((243.0, 241.0, 244.0)) * np.exp(-2.303 * density * 0.62)
    light = ndimage.gaussian_filter(light, (0.22 * um, 0.22 * um, 0))
    return (light + rng.normal(0, 2.0, light.shape) + 0.5).clip(0, 255).astype(np.uint8)
