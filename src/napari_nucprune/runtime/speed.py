"""How long the runtimes take on this computer: measured once, kept in the user's settings."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from .. import settings
from ..checkpoint.architecture import HEAD
from ..checkpoint.format import Checkpoint
from ..doors import BRANCHES, Field
from ..pruning.cost import macs
from ..pruning.strategy import Masks
from .base import Runtime

#: Side of the tile that is timed, how often, and the weights kept in the sparse one: 1 in so many.
SIDE, TIMES, THINNED = 256, 3, 16


@dataclass(frozen=True)
class Speed:
    """Seconds a pixel of both branches.

    Attributes
    ----------
    torch
        Of torch, whatever is pruned.
    fixed, per_mac
        Of the sparse kernels: ``fixed + per_mac * multiply-adds a pixel``.
    """

    torch: float
    fixed: float
    per_mac: float

    def sparse(self, macs_a_pixel: float) -> float:
        """Return the sparse kernels' seconds a pixel."""
        return self.fixed + self.per_mac * macs_a_pixel


def measure(checkpoint: Checkpoint, torch: Runtime, sparse: Runtime) -> Speed:
    """Time both runtimes on a tile: torch as stored, the kernels as stored and thinned.

    Parameters
    ----------
    checkpoint
        A network that both can run; both hold it, thinned or not, afterwards.
    """
    rgb = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    field = Field(rgb, checkpoint.mpp)
    thinned = _thinned(checkpoint)
    torch.load(checkpoint)
    dense_time = _seconds(lambda: torch.run(field))
    points = []
    for masks in (None, thinned):
        sparse.load(checkpoint, masks)
        points.append((macs(checkpoint, masks), _seconds(lambda: sparse.run(field))))
    (many, slow), (few, quick) = points
    slope = max(slow - quick, 0.0) / max(many - few, 1.0)
    # Noise may put the line's start below zero.
    return Speed(dense_time, max(quick - slope * few, 0.0), slope)


def measure_dense(checkpoint: Checkpoint, runtimes: Sequence[Runtime]) -> dict[str, float]:
    """Time dense runtimes on a tile.

    Returns
    -------
    dict
        Seconds a pixel of both branches by the runtime's name; all hold the checkpoint afterwards.
    """
    rgb = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    field, found = Field(rgb, checkpoint.mpp), {}
    for runtime in runtimes:
        runtime.load(checkpoint)
        found[runtime.name] = _seconds(lambda runtime=runtime: runtime.run(field))  # type: ignore[misc]
    return found


def _seconds(work: Callable[[], object]) -> float:
    """Return the least seconds a pixel of some calls after a first one that warms up."""
    work()
    best = math.inf
    for _ in range(TIMES):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best / SIDE**2


def _thinned(checkpoint: Checkpoint) -> Masks:
    masks: Masks = {branch: {} for branch in BRANCHES}
    for branch in BRANCHES:
        for layer in checkpoint.layers(branch):
            if layer.name != HEAD:
                mask = np.zeros(checkpoint.weights[branch][f"{layer.name}.weight"].shape, bool)
                mask.reshape(-1)[::THINNED] = True
                masks[branch][layer.name] = mask
    return masks


@cache
def processor() -> str:
    """Return what the system calls the processor: settings may be shared between computers."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def settings_file() -> Path:
    """Return where the measured speeds are kept."""
    return settings.folder() / "speed.json"


def remembered(key: str) -> Speed | None:
    """Return what was measured before under a key; a damaged file counts as none."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(settings_file().read_text(encoding="utf-8"))[key]
        speed = Speed(**{f.name: float(found[f.name]) for f in fields(Speed)})
        if all(math.isfinite(v) and v >= 0 for v in asdict(speed).values()):
            return speed
    return None


def remembered_dense(key: str, names: Sequence[str]) -> dict[str, float] | None:
    """Return what `measure_dense` gave before under a key; a damaged or partial one is none."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(settings_file().read_text(encoding="utf-8"))[key]
        seconds = {name: float(found[name]) for name in names}
        if all(math.isfinite(v) and v > 0 for v in seconds.values()):
            return seconds
    return None


def remember(key: str, speed: Speed | Mapping[str, float]) -> None:
    """Keep what was measured; where nothing can be written, it is measured again next time."""
    line = asdict(speed) if isinstance(speed, Speed) else dict(speed)
    path = settings_file()
    known: dict[str, object] = {}
    with suppress(OSError, ValueError):
        before = json.loads(path.read_text(encoding="utf-8"))
        known = before if isinstance(before, dict) else {}
    settings.write_json(path, {**known, key: line})
