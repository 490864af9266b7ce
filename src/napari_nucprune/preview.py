"""One field through the whole way: field, masks, maps, nuclei, and the line against dense.

The dock asks it from its worker thread; nothing here knows napari or Qt.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .checkpoint.architecture import HEAD
from .checkpoint.format import Checkpoint
from .compare.metrics import score
from .doors import (
    Branch,
    Maps,
    Nuclei,
    Progress,
    Pruning,
    Scores,
    ShouldStop,
    never,
    no_progress,
)
from .errors import Cancelled
from .nuclei.watershed import merge
from .pruning.cost import Cost, cost
from .pruning.strategy import Masks, Ranking, as_stored
from .slides.field import Taken, take
from .slides.source import Source

if TYPE_CHECKING:
    from .runtime.base import Runtime


@dataclass(frozen=True)
class Job:
    """What is to be shown.

    Attributes
    ----------
    source, box, largest
        As for `slides.field.take`.
    pruning
        Strategy and compression ratios.
    key
        Names the source's pixels: equal keys and boxes may be answered from memory.
    """

    source: Source
    box: tuple[float, float, float, float] | None
    pruning: Pruning
    key: Hashable
    largest: int = 8192


@dataclass(frozen=True)
class Preview:
    """What a job gave.

    Attributes
    ----------
    maps, nuclei
        Of the asked part, at the network's um/px.
    transform
        3x3, homogeneous (y, x, 1): their pixels to level-0 pixels of the image.
    mpp_assumed
        The image had no pixel size.
    network_seconds, seconds
        Time of the network alone, and of the whole job.
    """

    pruning: Pruning
    maps: Maps
    nuclei: Nuclei
    transform: NDArray[np.float64]
    mpp_assumed: bool
    network_seconds: float
    seconds: float


@dataclass(frozen=True)
class Against:
    """A preview against the dense network on the same field."""

    dense: Preview
    scores: Scores


class Session:
    """A checkpoint that is ranked, and a runtime that is loaded when first needed.

    Parameters
    ----------
    checkpoint
        The network.
    device
        For the torch runtime.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto") -> None:
        self.checkpoint = checkpoint
        self._device = device
        self._runtime: Runtime | None = None
        self._rankings: dict[Any, Ranking] = {}
        self._field: tuple[Hashable, Taken] | None = None
        self._dense: tuple[Hashable, Preview] | None = None

    def masks(self, pruning: Pruning) -> Masks | None:
        """Return the masks; None where the weights run as they are stored."""
        if all(pruning.cr(b) <= own for b, own in self.checkpoint.own_cr.items()):
            return None
        if pruning.keep not in self._rankings:
            self._rankings = {pruning.keep: Ranking(self.checkpoint, pruning.keep)}
        return self._rankings[pruning.keep].masks(pruning)

    def stored(self) -> Pruning:
        """Return the pruning that the weights have as they are stored."""
        return as_stored(self.checkpoint, None)

    def largest_cr(self, branch: Branch) -> float:
        """Return the largest CR of a branch with its head left dense."""
        layers = self.checkpoint.layers(branch)
        return sum(x.size for x in layers) / sum(x.size for x in layers if x.name == HEAD)

    def cost(self, pruning: Pruning) -> Cost:
        """Return what the pruned network costs, without running it."""
        return cost(self.checkpoint, pruning, self.masks(pruning))

    def run(
        self, job: Job, progress: Progress = no_progress, should_stop: ShouldStop = never
    ) -> Preview:
        """Do a job.

        Raises
        ------
        Cancelled
            Within one tile after ``should_stop`` says so.
        InputError
            As `take`, `Ranking.masks` and `Runtime.run` do.
        """
        started = time.perf_counter()
        taken = self._taken(job)
        masks = self.masks(job.pruning)
        if should_stop():
            raise Cancelled("Cancelled.")
        if self._runtime is None:
            progress("Starting torch", 0, 0)
            from .runtime.torch_runtime import TorchRuntime

            self._runtime = TorchRuntime(self._device)
        self._runtime.load(self.checkpoint, masks)
        loaded = time.perf_counter()
        maps = self._runtime.run(taken.field, progress, should_stop)
        network = time.perf_counter() - loaded
        maps = taken.crop(maps)
        nuclei = merge(maps, self.checkpoint.merge)
        result = Preview(
            job.pruning,
            maps,
            nuclei,
            taken.transform,
            job.source.mpp is None,
            network,
            time.perf_counter() - started,
        )
        if masks is None:
            self._dense = ((job.key, job.box), result)
        return result

    def dense_job(self, job: Job) -> Job:
        """Return the same job for the network as it is stored."""
        own = self.checkpoint.own_cr
        pruning = Pruning(job.pruning.strategy, own["semantic"], own["distance"], job.pruning.keep)
        return replace(job, pruning=pruning)

    def against_dense(self, job: Job, preview: Preview) -> Against | None:
        """Score a preview against the dense network; None where that has not run on this field."""
        if self._dense is None or self._dense[0] != (job.key, job.box):
            return None
        dense = self._dense[1]
        return Against(dense, score(preview.nuclei.labels, dense.nuclei.labels))

    def _taken(self, job: Job) -> Taken:
        key = (job.key, job.box, job.source.mpp, job.largest)
        if self._field is None or self._field[0] != key:
            self._field = (key, take(job.source, self.checkpoint.mpp, job.box, job.largest))
        return self._field[1]
