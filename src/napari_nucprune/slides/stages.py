"""A slide's tasks: groups of cores through network, merge, and what follows.

Each may run twice, in any order that its inputs allow, in any process: it writes the same bytes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import Cancelled, InputError
from ..files import cannot_write
from . import fixed
from .bench import Bench, bench_for
from .describe import describe
from .lattice import Core
from .ownership import Claims, claim, least_pixels, marker_radius
from .scratch import Found, Stage
from .seams import settle
from .tissue import tissue_of_window

#: Of a core's pixels may lie beyond what the codes hold.
_BEYOND = 0.001


@dataclass
class Hooks:
    """How the caller hears of tasks in its own process, and holds them; stays there.

    Attributes
    ----------
    stop, pause
        Looked at between cores.
    done
        Called as ``done(stage, core, about)`` in the task's thread; ``about`` is the mark.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    pause: threading.Event = field(default_factory=threading.Event)
    done: Callable[[Stage, Core, dict[str, Any]], None] | None = None


@dataclass(frozen=True)
class Order:
    """What a task is told besides its cores.

    Attributes
    ----------
    output, token
        The output folder, and the name of this start.
    hooks
        None in other processes.
    """

    output: str
    token: str
    hooks: Hooks | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"output": self.output, "token": self.token, "hooks": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)


def run_stage(
    order: Order, stage: Stage, cores: Iterable[Core], after: Any = None
) -> dict[str, int]:
    """Run a stage of some cores, those that are not done.

    Parameters
    ----------
    order, stage, cores
        What, and where.
    after
        Tasks that this one waits for; unused.

    Returns
    -------
    dict
        ``new`` and ``nuclei``: cores that were not done before, and what they hold.

    Raises
    ------
    Cancelled
        Between cores, where the hooks say so.
    InputError, EnvironmentStopped
        As the steps do.
    """
    bench = bench_for(order.output, order.token)
    if order.hooks is None:  # a process of its own: one thread a worker
        import cv2

        cv2.setNumThreads(1)
    new = nuclei = 0
    for core in cores:
        if order.hooks:
            while order.hooks.pause.is_set() and not order.hooks.stop.is_set():
                time.sleep(0.05)
            if order.hooks.stop.is_set():
                raise Cancelled("Cancelled.")
        if not bench.scratch.is_done(stage, core):
            try:
                about = _STEPS[stage](bench, core)
            except OSError as error:
                raise cannot_write(bench.scratch.output, error) from error
            bench.scratch.mark(stage, core, **about)
            new += 1
            nuclei += int(about.get("nuclei", 0))
            if order.hooks and order.hooks.done:
                order.hooks.done(stage, core, about)
    return {"new": new, "nuclei": nuclei}


def drop_maps(order: Order, cores: Iterable[Core], after: Any = None) -> None:
    """Remove maps that no core needs any more."""
    bench = bench_for(order.output, order.token)
    for core in cores:
        bench.scratch.drop_maps(core)


def _maps(bench: Bench, core: Core) -> dict[str, Any]:
    """Read a window, run the network, store the core's maps."""
    started = time.perf_counter()
    before = bench.bad()
    lattice = bench.lattice
    rgb = bench.window(core)
    bad = bench.bad() - before
    if bad:
        bench.check_slide()
    about: dict[str, Any] = {"bad": sorted(bad), "tissue_px": 0, "network": 0.0}
    read = time.perf_counter()
    about["read"] = read - started
    y0, x0, y1, x1 = lattice.box(core)
    height, width = y1 - y0, x1 - x0
    tissue = np.ones((lattice.core, lattice.core), bool)
    if bench.tissue:
        tissue = tissue_of_window(rgb, lattice.halo)
    about["tissue_px"] = int(np.count_nonzero(tissue[:height, :width]))
    if not about["tissue_px"]:
        return about
    maps = bench.runtime.run(bench.field(rgb))
    about["network"] = time.perf_counter() - read
    inner = np.s_[lattice.halo : lattice.halo + height, lattice.halo : lattice.halo + width]
    codes = np.zeros((2, lattice.core, lattice.core), np.uint16)
    distance, beyond = fixed.distance_codes(maps.distance[inner])
    if beyond > _BEYOND * distance.size:
        raise InputError(
            f"The distance map goes up to {maps.distance.max():.3g}; a whole slide holds up to 7 "
            "of the checkpoint's units: is this a network whose distances are in pixels?"
        )
    codes[0, :height, :width] = fixed.semantic_codes(maps.semantic[inner])
    codes[0][~tissue] = 0
    codes[1, :height, :width] = distance
    bench.scratch.save_maps(core, codes)
    return about


def _nuclei(bench: Bench, core: Core) -> dict[str, Any]:
    """Find a core's objects in the stored maps."""
    started = time.perf_counter()
    lattice, scratch = bench.lattice, bench.scratch
    sigma = bench.merge.sigma_um / bench.mpp
    margin = lattice.reach + fixed.half_width(sigma) + marker_radius(bench.merge, bench.mpp) + 1
    box = lattice.box(core, margin)
    found = None
    if not scratch.about("maps", core)["tissue_px"]:
        return {"nuclei": 0, "seconds": 0.0}  # no markers on glass
    semantic, distance = bench.stored(box)
    inside = semantic >= fixed.threshold_code(bench.merge.threshold)
    if inside.any():
        landscape = fixed.landscape(distance, sigma)
        found = claim(lattice, core, inside, landscape, margin, bench.merge, bench.mpp)
    if found is None or not len(found):
        return {"nuclei": 0, "seconds": time.perf_counter() - started}
    described = _described(bench, core, found, distance, (box[0], box[1]))
    scratch.save_found("nuclei", core, described)
    return {"nuclei": len(found), "seconds": time.perf_counter() - started}


def _described(
    bench: Bench, core: Core, claims: Claims, distance: NDArray[np.uint16], origin: Core
) -> Found:
    about = bench.ratios, bench.mpp, bench.source.corner
    return describe(bench.lattice, core, claims, distance, origin, *about)


def _settled(bench: Bench, core: Core) -> dict[str, Any]:
    """Give up what cores before this one claim too."""
    lattice, scratch = bench.lattice, bench.scratch
    claims = scratch.claims("nuclei", core)
    if claims is None:
        return {"nuclei": 0, "changed": False, "seam": 0}
    lower = [(other, scratch.claims("nuclei", other)) for other in lattice.around(core)]
    before: list[tuple[Core, Claims]] = [(o, c) for o, c in lower if o < core and c is not None]
    least = least_pixels(bench.merge, bench.mpp)
    left = settle(lattice, core, claims, before, least)
    changed = left is not claims
    if changed:
        box = lattice.box(core, lattice.reach)
        _, distance = bench.stored(box)
        described = (
            _described(bench, core, left, distance, (box[0], box[1]))
            if len(left)
            else Found(left, np.zeros((0, 0)), [])
        )
        scratch.save_found("settled", core, described)
    return {"nuclei": len(left), "changed": changed, "seam": int(left.seam.sum())}


def _labels(bench: Bench, core: Core) -> dict[str, Any]:
    """Write a core's chunk of the slide's labels."""
    from .pyramid import write_core

    write_core(bench, core)
    return {"nuclei": 0}


_STEPS: dict[Stage, Callable[[Bench, Core], dict[str, Any]]] = {
    "maps": _maps,
    "nuclei": _nuclei,
    "settled": _settled,
    "labels": _labels,
}
