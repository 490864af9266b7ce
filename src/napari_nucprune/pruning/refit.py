"""Ridge least squares on a mask, for all output channels of a layer at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..doors import ShouldStop, never
from ..errors import Cancelled

#: Most bytes of the batched systems that are solved at once.
CHUNK_BYTES = 96_000_000
#: Side of the blocks in which a Gram matrix is built (0.6 of the time of a whole product).
BLOCK = 576
#: Conjugate-gradient steps at most, and the part of the objective's fall so far below which a
#: step was the last one.
CG_STEPS = 20
CG_TOLERANCE = 3e-3
#: Eigenvectors of the Gram matrix in the preconditioner (with 32, five to eight steps reach
#: 99.8 % of the exact solution's fall; without, forty do).
RANK = 32


@dataclass(frozen=True)
class Moments:
    """What least squares needs of a layer's features and responses.

    Attributes
    ----------
    gram
        (F, F) covariance of the features.
    cross
        (F, R) covariance of features and responses.
    feature_mean, response_mean
        (F,) and (R,).
    """

    gram: Tensor
    cross: Tensor
    feature_mean: Tensor
    response_mean: Tensor


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
    gram = _gram(features).div_(len(features))
    return Moments(gram, _cross(features, responses), mean, responses.mean(0))


def with_responses(about: Moments, centred: Tensor, responses: Tensor) -> Moments:
    """Return the moments of the same (centred) features with other responses."""
    return replace(about, cross=_cross(centred, responses), response_mean=responses.mean(0))


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


def refit(
    weights: Tensor,
    begin: Tensor,
    support: Tensor,
    about: Moments,
    ridge: float,
    should_stop: ShouldStop = never,
) -> Tensor:
    """Refit each row's kept weights to its responses.

    Minimises, a row, ``|y - w x|^2 + ridge * m * |w - w0|^2`` over the kept weights, x and y
    centred and m the mean of the Gram diagonal over the features that vary. Its value is never
    above that of ``begin``.

    Parameters
    ----------
    weights
        (R, F) float32, w0, zero outside the support.
    begin
        (R, F) float32, where to start from, zero outside the support.
    support
        (R, F) bool, True where a weight is kept.
    about
        Moments of the samples.
    ridge
        Strength of the pull towards w0, above 0.

    Returns
    -------
    Tensor
        (R, F) float32, zero outside the support.

    Raises
    ------
    Cancelled
        Between chunks, where ``should_stop`` says so.

    Notes
    -----
    The normal equations of the reconstruction step in AdaPrune (Hubara et al. 2021) and Optimal
    Brain Compression (Frantar & Alistarh 2022), with the ridge towards the old weights.
    """
    diagonal = about.gram.diagonal()
    # What centring leaves of a constant is rounding, not variance.
    rounding = (4 * torch.finfo(diagonal.dtype).eps * about.feature_mean).square()
    live = torch.nonzero(diagonal > rounding)[:, 0]
    if not len(live):
        return begin
    # Features that never vary (channels that ReLU holds at zero: a third of the deepest) leave.
    all_live = len(live) == len(diagonal)
    gram = about.gram if all_live else about.gram[live[:, None], live]
    kept = support if all_live else support[:, live]
    pull = ridge * gram.diagonal().mean()
    wanted = about.cross.T[:, live] - begin[:, live] @ gram
    wanted = (wanted - pull * (begin - weights)[:, live]) * kept
    change = _solved(gram, wanted, kept, pull, should_stop)
    gain = (change * wanted).sum(1)
    # A system that failed numerically changes nothing.
    good = torch.isfinite(gain) & (gain >= 0)
    change = torch.where(good[:, None], change, torch.zeros_like(change))
    return begin.index_add(1, live, change)


def _solved(
    gram: Tensor, wanted: Tensor, support: Tensor, pull: Tensor, should_stop: ShouldStop
) -> Tensor:
    """Solve ``(gram + pull) x = wanted`` a row, restricted to its support."""
    sizes = support.sum(1)
    # Measured: about where the batched factorisations become dearer than products with the Gram.
    long = sizes.double() ** 3 > 1.5 * support.shape[1] ** 2
    change = torch.zeros_like(wanted)
    if bool(long.any()):
        rows = torch.nonzero(long)[:, 0]
        change[rows] = _by_gradients(gram, wanted[rows], support[rows], pull, should_stop)
    rows = torch.nonzero(~long & (sizes > 0))[:, 0]
    rows = rows[torch.argsort(sizes[rows], stable=True)]
    # A feature of zeros behind the last fills up the short rows of a chunk.
    wide = pad(gram, (0, 1, 0, 1))
    while len(rows):
        if should_stop():
            raise Cancelled("Cancelled.")
        # Short rows first: the longest of a chunk sets the size of its systems.
        room = CHUNK_BYTES // (4 * sizes[rows].double() ** 2)
        fits = int((room >= torch.arange(1, len(rows) + 1, device=rows.device)).sum())
        chunk, rows = rows[: max(fits, 1)], rows[max(fits, 1) :]
        change[chunk] = _by_cholesky(wide, wanted[chunk], support[chunk], pull)
    return change


def _by_cholesky(gram: Tensor, wanted: Tensor, support: Tensor, pull: Tensor) -> Tensor:
    """Solve the rows' own systems as one batch; the last row and column of ``gram`` are zero."""
    length = int(support.sum(1).max())
    # Kept columns first, in their own order; what fills a short row up points at the zeros.
    order = torch.argsort(support.to(torch.uint8), dim=1, descending=True, stable=True)
    order = order[:, :length]
    real = torch.gather(support, 1, order)
    order = torch.where(real, order, len(gram) - 1)
    systems = gram[order[:, :, None], order[:, None, :]]
    systems.diagonal(dim1=1, dim2=2).add_(torch.where(real, pull, torch.ones_like(pull)))
    wide = pad(wanted, (0, 1))
    factors, failed = torch.linalg.cholesky_ex(systems)
    solved = torch.cholesky_solve(torch.gather(wide, 1, order)[:, :, None], factors)[:, :, 0]
    solved = torch.where((failed == 0)[:, None], solved, torch.zeros_like(solved))
    return torch.zeros_like(wide).scatter_(1, order, solved)[:, :-1]


def _by_gradients(
    gram: Tensor, wanted: Tensor, support: Tensor, pull: Tensor, should_stop: ShouldStop
) -> Tensor:
    """Solve rows with long supports by conjugate gradients, all with the one Gram matrix.

    Preconditioned by its largest eigenvectors plus a diagonal, restricted to each row's support
    and inverted by Woodbury's identity. Every step lowers the objective: stopping early is safe.
    """
    vectors, values = _largest(gram, RANK)
    rest = pull + (gram.diagonal() - vectors.square() @ values).clamp_min(0)
    scaled = vectors / rest[:, None]
    rank = len(values)
    pairs = (scaled[:, :, None] * vectors[:, None, :]).flatten(1)
    small = (support.to(gram.dtype) @ pairs).reshape(-1, rank, rank)
    small.diagonal(dim1=1, dim2=2).add_(1 / values)
    factors, _ = torch.linalg.cholesky_ex(small)

    def ahead(residual: Tensor) -> Tensor:
        plain = residual / rest
        inner = torch.cholesky_solve((plain @ vectors)[:, :, None], factors)[:, :, 0]
        return (plain - inner @ scaled.T) * support

    tiny = torch.finfo(gram.dtype).tiny
    change = torch.zeros_like(wanted)
    residual = wanted.clone()
    near = ahead(residual)
    direction = near
    power = (residual * near).sum(1, keepdim=True)
    fallen = torch.zeros((), dtype=gram.dtype, device=gram.device)
    for _ in range(CG_STEPS):
        if should_stop():
            raise Cancelled("Cancelled.")
        product = (direction @ gram + pull * direction) * support
        step = power / (direction * product).sum(1, keepdim=True).clamp_min(tiny)
        change = change + step * direction
        # A step lowers the objective by this much.
        fall = (step * power).sum()
        fallen = fallen + fall
        if bool(fall <= CG_TOLERANCE * fallen):
            break
        residual = residual - step * product
        near = ahead(residual)
        new = (residual * near).sum(1, keepdim=True)
        direction = near + new / power.clamp_min(tiny) * direction
        power = new
    return change


def _largest(gram: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return about the ``count`` largest eigenvectors (F, count) and eigenvalues of a Gram matrix.

    Subspace iteration from a fixed start (Halko et al. 2011): good enough to precondition.
    """
    draw = torch.Generator().manual_seed(0)
    basis = torch.randn(len(gram), min(count, len(gram)), generator=draw).to(gram)
    for _ in range(2):
        basis = torch.linalg.qr(gram @ basis)[0]
    values, turn = torch.linalg.eigh(basis.T @ gram @ basis)
    good = values > 1e-6 * values[-1]
    return (basis @ turn)[:, good], values[good]
