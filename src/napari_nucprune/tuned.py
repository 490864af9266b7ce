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
from .pruning.strategies import STRATEGIES
from .pruning.strategy import Masks


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
        self._loaded: dict[Path, Checkpoint] = {}

    def ready(self, like: Pruning) -> set[tuple[float, float]]:
        """Return the (semantic, distance) ratios that can be had, the rest as ``like``."""
        if like.strategy not in self._files or like.keep is not None:
            return set()
        crs = {1.0, *self._files[like.strategy]}
        return set(product(crs, crs))

    def find(self, pruning: Pruning) -> Checkpoint | None:
        """Return a fine-tuned network, each branch from the rung of its own ratio, or None."""
        if (pruning.cr_semantic, pruning.cr_distance) not in self.ready(pruning):
            return None
        own = {b: self._rung(pruning.strategy, pruning.cr(b)) for b in BRANCHES}
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
            there = " and ".join(
                f"{strategy} at CR {', '.join(f'{cr:g}' for cr in sorted(files))}"
                for strategy, files in self._files.items()
            )
            raise InputError(
                f"{self.checkpoint.name} was fine-tuned {there} alone, with no further layer left "
                f"dense; {pruning.label} is not among them."
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

    def _rung(self, strategy: str, cr: float) -> Checkpoint:
        if cr == 1:
            return self.checkpoint
        path = self._files[strategy][cr]
        found = self._loaded.get(path)
        if found is None:
            found = self._loaded[path] = load(path)
        return found


def rungs(checkpoint: Checkpoint) -> dict[str, dict[float, Path]]:
    """Return the bundled files that were fine-tuned from a dense network, by strategy and ratio."""
    found: dict[str, dict[float, Path]] = {}
    for name in shipped.names() if checkpoint.pruning is None else ():
        state, parent = shipped.state(name)
        if state is None or parent != checkpoint.sha256:
            continue
        strategy = state.get("strategy")
        ratios = {state.get("cr_semantic"), state.get("cr_distance")}
        cr = ratios.pop()
        if not ratios and strategy in STRATEGIES and isinstance(cr, int | float):
            found.setdefault(strategy, {})[float(cr)] = shipped.FOLDER / f"{name}.safetensors"
    return found
