"""Training of a pruned network: fine-tuned after pruning, or pruned little by little."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..checkpoint import shipped
from ..checkpoint.architecture import widths_of
from ..checkpoint.format import Checkpoint
from ..checkpoint.unet import UNet, build
from ..doors import BRANCHES, Branch, Progress, Pruning, ShouldStop, never, no_progress
from ..errors import InputError
from ..pruning.recipe import RESELECT
from ..pruning.recovery import Calibration
from ..pruning.strategy import Masks, Ranking, apply
from .augment import Prepared, random_crop
from .config import STARTS, Config, Prune
from .fit import Fit, arrays
from .levels import WEIGHT, listening, relative_error

#: Crops for the recovery that a fine-tuning starts from, and their side. Four times the samples of
#: a slide's own recovery: this one is for all tissue (CR 16: a fifth less error before the first
#: step, and less after 300; three times as many more gave nothing).
CROPS, SIDE = 128, 128
RECIPE = replace(
    RESELECT, samples=4 * RESELECT.samples, samples_a_weight=4 * RESELECT.samples_a_weight
)


def compression(prune: Prune, step: int) -> float:
    """Return the compression ratio after ``step`` steps.

    Notes
    -----
    Zhu & Gupta (2017), eq. 1, from a sparsity of 0 at step 0: the sparsity grows as
    ``s (1 - (1 - t / ramp)^3)``, fast while much can go and slowly near the end.
    """
    if step >= prune.ramp:
        return prune.cr
    part = 1 - (1 - step / prune.ramp) ** 3
    return 1 / (1 - (1 - 1 / prune.cr) * part)


class FineTune(Fit):
    """A training run that prunes, and learns from the dense network as well as from labels.

    Parameters
    ----------
    config, folder, device
        As for `Fit`; ``config.prune`` says how.
    dense
        The network that is pruned, and that teaches (knowledge distillation; Hinton et al. 2015).

    Raises
    ------
    InputError
        Where ``dense`` is pruned itself or has other widths, or the network to go on from is
        missing or of another pruning.
    """

    def __init__(
        self, config: Config, folder: Path, dense: Checkpoint, device: str = "cpu"
    ) -> None:
        super().__init__(config, folder, device)
        if config.prune is None:
            raise ValueError("the configuration has no [prune] table")
        if dense.pruning is not None:
            raise InputError(
                f"{dense.name} is pruned already; give the dense checkpoint that it came from."
            )
        self.prune = config.prune
        self.dense = dense
        #: The fine-tuned network that is trained on, if one is.
        self.before = None if config.prune.start in STARTS else self._trained_before()
        self.teachers = {
            b: build(dense.weights[b]).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            for b in BRANCHES
        }
        self.start_from(dense)
        #: Whether the dense network's levels teach beside its output, and what the branch that ran
        #: last responded in its own.
        self.teaches_levels = config.prune.levels > 0 and config.prune.distil > 0
        self.levels: list[Tensor] = []
        self.masks: Masks = {b: {} for b in BRANCHES}

    @property
    def pruning(self) -> Pruning:
        """What the network is pruned to in the end."""
        return Pruning(self.prune.strategy, self.prune.cr, self.prune.cr)

    @property
    def parents(self) -> dict[str, str]:
        """The sha256 of the dense network and, where one is trained on, of the fine-tuned one."""
        before = {} if self.before is None else {"before": self.before.sha256}
        return {"dense": self.dense.sha256, **before}

    def begin(
        self,
        training: list[Prepared],
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> None:
        """Prune the weights that a new run starts with, and refit them where it is asked for.

        Raises
        ------
        InputError
            Where the compression ratio is out of reach.
        Cancelled
            Where ``should_stop`` said so.
        """
        self._masks_at(self.prune.ramp)  # out of reach is said before anything is trained
        if self.prune.ramp:
            return
        masks = Ranking(self.dense).masks(self.pruning)
        if self.prune.start == "one-shot":
            begin = apply(self.dense, self.pruning, masks)
        elif self.before is not None:
            begin = self.before
        else:
            begin = Calibration(
                self.dense, crops_of(training, self.config.seed), "the training images", RECIPE,
                progress=progress, should_stop=should_stop,
            ).recover(self.pruning, masks, progress, should_stop)  # fmt: skip
        self.start_from(begin)
        self.masks = masks_of(begin, masks)

    def _trained_before(self) -> Checkpoint:
        """Return the fine-tuned network that is trained on."""
        found = shipped.open_checkpoint(self.prune.start)
        # Of another dense network too: what was learned from it is a start for this teacher.
        if not has_training(found, self.pruning):
            raise InputError(
                f"{self.prune.start} was not fine-tuned to {self.pruning.label}; start from a "
                "network that was, or from recovered."
            )
        if any(widths_of(found.weights[b]) != widths_of(self.dense.weights[b]) for b in BRANCHES):
            raise InputError(
                f"{self.prune.start} has other widths than {self.dense.name}; start from one of "
                "the same, or from recovered."
            )
        return found

    def resume(self) -> None:
        """Take up the folder's state; the masks are where its weights are not zero."""
        super().resume()
        if self.step:
            # Which layers are pruned does not depend on the weights.
            self.masks = masks_of(self._now(), Ranking(self.dense).masks(self.pruning))

    def respond(self, branch: Branch, rgb: Tensor) -> Tensor:
        """Run a branch; what its levels respond is kept for the loss, where they are taught."""
        out, self.levels = self._heard(self.nets[branch], rgb)
        return out

    def _heard(self, net: UNet, rgb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run a network; return its output and, where levels are taught, what they respond."""
        if not self.teaches_levels:
            return net(rgb), []
        with listening(net) as levels:
            return net(rgb), levels

    def loss(self, branch: Branch, rgb: Tensor, out: Tensor, targets: Tensor) -> Tensor:
        """Return the labels' loss and the distance to the dense network, in their shares."""
        share = self.prune.distil
        loss = super().loss(branch, rgb, out, targets)
        if not share:
            return loss
        with torch.no_grad(), self.autocast():
            said, levels = self._heard(self.teachers[branch], rgb)
        said = said.float()
        if branch == "semantic":
            taught = F.binary_cross_entropy_with_logits(out, torch.sigmoid(said))
        else:
            taught = F.mse_loss(out, said)
        if self.teaches_levels:
            weight = self.prune.levels * WEIGHT[branch]
            taught = taught + weight * relative_error(self.levels, levels)
        return (1 - share) * loss + share * taught

    def after_step(self, branch: Branch) -> None:
        """Prune further where the ramp wants it, and keep what is pruned at zero."""
        done = self.step + 1
        if done <= self.prune.ramp and (done % self.prune.every == 0 or done == self.prune.ramp):
            self.masks[branch] = self._masks_at(done)[branch]
        hold(self.nets[branch], self.masks[branch])

    def finished(self) -> Checkpoint:
        """Return the network as trained so far, pruned, with its state and its parent."""
        found = replace(self.dense, name=self.config.name, weights=self.weights())
        if self.prune.cr == 1:
            return found  # dense, by the same steps: what the others are to be compared with
        masks = self.masks if any(self.masks.values()) else self._masks_at(self.step)
        found = apply(found, self.pruning, masks)
        start = Path(self.prune.start).name
        how: dict[str, Any] = {"method": "fine-tuned", "steps": self.step, "start": start}
        if set(self.config.branches) != set(BRANCHES):
            how["branches"] = list(self.config.branches)
        if self.before is not None:
            own = (self.before.pruning or {}).get("training", {})
            how["before"] = {**own, "sha256": self.before.sha256}
        if self.prune.ramp:
            how = {**how, "method": "gradual", "ramp": self.prune.ramp}
        how["distil"] = self.prune.distil
        if self.teaches_levels:
            how["levels"] = self.prune.levels
        state = {**(found.pruning or {}), "training": how}
        return replace(found, pruning=state, parent_sha256=self.dense.sha256)

    def _masks_at(self, step: int) -> Masks:
        """Return the masks of the present weights for the ratio after ``step`` steps."""
        cr = compression(self.prune, step)
        return Ranking(self._now()).masks(Pruning(self.prune.strategy, cr, cr))

    def _now(self) -> Checkpoint:
        return replace(self.dense, weights={b: arrays(net) for b, net in self.nets.items()})


def has_training(network: Checkpoint, pruning: Pruning) -> bool:
    """Whether a network was fine-tuned after this very pruning, whatever dense one it came from."""
    state = network.pruning or {}
    same = all(state.get(key) == value for key, value in pruning.as_dict().items())
    return same and "training" in state


def masks_of(checkpoint: Checkpoint, pruned: Masks) -> Masks:
    """Return where the layers of ``pruned`` have weights that are not zero."""
    return {
        b: {name: checkpoint.weights[b][f"{name}.weight"] != 0 for name in pruned[b]}
        for b in BRANCHES
    }


def hold(net: UNet, masks: dict[str, np.ndarray]) -> None:
    """Set to zero what the masks do not keep."""
    weights = dict(net.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            weight = weights[f"{name}.weight"]
            weight.mul_(torch.from_numpy(mask).to(weight))
            weight.add_(0.0)  # -0 becomes 0


def crops_of(training: list[Prepared], seed: int) -> np.ndarray:
    """Draw crops for the recovery: (n, side, side, 3) uint8, as they are, without jitter."""
    rng = np.random.default_rng(seed)
    share = np.array([image.weight for image in training], np.float64)
    chosen = rng.choice(len(training), CROPS, p=share / share.sum())
    crops = [random_crop(rng, training[i], SIDE, (1, 1), 0.0, False)[0] for i in chosen]
    return np.stack(crops).transpose(0, 2, 3, 1).round().astype(np.uint8)
