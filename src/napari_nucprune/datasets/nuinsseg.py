"""NuInsSeg (Mahbod et al. 2024): a folder an organ, PNGs with ImageJ ROIs, human and mouse."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..errors import InputError
from .base import Entry, Folder, entry, from_map, images_in
from .imagej import labels_from_rois
from .missing import report_missing, report_orphans

#: "40x" is all that its publication says of the pixel size.
MPP = None
LICENCE = "CC BY 4.0"
#: What makes a folder an organ's, beside its images.
ANNOTATIONS = ("Imagej_zips", "label masks modify", "label masks")


def read(folder: Path, offset: float = -1.0) -> Folder:
    """Find the images of NuInsSeg, or of one of its organs.

    An organ's folder (``human bladder``) holds ``tissue images/``; the labels are those of
    ``label masks modify/`` where they are there, else the outlines of ``Imagej_zips/``. The
    publisher's ``label masks/`` are never read: they add up the ids where nuclei overlap.

    Parameters
    ----------
    folder
        The data set's folder, or one organ's.
    offset
        Of the outlines; see `labels_from_rois`.

    Notes
    -----
    All images of an organ come from one slide, so the organ is the "patient" by whom splits are
    made.

    Raises
    ------
    InputError
        Where no image is found, one has no annotation, or an organ's annotations no images.
    """
    entries: list[Entry] = []
    missing, orphans, gone = [], [], []
    for organ in (folder, *sorted(folder.iterdir())):
        images = images_in(organ / "tissue images")
        if not images:
            if any((organ / part).is_dir() for part in ("tissue images", *ANNOTATIONS)):
                gone.append(f"{organ.name}/tissue images/*.png")
            continue
        maps = images_in(organ / "label masks modify")
        zips = {p.stem: p for p in sorted((organ / "Imagej_zips").glob("*.zip"))}
        for name, path in images.items():
            if name in maps:
                labels = partial(from_map, maps[name])
            elif name in zips:
                labels = partial(labels_from_rois, zips[name], offset=offset)
            else:
                missing.append(f"{organ.name}/{path.name}")
                continue
            entries.append(entry(name, organ.name, path, labels, MPP, LICENCE))
        orphans += [f"{organ.name}/{n}" for n in sorted({*maps, *zips} - images.keys())]
    report_missing("nuinsseg", folder, missing, gone)
    report_orphans(folder, orphans)
    if not entries:
        raise InputError(
            f"{folder} holds no images as nuinsseg: expected folders like 'human bladder' with "
            "'tissue images/*.png' and 'Imagej_zips/*.zip' or 'label masks modify/*.tif'."
        )
    return Folder("nuinsseg", folder, entries)
