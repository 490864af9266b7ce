"""The refit of one layer."""

from __future__ import annotations

import torch
from torch import Tensor

from ..doors import ShouldStop
from .recipe import Recipe
from .refit import moments, refit, with_responses
from .responses import Conv, rows_of


def fit(
    module: Conv,
    seen: Tensor,
    wanted: Tensor,
    support: Tensor,
    recipe: Recipe,
    rectified: bool,
    should_stop: ShouldStop,
) -> tuple[Tensor, Tensor]:
    """Return a layer's refitted rows and bias.

    Parameters
    ----------
    module
        The layer, with the old weights.
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

    Returns
    -------
    rows, bias
        (R, F) float32, zero outside the support, and (O,). No channel's error on the samples,
        after the ReLU where one follows, is above that of its old weights.
    """
    assert module.bias is not None
    old = rows_of(module.weight, module) * support
    about = moments(seen, wanted)
    rows = refit(old, old, support, about, recipe.ridge, should_stop)
    for _ in range(recipe.relu_steps if rectified else 0):
        # Where the dense channel is below zero, ReLU hides how far: there anything below zero is
        # as good. The target that asks for no more than that majorises the error after ReLU.
        said = seen @ rows.T + about.response_mean
        about = with_responses(about, seen, wanted.where(wanted > 0, said.clamp_max(0)))
        rows = refit(old, rows, support, about, recipe.ridge, should_stop)
    # The four outputs of a transposed convolution's channel share a bias.
    taps = len(rows) // len(module.bias)
    bias = (about.response_mean - rows @ about.feature_mean).reshape(-1, taps).mean(1)

    def error(rows: Tensor, bias: Tensor) -> Tensor:
        constant = rows @ about.feature_mean + bias.repeat_interleave(taps)
        off = torch.addmm(constant, seen, rows.T) - wanted
        if rectified:
            off = off.where(wanted > 0, (off + wanted).clamp_min(0))
        return off.square().mean(0).reshape(-1, taps).sum(1)

    # A channel that got no better (a shared bias or rounding may cost more) stays as it was.
    better = error(rows, bias) <= error(old, module.bias)
    wide = better.repeat_interleave(taps)[:, None]
    return rows.where(wide, old), bias.where(better, module.bias)
