"""TNBC (Naylor et al. 2018): ``Slide_XX`` / ``GT_XX`` PNGs, one patient a folder, 40x."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Entry, Folder, entry, images_in, read_array
from .missing import report_missing, report_orphans

MPP = 0.25
LICENCE = "CC BY 4.0"


def read(folder: Path) -> Folder:
    """Find the images of a TNBC folder.

    The binary ground truth becomes instances by 4-connected components (4,056 nuclei over the
    50 images; 8-connected components give 4,028).

    Raises
    ------
    InputError
        Where no ``Slide_XX`` is found, or a ground truth or a ``GT_XX``'s images are missing.
    """
    entries: list[Entry] = []
    missing, orphans, gone = [], [], []
    slides = sorted(p for p in folder.glob("Slide_*") if p.is_dir())
    for slide in slides:
        patient = slide.name.removeprefix("Slide_")
        truths = images_in(folder / f"GT_{patient}")
        images = images_in(slide)
        if not images:
            gone.append(f"{slide.name}/*.png")
            continue
        orphans += [f"GT_{patient}/{p.name}" for n, p in truths.items() if n not in images]
        for name, path in images.items():
            if name not in truths:
                missing.append(f"{slide.name}/{path.name}")
                continue
            labels = partial(_components, truths[name])
            entries.append(entry(name, patient, path, labels, MPP, LICENCE))
    there = {slide.name.removeprefix("Slide_") for slide in slides}
    for truth in sorted(p for p in folder.glob("GT_*") if p.is_dir()):
        patient = truth.name.removeprefix("GT_")
        if patient not in there:
            gone += [f"Slide_{patient}/{p.name}" for p in images_in(truth).values()]
    report_missing("tnbc", folder, missing, gone)
    report_orphans(folder, orphans)
    if not entries:
        raise InputError(
            f"{folder} holds no images as tnbc: expected 'Slide_01/*.png' with 'GT_01/*.png'."
        )
    return Folder("tnbc", folder, entries)


def _components(path: Path, shape: tuple[int, int]) -> NDArray[np.int32]:
    from skimage.measure import label

    truth = read_array(path)
    if truth.ndim == 3:  # some are stored as RGB or RGBA
        truth = truth[..., :3].max(axis=2)
    return label(truth > 0, connectivity=1).astype(np.int32)
