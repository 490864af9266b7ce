"""CryoNuSeg (Mahbod et al. 2021): frozen sections of TCGA, 40x, ImageJ ROIs, three annotations."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..errors import InputError
from .base import Entry, Folder, entry, from_map, images_in
from .imagej import labels_from_rois
from .missing import report_missing, report_orphans

#: For files that do not say; those of the first release do (0.248 to 0.2525).
MPP = 0.25
LICENCE = "not stated with the annotations; images: TCGA, open access"
#: The publisher's folders.
ANNOTATORS = {
    "biologist": "Annotator 1 (biologist)",
    "biologist-2": "Annotator 1 (biologist second round of manual marks up)",
    "bioinformatician": "Annotator 2 (bioinformatician)",
}


def read(folder: Path, annotator: str = "biologist", offset: float = -1.0) -> Folder:
    """Find the images of CryoNuSeg.

    The release has ``tissue images/`` and a folder for each annotation, in which
    ``label masks modify/`` go before ROI zips. The early release has a folder for each TCGA
    patient, with one TIFF and its ``RoiSet.zip``, annotated in part and by one person.

    Parameters
    ----------
    folder
        The data set's folder.
    annotator
        ``"biologist"`` (the first round), ``"biologist-2"`` (her second) or
        ``"bioinformatician"``.
    offset
        Of the outlines; see `labels_from_rois`.

    Raises
    ------
    InputError
        Where no image is found, one has no annotation, a patient's folder has no image, or the
        annotator is unknown or missing.
    """
    if annotator not in ANNOTATORS:
        raise InputError(
            f"The annotator {annotator!r} of CryoNuSeg is not known; "
            f"choose {', '.join(ANNOTATORS)}."
        )
    images = images_in(folder / "tissue images")
    found = _release(folder, images, annotator, offset) if images else _early(folder, offset)
    if not found:
        raise InputError(
            f"{folder} holds no images as cryonuseg: expected 'tissue images/*.tif' with "
            f"'{ANNOTATORS[annotator]}', or 'TCGA-.../RoiSet.zip' beside a TIFF."
        )
    return Folder("cryonuseg", folder, found)


def _release(folder: Path, images: dict[str, Path], annotator: str, offset: float) -> list[Entry]:
    root = folder / ANNOTATORS[annotator]
    if not root.is_dir():
        raise InputError(
            f"{folder} has no folder {root.name!r}; add it, or choose another annotator "
            f"({', '.join(ANNOTATORS)})."
        )
    # Two of the three are packed with their folder's name twice.
    inner = root / root.name if (root / root.name).is_dir() else root
    maps = images_in(inner / "label masks modify")
    zips = {p.stem: p for p in sorted(inner.rglob("*.zip"))}
    entries: list[Entry] = []
    missing = []
    for name, path in images.items():
        if name in maps:
            labels = partial(from_map, maps[name])
        elif name in zips:
            labels = partial(labels_from_rois, zips[name], offset=offset)
        else:
            missing.append(path.name)
            continue
        # Every image is of a patient of its own.
        entries.append(
            entry(name, name, path, labels, None, LICENCE, default_mpp=MPP, annotator=annotator)
        )
    report_missing(f"cryonuseg ({annotator})", folder, missing)
    report_orphans(folder, sorted({*maps, *zips} - images.keys()))
    return entries


def _early(folder: Path, offset: float) -> list[Entry]:
    entries: list[Entry] = []
    missing, gone = [], []
    for patient in sorted(p for p in folder.iterdir() if p.is_dir()):
        images, rois = images_in(patient), patient / "RoiSet.zip"
        if not images and (rois.is_file() or patient.name.startswith("TCGA-")):
            gone.append(f"{patient.name}/*.tif")
        elif rois.is_file() and len(images) > 1:
            raise InputError(
                f"{patient} holds {len(images)} images for one RoiSet.zip; leave one in it."
            )
        elif images and patient.name.startswith("TCGA-") and not rois.is_file():
            missing += [f"{patient.name}/{path.name}" for path in images.values()]
        elif rois.is_file():
            ((name, path),) = images.items()
            labels = partial(labels_from_rois, rois, offset=offset)
            who = "-".join(name.split("-")[:3])
            entries.append(entry(name, who, path, labels, None, LICENCE, default_mpp=MPP))
    report_missing("cryonuseg", folder, missing, gone)
    return entries
