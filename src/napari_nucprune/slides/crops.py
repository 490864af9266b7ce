"""Crops of an image's tissue, for calibration: spread over it, no glass, none read twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import ShouldStop, never
from ..errors import Cancelled, InputError
from ..pruning.stained import TISSUE, tissue_part
from .field import GRID, network_grid, take
from .image import TIFF_SUFFIXES, to_rgb
from .reader import SUFFIXES
from .source import Source, open_source

#: Smaller crops hold no whole nucleus with its surroundings.
LEAST_SIDE = 32
#: A crop of which this part is stained is as good as any.
ENOUGH = 0.25
#: Most pixels that are looked at to find tissue.
LOOK = 4_000_000
#: Candidates read where no level is small enough to look at, and those tried a crop where one is.
PROBES, TRIES = 128, 4
IMAGES = (*TIFF_SUFFIXES, ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".jp2", *SUFFIXES)

Places = NDArray[np.intp]


def tissue_crops(
    source: Source,
    mpp: float,
    count: int = 16,
    side: int = 128,
    should_stop: ShouldStop = never,
) -> NDArray[np.uint8]:
    """Cut crops out of an image's tissue; the same image gives the same crops.

    No large level is read as a whole: tissue is looked for in a small one, or in an array that is
    in memory anyhow, or else in candidates spread over the image.

    Parameters
    ----------
    source
        The image. Without a pixel size it is taken to have the network's.
    mpp
        The network's um a pixel.
    count
        Most crops.
    side
        In network pixels, a multiple of 16.

    Returns
    -------
    NDArray
        (n, side, side, 3) uint8 at ``mpp``, 1 <= n <= ``count``, from top to bottom, without
        overlap. Where the image is smaller than a crop the side is the largest multiple of 16
        that fits.

    Raises
    ------
    InputError
        Where the image is smaller than 32 px at ``mpp`` or holds glass alone.
    Cancelled
        Between two crops, where ``should_stop`` says so.
    """
    if count < 1 or side < LEAST_SIDE or side % GRID:
        raise ValueError(f"{count} crops of {side} px")
    ratios, shape = network_grid(source, mpp)
    side = min(side, min(shape) // GRID * GRID)
    if side < LEAST_SIDE:
        raise InputError(
            f"{source.name} is {shape[0]} x {shape[1]} px at {mpp:g} um/px; crops of its tissue "
            f"want at least {LEAST_SIDE} x {LEAST_SIDE} px: choose a larger image."
        )
    rows, columns = (_starts(n, side) for n in shape)
    places: Places = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    crops: dict[int, NDArray[np.uint8]] = {}

    def part_read(index: int) -> float:
        if index not in crops:
            if should_stop():
                raise Cancelled("Cancelled.")
            crops[index] = _read(source, mpp, ratios, places[index], side)
        return tissue_part(crops[index])

    stained = _looked(source, shape, rows, columns, side)
    if stained is None:
        probes = [int(part[_nearest(places[part])[0]]) for part in _parts(places, PROBES)]
        stained = np.zeros(len(places))
        stained[probes] = [part_read(index) for index in probes]
    chosen = []
    good = _good(stained, count)
    for part in _parts(places[good], count) if len(good) else []:
        # A small level may show as tissue what is none: the crop itself decides.
        tried = good[part[_nearest(places[good][part])[:TRIES]]]
        found = next((int(index) for index in tried if part_read(int(index)) >= TISSUE), None)
        if found is not None:
            chosen.append(found)
    if not chosen:
        raise InputError(
            f"{source.name} shows no tissue, only glass; choose an image of stained tissue."
        )
    return np.stack([crops[index] for index in sorted(chosen)])


def crops_of_folder(
    folder: Path,
    mpp: float,
    count: int = 16,
    side: int = 128,
    own_mpp: float | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> NDArray[np.uint8]:
    """Cut crops out of the images of a folder, as many of each as can be.

    Parameters
    ----------
    folder
        Image files and slides, by their endings; all else in it is left alone.
    mpp, count, side
        As for `tissue_crops`. With fewer than ``count`` crops to be had from some images, others
        give more.
    own_mpp
        um a pixel of all images, instead of what the files say.
    notice
        Gets a sentence for each image that is left out (unreadable, too small, all glass), and
        one where images do not say their pixel size.

    Returns
    -------
    NDArray
        As of `tissue_crops`; of images that are smaller than a crop, where there are no others,
        as large as most of them allow.

    Raises
    ------
    InputError
        Where the folder is missing, or none of its images gives a crop.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a folder of images.")
    paths = sorted(
        path
        for path in folder.iterdir()
        # macOS puts a "._x.png" beside "x.png" on foreign disks.
        if path.suffix.lower() in IMAGES and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise InputError(
            f"{folder} holds no images; give the folder that the files themselves lie in "
            f"({' '.join(IMAGES)})."
        )
    first = min(count, len(paths))
    spread = [(2 * i + 1) * len(paths) // (2 * first) for i in range(first)]
    order = list(dict.fromkeys([*spread, *range(len(paths))]))
    found: list[tuple[int, NDArray[np.uint8]]] = []
    assumed: list[str] = []
    left_out: list[str] = []
    for done, index in enumerate(order):
        missing = count - sum(len(crops) for _, crops in found)
        if missing < 1:
            break
        try:
            source = open_source(paths[index], own_mpp)
            crops = tissue_crops(source, mpp, math.ceil(missing / max(first - done, 1)), side)
        except InputError as error:
            left_out.append(str(error))
            continue
        found.append((index, crops))
        if source.mpp is None:
            assumed.append(source.name)
    if not found:
        raise InputError(f"None of the {len(paths)} images in {folder} can be used: {left_out[0]}")
    for reason in left_out:
        notice(f"left out: {reason}")
    if assumed:
        notice(
            f"pixel size is not set in {len(assumed)} images ({assumed[0]} first): the network's "
            f"own {mpp:g} um is assumed."
        )
    return _of_one_side([crops for _, crops in sorted(found, key=lambda pair: pair[0])])


def _of_one_side(groups: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Cut crops to the side that leaves most pixels; smaller ones are left out."""

    def pixels(side: int) -> int:
        return sum(len(g) for g in groups if g.shape[1] >= side) * side * side

    side = max(sorted({g.shape[1] for g in groups}, reverse=True), key=pixels)
    return np.concatenate([g[:, :side, :side] for g in groups if g.shape[1] >= side])


def _starts(length: int, side: int) -> Places:
    """Return where crops start along an axis: spread to both ends, on the grid, no overlap."""
    number = length // side
    if number == 1:
        return np.array([(length - side) // 2 // GRID * GRID])
    # Steps are no shorter than the side, and the side is a multiple of the grid: snapping down
    # cannot make two of them meet.
    exact = np.arange(number) * (length - side) // (number - 1)
    return exact // GRID * GRID


def _read(
    source: Source, mpp: float, ratios: tuple[float, float], place: Places, side: int
) -> NDArray[np.uint8]:
    # Half a pixel inwards: `take` rounds outwards, and quotients are not exact.
    corners = [(float(place[i % 2]) + (0.5 if i < 2 else side - 0.5)) for i in range(4)]
    y0, x0, y1, x1 = (c * ratios[i % 2] for i, c in enumerate(corners))
    taken = take(source, mpp, (y0, x0, y1, x1))
    return taken.field.rgb[taken.inner].copy()


def _looked(
    source: Source, shape: tuple[int, int], rows: Places, columns: Places, side: int
) -> NDArray[np.float64] | None:
    """Return each place's stained part, 0 to 1, from a small level; None where there is none."""
    look = _small(source)
    if look is None:
        return None
    # As `tissue_part`, a pixel: mean optical density over 0.1.
    stained = to_rgb(look, source.name).mean(-1, dtype=np.float32) < 256 * 10**-0.1 - 1
    sums = np.zeros((stained.shape[0] + 1, stained.shape[1] + 1))
    sums[1:, 1:] = stained.cumsum(0, dtype=np.float64).cumsum(1)
    (y0, y1), (x0, x1) = (
        _spans(starts, side, length / n)
        for starts, length, n in zip((rows, columns), stained.shape, shape, strict=True)
    )
    total = sums[y1][:, x1] - sums[y0][:, x1] - sums[y1][:, x0] + sums[y0][:, x0]
    return (total / np.outer(y1 - y0, x1 - x0)).ravel()


def _small(source: Source) -> NDArray[Any] | None:
    """Return the image in at most `LOOK` pixels: its finest such level, else thinned out."""
    for level in source.levels:
        if level.shape[0] * level.shape[1] <= LOOK:
            return np.asarray(level[:, :])
    last = source.levels[-1]
    if not isinstance(last, np.ndarray):  # every n-th pixel of a lazy level reads them all
        return None
    step = math.ceil(math.sqrt(last.shape[0] * last.shape[1] / LOOK))
    return last[::step, ::step]


def _spans(starts: Places, side: int, scale: float) -> tuple[Places, Places]:
    """Return where crops start and end among the look's pixels, each at least one pixel long."""
    low = np.floor(starts * scale + 1e-6).astype(np.intp)
    high = np.ceil((starts + side) * scale - 1e-6).astype(np.intp)
    return low, np.maximum(high, low + 1)


def _good(stained: NDArray[np.float64], count: int) -> Places:
    """Return places with enough tissue; where they are few, the best of the others too."""
    good = np.flatnonzero(stained >= ENOUGH)
    if len(good) < count:
        best = np.argsort(-stained, kind="stable")[:count]
        good = np.sort(best[stained[best] >= TISSUE])
    return good


def _parts(places: Places, count: int) -> list[Places]:
    """Split places into ``count`` compact parts of equal size, as indices.

    Where there are fewer places, each is its own part.
    """
    parts: list[Places] = []
    todo = [(np.arange(len(places)), min(count, len(places)))]
    while todo:
        part, number = todo.pop()
        if number == 1:
            parts.append(part)
            continue
        # Across the longer side, ties in reading order.
        inside = places[part]
        axis = int(np.ptp(inside[:, 1]) > np.ptp(inside[:, 0]))
        part = part[np.argsort(inside[:, axis], kind="stable")]
        half = number // 2
        cut = round(len(part) * half / number)
        todo += [(part[:cut], half), (part[cut:], number - half)]
    return parts


def _nearest(places: Places) -> Places:
    """Return the order of places from the middle of all outwards."""
    away = np.square(places - places.mean(0)).sum(1)
    return np.argsort(away, kind="stable")
