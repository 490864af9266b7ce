"""What a run is asked for, and whether a folder holds the same one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint import format as checkpoint_format
from ..doors import Progress, ShouldStop, never, no_progress
from ..errors import InputError
from ..runtime.tiling import halo_of
from .cluster import Crew
from .export import TABLES, check_table, geojson_name
from .field import GRID, network_grid
from .identity import difference, environment, input_sha256
from .lattice import CORE, HALO, REACH, Lattice
from .scratch import FOLDER, Scratch
from .source import Source, open_source
from .tissue import BLOCK

if TYPE_CHECKING:
    from ..checkpoint.format import Checkpoint

#: What a finished run leaves, the last one last.
OUTPUTS = (
    "instances.zarr",
    geojson_name(False),
    geojson_name(True),
    *(f"nuclei.{kind}" for kind in TABLES),
    "run.json",
)


@dataclass(frozen=True)
class Network:
    """A network ready to run on a slide.

    Attributes
    ----------
    checkpoint
        Its pruned weights are zero.
    runtime, device
        ``"sparse"`` or ``"torch"``, and where.
    about
        For run.json.
    """

    checkpoint: Checkpoint
    runtime: str
    device: str
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ask:
    """A whole slide to segment.

    Attributes
    ----------
    slide, output
        The file, and the folder for the results.
    opened
        The checkpoint as it was named: um/px and merge are its own.
    network
        What names the network to be run (checkpoint, pruning, recovery): the same values are the
        same run.
    prepare
        Prunes and recovers it, ``prepare(progress, should_stop)``; called where no earlier start
        did.
    runtime
        ``"auto"``, or what it has to be.
    mpp
        um a pixel of level 0 instead of what the slide says, one number or (y, x).
    tissue_mask, table, zipped
        Whether glass is left out; a kind of `export.TABLES`; whether the GeoJSON is gzipped.
    overwrite
        Replace what the folder holds.
    tile
        Side of a task's group of cores in network pixels; None chooses. Changes no result.
    crew
        Who does the work. Changes no result.
    core
        Side of a core; for tests.
    """

    slide: Path
    output: Path
    opened: Checkpoint
    network: dict[str, Any]
    prepare: Callable[[Progress, ShouldStop], Network]
    runtime: str = "auto"
    mpp: float | tuple[float, float] | None = None
    tissue_mask: bool = True
    table: str = "csv"
    zipped: bool = False
    overwrite: bool = False
    tile: int | None = None
    crew: Crew = field(default_factory=Crew)
    core: int = CORE

    @property
    def outputs(self) -> list[str]:
        """Names of the files that the run leaves, the last one last."""
        return [
            "instances.zarr",
            geojson_name(self.zipped),
            f"nuclei.{self.table}",
            "run.json",
        ]


@dataclass(frozen=True)
class Begun:
    """A run whose plan is written: new, or continued.

    Attributes
    ----------
    scratch, plan
        Its files.
    source, lattice
        The slide.
    ratios
        Level-0 pixels a network pixel, (y, x).
    """

    scratch: Scratch
    plan: dict[str, Any]
    source: Source
    lattice: Lattice
    ratios: tuple[float, float]

    @property
    def mpp(self) -> float:
        """Um a network pixel."""
        mpp: float = self.plan["mpp"]
        return mpp


def begin(ask: Ask, progress: Progress = no_progress, should_stop: ShouldStop = never) -> Begun:
    """Open the slide, and begin a run or take up the one that the folder holds.

    Parameters
    ----------
    ask
        What to do.
    progress, should_stop
        As for `input_sha256`.

    Raises
    ------
    InputError
        Where the folder holds results, or another run, and ``overwrite`` is not set.
    EnvironmentStopped
        Where it cannot be written.
    """
    check_table(ask.table)
    if ask.tile is not None and (ask.tile < GRID or ask.tile % GRID):
        raise InputError(f"The tile is {ask.tile} px; expected a positive multiple of {GRID}.")
    source = open_source(ask.slide, ask.mpp, slide=True)
    ratios, shape = network_grid(source, ask.opened.mpp)
    depth = max((len(ask.opened.layers(b)) + 2) // 5 for b in ask.opened.weights)
    halo = -(-max(HALO, halo_of(depth)[0]) // BLOCK) * BLOCK
    lattice = Lattice(shape, ask.core, halo, REACH)
    scratch = Scratch(ask.output)
    asked = _asked(ask, source, lattice, input_sha256(ask.slide, progress, should_stop))
    plan = _continued(ask, scratch, asked)
    if plan is None:
        prepared = partial(ask.prepare, progress, should_stop)
        plan = _new(ask, scratch, asked, source, ratios, prepared)
    return Begun(scratch, plan, source, lattice, ratios)


def _asked(ask: Ask, source: Source, lattice: Lattice, sha256: str) -> dict[str, Any]:
    """Return all that the bytes depend on but the environment, as JSON gives it back."""
    asked = {
        "format": 1,
        "input": {
            "sha256": sha256,
            "shape": list(source.shape),
            "mpp_given": ask.mpp,
        },
        "network": ask.network,
        "settings": {
            "merge": asdict(ask.opened.merge),
            "tissue_mask": ask.tissue_mask,
            "table": ask.table,
            "zipped": ask.zipped,
            "core": lattice.core,
            "halo": lattice.halo,
            "reach": lattice.reach,
        },
    }
    found: dict[str, Any] = json.loads(json.dumps(asked))
    return found


def _continued(ask: Ask, scratch: Scratch, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Return the plan of an earlier start that asked for the same."""
    try:
        plan = scratch.plan()
    except InputError:
        if ask.overwrite:
            return None
        raise
    if plan is None:
        there = [name for name in OUTPUTS if (ask.output / name).exists()]
        if there and not ask.overwrite:
            raise InputError(
                f"{ask.output} holds finished results ({there[0]}); choose another folder, or "
                "add --overwrite on the command line."
            )
        return None
    about = plan["environment"]
    runtime = str(about.get("runtime")) if ask.runtime == "auto" else ask.runtime
    new = asked | {"environment": environment(runtime, str(about.get("device")))}
    old = {key: plan.get(key) for key in new}
    old["input"] = {key: plan["input"].get(key) for key in asked["input"]}
    if found := difference(old, new):
        if ask.overwrite:
            return None
        raise InputError(
            f"{ask.output} holds an unfinished run that differs ({found}); repeat that one, choose "
            "another folder, or add --overwrite on the command line."
        )
    # The slide may have moved.
    plan["input"]["path"] = str(ask.slide.resolve())
    scratch.begin(plan)
    return plan


def _new(
    ask: Ask,
    scratch: Scratch,
    asked: dict[str, Any],
    source: Source,
    ratios: tuple[float, float],
    prepare: Callable[[], Network],
) -> dict[str, Any]:
    if ask.output.is_dir() and (ask.output / FOLDER).exists():
        scratch.drop()
    scratch.make()
    network = prepare()
    checkpoint_format.save(network.checkpoint, scratch.network)
    plan = {
        **asked,
        "environment": environment(network.runtime, network.device),
        "about": network.about,
        "mpp": ask.opened.mpp if ratios != (1.0, 1.0) or not source.mpp else sum(source.mpp) / 2,
    }
    own = source.mpp or (ask.opened.mpp, ask.opened.mpp)
    plan["input"] |= {
        "path": str(ask.slide.resolve()),
        "mpp": list(own),
        "corner": list(source.corner),
        "mpp_assumed": source.mpp is None,
    }
    scratch.begin(plan)
    return plan
