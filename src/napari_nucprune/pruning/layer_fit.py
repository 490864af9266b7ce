"""The refit of one layer."""

from __future__ import annotations

from torch import Tensor

from ..doors import ShouldStop
from .recipe import Recipe
from .refit import Moments, moments, refit, with_responses
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
        (R, F) float32, zero outside the support, and (O,).
    """
    old = rows_of(module.weight, module) * support
    about = moments(seen, wanted)
    rows = refit(old, old, support, about, recipe.ridge, should_stop)
    for _ in range(recipe.relu_steps if rectified else 0):
        # Where the dense channel is below zero, ReLU hides how far: there anything below zero is
        # as good. The target that asks for no more than that majorises the error after ReLU.
        said = seen @ rows.T + about.response_mean
        about = with_responses(about, seen, wanted.where(wanted > 0, said.clamp_max(0)))
        rows = refit(old, rows, support, about, recipe.ridge, should_stop)
    bias = about.response_mean - rows @ about.feature_mean
    assert module.bias is not None
    taps = len(rows) // len(module.bias)
    if taps == 1:
        return rows, bias
    return _shared_bias(old, rows, bias, module.bias, about, seen, wanted)


def _shared_bias(
    old: Tensor,
    rows: Tensor,
    bias: Tensor,
    old_bias: Tensor,
    about: Moments,
    seen: Tensor,
    wanted: Tensor,
) -> tuple[Tensor, Tensor]:
    """Let the outputs of a transposed convolution's channel share their mean bias.

    Where that costs a channel more than the refit gains, its old weights stay.
    """
    taps = len(rows) // len(old_bias)
    shared = bias.reshape(-1, taps).mean(1)
    best_for_old = about.response_mean - old @ about.feature_mean
    wanted = wanted - about.response_mean

    def error(rows: Tensor, off: Tensor) -> Tensor:
        own = (wanted - seen @ rows.T).square().mean(0) + off.square()
        return own.reshape(-1, taps).sum(1)

    new_error = error(rows, bias - shared.repeat_interleave(taps))
    old_error = error(old, best_for_old - old_bias.repeat_interleave(taps))
    better = new_error <= old_error
    wide = better.repeat_interleave(taps)[:, None]
    return rows.where(wide, old), shared.where(better, old_bias)
