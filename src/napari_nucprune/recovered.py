"""Recovered weights kept packed in memory, so that a pruning that was shown shows again at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np

from .checkpoint.format import Checkpoint
from .doors import BRANCHES, Branch, Progress, Pruning, ShouldStop, never, no_progress
from .errors import InputError
from .pruning.compact import Packed, mask_of, pack, unpack
from .pruning.strategy import Masks
from .slides.source import Source

if TYPE_CHECKING:
    from .pruning.recovery import Calibration

#: ``fine-tuned`` takes a network of `tuned.Ladder` instead; nothing is recovered.
Recovery = Literal["off", "slide", "bundled", "fine-tuned"]
#: Branch, strategy, kept layers and CR.
Name = tuple[Branch, str, tuple[str, ...] | None, float]
#: Bytes of packed weights: all stops of the slider under both strategies take 51 MB.
LIMIT = 64_000_000


class Recoveries:
    """What was recovered for a checkpoint on one image (or from its bundled calibration).

    The two branches are kept apart: one that was recovered with another CR of the other branch
    serves too. One thread recovers, any may ask what is ready.

    Parameters
    ----------
    checkpoint
        The network to imitate.
    source
        Where crops of tissue come from.
    mode
        ``"slide"`` or ``"bundled"``.
    reselect
        Whether a layer's weights are chosen anew by its responses, or are the strategy's.
    scope
        Names the image, the mode and ``reselect``.
    masks
        As `Session.masks`.
    limit
        Most bytes of packed weights; those used longest ago go first.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        source: Source,
        mode: Recovery,
        reselect: bool,
        scope: Hashable,
        masks: Callable[[Pruning], Masks | None],
        limit: int = LIMIT,
    ) -> None:
        self.checkpoint = checkpoint
        self.mode = mode
        self.reselect = reselect
        self.scope = scope
        self.limit = limit
        self._source = source
        self._masks = masks
        self._calibration: Calibration | None = None
        #: Why nothing, or not this pruning, can be recovered: not to be tried again.
        self._refused: dict[Pruning | None, str] = {}
        self._packed: OrderedDict[Name, Packed] = OrderedDict()
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of packed weights."""
        with self._lock:
            return sum(packed.nbytes for packed in self._packed.values())

    def ready(self, like: Pruning) -> set[tuple[float, float]]:
        """Return the (semantic, distance) CRs that need no recovery, the rest as ``like``."""
        with self._lock:
            names = list(self._packed)
        semantic, distance = (
            [cr for name, strategy, keep, cr in names
             if (name, strategy, keep) == (branch, like.strategy, like.keep)]
            for branch in BRANCHES
        )  # fmt: skip
        return {(s, d) for s in semantic for d in distance}

    def find(self, pruning: Pruning) -> Checkpoint | None:
        """Return a recovered network from memory; None where it has not been recovered."""
        packed = self._touched(pruning)
        if packed is None:
            return None
        parent = self.checkpoint.parent_sha256 or self.checkpoint.sha256
        return replace(
            self.checkpoint,
            weights={branch: unpack(packed[branch]) for branch in BRANCHES},
            pruning={**pruning.as_dict(), "recovery": dict(packed["semantic"].about)},
            parent_sha256=parent,
        )

    def make(
        self,
        pruning: Pruning,
        masks: Masks,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> Checkpoint:
        """Recover a network and remember it.

        Raises
        ------
        InputError
            Where there is too little tissue, at all or for so many kept weights.
        Cancelled
            Within a layer, where ``should_stop`` says so.
        """
        said = self._refused.get(None) or self._refused.get(pruning)
        if said:
            raise InputError(said)
        with self._lock:
            # What has been shown stays as it was shown.
            missing = [b for b in BRANCHES if _name(pruning, b) not in self._packed]
        try:
            recovered = self._recover(pruning, masks, missing, progress, should_stop)
        except InputError as error:
            self._refused[pruning] = str(error)
            raise
        with self._lock:
            for branch in missing:
                self._packed[_name(pruning, branch)] = pack(recovered, branch, masks)
        found = self.find(pruning)
        assert found is not None
        self._forget_oldest()
        return found

    def make_first(
        self,
        prunings: Sequence[Pruning],
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> Pruning | None:
        """Recover the first of several prunings that is not ready yet; refused ones are skipped.

        Returns
        -------
        Pruning or None
            The one that was recovered; None where nothing is left to do, or the memory holds no
            more beside those before it.
        """
        used = 0
        for pruning in prunings:
            try:
                masks = self._masks(pruning)
            except InputError:  # out of reach
                continue
            if masks is None or pruning in self._refused:
                continue
            used += self._bytes(masks)
            if None in self._refused or used > self.limit:
                return None
            if self._touched(pruning) is not None:
                continue
            try:
                self.make(pruning, masks, _preparing(pruning, progress), should_stop)
            except InputError:
                continue
            return pruning
        return None

    def _recover(
        self,
        pruning: Pruning,
        masks: Masks,
        branches: Sequence[Branch],
        progress: Progress,
        should_stop: ShouldStop,
    ) -> Checkpoint:
        if self._calibration is None:
            # Here and not above: both load torch, and opening the dock must not.
            from .pruning.recipe import RESELECT, Recipe
            from .pruning.recovery import Calibration
            from .samples import BUNDLED_TISSUE, calibration_crops
            from .slides.crops import tissue_crops

            progress("Looking for tissue", 0, 0)
            own = self.mode == "slide"
            try:
                crops = (
                    tissue_crops(self._source, self.checkpoint.mpp, should_stop=should_stop)
                    if own
                    else calibration_crops()
                )
                self._calibration = Calibration(
                    self.checkpoint,
                    crops,
                    self._source.name if own else BUNDLED_TISSUE,
                    RESELECT if self.reselect else Recipe(),
                    progress=progress,
                    should_stop=should_stop,
                )
            except InputError as error:
                self._refused[None] = str(error)
                raise
        return self._calibration.recover(pruning, masks, progress, should_stop, branches)

    def _bytes(self, masks: Masks) -> int:
        """Return what `pack` would take for both branches."""
        sizes = (
            4 * array.size if mask is None else 4 * np.count_nonzero(mask) + -(-mask.size // 8)
            for branch in BRANCHES
            for name, array in self.checkpoint.weights[branch].items()
            for mask in (mask_of(name, masks[branch]),)
        )
        return int(sum(sizes))

    def _touched(self, pruning: Pruning) -> dict[Branch, Packed] | None:
        """Return both branches where they are ready, which counts as used just now."""
        names = {branch: _name(pruning, branch) for branch in BRANCHES}
        with self._lock:
            if not all(name in self._packed for name in names.values()):
                return None
            for name in names.values():
                self._packed.move_to_end(name)
            return {branch: self._packed[name] for branch, name in names.items()}

    def _forget_oldest(self) -> None:
        with self._lock:
            total = sum(packed.nbytes for packed in self._packed.values())
            # What was made last stays, whatever it takes: it is what is shown, saved and run.
            while total > self.limit and len(self._packed) > len(BRANCHES):
                _, oldest = self._packed.popitem(last=False)
                total -= oldest.nbytes


def _name(pruning: Pruning, branch: Branch) -> Name:
    return branch, pruning.strategy, pruning.keep, pruning.cr(branch)


def _preparing(pruning: Pruning, progress: Progress) -> Progress:
    text = f"Preparing {pruning.label.removeprefix(pruning.strategy).strip()}"
    return lambda _, done, total: progress(text, done, total)
