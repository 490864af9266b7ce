"""MoNuSeg (Kumar et al. 2017/2020): TIFFs with Aperio XML polygons, TCGA patients, 40x."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Entry, Folder, entry, from_map, images_in, is_outline
from .missing import report_missing, report_orphans

MPP = 0.25
LICENCE = "CC BY-NC-SA 4.0"
log = logging.getLogger(__name__)


def read(folder: Path, offset: float = -1.0, source: str = "auto") -> Folder:
    """Find the images of a MoNuSeg folder.

    Images lie in ``Tissue Images/`` or in the folder itself, polygons in ``Annotations/`` or
    beside the images; a ``labels/`` folder of instance maps (PNG, uint16) goes before the XML.

    Parameters
    ----------
    folder
        The data set's folder.
    offset
        Added to the XML's vertices: -1 is the (-1, -1) convention of the published maps, 0 takes
        them as they stand; see `labels_from_xml`.
    source
        ``"labels"`` or ``"xml"`` reads one kind only, ``"auto"`` the first that is there.

    Raises
    ------
    InputError
        Where no image is found, one has neither XML nor labels, or an XML has no image.
    """
    if source not in ("auto", "labels", "xml"):
        raise InputError(f"The source {source!r} is not known; choose auto, labels or xml.")
    images = images_in(folder / "Tissue Images") or images_in(folder)
    if not images:
        raise InputError(
            f"{folder} holds no images as monuseg: expected 'Tissue Images/*.tif' "
            "with 'Annotations/*.xml'."
        )
    maps = {} if source == "xml" else images_in(folder / "labels")
    entries: list[Entry] = []
    missing = []
    for name, path in images.items():
        xml = next(
            (x for x in (folder / "Annotations" / f"{name}.xml", path.with_suffix(".xml"))
             if x.is_file()), None,
        )  # fmt: skip
        if name in maps:
            labels = partial(from_map, maps[name])
        elif xml is not None and source != "labels":
            labels = partial(labels_from_xml, xml, offset=offset)
        else:
            missing.append(path.name)
            continue
        patient = "-".join(name.split("-")[:3])
        entries.append(entry(name, patient, path, labels, MPP, LICENCE))
    report_missing("monuseg", folder, missing, [] if source == "labels" else _gone(folder, images))
    report_orphans(folder, [path.name for name, path in maps.items() if name not in images])
    return Folder("monuseg", folder, entries)


def _gone(folder: Path, images: dict[str, Path]) -> list[str]:
    """Return the images that an XML is there for, and that are not."""
    place = next(iter(images.values())).parent
    found = {p.stem for own in (folder / "Annotations", place) for p in own.glob("[!.]*.xml")}
    # GDAL writes ``name.tif.aux.xml`` beside what it opened.
    names = sorted(name for name in found - images.keys() if not name.endswith(".aux"))
    return [(place / f"{name}.tif").relative_to(folder).as_posix() for name in names]


def labels_from_xml(path: Path, shape: tuple[int, int], offset: float = -1.0) -> NDArray[np.int32]:
    """Fill an Aperio XML's polygons.

    Parameters
    ----------
    path
        The annotation file.
    shape
        (H, W) of the image.
    offset
        Added to both coordinates of every vertex: -1 is the MATLAB convention that the published
        label maps follow (raw vertices shift the mask by one pixel).

    Returns
    -------
    NDArray
        (H, W) int32; where polygons overlap the earlier one in the file wins, as in the published
        maps.

    Raises
    ------
    InputError
        Where the file is no Aperio XML.
    """
    from skimage.draw import polygon

    labels = np.zeros(shape, np.int32)
    count = hidden = degenerate = 0
    for vertices in outlines(path)[0]:
        if not is_outline(vertices):
            degenerate += 1
            continue
        rows, cols = polygon(vertices[:, 0] + offset, vertices[:, 1] + offset, shape)
        if not len(rows):
            degenerate += 1
            continue
        count += 1
        free = labels[rows, cols] == 0
        hidden += int(np.count_nonzero(~free))
        labels[rows[free], cols[free]] = count
    if degenerate:
        log.warning(
            "%s: %d regions enclose no pixel, or more than a nucleus, and were left out",
            path.name,
            degenerate,
        )
    if hidden:
        log.info("%s: %d pixels were taken by an earlier polygon", path.name, hidden)
    return labels


def outlines(path: Path) -> tuple[list[NDArray[np.float64]], float | None]:
    """Read an Aperio XML's polygons, without keeping the whole document in memory.

    Parameters
    ----------
    path
        The annotation file.

    Returns
    -------
    regions
        (n, 2) each, vertices (y, x) as they stand, in the file's order.
    mpp
        um a pixel (``MicronsPerPixel``), None where the file does not say.

    Raises
    ------
    InputError
        Where the file is no Aperio XML.
    """
    regions: list[NDArray[np.float64]] = []
    mpp: float | None = None
    root = None
    try:
        for event, element in ElementTree.iterparse(path, ("start", "end")):
            if root is None:
                root = element
                if root.tag != "Annotations":
                    raise _not_aperio(path, f"its root is {root.tag[:40]!r}")
                mpp = _mpp(root.get("MicronsPerPixel"))
            elif event == "end" and element.tag == "Region":
                found = [(v.get("Y", "nan"), v.get("X", "nan")) for v in element.iter("Vertex")]
                regions.append(np.array(found, np.float64).reshape(-1, 2))
                element.clear()
    except (ElementTree.ParseError, OSError, LookupError, ValueError) as error:
        raise _not_aperio(path, str(error)[:100]) from error
    return regions, mpp


def _mpp(text: str | None) -> float | None:
    try:
        mpp = float(text or "")
    except ValueError:
        return None
    return mpp if 0.02 <= mpp <= 20 else None


def _not_aperio(path: Path, why: str) -> InputError:
    return InputError(
        f"{path} cannot be read as Aperio XML ({why}); expected <Annotations> with regions."
    )
