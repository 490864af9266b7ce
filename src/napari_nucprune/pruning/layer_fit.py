"""The refit of one layer."""

from __future__ import annotations

import torch
from torch import Tensor

from ..doors import ShouldStop
from .recipe import Recipe
from .refit import Refit, moments, with_responses
from .responses import Conv, rows_of
from .selection import WIDE, select
from .solver import CG_STEPS

#: Conjugate-gradient steps where a refit starts near the solution: after a choice of weights, and
#: to what ReLU lets through.
FEW_CG_STEPS = 4
#: Of layers with more than `WIDE` features, where weights are chosen anew: stages of the choice. No
#: step to what ReLU lets through follows either. Both cost half the time and change little there.
WIDE_STAGES = 2
#: A layer that keeps more than one weight in so many is chosen in one stage: as good there, and a
#: quarter of the time less. Where fewer stay, one stage loses up to 18 % more (docs/recovery.md).
THIN = 16.5


def fit(
    module: Conv,
    seen: Tensor,
    wanted: Tensor,
    support: Tensor,
    recipe: Recipe,
    rectified: bool,
    should_stop: ShouldStop,
    available: Tensor | None = None,
    importance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return a layer's refitted rows and bias.

    Parameters
    ----------
    module
        The layer, with the dense weights.
    seen
        (n, F) float32, its inputs in the pruned network, as of `features`; centred in place.
    wanted
        (n, R) float32, what the dense layer says at the same places, as of `outputs`.
    support
        (R, F) bool, True where a weight is kept.
    recipe
        Ridge and number of steps.
    rectified
        Whether a ReLU follows.
    available
        (R, F) bool: among these as many as ``support`` keeps are chosen anew, by the responses.
        None keeps the support.
    importance
        As for `select`.

    Returns
    -------
    rows, bias
        (R, F) float32, zero outside the support, and (O,). The error on the samples, after the
        ReLU where one follows, is not above that of the dense weights on ``support``: a channel
        for each where the support is kept, else the layer's.
    """
    assert module.bias is not None
    dense = rows_of(module.weight, module)
    about = moments(seen, wanted)
    # The four outputs of a transposed convolution's channel share a bias.
    taps = len(dense) // len(module.bias)
    stages, relu_steps = recipe.select_stages, recipe.relu_steps if rectified else 0
    if available is not None and int(support.sum()) * THIN > int(available.sum()):
        stages = min(stages, 1)
    if available is not None and seen.shape[1] > WIDE:
        stages, relu_steps = min(stages, WIDE_STAGES), 0

    def error(rows: Tensor, bias: Tensor) -> Tensor:
        constant = rows @ about.feature_mean + bias.repeat_interleave(taps)
        off = torch.addmm(constant, about.centred, rows[:, about.live].T) - wanted
        if rectified:
            off = off.where(wanted > 0, (off + wanted).clamp_min(0))
        return off.square().mean(0).reshape(-1, taps).sum(1)

    def on(support: Tensor, begin: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        now = about
        refit = Refit(dense * support, support, about, recipe.ridge)
        rows = refit.to(now, begin, steps, should_stop)
        for _ in range(relu_steps):
            # Where the dense channel is below zero, ReLU hides how far: there anything below zero
            # is as good. The target that asks for no more than that majorises the error after
            # ReLU.
            said = torch.addmm(now.response_mean, now.centred, rows[:, now.live].T)
            now = with_responses(now, wanted.where(wanted > 0, said.clamp_max(0)))
            rows = refit.to(now, rows, FEW_CG_STEPS, should_stop)
        return rows, (now.response_mean - rows @ now.feature_mean).reshape(-1, taps).mean(1)

    old = dense * support
    before = error(old, module.bias)
    if available is not None:
        count = int(support.sum())
        chosen, begin = select(
            dense, about, count, available, recipe.ridge, stages, should_stop, importance
        )
        rows, bias = on(chosen, begin, FEW_CG_STEPS)
        if bool(error(rows, bias).sum() <= before.sum()):
            return rows, bias
    rows, bias = on(support, old, CG_STEPS)
    # A channel that got no better (a shared bias or rounding may cost more) stays as it was.
    better = error(rows, bias) <= before
    rows = rows.where(better.repeat_interleave(taps)[:, None], old)
    return rows, bias.where(better, module.bias)
