"""One field through the whole way: field, masks, maps, nuclei.

The dock asks it from its worker thread; nothing here knows napari or Qt.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .checkpoint.architecture import HEAD
from .checkpoint.format import Checkpoint
from .doors import (
    Branch,
    Field,
    Progress,
    Pruning,
    ShouldStop,
    never,
    no_progress,
)
from .errors import Cancelled, InputError
from .job import Job, Preview
from .nuclei.watershed import merge
from .pruning.by_layer import LayerShare, by_layer
from .pruning.cost import Cost, cost, packed_size
from .pruning.strategy import Masks, Ranking, apply, as_stored
from .recovered import Recoveries
from .slides.field import Taken, take
from .tuned import Ladder

if TYPE_CHECKING:
    from .checkpoint.packed import Packing
    from .runtime.auto import AutoRuntime

#: Seconds: a dense run shorter than that is timed once more.
AGAIN = 1.0


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
        self._runtime: AutoRuntime | None = None
        self._rankings: dict[Any, Ranking] = {}
        self._field: tuple[Hashable, Taken] | None = None
        self._dense: tuple[Hashable, Preview] | None = None
        self._dense_size: tuple[int, ...] = ()
        self._recoveries: Recoveries | Ladder | None = None

    def masks(self, pruning: Pruning) -> Masks | None:
        """Return the masks; None where the weights run as they are stored."""
        if all(pruning.cr(b) <= own for b, own in self.checkpoint.own_cr.items()):
            return None
        # Another thread may put another one in its place.
        ranking = self._rankings.get(pruning.keep)
        if ranking is None:
            ranking = Ranking(self.checkpoint, pruning.keep)
            self._rankings = {pruning.keep: ranking}
        return ranking.masks(pruning)

    def stored(self) -> Pruning:
        """Return the pruning that the weights have as they are stored."""
        return as_stored(self.checkpoint, None)

    def largest_cr(self, branch: Branch, keep: tuple[str, ...] | None = None) -> float:
        """Return the largest CR of a branch with some layers left dense; see `Pruning`."""
        layers = self.checkpoint.layers(branch)
        names = {HEAD} if keep is None else {name.removeprefix(f"{branch}.") for name in keep}
        dense = sum(x.size for x in layers if x.name in names)
        return sum(x.size for x in layers) / max(dense, 1)

    def is_ranked(self, pruning: Pruning) -> bool:
        """Whether `masks` and `cost` take milliseconds: the weights are sorted already."""
        stored = all(pruning.cr(b) <= own for b, own in self.checkpoint.own_cr.items())
        return stored or pruning.keep in self._rankings

    def by_layer(self, pruning: Pruning) -> list[LayerShare]:
        """Return what each layer keeps."""
        return by_layer(self.checkpoint, self.masks(pruning))

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
            from .runtime.auto import AutoRuntime

            self._runtime = AutoRuntime(self._device)
        recovered, note, recovery = None, "", 0.0
        if masks is not None and job.recovery != "off":
            recovered, note, recovery = self._recovered(job, masks, progress, should_stop)
        if masks is None and self.checkpoint.pruning is None:
            # What times are compared with is the dense network in a dense runtime.
            self._runtime.load_dense(self.checkpoint)
        elif recovered is None:
            self._runtime.load(self.checkpoint, masks)
        else:
            self._runtime.load(recovered)
        loaded = time.perf_counter()
        maps = self._runtime.run(taken.field, progress, should_stop)
        network = time.perf_counter() - loaded
        if masks is None:
            network = self._warm(network, taken.field, progress, should_stop)
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
            recovered is not None,
            recovery,
            note,
            self._runtime.name,
            self._runtime.note,
            taken.damaged,
        )
        if masks is None:
            self._dense = ((job.image, job.box), result)
        return result

    def _warm(
        self, first: float, field: Field, progress: Progress, should_stop: ShouldStop
    ) -> float:
        """Return the seconds of the dense run, or of another one where that was a short first one.

        All others are compared with it, and a runtime's first run on a size takes up to 1.4 times
        as long as those that follow.
        """
        size = field.rgb.shape
        if self._runtime is None or first > AGAIN or size == self._dense_size:
            return first
        started = time.perf_counter()
        with suppress(Cancelled):
            self._runtime.run(field, progress, should_stop)
            self._dense_size = size
            return min(first, time.perf_counter() - started)
        return first

    def ready(self, job: Job) -> set[tuple[float, float]]:
        """Return the (semantic, distance) CRs that need no recovery any more on a job's image."""
        if job.recovery == "off":
            return set()
        own = self.checkpoint.own_cr
        found, kept = {(own["semantic"], own["distance"])}, self._recoveries
        if kept is not None and kept.scope == job.scope:
            found |= kept.ready(job.pruning)
        return found

    def prepare(
        self,
        job: Job,
        crs: Sequence[tuple[float, float]],
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> tuple[float, float] | None:
        """Recover the first of several (semantic, distance) CRs that is not ready.

        Returns
        -------
        tuple or None
            The one that was recovered; None where nothing is left that can be.
        """
        prunings = [replace(job.pruning, cr_semantic=s, cr_distance=d) for s, d in crs]
        done = self._recoveries_of(job).make_first(prunings, progress, should_stop)
        return None if done is None else (done.cr_semantic, done.cr_distance)

    def pruned(self, pruning: Pruning, job: Job | None) -> tuple[Checkpoint, bool]:
        """Return the pruned network to save, and whether it is the recovered one.

        Parameters
        ----------
        pruning
            Strategy and compression ratios.
        job
            Names the image and the recovery; what has not been recovered on it is only pruned.
        """
        masks, kept = self.masks(pruning), self._recoveries
        if masks is None:
            return self.checkpoint, False
        if job is not None and kept is not None and kept.scope == job.scope:
            found = kept.find(pruning)
            if found is not None:
                return found, True
        return apply(self.checkpoint, pruning, masks), False

    def recovered(
        self,
        pruning: Pruning,
        job: Job,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> Checkpoint:
        """Return the pruned network as `run` would run it, recovered now if it was not before.

        Any thread may ask; what is recovered here is not remembered.

        Raises
        ------
        InputError
            Where it cannot be recovered as the job asks for.
        Cancelled
            Where ``should_stop`` says so.
        """
        found, ready = self.pruned(pruning, job)
        masks = self.masks(pruning)
        if ready or masks is None or job.recovery == "off":
            return found
        try:
            return self._new_recoveries(job).make(pruning, masks, progress, should_stop)
        except InputError as error:
            raise InputError(f"{error} Or switch the recovery off.") from error

    def packed_bytes(self, pruning: Pruning, job: Job | None, packing: Packing) -> int:
        """Return the size of the packed file of `pruned`; any thread may ask."""
        return packed_size(self.pruned(pruning, job)[0], packing).file

    def forget(self) -> None:
        """Drop what was kept of the image: its field, the dense result, recovered weights."""
        self._field = self._dense = self._recoveries = None

    def dense_job(self, job: Job) -> Job:
        """Return the same job for the network as it is stored."""
        own = self.checkpoint.own_cr
        pruning = Pruning(job.pruning.strategy, own["semantic"], own["distance"], job.pruning.keep)
        return replace(job, pruning=pruning, recovery="off")

    def dense(self, job: Job) -> Preview | None:
        """Return what the network as it is stored gave on a job's field; None where it has not run.

        Any thread may ask.
        """
        kept = self._dense
        return kept[1] if kept is not None and kept[0] == (job.image, job.box) else None

    def _taken(self, job: Job) -> Taken:
        key = (job.image, job.box, job.largest)
        if self._field is None or self._field[0] != key:
            self._field = (key, take(job.source, self.checkpoint.mpp, job.box, job.largest))
        return self._field[1]

    def _recoveries_of(self, job: Job) -> Recoveries | Ladder:
        if self._recoveries is None or self._recoveries.scope != job.scope:
            self._recoveries = self._new_recoveries(job)
        return self._recoveries

    def _new_recoveries(self, job: Job) -> Recoveries | Ladder:
        if job.recovery == "fine-tuned":
            return Ladder(self.checkpoint, job.scope)
        return Recoveries(
            self.checkpoint, job.source, job.recovery, job.reselect, job.scope, self.masks
        )

    def _recovered(
        self, job: Job, masks: Masks, progress: Progress, should_stop: ShouldStop
    ) -> tuple[Checkpoint | None, str, float]:
        """Return the recovered network or why there is none, and the seconds it took."""
        recoveries = self._recoveries_of(job)
        found = recoveries.find(job.pruning)
        if found is not None:
            return found, "", 0.0
        begun = time.perf_counter()
        try:
            found = recoveries.make(job.pruning, masks, progress, should_stop)
        except InputError as error:
            return None, f"{error} What is shown was not recovered.", 0.0
        return found, "", time.perf_counter() - begun
