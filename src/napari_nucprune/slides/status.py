"""How far a whole slide is."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from ..doors import Progress
from .lattice import Core, Lattice
from .scratch import Stage


@dataclass(frozen=True)
class Status:
    """A moment of a run.

    Attributes
    ----------
    done, total
        Tiles (cores of the lattice that may hold tissue).
    nuclei
        Found so far.
    mm2
        Area of the tiles done.
    per_second
        Tiles, since this start; 0 where none is done yet.
    seconds_left
        At that rate; None where it is not known.
    """

    done: int
    total: int
    nuclei: int
    mm2: float
    per_second: float
    seconds_left: float | None

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", {_time(self.seconds_left)} left"
        return (
            f"{self.nuclei:,} nuclei on {self.mm2:.2f} mm², "
            f"{self.per_second:.2g} tiles per second{left}"
        )


class Tracker:
    """Counts what is done and tells it; may be called from any thread.

    Parameters
    ----------
    lattice, mpp
        The slide's.
    total
        Tiles.
    done, nuclei
        From earlier starts.
    progress
        Told ``(text, done, total)``.
    """

    def __init__(
        self, lattice: Lattice, mpp: float, total: int, done: int, nuclei: int, progress: Progress
    ) -> None:
        self._lattice, self._mpp, self._total = lattice, mpp, total
        self._before, self._done, self._nuclei = done, done, nuclei
        self._progress = progress
        self._lock = threading.Lock()
        self._started = time.monotonic()

    def core_done(self, stage: Stage, core: Core, about: dict[str, Any]) -> None:
        """Take a stage's mark; tiles count where their objects are found."""
        if stage == "nuclei":
            self.add(1, int(about["nuclei"]))

    def add(self, tiles: int, nuclei: int) -> None:
        """Count tiles and nuclei."""
        with self._lock:
            self._done += tiles
            self._nuclei += nuclei
            status = self.status
        self._progress(f"Segmenting: {status};", status.done, status.total)

    @property
    def status(self) -> Status:
        """Where the run is now."""
        seconds = time.monotonic() - self._started
        now = self._done - self._before
        rate = now / seconds if now and seconds > 0 else 0.0
        area = self._lattice.shape[0] * self._lattice.shape[1] / len(self._lattice)
        left = (self._total - self._done) / rate if rate else None
        mm2 = self._done * area * self._mpp**2 / 1e6
        return Status(self._done, self._total, self._nuclei, mm2, rate, left)


def _time(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
