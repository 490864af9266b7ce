"""Ranking of weights: they are sorted once, masks follow from thresholds in milliseconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.architecture import HEAD, Layer
from ..checkpoint.format import Weights
from ..doors import Branch
from ..errors import InputError

Mask = NDArray[np.bool_]


class BranchRanking:
    """The magnitudes of one branch, sorted once.

    ``magnitudes`` holds those of all non-kept layers flat, ``slices`` where each of them lies.

    Parameters
    ----------
    branch
        Which one, for messages and for names in ``keep``.
    layers
        Convolutions in forward order.
    weights
        Tensors by name.
    keep
        Names of layers left dense; None means the head.

    Raises
    ------
    InputError
        Where ``keep`` names a layer that does not exist.
    """

    def __init__(
        self,
        branch: Branch,
        layers: Sequence[Layer],
        weights: Weights,
        keep: tuple[str, ...] | None = None,
    ) -> None:
        self.branch = branch
        self.kept = _kept(branch, layers, keep)
        self.layers = list(layers)
        self.pruned = [layer for layer in layers if layer.name not in self.kept]
        self.total = sum(layer.size for layer in layers)
        self.kept_weights = self.total - sum(layer.size for layer in self.pruned)
        parts = [np.abs(weights[f"{layer.name}.weight"]).ravel() for layer in self.pruned]
        self.magnitudes = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        bounds = np.cumsum([0, *(layer.size for layer in self.pruned)])
        self.slices = [slice(a, b) for a, b in pairwise(bounds)]
        self._made: dict[str, NDArray[Any]] = {}

    @cached_property
    def _sorted_layers(self) -> list[NDArray[np.float32]]:
        return [np.sort(self.magnitudes[part]) for part in self.slices]

    @cached_property
    def _sorted_pooled(self) -> NDArray[np.float32]:
        return np.sort(self.magnitudes)

    @property
    def largest_cr(self) -> float:
        """Compression ratio at which only the kept layers are left."""
        return self.total / self.kept_weights if self.kept_weights else float(self.total)

    def density(self, cr: float) -> float:
        """Return the part of each non-kept layer that stays: (N / CR - K) / (N - K).

        Raises
        ------
        InputError
            Where the kept layers alone exceed N / CR.
        """
        self.removed(cr)
        rest = self.total - self.kept_weights
        return (self.total / cr - self.kept_weights) / rest if rest else 1.0

    def removed(self, cr: float) -> int:
        """Return N - round(N / CR), the weights that go over all layers.

        Raises
        ------
        InputError
            Where that is more than all weights of the non-kept layers.
        """
        if self.total / cr < self.kept_weights or (self.kept_weights == 0 and cr > self.total):
            # Rounded down: the number that is named can be asked for.
            largest = math.floor(self.largest_cr * 1000) / 1000
            kept = f" with {', '.join(self.kept)} left dense" if self.kept else ""
            raise InputError(
                f"The {self.branch} branch cannot reach CR {cr:g}{kept}; the largest is "
                f"{largest:.12g}."
            )
        return self.total - round(self.total / cr)

    def lowest_of_layers(self, counts: Sequence[int]) -> Mask:
        """Return the pooled mask with the ``counts[i]`` lowest weights of layer i removed."""
        out = np.empty(self.magnitudes.shape, bool)
        for part, ranked, count in zip(self.slices, self._sorted_layers, counts, strict=True):
            _cut(self.magnitudes[part], ranked, count, out[part])
        return out

    def lowest_of_all(self, count: int) -> Mask:
        """Return the pooled mask with the ``count`` lowest weights of all layers removed."""
        out = np.empty(self.magnitudes.shape, bool)
        _cut(self.magnitudes, self._sorted_pooled, count, out)
        return out

    def lowest_by(self, name: str, scores: Callable[[], NDArray[Any]], count: int) -> Mask:
        """Return the pooled mask with the ``count`` weights of the lowest scores removed.

        Parameters
        ----------
        name
            Names the scores, which are made and sorted once.
        scores
            Returns one a weight of the non-kept layers; among equal ones the lower index stays.
        count
            At most all of these weights.
        """
        own = self.once(name, scores)
        out = np.empty(own.shape, bool)
        _cut(own, self.once(f"{name}, sorted", lambda: np.sort(own)), count, out)
        return out

    def once(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return what ``make`` gave when it was first asked for by this name."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def split(self, pooled: Mask) -> dict[str, Mask]:
        """Return masks by layer name, in the weights' shapes; kept layers are left out."""
        return {
            layer.name: pooled[part].reshape(layer.shape)
            for layer, part in zip(self.pruned, self.slices, strict=True)
        }


def _cut(scores: NDArray[Any], ranked: NDArray[Any], count: int, out: Mask) -> None:
    """Write True where a weight stays, the ``count`` lowest gone; among ties lower indices stay."""
    if count <= 0:
        out[...] = True
        return
    threshold = ranked[count - 1]
    np.greater(scores, threshold, out=out)
    ties_kept = int(np.searchsorted(ranked, threshold, side="right")) - count
    if ties_kept:
        out[np.flatnonzero(scores == threshold)[:ties_kept]] = True


def _kept(branch: Branch, layers: Sequence[Layer], keep: tuple[str, ...] | None) -> tuple[str, ...]:
    names = {layer.name for layer in layers}
    if keep is None:
        return (HEAD,)
    own = []
    for name in keep:
        prefix, _, rest = name.partition(".")
        if prefix in ("semantic", "distance"):
            if rest not in names:
                raise InputError(f"There is no layer {name!r} to keep; known are {sorted(names)}.")
            if prefix == branch:
                own.append(rest)
        elif name in names:
            own.append(name)
        else:
            raise InputError(f"There is no layer {name!r} to keep; known are {sorted(names)}.")
    return tuple(dict.fromkeys(own))
