"""What rooms hand each other: frozen dataclasses over numpy arrays, below all rooms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

Branch = Literal["semantic", "distance"]
BRANCHES: tuple[Branch, Branch] = ("semantic", "distance")

#: Called as ``progress(text, done, total)``.
Progress = Callable[[str, int, int], None]
#: Asked between tiles; True stops the run.
ShouldStop = Callable[[], bool]


def no_progress(text: str, done: int, total: int) -> None:
    """Report nothing."""


def never() -> bool:
    """Never stop."""
    return False


@dataclass(frozen=True)
class Pruning:
    """Which weights go.

    Attributes
    ----------
    strategy
        Name in the registry of `pruning.strategies` (``"layer-wise"``, ``"network-wide"``, ...).
    cr_semantic, cr_distance
        Compression ratio of each branch, all weights / weights kept, >= 1.
    keep
        Layers left dense, by name (``"head"`` for both branches, ``"semantic.head"`` for one).
        None means the 1x1 heads, the empty tuple none.

    Raises
    ------
    InputError
        Where a CR is below 1 or not finite.
    """

    strategy: str = "layer-wise"
    cr_semantic: float = 1.0
    cr_distance: float = 1.0
    keep: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for branch in BRANCHES:
            cr = self.cr(branch)
            if not np.isfinite(cr) or cr < 1:
                raise InputError(
                    f"The compression ratio of the {branch} branch is {cr:g}; "
                    "it is all weights / weights kept, so give a number of at least 1."
                )

    def cr(self, branch: Branch) -> float:
        """Compression ratio of one branch."""
        return self.cr_semantic if branch == "semantic" else self.cr_distance

    @property
    def label(self) -> str:
        """Short text for layers and files, e.g. ``layer-wise CR 16``."""
        if self.cr_semantic == self.cr_distance:
            return f"{self.strategy} CR {self.cr_semantic:g}"
        return f"{self.strategy} CR {self.cr_semantic:g} / {self.cr_distance:g}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Merge:
    """Parameters of the marker-controlled watershed, in um so that they hold at any mpp.

    Attributes
    ----------
    sigma_um
        Standard deviation of the Gaussian that smooths the distance map.
    threshold
        Semantic probability from which a pixel is nucleus.
    footprint_um
        Least distance between two markers (Chebyshev).
    min_area_um2
        Smaller objects are removed.
    saddle
        Neighbours are one nucleus where the distance on the saddle between them is at least so
        much of the lower of their two peaks; 1 leaves every marker a nucleus of its own.
    """

    sigma_um: float = 0.75
    threshold: float = 0.5
    footprint_um: float = 1.0
    min_area_um2: float = 1.9
    saddle: float = 1.0

    def __post_init__(self) -> None:
        values = asdict(self).values()
        at_most_1 = self.threshold <= 1 and self.saddle <= 1
        if not all(np.isfinite(v) and v >= 0 for v in values) or not at_most_1:
            raise InputError(
                f"The merge parameters are {asdict(self)}; expected finite numbers of at least 0 "
                "and a threshold and a saddle of at most 1."
            )


@dataclass(frozen=True)
class Field:
    """A part of an image.

    Attributes
    ----------
    rgb
        (H, W, 3) uint8.
    mpp
        um a pixel (both axes).
    origin
        (y, x) of the field's first pixel in the pixels of its level.
    transform
        3x3 float64, homogeneous (y, x, 1): field pixels to the image layer's data pixels.
    mpp_assumed
        True where the image said nothing and the network's own pixel size was taken.
    """

    rgb: NDArray[np.uint8]
    mpp: float
    origin: tuple[int, int] = (0, 0)
    transform: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))
    mpp_assumed: bool = False

    def __post_init__(self) -> None:
        if self.rgb.ndim != 3 or self.rgb.shape[2] != 3 or self.rgb.dtype != np.uint8:
            raise InputError(
                f"The image has shape {self.rgb.shape} and type {self.rgb.dtype}; "
                "expected RGB of shape (height, width, 3) and type uint8."
            )
        if 0 in self.rgb.shape:
            raise InputError(f"The image is empty: its shape is {self.rgb.shape}.")
        if not np.isfinite(self.mpp) or self.mpp <= 0:
            raise InputError(f"The pixel size is {self.mpp} um; expected a number above 0.")


@dataclass(frozen=True)
class Maps:
    """The two branches' outputs on a field.

    Attributes
    ----------
    semantic
        (H, W) float32 in [0, 1], the probability of nucleus.
    distance
        (H, W) float32, distance to the nucleus' border in the checkpoint's distance unit.
    mpp
        um a pixel of the maps.
    """

    semantic: NDArray[np.float32]
    distance: NDArray[np.float32]
    mpp: float


@dataclass(frozen=True)
class Nuclei:
    """Instances.

    Attributes
    ----------
    labels
        (H, W) int32, 0 is background, 1..n without gaps.
    table
        Columns of length n: ``label``, ``centroid_y``, ``centroid_x`` (pixels), ``area_um2``,
        ``eccentricity``, ``mean_distance``.
    mpp
        um a pixel of the labels.
    """

    labels: NDArray[np.int32]
    table: Mapping[str, NDArray[Any]]
    mpp: float

    def __len__(self) -> int:
        return len(self.table["label"])


@dataclass(frozen=True)
class Scores:
    """Agreement of found nuclei with a reference; None where not measured.

    Attributes
    ----------
    dice, iou
        Of ``labels > 0`` on both sides.
    semantic_dice
        Of the thresholded semantic map and ``reference > 0``.
    aji, aji_plus, dq, sq, pq, f1
        Instance scores in [0, 1] (`compare.metrics.score` gives the definitions).
    distance_mse, distance_r, distance_r2
        Of the distance map against the reference's own: mean squared error in its unit squared,
        Pearson's r, and 1 - MSE / Var(reference).
    truth, found
        Number of nuclei.
    """

    dice: float
    iou: float
    aji: float
    dq: float
    sq: float
    pq: float
    truth: int
    found: int
    semantic_dice: float | None = None
    aji_plus: float | None = None
    f1: float | None = None
    distance_mse: float | None = None
    distance_r: float | None = None
    distance_r2: float | None = None

    def as_dict(self) -> dict[str, float | int | None]:
        """Plain values for JSON, in the order of ``evaluate``'s file."""
        order = (
            "dice semantic_dice iou aji aji_plus dq sq pq f1 distance_mse distance_r distance_r2 "
            "truth found"
        )
        return {key: getattr(self, key) for key in order.split()}
