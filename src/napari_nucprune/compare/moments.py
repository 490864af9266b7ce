"""Agreement of two maps of numbers, from moments that images can share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError


@dataclass(frozen=True)
class Moments:
    """Moments of a map against its reference; ``a + b`` pools two, ``Moments()`` is the zero.

    Attributes
    ----------
    n
        Pixels.
    mean, reference_mean
        Of the map and of the reference.
    spread, reference_spread, product
        Sums of squared deviations from the means, and of the deviations' products.
    squared_error
        Sum of (map - reference)^2.

    Notes
    -----
    Pooled by the formulas of Chan, Golub & LeVeque (1979): differences of raw sums would lose all
    digits where a map is nearly constant.
    """

    n: int = 0
    mean: float = 0.0
    reference_mean: float = 0.0
    spread: float = 0.0
    reference_spread: float = 0.0
    product: float = 0.0
    squared_error: float = 0.0

    def __add__(self, other: Moments) -> Moments:
        if not self.n or not other.n:
            return self if self.n else other
        n = self.n + other.n
        step, reference_step = other.mean - self.mean, other.reference_mean - self.reference_mean
        share, weight = other.n / n, self.n * other.n / n
        return Moments(
            n,
            self.mean + share * step,
            self.reference_mean + share * reference_step,
            self.spread + other.spread + weight * step**2,
            self.reference_spread + other.reference_spread + weight * reference_step**2,
            self.product + other.product + weight * step * reference_step,
            self.squared_error + other.squared_error,
        )

    @property
    def mse(self) -> float:
        """Mean squared error; 0 without pixels."""
        return self.squared_error / self.n if self.n else 0.0

    @property
    def r(self) -> float:
        """Pearson's r in [-1, 1]; where a map is constant 1 if both are equal, else 0."""
        # Roots first: the product of two tiny spreads would be 0.
        scale = self.spread**0.5 * self.reference_spread**0.5
        if not scale:
            return float(self.squared_error == 0)
        return min(max(self.product / scale, -1.0), 1.0)

    @property
    def r2(self) -> float:
        """1 - MSE / Var(reference), at most 1; without variance 1 if both are equal, else 0.

        The coefficient of determination; the rule for a constant reference is that of
        scikit-learn's ``r2_score``.
        """
        if not self.reference_spread:
            return float(self.squared_error == 0)
        return 1 - self.squared_error / self.reference_spread


def moments(values: NDArray[Any], reference: NDArray[Any], name: str = "distance map") -> Moments:
    """Return the moments of a map against its reference.

    Parameters
    ----------
    values, reference
        (H, W) floating, in the same unit.
    name
        What messages call them.

    Raises
    ------
    InputError
        Where the shapes differ or a value is not finite.
    """
    a, b = np.array(values, np.float64).ravel(), np.array(reference, np.float64).ravel()
    if np.shape(values) != np.shape(reference):
        raise InputError(
            f"The {name} has shape {np.shape(values)} and its reference {np.shape(reference)}; "
            "expected two maps of the same (height, width)."
        )
    if not a.size:
        return Moments()
    # A constant's mean may be off by a rounding, and must not make a variance.
    means = [float(x[0] if x.min() == x.max() else x.mean()) for x in (a, b)]
    if not np.isfinite(means).all():
        raise InputError(f"The {name} or its reference holds NaN or inf; expected finite numbers.")
    error = a - b
    a -= means[0]  # both are copies
    b -= means[1]
    return Moments(
        a.size,
        means[0],
        means[1],
        spread=float(a @ a),
        reference_spread=float(b @ b),
        product=float(a @ b),
        squared_error=float(error @ error),
    )
