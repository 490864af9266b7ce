"""Ridge least squares on a mask, for all output channels of a layer at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..doors import ShouldStop, never
from .solver import CG_STEPS, Solver, largest

#: Side of the blocks in which a Gram matrix is built (0.6 of the time of a whole product).
BLOCK = 384


@dataclass(frozen=True)
class Moments:
    """What least squares needs of a layer's features and responses.

    Only features that vary are in it: channels that ReLU holds at zero, a third of the deepest,
    do not.

    Attributes
    ----------
    live
        (L,) int64, indices of the features that vary, of F.
    centred
        (n, L) the samples of those, less their means.
    gram
        (L, L) covariance of the features that vary.
    cross
        (L, R) covariance of them and the responses.
    feature_mean, response_mean
        (F,), of all features, and (R,).
    """

    live: Tensor
    centred: Tensor
    gram: Tensor
    cross: Tensor
    feature_mean: Tensor
    response_mean: Tensor
    _kept: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False, compare=False)

    def basis(self) -> tuple[Tensor, Tensor]:
        """Return the largest eigenvectors and eigenvalues of the Gram matrix."""
        if "basis" not in self._kept:
            self._kept["basis"] = largest(self.gram)
        return self._kept["basis"]


def moments(features: Tensor, responses: Tensor) -> Moments:
    """Return the moments of samples; ``features`` is centred in place.

    Parameters
    ----------
    features
        (n, F) float32.
    responses
        (n, R) float32.
    """
    mean = features.mean(0)
    # Centred before the product: afterwards float32 would lose the small variances.
    features -= mean
    variance = features.square().mean(0)
    # What centring leaves of a constant is rounding, not variance.
    rounding = (4 * torch.finfo(mean.dtype).eps * mean).square()
    live = torch.nonzero(variance > rounding)[:, 0]
    centred = features if len(live) == len(mean) else features[:, live]
    gram = _gram(centred).div_(len(centred))
    cross = _cross(centred, responses)
    return Moments(live, centred, gram, cross, mean, responses.mean(0))


def with_responses(about: Moments, responses: Tensor) -> Moments:
    """Return the moments of the same features with other responses."""
    return replace(about, cross=_cross(about.centred, responses), response_mean=responses.mean(0))


def _cross(centred: Tensor, responses: Tensor) -> Tensor:
    return (centred.T @ (responses - responses.mean(0))).div_(len(centred))


def _gram(features: Tensor) -> Tensor:
    """Return ``features.T @ features``, each block below the diagonal taken from above it."""
    size = features.shape[1]
    out = features.new_empty(size, size)
    for start in range(0, size, BLOCK):
        rows, below = slice(start, start + BLOCK), slice(start + BLOCK, size)
        out[rows, start:] = features[:, rows].T @ features[:, start:]
        out[below, rows] = out[rows, below].T
    return out


class Refit:
    """Refits of a layer's kept weights, for one support and any responses.

    A refit minimises, a row, ``|y - w x|^2 + ridge * m * |w - w0|^2`` over the kept weights, x and
    y centred and m the mean of the Gram diagonal over the features that vary.

    Parameters
    ----------
    weights
        (R, F) float32, w0, zero outside the support.
    support
        (R, F) bool, True where a weight is kept.
    about
        Moments of the samples.
    ridge
        Strength of the pull towards w0, above 0.
    exact
        As for `Solver`.

    Notes
    -----
    The normal equations of the reconstruction step in AdaPrune (Hubara et al. 2021) and Optimal
    Brain Compression (Frantar & Alistarh 2022), with the ridge towards the old weights.
    """

    def __init__(
        self, weights: Tensor, support: Tensor, about: Moments, ridge: float, exact: bool = True
    ) -> None:
        self.live, self.gram = about.live, about.gram
        self.weights = weights[:, self.live]
        self.pull = ridge * self.gram.diagonal().mean()
        support = support[:, self.live]
        # A product with a bool takes several times that with a float.
        self.kept = support.to(self.gram.dtype)
        self.solver = Solver(self.gram, support, self.pull, about.basis, exact)

    def to(
        self, about: Moments, begin: Tensor, steps: int = CG_STEPS, should_stop: ShouldStop = never
    ) -> Tensor:
        """Refit to the responses of ``about``.

        Parameters
        ----------
        about
            Moments of the same features.
        begin
            (R, F) float32, where to start from, zero outside the support.
        steps
            Conjugate-gradient steps at most.

        Returns
        -------
        Tensor
            (R, F) float32, zero outside the support; the objective is never above that of
            ``begin``.

        Raises
        ------
        Cancelled
            Between chunks, where ``should_stop`` says so.
        """
        if not len(self.live):
            return begin
        start = begin[:, self.live]
        wanted = about.cross.T - start @ self.gram
        wanted = (wanted - self.pull * (start - self.weights)) * self.kept
        change = self.solver.solve(wanted, steps, should_stop)
        gain = (change * wanted).sum(1)
        # A system that failed numerically changes nothing.
        good = torch.isfinite(gain) & (gain >= 0)
        change = torch.where(good[:, None], change, torch.zeros_like(change))
        return begin.index_add(1, self.live, change)


def refit(
    weights: Tensor,
    begin: Tensor,
    support: Tensor,
    about: Moments,
    ridge: float,
    should_stop: ShouldStop = never,
) -> Tensor:
    """Refit once; the parameters are those of `Refit` and `Refit.to`."""
    return Refit(weights, support, about, ridge).to(about, begin, should_stop=should_stop)
