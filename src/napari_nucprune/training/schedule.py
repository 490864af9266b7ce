"""What changes from step to step of a training: the learning rate, and how its mean forgets."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .config import Config

Tensors = tuple[Tensor, ...] | list[Tensor]


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up over 5 % of the steps (at most 200), then a cosine to zero, or halvings."""
    warm = min(200, max(1, config.steps // 20))
    if step < warm:
        return config.lr * (step + 1) / warm
    if config.halve_every:
        return config.lr * 0.5 ** (step // config.halve_every)
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, config.steps - warm)))


def warming(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Return the update of a running mean that forgets faster at first.

    Parameters
    ----------
    decay
        The part of the mean that stays in the end.

    Returns
    -------
    Callable
        For `torch.optim.swa_utils.AveragedModel`: of the n-th mean at most (1 + n) / (10 + n)
        stays, as in TensorFlow's `ExponentialMovingAverage` with ``num_updates``.
    """

    def update(mean: Tensors, now: Tensors, steps: Tensor | int) -> None:
        stays = min(decay, (1 + int(steps)) / (10 + int(steps)))
        get_ema_multi_avg_fn(stays)(mean, now, steps)

    return update
