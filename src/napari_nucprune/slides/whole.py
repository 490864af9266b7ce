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

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ..doors import Progress, ShouldStop, never, no_progress
from ..errors import Cancelled
from ..files import cannot_write
from . import export, pyramid
from .cluster import Runner, crew_at_work
from .lattice import Core
from .plan import OUTPUTS, Ask, Begun, begin
from .scratch import Found
from .stages import Hooks, Order, drop_maps, run_stage
from .status import Tracker
from .tissue import candidates

#: Slides of more cores are worked on in groups of 2 x 2.
_MANY = 400


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
    begun = begin(ask)
    started = time.perf_counter()
    scratch = begun.scratch
    if not scratch.assembled.exists():
        cores = _cores(ask, begun)
        order = Order(str(scratch.output), uuid.uuid4().hex, hooks)
        with _one_thread(), crew_at_work(ask.crew, hooks, should_stop) as runner:
            _find(ask, begun, cores, order, runner, progress)
            found_at = time.perf_counter()
            progress("Writing labels, table and outlines", 0, 1)
            seams = _assemble(ask, begun, cores, order, runner)
        if hooks.stop.is_set():
            raise Cancelled("Cancelled.")
        seconds = {"find": found_at - started, "write": time.perf_counter() - found_at}
        scratch.write_json(scratch.assembled, _about(ask, begun, cores, seams.tolist(), seconds))
    run: dict[str, Any] = json.loads(scratch.assembled.read_text(encoding="utf-8"))
    _deliver(ask, begun)
    progress("Done", 1, 1)
    return run


def _cores(ask: Ask, begun: Begun) -> list[Core]:
    """Return the cores that may hold tissue; looked for once a run."""
    path = begun.scratch.folder / "cores.json"
    if not path.exists():
        whole = list(begun.lattice.cores())
        found = candidates(begun.source, begun.lattice) if ask.tissue_mask else whole
        begun.scratch.write_json(path, found)
    return [(row, column) for row, column in json.loads(path.read_text(encoding="utf-8"))]


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
    tasks = _graph(begun, _groups(ask, begun, cores), order)

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


def _groups(ask: Ask, begun: Begun, cores: list[Core]) -> dict[Core, list[Core]]:
    """Return the cores by task."""
    tile = ask.tile or begun.lattice.core * (2 if len(cores) > _MANY else 1)
    wanted = set(cores)
    groups = begun.lattice.groups(tile)
    chosen = {at: [core for core in own if core in wanted] for at, own in groups.items()}
    return {at: own for at, own in chosen.items() if own}


def _graph(begun: Begun, groups: dict[Core, list[Core]], order: Order) -> list[Any]:
    """Return the tasks that lead to everything being settled.

    A group waits for those around it alone, so that reading, network and merge of different
    groups overlap; what a killed worker had done is on the disk, and is not done again.
    """
    from dask import delayed

    scratch = begun.scratch
    run, drop = delayed(run_stage, pure=False), delayed(drop_maps, pure=False)

    def all_done(stage: Any, at: Core) -> bool:
        return all(scratch.is_done(stage, core) for core in groups[at])

    def around(tasks: dict[Core, Any], at: Core) -> list[Any]:
        row, column = at
        near = [(r, c) for r in range(row - 1, row + 2) for c in range(column - 1, column + 2)]
        return [tasks[other] for other in near if other in tasks]

    def stage(name: Any, before: dict[Core, Any]) -> dict[Core, Any]:
        return {
            at: run(order, name, own, around(before, at), dask_key_name=_key(order, name, at))
            for at, own in groups.items()
            if not all_done(name, at)
        }

    maps = stage("maps", {})
    nuclei = stage("nuclei", maps)
    settled = stage("settled", nuclei)
    dropped = [
        drop(order, own, around(settled, at), dask_key_name=_key(order, "drop", at))
        for at, own in groups.items()
    ]
    return [*nuclei.values(), *dropped]


def _key(order: Order, name: str, at: Core) -> str:
    return f"{name}-{order.token}-{at[0]}-{at[1]}"


def _assemble(
    ask: Ask, begun: Begun, cores: list[Core], order: Order, runner: Runner
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Give the objects their ids and write all files; return the ids at seams."""
    from dask import delayed

    scratch, lattice = begun.scratch, begun.lattice
    offsets = np.zeros((lattice.rows, lattice.columns), np.int64)
    total = 0
    for core in cores:
        offsets[core] = total
        total += int(scratch.about("settled", core)["nuclei"])
    with _writing(begun):
        np.save(scratch.offsets, offsets)
        if not scratch.zarr.exists():
            own = (begun.plan["input"]["mpp"][0], begun.plan["input"]["mpp"][1])
            mpp = (own[0] * begun.ratios[0], own[1] * begun.ratios[1])
            making = scratch.zarr.with_suffix(".making")
            pyramid.create(making, lattice, mpp, own, ask.slide.name)
            os.replace(making, scratch.zarr)
    # The table and the outlines are written while the others write labels.
    with ThreadPoolExecutor(1) as pool:
        found = (_read(begun, core, offsets, order) for core in cores)
        written = pool.submit(export.write_all, scratch.folder, ask.table, ask.zipped, found)
        run, level = delayed(run_stage, pure=False), delayed(pyramid.write_level, pure=False)
        runner(
            [
                run(order, "labels", own, None, dask_key_name=_key(order, "labels", at))
                for at, own in _groups(ask, begun, cores).items()
            ],
            lambda _: None,
        )
        sides = _coarser(set(cores))
        for number in range(1, len(pyramid.level_shapes(lattice.shape))):
            runner(
                [
                    level(
                        scratch.zarr, number, [chunk], lattice.core,
                        dask_key_name=_key(order, f"level-{number}", chunk),
                    )
                    for chunk in sides
                ],
                lambda _: None,
            )  # fmt: skip
            sides = _coarser(set(sides))
        return written.result()


def _coarser(chunks: set[Core]) -> dict[Core, None]:
    """Return the next level's chunks that lie over some."""
    return dict.fromkeys(sorted({(row // 2, column // 2) for row, column in chunks}))


def _read(begun: Begun, core: Core, offsets: Any, order: Order) -> tuple[int, Found | None]:
    if order.hooks is not None and order.hooks.stop.is_set():
        raise Cancelled("Cancelled.")
    return int(offsets[core]), begun.scratch.found(core)


@contextmanager
def _writing(begun: Begun) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_write(begun.scratch.output, error) from error


def _about(
    ask: Ask, begun: Begun, cores: list[Core], seams: list[int], seconds: dict[str, float]
) -> dict[str, Any]:
    """Return what run.json holds: everything needed to repeat the run."""
    scratch, plan, lattice = begun.scratch, begun.plan, begun.lattice
    maps = [scratch.about("maps", core) for core in cores]
    nuclei = [scratch.about("nuclei", core) for core in cores]
    settled = [scratch.about("settled", core) for core in cores]
    bad = sorted({tuple(square) for mark in maps for square in mark["bad"]})
    pixel = begun.mpp**2 / 1e6
    slide_mm2 = lattice.shape[0] * lattice.shape[1] * pixel
    return {
        **plan["about"],
        "image": plan["input"]["path"],
        "input": plan["input"],
        "network": plan["network"],
        "settings": plan["settings"],
        "environment": plan["environment"],
        "shape": list(begun.source.shape),
        "labels_shape": list(lattice.shape),
        "mpp": plan["input"]["mpp"],
        "mpp_assumed": plan["input"]["mpp_assumed"],
        "labels_mpp": begun.mpp,
        "labels_ratios": list(begun.ratios),
        "slide_mm2": slide_mm2,
        "tissue_mm2": sum(mark["tissue_px"] for mark in maps) * pixel,
        "cores": len(lattice),
        "cores_run": sum(mark["tissue_px"] > 0 for mark in maps),
        "bad_tiles": len(bad),
        "nuclei": sum(mark["nuclei"] for mark in settled),
        "contested_cores": sum(mark["changed"] for mark in settled),
        "seam_objects": seams,
        # Of this start, but for the parts, which are sums over all cores and threads.
        "seconds": {
            **{name: round(value, 3) for name, value in seconds.items()},
            "reading": round(sum(mark["read"] for mark in maps), 3),
            "network": round(sum(mark["network"] for mark in maps), 3),
            "nuclei": round(sum(mark["seconds"] for mark in nuclei), 3),
        },
    }


def _deliver(ask: Ask, begun: Begun) -> None:
    """Move the results into the output folder, run.json last, and remove the scratch files."""
    scratch = begun.scratch
    with _writing(begun):
        for name in OUTPUTS:
            new, old = scratch.folder / name, ask.output / name
            if not new.exists() and name in ask.outputs:
                continue  # an earlier start moved it already
            if old.is_dir():
                shutil.rmtree(old)
            else:
                old.unlink(missing_ok=True)
            if new.exists():
                os.replace(new, old)
    scratch.drop()
