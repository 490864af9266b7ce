"""The tasks of a whole slide, and which waits for which."""

from __future__ import annotations

from typing import Any

from .lattice import Core
from .plan import Ask, Begun
from .scratch import Scratch
from .stages import Order, drop_maps, run_stage

#: Slides of more cores are worked on in groups of 2 x 2.
_MANY = 400


def grouped(ask: Ask, begun: Begun, cores: list[Core]) -> dict[Core, list[Core]]:
    """Return the cores by task."""
    tile = ask.tile or begun.lattice.core * (2 if len(cores) > _MANY else 1)
    wanted = set(cores)
    groups = begun.lattice.groups(tile)
    chosen = {at: [core for core in own if core in wanted] for at, own in groups.items()}
    return {at: own for at, own in chosen.items() if own}


def graph(begun: Begun, groups: dict[Core, list[Core]], order: Order) -> list[Any]:
    """Return the tasks that lead to everything being settled.

    A group waits for those around it alone, so that reading, network and merge of different
    groups overlap; what a killed worker had done is on the disk, and is not done again.
    """
    from dask import delayed

    scratch = begun.scratch
    _redo_lost(scratch, groups)
    run, drop = delayed(run_stage, pure=False), delayed(drop_maps, pure=False)

    def all_done(stage: Any, at: Core) -> bool:
        return all(scratch.is_done(stage, core) for core in groups[at])

    def around(tasks: dict[Core, Any], at: Core) -> list[Any]:
        row, column = at
        near = [(r, c) for r in range(row - 1, row + 2) for c in range(column - 1, column + 2)]
        return [tasks[other] for other in near if other in tasks]

    def stage(name: Any, before: dict[Core, Any]) -> dict[Core, Any]:
        return {
            at: run(order, name, own, around(before, at), dask_key_name=key(order, name, at))
            for at, own in groups.items()
            if not all_done(name, at)
        }

    maps = stage("maps", {})
    nuclei = stage("nuclei", maps)
    settled = stage("settled", nuclei)
    dropped = [
        drop(order, own, around(settled, at), dask_key_name=key(order, "drop", at))
        for at, own in groups.items()
    ]
    return [*nuclei.values(), *dropped]


def _redo_lost(scratch: Scratch, groups: dict[Core, list[Core]]) -> None:
    """Take back the marks of what is gone although others still need it: it would be glass."""
    cores = [core for own in groups.values() for core in own]
    for core in cores:
        if scratch.lacks("nuclei", core):
            scratch.take_back("nuclei", core)
    left = {
        core
        for core in cores
        if not (scratch.is_done("settled", core) and scratch.is_done("nuclei", core))
    }
    for row, column in cores:
        near = {(r, c) for r in range(row - 1, row + 2) for c in range(column - 1, column + 2)}
        core = row, column
        if near & left and scratch.lacks("maps", core):
            scratch.take_back("maps", core)


def key(order: Order, name: str, at: Core) -> str:
    """Return a task's name in the graph; those of another start have others."""
    return f"{name}-{order.token}-{at[0]}-{at[1]}"
