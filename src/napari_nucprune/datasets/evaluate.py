"""Scoring a checkpoint on a folder of annotated images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.format import Checkpoint
from ..compare.metrics import RADIUS_UM, Counts, counts, mean_scores
from ..doors import Maps, Merge, Progress, Scores, ShouldStop, never, no_progress
from ..errors import Cancelled, InputError
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


class Tally:
    """The scores of the images so far; of an image only numbers are kept."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.left_out: dict[str, str] = {}
        self.assumed: list[str] = []
        self._scores: list[Scores] = []
        self._total: Counts | None = None

    def add(self, item: Annotated, found: Counts) -> None:
        """Add an image's counts."""
        self._total = found if self._total is None else self._total + found
        self._scores.append(found.scores())
        about = {"name": item.name, "patient": item.patient}
        if item.annotator:
            about["annotator"] = item.annotator
        self.images.append({**about, **self._scores[-1].as_dict()})

    def result(self, complete: bool) -> dict[str, Any]:
        """Return what `evaluate` returns, of one image or more."""
        assert self._total is not None
        mean: Mapping[str, Any] = mean_scores(self._scores)
        return {
            "complete": complete,
            "mean": dict(mean),
            "pooled": self._total.scores().as_dict(),
            "images": self.images,
            "left_out": self.left_out,
            "assumed_mpp": self.assumed,
        }


def evaluate(
    folder: Folder,
    checkpoint: Checkpoint,
    runtime: Runtime,
    mpp: float | None = None,
    progress: Progress = no_progress,
    should_stop: ShouldStop = never,
    *,
    recover: Callable[[Annotated], Checkpoint] | None = None,
    cut_off: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Score a loaded runtime on every image of a folder; one image is in memory at a time.

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
    recover
        Returns the network for an image, loaded instead. An image for which it raises InputError
        is left out.
    cut_off
        Called with the result so far where an image cannot be scored, or the user stops, before
        the error is raised; not where no image was scored.

    Returns
    -------
    dict
        ``complete``, ``mean`` (each image counts once), ``pooled`` (each nucleus counts once),
        ``images``, ``left_out`` (why, by name), and ``assumed_mpp`` with the names of images
        without a pixel size.

    Raises
    ------
    InputError
        Where an image cannot be read, or all are left out.
    Cancelled
        Between images.
    """
    tally = Tally()
    try:
        for done, entry in enumerate(folder.entries):
            if should_stop():
                raise Cancelled("Cancelled; the other images were not scored.")
            progress(f"Scoring {entry.name}", done, len(folder))
            # In a function of its own: nothing of an image outlives it.
            _score(folder.read(done), checkpoint, runtime, mpp, recover, tally)
        if not tally.images:
            name, why = next(iter(tally.left_out.items()))  # readers refuse empty folders
            raise InputError(f"None of {len(folder)} images can be recovered on; {name}: {why}")
    except BaseException:
        if tally.images and cut_off is not None:
            cut_off(tally.result(complete=False))
        raise
    progress("Scored", len(folder), len(folder))
    return tally.result(complete=True)


def _score(
    item: Annotated,
    checkpoint: Checkpoint,
    runtime: Runtime,
    mpp: float | None,
    recover: Callable[[Annotated], Checkpoint] | None,
    tally: Tally,
) -> None:
    """Score one image for `evaluate`."""
    if recover is not None:
        try:
            network = recover(item)
        except InputError as error:
            tally.left_out[item.name] = str(error)
            return
        runtime.load(network)
    if mpp is None and item.mpp is None:
        tally.assumed.append(item.name)
    maps, transform = run_on(item, checkpoint, runtime, mpp)
    distance = distance_of(item, transform, checkpoint)
    tally.add(item, count_image(item, maps, transform, checkpoint.merge, distance))
