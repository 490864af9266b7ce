"""Which weights of a layer stay, by what they do to its responses."""

from __future__ import annotations

import torch
from torch import Tensor

from ..doors import ShouldStop, never
from .refit import Moments, Refit

#: Conjugate-gradient steps between two stages: the next stage only needs an order.
STEPS = 3
#: Features above which ``[H^-1]_jj`` is left out: the deepest layers have fewer places than
#: features in the crops, where H is singular but for the ridge, and took a third of all the time.
WIDE = 500


def select(
    weights: Tensor,
    about: Moments,
    count: int,
    available: Tensor,
    ridge: float,
    stages: int,
    should_stop: ShouldStop = never,
    importance: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose the weights of a layer that its responses need most.

    Parameters
    ----------
    weights
        (R, F) float32, the dense ones, zero where not ``available``.
    about
        Moments of the samples; the responses are the dense network's.
    count
        How many stay.
    available
        (R, F) bool, those that may.
    ridge
        As for `Refit`.
    stages
        In how many steps of equal ratio the others go, the kept ones refitted in between.
    importance
        (R,), not negative: what a squared error of a row counts, relative to the others'. None
        counts all alike.

    Returns
    -------
    support, begin
        (R, F) bool with ``count`` True (fewer where fewer are available), and weights on it from
        which a refit can start.

    Notes
    -----
    Optimal Brain Surgeon's saliency (Hassibi & Stork 1993, eq. 5), ``w^2 / [H^-1]_jj`` with H
    the Gram matrix, pooled over the layer, as layers are in Optimal Brain Compression (Frantar &
    Alistarh 2022), where all rows count alike. As the support thins, what a lost weight did can
    be taken over by fewer others, and ``[H^-1]_jj`` of the whole layer goes over into ``1 / H_jj``
    of a weight alone: the stages go from one to the other. Wide layers have the latter throughout.
    """
    counts = torch.ones_like(weights[:, :1]) if importance is None else importance[:, None]
    live, gram = about.live, about.gram
    count = min(count, int(available.sum()))
    if not len(live) or count == 0:
        support = _most(weights.square() * counts, available, count)
        return support, weights * support
    pull = ridge * gram.diagonal().mean()
    alone = 1 / (gram.diagonal() + pull)
    together, begin = alone, weights
    if len(live) <= WIDE:
        system = gram.clone()
        system.diagonal().add_(pull)
        factor, failed = torch.linalg.cholesky_ex(system)
        if not int(failed):
            inverse = torch.cholesky_inverse(factor)
            together = inverse.diagonal()
            wanted = about.cross.T - weights[:, live] @ gram
            begin = weights.index_add(1, live, wanted @ inverse)
    support, total = available, int(available.sum())
    for stage in range(stages):
        keep = round(total * (count / total) ** ((stage + 1) / stages))
        part = stage / stages
        weigh = torch.zeros_like(weights[0])
        weigh[live] = together.pow(part - 1) * alone.pow(-part)
        support = _most(begin.square() * weigh * counts, support, keep)
        begin = begin * support
        if stage + 1 < stages:
            refit = Refit(weights * support, support, about, ridge, exact=False)
            begin = refit.to(about, begin, STEPS, should_stop)
    return support, begin


def _most(score: Tensor, among: Tensor, count: int) -> Tensor:
    """Return the ``count`` highest, True; of equal ones those with the lower flat index."""
    flat = torch.where(among, score, -torch.ones_like(score)).flatten()
    if count == 0:
        return torch.zeros_like(among)
    lowest = torch.kthvalue(flat, len(flat) - count + 1).values
    chosen = flat > lowest
    ties = torch.nonzero(flat == lowest)[:, 0]
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen.reshape(score.shape)
