"""Networks that were fine-tuned after pruning, and ship: the rungs of a CR ladder."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from .checkpoint import shipped
from .checkpoint.format import Checkpoint, load
from .doors import BRANCHES, Progress, Pruning, ShouldStop, never, no_progress
from .errors import InputError
from .pruning.strategy import Masks

#: The strategy of all that ship.
STRATEGY = "layer-wise"


class Ladder:
    """The fine-tuned networks of a dense checkpoint, each loaded when it is first asked for.

    Has the face of `recovered.Recoveries`, with nothing to recover. Any thread may ask.

    Parameters
    ----------
    checkpoint
        The dense network that they came from.
    scope
        Names what they are wanted for.
    """

    def __init__(self, checkpoint: Checkpoint, scope: Hashable = None) -> None:
        self.checkpoint = checkpoint
        self.scope = scope
        self._files = rungs(checkpoint)
        self._loaded: dict[float, Checkpoint] = {1.0: checkpoint}

    def ready(self, like: Pruning) -> set[tuple[float, float]]:
        """Return the (semantic, distance) ratios that can be had, the rest as ``like``."""
        if like.strategy != STRATEGY or like.keep is not None:
            return set()
        crs = {1.0, *self._files}
        return set(product(crs, crs))

    def find(self, pruning: Pruning) -> Checkpoint | None:
        """Return a fine-tuned network, each branch from the rung of its own ratio, or None."""
        if (pruning.cr_semantic, pruning.cr_distance) not in self.ready(pruning):
            return None
        own = {branch: self._rung(pruning.cr(branch)) for branch in BRANCHES}
        state = next((r.pruning for r in own.values() if r.pruning is not None), None) or {}
        return replace(
            self.checkpoint,
            weights={branch: own[branch].weights[branch] for branch in BRANCHES},
            pruning={**pruning.as_dict(), "training": state.get("training", {})},
            parent_sha256=self.checkpoint.sha256,
        )

    def make(
        self,
        pruning: Pruning,
        masks: Masks,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> Checkpoint:
        """Return the same as `find`.

        Raises
        ------
        InputError
            Where no rung has the pruning's strategy, ratios or kept layers.
        """
        found = self.find(pruning)
        if found is None:
            there = ", ".join(f"{cr:g}" for cr in sorted(self._files))
            raise InputError(
                f"{self.checkpoint.name} was fine-tuned {STRATEGY} at CR {there} alone, with no "
                f"further layer left dense; {pruning.label} is not among them."
                if there
                else f"No fine-tuned networks of {self.checkpoint.name} come with nucprune."
            )
        return found

    def make_first(
        self,
        prunings: Sequence[Pruning],
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> None:
        """Do nothing: all there are are ready."""

    def _rung(self, cr: float) -> Checkpoint:
        found = self._loaded.get(cr)
        if found is None:
            found = self._loaded[cr] = load(self._files[cr])
        return found


def rungs(checkpoint: Checkpoint) -> dict[float, Path]:
    """Return the bundled files that were fine-tuned from a dense network, by ratio."""
    found: dict[float, Path] = {}
    for name in shipped.names() if checkpoint.pruning is None else ():
        state, parent = shipped.state(name)
        if state is None or state.get("strategy") != STRATEGY or parent != checkpoint.sha256:
            continue
        ratios = {state.get("cr_semantic"), state.get("cr_distance")}
        cr = ratios.pop()
        if not ratios and isinstance(cr, int | float):
            found[float(cr)] = shipped.FOLDER / f"{name}.safetensors"
    return found
