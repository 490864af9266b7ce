"""How kept weights are refitted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How kept weights are refitted.

    Attributes
    ----------
    samples, samples_a_weight
        Most places of a layer that are looked at; of these half, or so many times the mean row's
        kept weights where that is more, are used for a refit.
    ridge
        Pull towards the old weights, as part of the mean of the Gram diagonal.
    relu_steps
        Further refits of layers before a ReLU, to what it lets through.
    select_stages
        Steps in which a layer's weights are chosen anew by its responses, as many as the strategy
        keeps there; 0 keeps the strategy's own. Layers that are wide, or keep more than a few
        per cent, take fewer (`layer_fit.WIDE_STAGES`, `layer_fit.THIN`).
    by_effect
        Whether places are drawn, and channels compared, by what an error there does to the output
        (`sensitivities`); else all count alike.
    seed
        Of the places.
    """

    samples: int = 3000
    samples_a_weight: float = 5.0
    ridge: float = 1e-2
    relu_steps: int = 2
    select_stages: int = 0
    by_effect: bool = True
    seed: int = 0


#: A layer's weights chosen anew. A second step to what ReLU lets through adds little then.
RESELECT = Recipe(select_stages=3, relu_steps=1)
