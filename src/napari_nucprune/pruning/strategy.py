"""The ranking of a whole checkpoint, and masks applied to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from ..checkpoint.format import Checkpoint
from ..doors import BRANCHES, Branch, Pruning
from ..errors import InputError
from .magnitude import BranchRanking, Mask
from .strategies import STRATEGIES, Strategy, register, strategy_named

__all__ = ["STRATEGIES", "Masks", "Ranking", "Strategy", "apply", "as_stored", "register"]

Masks = dict[Branch, dict[str, Mask]]


class Ranking:
    """The weights of a checkpoint, ranked once.

    Parameters
    ----------
    checkpoint
        Dense, or pruned already (then its own CR is the least that can be asked for).
    keep
        Layers left dense; see `Pruning`.
    """

    def __init__(self, checkpoint: Checkpoint, keep: tuple[str, ...] | None = None) -> None:
        self.checkpoint = checkpoint
        self.keep = keep
        self.branches = {
            branch: BranchRanking(
                branch, checkpoint.layers(branch), checkpoint.weights[branch], keep
            )
            for branch in BRANCHES
        }

    def fixed_crs(self, strategy: str) -> dict[Branch, float] | None:
        """Return the CRs that a strategy has of itself (2:4); None where it takes any.

        Raises
        ------
        InputError
            Where the strategy is unknown.
        """
        fixed = strategy_named(strategy).fixed_cr
        return fixed and {branch: fixed(self.branches[branch]) for branch in BRANCHES}

    def masks(self, pruning: Pruning) -> Masks:
        """Return the masks of both branches.

        Parameters
        ----------
        pruning
            Strategy and compression ratios; its ``keep`` must be the ranking's.

        Returns
        -------
        dict
            By branch and layer name, bool in the weight's shape, True where a weight stays.
            Kept layers are left out.

        Raises
        ------
        InputError
            Where the strategy is unknown or a CR is out of reach.
        """
        strategy = strategy_named(pruning.strategy)
        if pruning.keep != self.keep:
            raise ValueError("the ranking was made for other kept layers")
        for branch in BRANCHES:
            own = self.checkpoint.own_cr[branch]
            # What is stored was rounded a layer: its own nominal CR must not be refused.
            ranking = self.branches[branch]
            rounded = ranking.total / (ranking.total / own + len(ranking.layers) / 2 + 1)
            if own > 1 and pruning.cr(branch) < rounded:
                raise InputError(
                    f"The {branch} branch of {self.checkpoint.name} is stored pruned at CR "
                    f"{own:.4g}; CR {pruning.cr(branch):g} is less: ask for at least that."
                )

        def one(branch: Branch) -> dict[str, Mask]:
            ranking = self.branches[branch]
            return ranking.split(strategy.choose(ranking, pruning.cr(branch)))

        # The two branches are independent and numpy drops the GIL: two threads halve the time.
        with ThreadPoolExecutor(1) as pool:
            distance = pool.submit(one, "distance")
            # First, so that it is the semantic branch's refusal that is told.
            semantic = one("semantic")
            return {"semantic": semantic, "distance": distance.result()}


def apply(checkpoint: Checkpoint, pruning: Pruning, masks: Masks) -> Checkpoint:
    """Return the checkpoint with the masked weights set to zero and its pruning state set."""
    weights = {
        branch: {
            name: np.where(masks[branch][layer], array, np.float32(0))  # a product would give -0
            if (layer := name.removesuffix(".weight")) != name and layer in masks[branch]
            else array
            for name, array in checkpoint.weights[branch].items()
        }
        for branch in BRANCHES
    }
    state = pruning.as_dict()
    if earlier := (checkpoint.pruning or {}).get("recovery"):
        state["recovery"] = earlier  # its weights were refitted before they were pruned further
    return replace(
        checkpoint,
        weights={
            b: {n: np.asarray(a, np.float32) for n, a in w.items()} for b, w in weights.items()
        },
        pruning=state,
        parent_sha256=checkpoint.parent_sha256 or checkpoint.sha256,
    )


def as_stored(checkpoint: Checkpoint, pruning: Pruning | None) -> Pruning:
    """Return the pruning to run: what was asked for, else the checkpoint as it is stored."""
    if pruning is not None:
        return pruning
    own = checkpoint.own_cr
    stored = dict(checkpoint.pruning or {})
    return Pruning(
        str(stored.get("strategy", "layer-wise")),
        own["semantic"],
        own["distance"],
        None if stored.get("keep") is None else tuple(stored["keep"]),
    )
