"""What became of every nucleus of a reference: codes, counts and places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: What can become of a nucleus, by code - 1; where two overlap the higher code is drawn.
FATES = ("matched", "changed", "split", "merged", "added", "lost")


@dataclass(frozen=True)
class Fate:
    """What became of every nucleus of a reference in a result (`compare.fate` has the rules).

    Attributes
    ----------
    reference_ids, result_ids
        (n,) and (m,) integer, as in the label maps.
    reference_fate, result_fate
        (n,) and (m,) uint8, 1 + the index in `FATES`. A reference nucleus is never *added*, a
        result never *lost*. Of results *split* is a piece of a split nucleus and *merged* holds
        several reference nuclei.
    reference_centroid, result_centroid
        (n, 2) and (m, 2) float64, (y, x) in pixels; the centre of the first pixel is 0.
    partner
        (n,) int64, for each reference nucleus the position of the result that it is matched with
        or merged into, of a split one that of the largest piece; -1 where there is none.
    iou, moved_um
        (n,) float64, IoU with the partner and the distance to its centroid in um; NaN without.
    differences
        (H, W) uint8, the fate's code of each pixel, 0 is background.
    cut_off
        (k,) int64, positions of the results that are *split* although the nucleus that they lie
        in is matched with its largest piece. `counts` counts nuclei, so it has none of them.
    """

    reference_ids: NDArray[Any]
    result_ids: NDArray[Any]
    reference_fate: NDArray[np.uint8]
    result_fate: NDArray[np.uint8]
    reference_centroid: NDArray[np.float64]
    result_centroid: NDArray[np.float64]
    partner: NDArray[np.int64]
    iou: NDArray[np.float64]
    moved_um: NDArray[np.float64]
    differences: NDArray[np.uint8]
    cut_off: NDArray[np.int64]

    @property
    def counts(self) -> dict[str, int]:
        """Number of nuclei by fate: of the reference's, and of the result's where *added*."""
        found = np.bincount(self.reference_fate, minlength=len(FATES) + 1)
        added = FATES.index("added") + 1
        found[added] = np.count_nonzero(self.result_fate == added)
        return {name: int(found[code]) for code, name in enumerate(FATES, start=1)}

    @property
    def result_counts(self) -> dict[str, int]:
        """Number of the result's nuclei by fate; *split* also where a matched one lost a piece."""
        found = np.bincount(self.result_fate, minlength=len(FATES) + 1)
        return {name: int(found[code]) for code, name in enumerate(FATES, start=1)}

    def places(self, fate: str) -> NDArray[np.float64]:
        """Return the centroids (k, 2) of all that is drawn as a fate's own: `of`, and `cut_off`."""
        own = self.of(fate)[1]
        if fate != "split":
            return own
        return np.concatenate([own, self.result_centroid[self.cut_off]])

    def of(self, fate: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return positions (k,) and centroids (k, 2) of the nuclei that `counts` counts.

        Parameters
        ----------
        fate
            A name of `FATES`; positions are those in the result for ``"added"``, else in the
            reference.
        """
        code = FATES.index(fate) + 1
        own = fate == "added"
        codes = self.result_fate if own else self.reference_fate
        where = np.flatnonzero(codes == code)
        return where, (self.result_centroid if own else self.reference_centroid)[where]
