"""What a session is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .doors import Maps, Nuclei, Pruning
from .recovered import Recovery
from .slides.source import Source


@dataclass(frozen=True)
class Job:
    """What is to be shown.

    Attributes
    ----------
    source, box, largest
        As for `slides.field.take`.
    pruning
        Strategy and compression ratios.
    key
        Names the source's pixels: equal keys and boxes may be answered from memory.
    recovery
        Whether the kept weights are refitted to the dense network, and on what; or are those of a
        network that was fine-tuned.
    reselect
        Whether a recovery also chooses anew which weights of a layer stay.
    """

    source: Source
    box: tuple[float, float, float, float] | None
    pruning: Pruning
    key: Hashable
    largest: int = 8192
    recovery: Recovery = "off"
    reselect: bool = False

    @property
    def image(self) -> Hashable:
        """Names the source's pixels and their size."""
        return self.key, self.source.mpp

    @property
    def scope(self) -> Hashable:
        """Names the image and how networks are recovered on it."""
        return self.image, self.recovery, self.reselect


@dataclass(frozen=True)
class Preview:
    """What a job gave.

    Attributes
    ----------
    maps, nuclei
        Of the asked part, at the network's um/px.
    transform
        3x3, homogeneous (y, x, 1): their pixels to level-0 pixels of the image.
    mpp_assumed
        The image had no pixel size.
    network_seconds, seconds
        Time of the network alone, and of the whole job.
    recovered, recovery_seconds
        Whether recovered weights ran, and the time it took to get them: 0 from memory.
    note
        Why they did not run where they were wanted.
    runtime, slow_because
        Which runtime ran; why the sparse one cannot, if so.
    damaged
        Squares of the slide that could not be read in the field, and were run as glass.
    """

    pruning: Pruning
    maps: Maps
    nuclei: Nuclei
    transform: NDArray[np.float64]
    mpp_assumed: bool
    network_seconds: float
    seconds: float
    recovered: bool = False
    recovery_seconds: float = 0.0
    note: str = ""
    runtime: str = "torch"
    slow_because: str = ""
    damaged: int = 0
