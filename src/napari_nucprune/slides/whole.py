"""A whole slide through dask: the same bytes for any tile, any workers and any order.

1. *maps*: every core of a fixed lattice is read with its halo, run, and stored once as integers.
2. *nuclei*: a core and its surroundings are taken from the stored maps, so that neighbours see the
   same bits; the core owns the objects whose markers it holds.
3. *settled*: contested pixels go to the lower core.
4. *labels*: ids 1..n in the order of cores and markers; the pyramid, the table, the outlines.

Each step of a core is a file that is renamed into place, and a done-mark after it: whatever
stops a run, the same command goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..doors import Progress, ShouldStop, never, no_progress
from ..errors import Cancelled, InputError
from .assembly import about_run, assemble, deliver
from .bench import close_bench
from .cluster import Runner, crew_at_work
from .lattice import Core
from .plan import Ask, Begun, begin
from .scratch import Scratch
from .source import bad_of
from .stages import Hooks, Order
from .status import Tracker
from .tasks import graph, grouped
from .tissue import candidates


def segment_slide(
    ask: Ask,
    progress: Progress = no_progress,
    should_stop: ShouldStop = never,
    hooks: Hooks | None = None,
) -> dict[str, Any]:
    """Segment a whole slide into ``ask.output``, or go on with it.

    Parameters
    ----------
    ask
        What to do.
    progress
        Told tiles done.
    should_stop
        Asked several times a second where processes work; threads look at ``hooks.stop``.
    hooks
        To hold or follow the threads' work.

    Returns
    -------
    dict
        What run.json holds.

    Raises
    ------
    InputError
        As `plan.begin` does.
    EnvironmentStopped
        Where the disk is full or workers are lost; what is done stays.
    Cancelled
        What is done stays, too.
    """
    hooks = hooks or Hooks()
    # Workers may have been started in other folders.
    ask = replace(ask, slide=ask.slide.absolute(), output=ask.output.absolute())
    with _alone_in(ask.output):
        return _segment(ask, progress, should_stop, hooks)


def _segment(ask: Ask, progress: Progress, should_stop: ShouldStop, hooks: Hooks) -> dict[str, Any]:
    begun = begin(ask, progress, lambda: hooks.stop.is_set() or should_stop())
    started = time.perf_counter()
    scratch = begun.scratch
    if not _whole(scratch, scratch.assembled, nuclei=int, tissue_mm2=float):
        cores = _cores(ask, begun)
        order = Order(str(scratch.output), uuid.uuid4().hex, hooks)
        with _one_thread(), _bench_of(order), crew_at_work(ask.crew, hooks, should_stop) as runner:
            _find(ask, begun, cores, order, runner, progress)
            found_at = time.perf_counter()
            progress("Writing labels, table and outlines", 0, 1)
            seams = assemble(ask, begun, cores, order, runner)
        if hooks.stop.is_set():
            raise Cancelled("Cancelled.")
        seconds = {"find": found_at - started, "write": time.perf_counter() - found_at}
        scratch.write_json(scratch.assembled, about_run(ask, begun, cores, seams.tolist(), seconds))
    run = scratch.read_json(scratch.assembled, nuclei=int, tissue_mm2=float)
    deliver(ask, begun)
    progress("Done", 1, 1)
    return run


@contextmanager
def _alone_in(output: Path) -> Iterator[None]:
    """Let no other run of this computer work in a folder.

    The lock is no file in it: a run that is refused must leave nothing there.
    """
    from filelock import FileLock, Timeout

    name = hashlib.sha256(os.path.realpath(output).encode()).hexdigest()[:20]
    lock = FileLock(Path(tempfile.gettempdir()) / f"nucprune-{name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"Another run is at work in {output}; wait for its end, or choose another folder."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _cores(ask: Ask, begun: Begun) -> list[Core]:
    """Return the cores that may hold tissue; looked for once a run."""
    path = begun.scratch.folder / "cores.json"
    if not _whole(begun.scratch, path, cores=list, bad=list):
        whole = list(begun.lattice.cores())
        found = candidates(begun.source, begun.lattice) if ask.tissue_mask else whole
        begun.scratch.write_json(path, {"cores": found, "bad": sorted(bad_of(begun.source))})
    look = begun.scratch.read_json(path, cores=list, bad=list)
    return [(row, column) for row, column in look["cores"]]


@contextmanager
def _bench_of(order: Order) -> Iterator[None]:
    """Forget what this process opened for a run, however it ends."""
    try:
        yield
    finally:
        close_bench(order.output, order.token)


def _whole(scratch: Scratch, path: Path, **wanted: type) -> bool:
    """Say whether a file was written, and is not damaged since: else it is made again."""
    try:
        scratch.read_json(path, **wanted)
    except (FileNotFoundError, InputError):
        return False
    return True


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep OpenCV and torch from starting threads inside of ours."""
    import sys

    import cv2

    before = cv2.getNumThreads()
    torch = sys.modules.get("torch")
    torch_before = torch.get_num_threads() if torch else 0
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
        if torch:
            torch.set_num_threads(torch_before)


def _find(
    ask: Ask, begun: Begun, cores: list[Core], order: Order, runner: Runner, progress: Progress
) -> None:
    """Do the steps up to *settled* for all cores that are not done."""
    scratch = begun.scratch
    done = [core for core in cores if scratch.is_done("nuclei", core)]
    nuclei = sum(int(scratch.about("nuclei", core)["nuclei"]) for core in done)
    tracker = Tracker(begun.lattice, begun.mpp, len(cores), len(done), nuclei, progress)
    if ask.crew.is_local and order.hooks is not None:
        order = replace(order, hooks=_told(order.hooks, tracker))
    tasks = graph(begun, grouped(ask, begun, cores), order)

    def result(found: Any) -> None:
        if found is not None and not ask.crew.is_local:
            tracker.add(found["new"], found["nuclei"])

    runner(tasks, result)


def _told(hooks: Hooks, tracker: Tracker) -> Hooks:
    """Return hooks that tell the tracker first."""

    def done(stage: Any, core: Core, about: dict[str, Any]) -> None:
        tracker.core_done(stage, core, about)
        if hooks.done is not None:
            hooks.done(stage, core, about)

    return Hooks(hooks.stop, hooks.pause, done)
