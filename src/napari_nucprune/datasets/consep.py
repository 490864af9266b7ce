"""CoNSeP (Graham et al. 2019): PNGs with MATLAB files or instance PNGs, 40x, colon."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Entry, Folder, entry, from_map, images_in
from .mat_file import check
from .missing import report_missing, report_orphans

#: 40x: what hover_net and its successors take it for.
MPP = 0.25
LICENCE = "Apache-2.0 (listed, unconfirmed)"
MAPS = ("Labels_instance_png", "Labels", "labels")


def read(folder: Path) -> Folder:
    """Find the images of CoNSeP, or of its ``Train`` or ``Test`` folder.

    Images lie in ``Images/``, annotations in ``Labels/*.mat`` (``inst_map``) or as instance PNGs
    in ``Labels_instance_png/``; a ``.mat`` goes before a PNG. Whose tissue an image shows is not
    published: each counts as a patient of its own.

    Raises
    ------
    InputError
        Where no image is found, one has no annotation, or a part's annotations no images.
    """
    entries: list[Entry] = []
    missing, orphans, gone = [], [], []
    for part in (folder, folder / "Train", folder / "Test"):
        images = images_in(part / "Images")
        if not images:
            # The folder itself need not be a part.
            if (part / "Images").is_dir() or (part != folder and part.is_dir()):
                gone.append(f"{part.name}/Images/*.png")
            continue
        mats = {p.stem: p for p in sorted((part / "Labels").glob("*.mat"))}
        maps = {n: p for place in reversed(MAPS) for n, p in images_in(part / place).items()}
        for name, path in images.items():
            if name in mats:
                labels = partial(labels_from_mat, mats[name])
            elif name in maps:
                labels = partial(from_map, maps[name])
            else:
                missing.append(f"{part.name}/Images/{path.name}")
                continue
            entries.append(entry(name, name, path, labels, MPP, LICENCE))
        orphans += [f"{part.name}/{n}" for n in sorted({*mats, *maps} - images.keys())]
    report_missing("consep", folder, missing, gone)
    report_orphans(folder, orphans)
    if not entries:
        raise InputError(
            f"{folder} holds no images as consep: expected 'Images/*.png' with 'Labels/*.mat' or "
            "'Labels_instance_png/*.png', in it or in its 'Train' and 'Test'."
        )
    return Folder("consep", folder, entries)


def labels_from_mat(path: Path, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Read ``inst_map`` (H, W) of a MATLAB file.

    Raises
    ------
    InputError
        Where the file cannot be read, or its map is missing or no label map.
    """
    from scipy.io import loadmat

    try:
        check(path)
        # Only that variable: nothing else of the file is needed.
        array = loadmat(path, variable_names=["inst_map"]).get("inst_map")
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a MATLAB file (of version 7 or older); "
            "copy or download it again."
        ) from error
    if array is None:
        raise InputError(f"{path} holds no variable 'inst_map'; expected CoNSeP's labels.")
    array = np.asarray(array)
    if array.ndim != 2 or array.dtype.kind not in "uibf" or not _whole(array):
        raise InputError(
            f"'inst_map' of {path} has shape {array.shape} and type {array.dtype}; "
            "expected one channel of whole numbers of at least 0."
        )
    return array.astype(np.int32)


def _whole(array: NDArray[np.generic]) -> bool:
    # NaN and inf fail the first comparison.
    values = array.astype(np.float64)
    return bool(((values >= 0) & (values < 2**31) & (values == np.floor(values))).all())
