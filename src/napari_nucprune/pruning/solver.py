"""Many rows' linear systems that share one Gram matrix, each on its own support."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..doors import ShouldStop, never
from ..errors import Cancelled

#: Most bytes of the batched systems that are factored at once.
CHUNK_BYTES = 96_000_000
#: Conjugate-gradient steps at most, and the part of the objective's fall so far below which a
#: step was the last one.
CG_STEPS = 20
CG_TOLERANCE = 3e-3
#: Eigenvectors of the Gram matrix in the preconditioner (with 32, five to eight steps reach
#: 99.8 % of the exact solution's fall; without, forty do).
RANK = 32


class Solver:
    """Solves ``(gram + pull) x = wanted`` a row, restricted to its support.

    Short rows by their own Cholesky factors, long ones by conjugate gradients, all with the one
    Gram matrix. What does not depend on ``wanted`` is made once.

    Parameters
    ----------
    gram
        (F, F) float32.
    support
        (R, F) bool.
    pull
        Scalar, above 0.
    basis
        Gives about the largest eigenvectors and eigenvalues of the Gram matrix (`largest`).
    exact
        Whether short rows are solved by their factors; else all by conjugate gradients.
    """

    def __init__(
        self,
        gram: Tensor,
        support: Tensor,
        pull: Tensor,
        basis: Callable[[], tuple[Tensor, Tensor]],
        exact: bool = True,
    ) -> None:
        self.gram = gram
        self.pull = pull
        self.support = support
        self.basis = basis
        sizes = support.sum(1)
        # Measured: about where the batched factorisations become dearer than products with the
        # Gram matrix.
        long = sizes.double() ** 3 > 1.5 * support.shape[1] ** 2
        if not exact:
            long = sizes > 0
        self.long = torch.nonzero(long)[:, 0]
        short = torch.nonzero(~long & (sizes > 0))[:, 0]
        # Short rows first: the longest of a chunk sets the size of its systems.
        self.short = short[torch.argsort(sizes[short], stable=True)]
        self.sizes = sizes
        self._mask = support[self.long].to(gram.dtype)
        self._factors: list[tuple[Tensor, Tensor, Tensor, Tensor]] | None = None
        self._ahead: Callable[[Tensor], Tensor] | None = None

    def solve(
        self, wanted: Tensor, steps: int = CG_STEPS, should_stop: ShouldStop = never
    ) -> Tensor:
        """Return x (R, F), zero outside the support.

        Parameters
        ----------
        wanted
            (R, F) float32, zero outside the support.
        steps
            Conjugate-gradient steps at most; each lowers the objective, so few are safe.

        Raises
        ------
        Cancelled
            Between chunks and steps, where ``should_stop`` says so.
        """
        change = torch.zeros_like(wanted)
        if len(self.long):
            change[self.long] = self._by_gradients(wanted[self.long], steps, should_stop)
        if len(self.short):
            if self._factors is None:
                self._factors = self._factored(should_stop)
            for rows, order, real, factors in self._factors:
                wide = pad(wanted[rows], (0, 1))
                own = torch.gather(wide, 1, order)[:, :, None]
                solved = torch.cholesky_solve(own, factors)[:, :, 0]
                solved = torch.where(real, solved, torch.zeros_like(solved))
                change[rows] = torch.zeros_like(wide).scatter_(1, order, solved)[:, :-1]
        return change

    def _factored(self, should_stop: ShouldStop) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Factor the short rows' systems, in chunks: rows, their columns, which are real, factor.

        A feature of zeros behind the last fills up the short rows of a chunk.
        """
        wide = pad(self.gram, (0, 1, 0, 1))
        found = []
        rows = self.short
        while len(rows):
            if should_stop():
                raise Cancelled("Cancelled.")
            room = CHUNK_BYTES // (4 * self.sizes[rows].double() ** 2)
            fits = int((room >= torch.arange(1, len(rows) + 1, device=rows.device)).sum())
            chunk, rows = rows[: max(fits, 1)], rows[max(fits, 1) :]
            kept = self.support[chunk]
            # Kept columns first, in their own order; what fills up points at the zeros.
            order = torch.argsort(kept.to(torch.uint8), dim=1, descending=True, stable=True)
            order = order[:, : int(self.sizes[chunk].max())]
            real = torch.gather(kept, 1, order)
            order = torch.where(real, order, len(self.gram))
            systems = wide[order[:, :, None], order[:, None, :]]
            diagonal = torch.where(real, self.pull, torch.ones_like(self.pull))
            systems.diagonal(dim1=1, dim2=2).add_(diagonal)
            factors, failed = torch.linalg.cholesky_ex(systems)
            found.append((chunk, order, real & (failed == 0)[:, None], factors))
        return found

    def _preconditioner(self) -> Callable[[Tensor], Tensor]:
        """Return what inverts, on each long row's support, the largest eigenvectors + a diagonal.

        By Woodbury's identity.
        """
        mask = self._mask
        vectors, values = self.basis()
        rest = self.pull + (self.gram.diagonal() - vectors.square() @ values).clamp_min(0)
        scaled = vectors / rest[:, None]
        rank = len(values)
        pairs = (scaled[:, :, None] * vectors[:, None, :]).flatten(1)
        small = (mask @ pairs).reshape(-1, rank, rank)
        small.diagonal(dim1=1, dim2=2).add_(1 / values)
        factors, _ = torch.linalg.cholesky_ex(small)

        def ahead(residual: Tensor) -> Tensor:
            plain = residual / rest
            inner = torch.cholesky_solve((plain @ vectors)[:, :, None], factors)[:, :, 0]
            return (plain - inner @ scaled.T) * mask

        return ahead

    def _by_gradients(self, wanted: Tensor, steps: int, should_stop: ShouldStop) -> Tensor:
        """Solve the long rows by preconditioned conjugate gradients."""
        if self._ahead is None:
            self._ahead = self._preconditioner()
        ahead = self._ahead
        tiny = torch.finfo(wanted.dtype).tiny
        change = torch.zeros_like(wanted)
        residual = wanted.clone()
        near = ahead(residual)
        direction = near
        power = (residual * near).sum(1, keepdim=True)
        fallen = torch.zeros((), dtype=wanted.dtype, device=wanted.device)
        for _ in range(steps):
            if should_stop():
                raise Cancelled("Cancelled.")
            product = (direction @ self.gram + self.pull * direction) * self._mask
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


def largest(gram: Tensor, count: int = RANK) -> tuple[Tensor, Tensor]:
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
