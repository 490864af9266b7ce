"""A result against a reference: what became of every nucleus, the scores, the maps' differences."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.format import Checkpoint
from ..compare.fate import fates
from ..compare.metrics import RADIUS_UM, score
from ..compare.outcome import Fate
from ..doors import Scores
from .placed import Ground, Placed, ground

#: What is shown of `Scores`, by the words of ``nucprune evaluate``.
METRICS = {
    "semantic_dice": "semantic Dice",
    "distance_r2": "distance R2",
    "dice": "Dice of nuclei",
    "aji": "AJI",
    "pq": "PQ",
    "dq": "DQ",
    "sq": "SQ",
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a result has lost against a reference.

    Attributes
    ----------
    result, reference
        Their names.
    scores
        Of the result.
    start
        Of the network with nothing pruned, against the same reference; None where it has not run
        there.
    fate
        Of every nucleus.
    transform, mpp
        3x3, pixels of ``fate`` and the differences to level-0 pixels; and um a pixel.
    semantic, distance
        (H, W) float32, the result's map minus the reference's; None where the result has no maps.
    labels, reference_labels
        (H, W) integer, both on the compared grid.
    """

    result: str
    reference: str
    scores: Scores
    start: Scores | None
    fate: Fate
    transform: NDArray[np.float64]
    mpp: float
    semantic: NDArray[np.float32] | None
    distance: NDArray[np.float32] | None
    labels: NDArray[np.integer]
    reference_labels: NDArray[np.integer]

    def row(self, metric: str) -> tuple[float | None, float | None, float | None]:
        """Return a score m(CR), m(1) and the loss 1 - m(CR) / m(1); None where one is unknown."""
        now: float | None = getattr(self.scores, metric)
        start: float | None = None if self.start is None else getattr(self.start, metric)
        return now, start, None if now is None or not start or start < 0 else 1 - now / start


class Comparer:
    """Compares results with references and remembers what the next comparison needs again.

    Parameters
    ----------
    checkpoint
        Gives the distance's unit, um a pixel and the semantic map's threshold.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._ground: tuple[Hashable, Ground] | None = None
        self._start: tuple[Hashable, tuple[Ground, Placed], Scores] | None = None

    def compare(
        self,
        result: Placed,
        reference: Placed,
        image: tuple[int, int],
        dense: Placed | None = None,
    ) -> Comparison:
        """Compare a result with a reference on the part that both cover.

        Parameters
        ----------
        result, reference
            What is to be compared.
        image
            (H, W) of level 0.
        dense
            What the network with nothing pruned gave on the result's pixels, for the losses.

        Raises
        ------
        InputError
            Where the two do not overlap, or the reference is no label map.
        """
        common = self._common(result, reference, image)
        own = common.of(result)
        fate = fates(common.labels, own.labels, common.mpp)
        start = None
        if (
            dense is not None
            and dense.shape == result.shape
            and np.allclose(dense.transform, result.transform)
        ):
            start = self._start_of(common, dense)
        return Comparison(
            result.name,
            reference.name,
            self._score(common, own),
            start,
            fate,
            common.transform,
            common.mpp,
            None if own.semantic is None else own.semantic - common.semantic,
            None if own.distance is None else own.distance - common.distance,
            own.labels,
            common.labels,
        )

    def _common(self, result: Placed, reference: Placed, image: tuple[int, int]) -> Ground:
        key = (reference.key, reference.transform.tobytes(), result.transform.tobytes(),
               result.shape, image)  # fmt: skip
        if self._ground is None or self._ground[0] != key:
            merge = self.checkpoint.merge
            found = ground(
                result,
                reference,
                image,
                self.checkpoint.mpp,
                self.checkpoint.distance_unit_um,
                merge.threshold,
            )
            self._ground = key, found
        return self._ground[1]

    def _start_of(self, common: Ground, dense: Placed) -> Scores:
        # Both are held with their scores, so that neither's id can go to another.
        if (
            self._start is None
            or self._start[1][0] is not common
            or self._start[1][1].key != dense.key
        ):
            self._start = dense.key, (common, dense), self._score(common, common.of(dense))
        return self._start[2]

    def _score(self, common: Ground, own: Placed) -> Scores:
        threshold = self.checkpoint.merge.threshold
        found = score(
            np.asarray(own.labels),
            common.labels,
            distance=None if own.distance is None else (own.distance, common.distance),
            radius=RADIUS_UM / common.mpp,
        )
        if own.semantic is None:
            return found
        # Against the reference's own semantic map where it has one, else against its nuclei.
        nucleus = own.semantic >= threshold
        both = np.count_nonzero(nucleus) + np.count_nonzero(common.nucleus)
        shared = np.count_nonzero(nucleus & common.nucleus)
        return replace(found, semantic_dice=2 * shared / both if both else 1.0)
