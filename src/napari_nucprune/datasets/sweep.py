"""A sweep over compression ratios on every image of a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..checkpoint.format import Checkpoint
from ..compare.sweep import SweepPoint, sweep
from ..doors import Maps, Progress, Pruning, Scores, ShouldStop, never, no_progress
from ..pruning.strategy import Masks, Ranking
from ..runtime.base import Runtime
from .base import Folder
from .evaluate import assumption, count_image, distance_of, field_of


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
    network: Callable[[Pruning, Masks], Checkpoint] | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Progress = no_progress,
    should_stop: ShouldStop = never,
) -> dict[str, list[SweepPoint]]:
    """Sweep image after image, so that the maps of one image are kept and no more.

    Parameters
    ----------
    folder
        Annotated images; scores are at their own size.
    checkpoint, runtime, strategies, stops, keep, alone, network
        As for `compare.sweep.sweep`.
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
    assumed: list[str] = []
    for item in folder:
        taken = field_of(item, checkpoint, mpp)
        transform = taken.transform
        distance = distance_of(item, transform, checkpoint)
        name = item.name
        if mpp is None and item.mpp is None:
            assumed.append(name)

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
                network=network,
                # The same for every image: said once.
                notice=None if found else notice,
                progress=told,
                should_stop=should_stop,
            )
        )
    if assumed and notice is not None:
        notice(assumption(assumed, checkpoint.mpp))
    return found
