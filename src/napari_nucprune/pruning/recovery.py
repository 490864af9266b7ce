"""Recovery without labels: kept weights refitted to the dense network's own responses.

Layer by layer in forward order, each on the pruned network's own inputs, so that later layers
repair what earlier ones lost: AdaPrune's reconstruction (Hubara et al. 2021) with the masks of
magnitude pruning and a ridge towards the old weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.format import Checkpoint, Weights
from ..doors import BRANCHES, Branch, Progress, Pruning, ShouldStop, never, no_progress
from ..errors import Cancelled, InputError
from .magnitude import Mask
from .recipe import Recipe
from .stained import check_crops
from .strategies import strategy_named
from .strategy import Masks, Ranking, apply

if TYPE_CHECKING:
    from torch import Tensor

    from .responses import Conv
    from .sensitivity import Sensitivity

T = TypeVar("T")
#: Fewer samples than this part of the mean row's kept weights cannot say what they should be.
LEAST_SAMPLES = 0.25


class Calibration:
    """The dense network's responses on crops, kept for any number of compression ratios.

    Parameters
    ----------
    checkpoint
        The dense network (or whatever is to be imitated).
    crops
        (n, side, side, 3) uint8 at the checkpoint's um/px; the side a multiple of the pooling grid.
    origin
        Where the crops are from, for the metadata of what is recovered.
    recipe, device
        How to refit; a torch device.

    Raises
    ------
    InputError
        Where the crops have another shape, or hold glass alone.
    Cancelled
        Between layers, where ``should_stop`` says so.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        crops: NDArray[np.uint8],
        origin: str = "",
        recipe: Recipe | None = None,
        device: str = "cpu",
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> None:
        import torch

        self.checkpoint = checkpoint
        self.origin = origin
        self.recipe = recipe or Recipe()
        self.device = device
        self.shape = crops.shape
        check_crops(crops, checkpoint, origin)
        # (n, side, side, 3) is channels_last already: the permute copies nothing.
        self._crops = torch.from_numpy(np.ascontiguousarray(crops)).to(device).permute(0, 3, 1, 2)
        self._places: dict[Branch, dict[str, Tensor]] = {b: {} for b in BRANCHES}
        self._importance: dict[Branch, dict[str, Tensor]] = {b: {} for b in BRANCHES}
        self._dense = _each(lambda b: self._responses(b, progress, should_stop))

    def _responses(
        self, branch: Branch, progress: Progress, should_stop: ShouldStop
    ) -> dict[str, Tensor]:
        from ..checkpoint.unet import build
        from . import responses
        from .sensitivity import sensitivities

        net = build(self.checkpoint.weights[branch]).to(self.device)
        found: dict[str, Tensor] = {}
        effects: dict[str, Sensitivity] = {}
        if self.recipe.by_effect:
            effects = sensitivities(
                net, self._crops.float(), branch, self.recipe.seed, progress, should_stop
            )
            self._importance[branch] = {name: effect.rows for name, effect in effects.items()}

        def before(name: str, module: Conv, x: Tensor) -> None:
            _stop(should_stop)
            progress(f"Dense {branch} responses", len(found), len(responses.convolutions(net)))
            importance = effects[name].places if effects else None
            self._places[branch][name] = responses.places(
                x.shape, self.recipe.samples, self.recipe.seed, importance
            )

        def after(name: str, module: Conv, y: Tensor) -> None:
            where = self._places[branch][name].to(y.device)
            found[name] = responses.outputs(y, module, where).clone()

        responses.watch(net, self._crops.float(), before, after)
        return found

    def recover(
        self,
        pruning: Pruning,
        masks: Masks,
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
        branches: Sequence[Branch] = BRANCHES,
    ) -> Checkpoint:
        """Refit a pruned network.

        Parameters
        ----------
        pruning, masks
            As from `Ranking.masks`.
        branches
            Those that are refitted, the others are only pruned. One that loses no weight is left
            as it is.

        Returns
        -------
        Checkpoint
            The same mask, new weights and biases; how it was made is in ``pruning["recovery"]``.

        Raises
        ------
        InputError
            Where the crops hold too few pixels for so many kept weights.
        Cancelled
            Within a layer, where ``should_stop`` says so.
        """
        pruned = apply(self.checkpoint, pruning, masks)
        touched = [b for b in branches if _loses(self.checkpoint.weights[b], masks[b])]
        recipe = self.recipe
        if not strategy_named(pruning.strategy).reselect:
            recipe = replace(recipe, select_stages=0)
        refitted = _each(
            lambda b: self._refitted(b, pruned, masks, recipe, progress, should_stop), touched
        )
        weights = {b: refitted.get(b, pruned.weights[b]) for b in BRANCHES}
        about = {
            "method": "refit",
            "crops": self.shape[0],
            "side": self.shape[1],
            "origin": self.origin,
            **asdict(recipe),
        }
        return replace(
            pruned, weights=weights, pruning={**(pruned.pruning or {}), "recovery": about}
        )

    def _refitted(
        self,
        branch: Branch,
        pruned: Checkpoint,
        masks: Masks,
        recipe: Recipe,
        progress: Progress,
        should_stop: ShouldStop,
    ) -> Mapping[str, NDArray[np.float32]]:
        import torch

        from ..checkpoint.unet import build
        from . import responses
        from .layer_fit import fit

        net = build(self.checkpoint.weights[branch]).to(self.device)
        total = len(responses.convolutions(net))
        done = 0

        def before(name: str, module: Conv, x: Tensor) -> None:
            nonlocal done
            _stop(should_stop)
            progress(f"Recovering the {branch} branch", done, total)
            done += 1
            mask = masks[branch].get(name)
            # What a stored pruned network lacks stays gone.
            there = (module.weight != 0) | (self.checkpoint.pruning is None)
            available = responses.rows_of(there, module)
            support = available
            if mask is not None:
                support = responses.rows_of(torch.from_numpy(mask).to(x.device), module)
            where, wanted = self._places[branch][name], self._dense[branch][name]
            count = self._enough(name, len(where), support)
            drawn = torch.arange(count) * len(where) // count
            seen = responses.features(x, module, where[drawn].to(x.device))
            rows, bias = fit(
                module,
                seen,
                wanted[drawn.to(wanted.device)],
                support,
                recipe,
                responses.rectified(name),
                should_stop,
                available if recipe.select_stages and mask is not None else None,
                self._importance[branch].get(name),
            )
            module.weight.copy_(responses.weight_of(rows, module))
            assert module.bias is not None
            module.bias.copy_(bias)

        responses.watch(net, self._crops.float(), before, lambda *_: None)
        state = net.state_dict()
        # A product with zero may have been -0, which a stored file's mask would not give back.
        return {
            name: (state[name] + 0.0).cpu().contiguous().numpy() for name in pruned.weights[branch]
        }

    def _enough(self, name: str, samples: int, support: Tensor) -> int:
        """Return how many of the samples are enough."""
        a_row = float(support.sum(1).float().mean())
        if samples < LEAST_SAMPLES * a_row:
            raise InputError(
                f"The calibration crops give {samples} samples at layer {name}, where a channel "
                f"keeps {a_row:.0f} weights; use more or larger crops, or a larger compression "
                "ratio."
            )
        enough = max(self.recipe.samples / 2, self.recipe.samples_a_weight * a_row)
        return min(samples, round(enough))


def recover(
    dense: Checkpoint,
    pruning: Pruning,
    crops: NDArray[np.uint8],
    recipe: Recipe | None = None,
    progress: Progress = no_progress,
    should_stop: ShouldStop = never,
) -> Checkpoint:
    """Prune a checkpoint and refit what is kept, without labels.

    Parameters
    ----------
    dense
        The network to imitate.
    pruning
        Strategy and compression ratios.
    crops
        As for `Calibration`.

    Returns
    -------
    Checkpoint
        The mask of `Ranking.masks`, new weights.
    """
    masks = Ranking(dense, pruning.keep).masks(pruning)
    calibration = Calibration(
        dense, crops, recipe=recipe, progress=progress, should_stop=should_stop
    )
    return calibration.recover(pruning, masks, progress, should_stop)


def _loses(weights: Weights, masks: Mapping[str, Mask]) -> bool:
    """Say whether masks take away a weight that is not zero."""
    return any(bool(weights[f"{name}.weight"][~mask].any()) for name, mask in masks.items())


def _each(work: Callable[[Branch], T], branches: Sequence[Branch] = BRANCHES) -> dict[Branch, T]:
    """Do both branches at once, each with half of torch's threads; one alone with all.

    Small products and factorisations gain little from a second thread; a branch a thread took
    0.7 of the time of one after the other.
    """
    import torch

    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            2, initializer=lambda: torch.set_num_threads(max(1, before // max(1, len(branches))))
        ) as pool:
            return dict(zip(branches, pool.map(work, branches), strict=True))
    finally:
        # A new thread gets what was set last in any thread.
        torch.set_num_threads(before)


def _stop(should_stop: ShouldStop) -> None:
    if should_stop():
        raise Cancelled("Cancelled.")
