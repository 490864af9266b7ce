"""Curves of ``benchmarks/study.py``: their rows, their figures, and the floor for all networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from study_networks import Training
from study_rows import slug

from napari_nucprune.compare.bootstrap import loss_interval, loss_intervals
from napari_nucprune.compare.figure import PANELS
from napari_nucprune.compare.sweep_points import (
    CLAIMS,
    SweepPoint,
    largest_cr_within,
    mean_points,
)
from napari_nucprune.datasets.base import Annotated, Folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The part of the dense network's score that figures of what is kept begin at.
NEAR = 0.7
#: Points of each image, by its name.
Images = dict[str, list[SweepPoint]]


@dataclass(frozen=True)
class Set:
    """A data set's validation patients.

    Attributes
    ----------
    name
        As the page calls it.
    folder
        Their images.
    about
        All that decides what they are, for what is kept.
    second
        Names of the images of the second half of the patients, which fitted no watershed.
    """

    name: str
    folder: Folder
    about: dict[str, Any]
    second: frozenset[str]

    def halves(self) -> dict[str, Callable[[str], bool]]:
        """Return what is reported: by its name, whether an image is of it."""
        return {"second half": self.second.__contains__, "both halves": lambda name: True}

    def patients(self, belongs: Callable[[str], bool]) -> int:
        """Return of how many patients a half's images are."""
        return len({e.patient for e in self.folder.entries if belongs(e.name)})


@dataclass(frozen=True)
class Curve:
    """Points of one data set, of one way to prune.

    Attributes
    ----------
    data
        The data set's name.
    how
        ``one-shot``, ``recovered``, ``fine-tuned`` or ``dense``.
    name
        The strategy, or the dense network.
    images
        Images' points; of fine-tuned networks of one ratio, one after the other.
    trained
        By ratio and place in `images`, how a network was trained.
    """

    data: str
    how: str
    name: str
    images: tuple[Images, ...]
    trained: Mapping[tuple[float, int], Training] = field(default_factory=dict)

    def of(self, belongs: Callable[[str], bool], place: int = 0) -> list[list[SweepPoint]]:
        """Return the points of the images of a half."""
        return [own for name, own in self.images[place].items() if belongs(name)]


def rows_of(curves: Sequence[Curve], sets: Sequence[Set]) -> list[dict[str, Any]]:
    """Return every point of the halves of every set, with the bounds of its losses."""
    rows = []
    for data in sets:
        for half, belongs in data.halves().items():
            for curve in (c for c in curves if c.data == data.name):
                for place in range(len(curve.images)):
                    images = curve.of(belongs, place)
                    if not images:
                        continue
                    bounds = loss_intervals(images)
                    rows += [
                        {
                            "data": data.name,
                            "half": half,
                            "images": len(images),
                            "patients": data.patients(belongs),
                            "how": curve.how,
                            "place": place + 1,
                            "trained": curve.trained.get((point.cr, place), Training("")).steps,
                            "seed": curve.trained.get((point.cr, place), Training("")).seed,
                            **point.row(),
                            **bounds[point.strategy, point.cr, point.pruned],
                        }
                        for point in mean_points(images)
                    ]
    return rows


def ahead(curves: Sequence[Curve], sets: Sequence[Set], metric: str = "pq") -> list[dict[str, Any]]:
    """Return how far layer-wise is ahead of network-wide: a relative gain with its bounds.

    Of all images, both branches pruned, at every ratio that both have; a paired bootstrap.
    """
    rows = []
    for data in sets:
        for how in ("one-shot", "recovered"):
            own = {c.name: c.images[0] for c in curves if (c.data, c.how) == (data.name, how)}
            if not {"layer-wise", "network-wide"} <= own.keys():
                continue
            by = {
                name: {
                    image: {p.cr: p.scores[metric] for p in points if p.pruned == "both"}
                    for image, points in images.items()
                }
                for name, images in own.items()
            }
            crs = set.intersection(*(set(p) for images in by.values() for p in images.values()))
            for cr in sorted(crs - {1.0}):
                layer, network = (
                    np.array([by[name][image][cr] for image in by["layer-wise"]], np.float64)
                    for name in ("layer-wise", "network-wide")
                )
                interval = loss_interval(network, layer)
                low, high = interval or (None, None)
                row = {"data": data.name, "how": how, "cr": cr}
                rows.append({**row, "least": high and -high, "most": low and -low})
    return rows


def against_better(curve: Curve, dense: Sequence[Curve]) -> Curve:
    """Return the curve with its losses against the better dense network, metric by metric.

    Parameters
    ----------
    curve
        Fine-tuned.
    dense
        Of the same data set: the network that was pruned and the one with the same further steps.
    """
    scores = {c.name: {n: own[0].scores for n, own in c.images[0].items()} for c in dense}

    def mean(name: str, metric: str) -> float:
        return float(np.mean([row[metric] or 0.0 for row in scores[name].values()]))

    def start(image: str, point: SweepPoint) -> SweepPoint:
        best = {k: max(scores, key=lambda name: mean(name, k)) for k in point.start}
        return replace(point, start={k: scores[best[k]][image][k] for k in point.start})

    return replace(
        curve,
        images=tuple(
            {name: [start(name, p) for p in own] for name, own in images.items()}
            for images in curve.images
        ),
    )


def figures(
    folder: Path, curves: Sequence[Curve], sets: Sequence[Set], loss: float
) -> dict[str, str]:
    """Draw the figures of each data set; return what they show by their names."""
    from matplotlib.figure import Figure

    from napari_nucprune.compare.figure import draw, save

    names = {}
    for data in sets:
        own = [c for c in curves if c.data == data.name and c.how != "dense"]
        few = [c for c in own if c.name in ("layer-wise", "network-wide")]
        # The line is under what the first point's losses are against: the network that is pruned.
        few.sort(key=lambda curve: curve.how == "fine-tuned")
        for name, said, drawn, alone in (
            ("one-shot", "pruned one-shot", [c for c in own if c.how == "one-shot"], True),
            ("recovered", "recovered", [c for c in own if c.how == "recovered"], True),
            ("ways", "one-shot, recovered and fine-tuned", few, False),
        ):
            points = []
            for curve in drawn:
                label = curve.name if alone else f"{curve.name}, {curve.how}"
                found = mean_points(curve.of(data.halves()["both halves"]))
                points += [replace(p, strategy=label) for p in found if alone or p.pruned == "both"]
            if not points:
                continue
            figure = Figure(figsize=(9, 7), layout="constrained")
            draw(figure, points, loss, ends(points, loss))
            if name != "one-shot":
                _near(figure, points)
            stem = f"study-{slug(data.name)}-{name}"
            save(figure, folder / stem, dpi=90)
            names[stem] = f"{data.name}, {said}"
    return names


def _near(figure: Figure, points: Sequence[SweepPoint]) -> None:
    """Show what is near the dense network's scores: the rest hides what is lost there."""
    for axis, metric in zip(figure.axes, PANELS, strict=True):
        start = next((p.start[metric] for p in points if p.start[metric] is not None), None)
        if start is not None and start > 0:
            axis.set_ylim(NEAR * start, (1 + (1 - NEAR) / 10) * start)


def ends(points: Sequence[SweepPoint], loss: float) -> dict[tuple[str, str], float | None]:
    """Return the largest ratio within the loss by label and metric, both branches pruned."""
    own = [point for point in points if point.pruned == "both"]
    metrics = {metric for claim in CLAIMS.values() for metric in claim}
    return {
        (label, metric): largest_cr_within([p for p in own if p.strategy == label], [metric], loss)
        for label in dict.fromkeys(point.strategy for point in own)
        for metric in metrics
    }


def floor(item: Annotated) -> np.ndarray:
    """Return nuclei (H, W) by scikit-image alone, with no training: the floor for all networks.

    Haematoxylin by colour deconvolution (Ruifrok & Johnston 2001), Otsu's threshold, watershed on
    the distance to the background.
    """
    from scipy import ndimage
    from skimage import color, feature, filters, morphology, segmentation

    mpp = item.mpp or 0.25
    stain = filters.gaussian(color.rgb2hed(item.rgb)[..., 0], 0.25 / mpp)
    mask = ndimage.binary_fill_holes(stain > filters.threshold_otsu(stain))
    mask = morphology.opening(mask, morphology.disk(round(0.5 / mpp)))
    inside = filters.gaussian(ndimage.distance_transform_edt(mask), 0.5 / mpp)
    parts, _ = ndimage.label(mask)
    peaks = feature.peak_local_max(inside, min_distance=round(1.5 / mpp), labels=parts)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = segmentation.watershed(-inside, markers, mask=mask)
    small = np.bincount(labels.ravel()) < 6.0 / mpp**2
    labels[small[labels]] = 0
    return labels.astype(np.int32)
