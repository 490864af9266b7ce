"""Strategies by name: each one function from a branch's ranking and a CR to a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..doors import BRANCHES
from ..errors import InputError
from . import beyond
from .magnitude import BranchRanking, Mask

#: Asked and reached CR of N:M may differ by this part: 2 is asked for, 1.9995 reached.
SAME_CR = 0.02


@dataclass(frozen=True)
class Strategy:
    """A way to choose which weights go.

    Attributes
    ----------
    name, explanation
        For the command line and the dock.
    choose
        ``choose(ranking, cr)`` returns the pooled mask of a branch, True where a weight stays.
    fixed_cr
        ``fixed_cr(ranking)`` returns the one CR that it reaches; None where any can be had.
    reselect
        Whether a recovery may choose other weights of a layer instead, as many: not where their
        places are what the strategy is for.
    """

    name: str
    explanation: str
    choose: Callable[[BranchRanking, float], Mask]
    fixed_cr: Callable[[BranchRanking], float] | None = None
    reselect: bool = True


STRATEGIES: dict[str, Strategy] = {}


def register(
    name: str,
    explanation: str,
    fixed_cr: Callable[[BranchRanking], float] | None = None,
    reselect: bool = True,
) -> Callable[..., Callable[..., Mask]]:
    """Register the decorated ``choose`` function as a strategy."""

    def decorate(choose: Callable[[BranchRanking, float], Mask]) -> Callable[..., Mask]:
        STRATEGIES[name] = Strategy(name, explanation, choose, fixed_cr, reselect)
        return choose

    return decorate


def strategy_named(name: str) -> Strategy:
    """Return a strategy.

    Raises
    ------
    InputError
        Where there is none of that name.
    """
    if name not in STRATEGIES:
        raise InputError(f"The strategy {name!r} is not known; choose {', '.join(STRATEGIES)}.")
    return STRATEGIES[name]


@register("layer-wise", "The smallest weights of every layer go, the same part of each.")
def layer_wise(ranking: BranchRanking, cr: float) -> Mask:
    """Remove round((1 - d) n_l) weights of each layer l (Mahbod et al., AMAI 2022)."""
    gone = 1 - ranking.density(cr)
    return ranking.lowest_of_layers([round(gone * layer.size) for layer in ranking.pruned])


@register("network-wide", "The smallest weights of the whole branch go, wherever they lie.")
def network_wide(ranking: BranchRanking, cr: float) -> Mask:
    """Remove N - round(N / CR) weights over all layers pooled (Mahbod et al., AMAI 2022)."""
    return ranking.lowest_of_all(ranking.removed(cr))


@register("LAMP", "The weights go that matter least to their own layer, wherever they lie.")
def lamp(ranking: BranchRanking, cr: float) -> Mask:
    """Remove the N - round(N / CR) weights of the lowest LAMP scores (Lee et al., ICLR 2021).

    A layer's largest weight scores 1, so that no layer is emptied before all are down to one.
    """
    count = ranking.removed(cr)

    def scores() -> np.ndarray:
        found = beyond.lamp([ranking.magnitudes[part] for part in ranking.slices])
        return np.concatenate(found) if found else np.zeros(0)

    return ranking.lowest_by("LAMP", scores, count)


@register("ERK", "The smallest weights of every layer go, more of layers with many channels.")
def erk(ranking: BranchRanking, cr: float) -> Mask:
    """Remove round((1 - d_l) n_l) weights of each layer l, d_l from ERK (Evci et al., ICML 2020).

    The densities d_l keep N / CR weights together with the kept layers'.
    """
    ranking.removed(cr)  # refuses what is out of reach
    densities = beyond.erk(ranking.pruned, ranking.total / cr - ranking.kept_weights)
    counts = [
        round((1 - density) * layer.size)
        for density, layer in zip(densities, ranking.pruned, strict=True)
    ]
    return ranking.lowest_of_layers(counts)


@register(
    "random", "Weights go by chance, whatever their size: the floor for all others.", reselect=False
)
def random(ranking: BranchRanking, cr: float) -> Mask:
    """Remove N - round(N / CR) weights drawn uniformly over all layers pooled, by a fixed seed.

    The baseline that Blalock et al. 2020 ("What is the state of neural network pruning?", MLSys)
    ask for. Masks are nested as CR grows; each branch draws for itself.
    """
    count = ranking.removed(cr)

    def scores() -> np.ndarray:
        rng = np.random.default_rng([0, BRANCHES.index(ranking.branch)])
        return rng.permutation(len(ranking.magnitudes)).astype(np.int32)

    return ranking.lowest_by("random", scores, count)


def _n_of_m(n: int, m: int, where: str) -> None:
    """Register n:m, which has one CR of its own."""

    def fixed_cr(ranking: BranchRanking) -> float:
        gone = sum(layer.size for layer in ranking.pruned if beyond.grouped(layer, m))
        return ranking.total / (ranking.total - gone * (m - n) / m)

    about = f"{n} of every {m} weights stay: CR {m / n:g} only; {where}."

    @register(f"{n}:{m}", about, fixed_cr, reselect=False)
    def choose(ranking: BranchRanking, cr: float) -> Mask:
        """Keep the n largest of every m weights along the inputs (Mishra et al. 2021)."""
        own = fixed_cr(ranking)
        if cr == 1:
            return np.ones(ranking.magnitudes.shape, bool)
        if abs(cr / own - 1) > SAME_CR:
            raise InputError(
                f"{n}:{m} keeps {n} of every {m} weights, so the {ranking.branch} branch has CR "
                f"{own:.3g} with it and not {cr:g}: ask for {own:.3g}, or choose another strategy."
            )

        def mask() -> Mask:
            out = np.ones(ranking.magnitudes.shape, bool)
            for layer, part in zip(ranking.pruned, ranking.slices, strict=True):
                if beyond.grouped(layer, m):
                    out[part] = beyond.n_of_m(ranking.magnitudes[part], layer, n, m)
            return out

        return ranking.once(f"{n}:{m}", mask)


_n_of_m(2, 4, "what NVIDIA's sparse tensor cores run")
_n_of_m(4, 8, "half of them as well, with more freedom")
