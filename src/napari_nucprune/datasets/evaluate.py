"""Scoring a checkpoint on a folder of annotated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.format import Checkpoint
from ..compare.metrics import RADIUS_UM, Counts, counts, mean_scores
from ..doors import Maps, Merge, Progress, Scores, ShouldStop, never, no_progress
from ..errors import Cancelled
from ..nuclei.distance import distance_target
from ..nuclei.watershed import merge
from ..runtime.base import Runtime
from ..slides.field import Taken, take, to_image
from ..slides.source import Source
from .base import Annotated, Folder


def field_of(item: Annotated, checkpoint: Checkpoint, mpp: float | None = None) -> Taken:
    """Return an annotated image as a field at the checkpoint's um/px."""
    own = mpp or item.mpp
    source = Source([item.rgb], (own, own) if own else None, item.name)
    return take(source, checkpoint.mpp)


def run_on(
    item: Annotated, checkpoint: Checkpoint, runtime: Runtime, mpp: float | None = None
) -> tuple[Maps, NDArray[np.float64]]:
    """Run both branches on an annotated image; return maps and their pixels' transform."""
    taken = field_of(item, checkpoint, mpp)
    return runtime.run(taken.field), taken.transform


def distance_of(
    item: Annotated, transform: NDArray[np.float64], checkpoint: Checkpoint
) -> NDArray[np.float32]:
    """Return the distance map (H, W) that the truth stands for, in the checkpoint's unit."""
    own_mpp = checkpoint.mpp / transform[0, 0]
    return distance_target(item.labels, own_mpp, checkpoint.distance_unit_um)


def assumption(names: Sequence[str], mpp: float) -> str:
    """Return the sentence on images without a pixel size, which ran as if they had ``mpp``."""
    return (
        f"pixel size is not set in {len(names)} images ({names[0]} first): the network's "
        f"own {mpp:g} um is assumed; results may be inaccurate (set --mpp)."
    )


def count_image(
    item: Annotated,
    maps: Maps,
    transform: NDArray[np.float64],
    parameters: Merge,
    distance: NDArray[np.floating] | None = None,
) -> Counts:
    """Merge the maps and count agreement at the image's own size (1000 stays 1000).

    Parameters
    ----------
    item, maps, transform
        The image, and what `run_on` gave for it.
    parameters
        Of the watershed.
    distance
        As from `distance_of`; None leaves the distance's scores out.
    """
    found = to_image(merge(maps, parameters).labels, transform, item.labels.shape, labels=True)
    semantic = to_image(maps.semantic, transform, item.labels.shape, labels=False)
    pair = None
    if distance is not None:
        pair = to_image(maps.distance, transform, item.labels.shape, labels=False), distance
    return counts(
        found,
        item.labels,
        semantic=semantic,
        threshold=parameters.threshold,
        distance=pair,
        radius=RADIUS_UM * transform[0, 0] / maps.mpp,
    )


def evaluate(
    folder: Folder,
    checkpoint: Checkpoint,
    runtime: Runtime,
    mpp: float | None = None,
    progress: Progress = no_progress,
    should_stop: ShouldStop = never,
) -> dict[str, Any]:
    """Score a loaded runtime on every image of a folder.

    Parameters
    ----------
    folder
        Annotated images.
    checkpoint
        Gives um/px and the watershed's parameters.
    runtime
        Already loaded with the checkpoint and its masks.
    mpp
        um a pixel of all images, where the layout does not say.

    Returns
    -------
    dict
        ``mean`` (each image counts once), ``pooled`` (each nucleus counts once), ``images``, and
        ``assumed_mpp`` with the names of images without a pixel size.

    Raises
    ------
    Cancelled
        Between images.
    """
    images: list[dict[str, Any]] = []
    scores: list[Scores] = []
    total: Counts | None = None
    assumed = []
    for done, item in enumerate(folder):
        if should_stop():
            raise Cancelled("Cancelled; nothing was written.")
        progress(f"Scoring {item.name}", done, len(folder))
        if mpp is None and item.mpp is None:
            assumed.append(item.name)
        maps, transform = run_on(item, checkpoint, runtime, mpp)
        distance = distance_of(item, transform, checkpoint)
        own = count_image(item, maps, transform, checkpoint.merge, distance)
        total = own if total is None else total + own
        scores.append(own.scores())
        annotator = {"annotator": item.annotator} if item.annotator else {}
        images.append({"name": item.name, **annotator, **scores[-1].as_dict()})
    assert total is not None  # readers refuse empty folders
    progress("Scored", len(folder), len(folder))
    mean: Mapping[str, Any] = mean_scores(scores)
    return {
        "mean": dict(mean),
        "pooled": total.scores().as_dict(),
        "images": images,
        "assumed_mpp": assumed,
    }
