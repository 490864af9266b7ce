"""A sweep over compression ratios on every image of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.format import Checkpoint
from ..compare.sweep import sweep
from ..compare.sweep_points import SweepPoint
from ..doors import Maps, Progress, Pruning, Scores, ShouldStop, never, no_progress
from ..files import replacing
from ..pruning.strategy import Masks, Ranking
from ..runtime.base import Runtime
from .base import Annotated, Folder
from .evaluate import assumption, count_image, distance_of, field_of

if TYPE_CHECKING:
    from ..pruning.recipe import Recipe
    from ..pruning.recovery import Calibration

Network = Callable[[Pruning, Masks], Checkpoint]


class Kept:
    """Points of images that are done, in a file, so that a sweep that was cut off goes on.

    Parameters
    ----------
    path
        The file; one of another sweep, or a damaged one, is begun anew.
    about
        All that decides the points, plain values.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.about = json.loads(json.dumps(about))
        self.points: dict[str, list[SweepPoint]] = {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["about"] == self.about:
                rows = found["points"].items()
                self.points = {name: [SweepPoint(**p) for p in own] for name, own in rows}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass

    def add(self, name: str, points: list[SweepPoint]) -> None:
        """Keep an image's points; raises EnvironmentStopped where the file cannot be written."""
        self.points[name] = points
        rows = {n: [asdict(p) for p in own] for n, own in self.points.items()}
        text = json.dumps({"about": self.about, "points": rows})
        with replacing(self.path) as temporary:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding="utf-8")

    def forget(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def sweep_folder(
    folder: Folder,
    checkpoint: Checkpoint,
    runtime: Runtime,
    strategies: Sequence[str],
    stops: Sequence[float],
    *,
    keep: tuple[str, ...] | None = None,
    alone: bool = True,
    mpp: float | None = None,
    network: Callable[[Annotated], Network | None] | None = None,
    kept: Kept | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Progress = no_progress,
    should_stop: ShouldStop = never,
) -> dict[str, list[SweepPoint]]:
    """Sweep image after image, so that the maps of one image are kept and no more.

    Parameters
    ----------
    folder
        Annotated images; scores are at their own size.
    checkpoint, runtime, strategies, stops, keep, alone
        As for `compare.sweep.sweep`.
    network
        Returns, for an image, what `compare.sweep.sweep` takes under this name.
    kept
        Images that it has are not run again; the others are added as soon as they are done.
    notice
        Told once what is left out of all images, and which of them have no pixel size.
    mpp
        um a pixel of all images, where the layout does not say.

    Returns
    -------
    dict
        The points of each image, by its name; `mean_points` makes one curve of them.

    Raises
    ------
    Cancelled
        Within one tile after ``should_stop`` says so.
    """
    ranking = Ranking(checkpoint, keep)
    found: dict[str, list[SweepPoint]] = {}
    fresh = 0
    assumed: list[str] = []
    for item in folder:
        name = item.name
        if mpp is None and item.mpp is None:
            assumed.append(name)
        if kept is not None and name in kept.points:
            found[name] = kept.points[name]
            continue
        taken = field_of(item, checkpoint, mpp)
        transform = taken.transform
        distance = distance_of(item, transform, checkpoint)

        def scored(maps: Maps) -> Scores:
            return count_image(item, maps, transform, checkpoint.merge, distance).scores()  # noqa: B023

        def told(text: str, done: int, total: int) -> None:
            progress(f"{name}: {text}", done, total)  # noqa: B023

        found[name] = list(
            sweep(
                runtime,
                checkpoint,
                taken.field,
                scored,
                strategies,
                stops,
                keep=keep,
                alone=alone,
                ranking=ranking,
                network=network(item) if network else None,
                # The same for every image: said once.
                notice=None if fresh else notice,
                progress=told,
                should_stop=should_stop,
            )
        )
        fresh += 1
        if kept is not None:
            kept.add(name, found[name])
    if assumed and notice is not None:
        notice(assumption(assumed, checkpoint.mpp))
    return found


def calibration_of(
    item: Annotated,
    checkpoint: Checkpoint,
    recipe: Recipe,
    mpp: float | None = None,
    progress: Progress = no_progress,
) -> Calibration:
    """Return the responses that a pruning is refitted to, on an annotated image's own tissue.

    Parameters
    ----------
    item
        The image; its labels are not looked at.
    checkpoint
        The dense network.
    recipe
        How to refit.
    mpp
        um a pixel, where the layout does not say.

    Raises
    ------
    InputError
        Where there is no tissue, or too little.
    """
    from ..pruning.recovery import Calibration
    from ..slides.crops import tissue_crops
    from ..slides.source import Source

    own = mpp or item.mpp or checkpoint.mpp
    crops = tissue_crops(Source([item.rgb], (own, own), item.name), checkpoint.mpp)
    return Calibration(checkpoint, crops, item.name, recipe, progress=progress)
