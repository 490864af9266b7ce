"""What several commands share: messages, the pruned network, the runtime, run.json."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..doors import BRANCHES, Pruning
from ..errors import InputError

if TYPE_CHECKING:
    from ..checkpoint.format import Checkpoint
    from ..datasets.base import Folder
    from ..pruning.strategy import Masks
    from ..runtime.base import Runtime


#: Seconds between two lines of progress in a log, and before the first.
QUIET = 60.0
_said = time.monotonic()


def say(text: str) -> None:
    """Tell the user something that is no result."""
    print(f"nucprune: {text}", file=sys.stderr)


def show_progress(text: str, done: int, total: int) -> None:
    """Rewrite one line of stderr where it is a terminal, else print a line a minute."""
    global _said
    if sys.stderr.isatty():
        print(
            f"\r\x1b[K{text} {done}/{total}",
            end="\n" if done == total else "",
            file=sys.stderr,
            flush=True,
        )
    elif time.monotonic() - _said > QUIET:
        _said = time.monotonic()
        print(f"nucprune: {text} {done}/{total}", file=sys.stderr, flush=True)


def pruning_asked(options: argparse.Namespace) -> tuple[bool, dict[str, object]]:
    """Return whether any CR was given, and the arguments of `Pruning`.

    Raises
    ------
    InputError
        Where ``--cr`` meets ``--cr-semantic`` or ``--cr-distance``.
    """
    single = options.cr_semantic is not None or options.cr_distance is not None
    if options.cr is not None and single:
        raise InputError("Give --cr for both branches, or --cr-semantic and --cr-distance.")
    values: dict[str, object] = {}
    for branch in ("semantic", "distance"):
        own = options.cr if options.cr is not None else getattr(options, f"cr_{branch}")
        if own is not None:
            values[f"cr_{branch}"] = own
    asked = bool(values)
    if options.strategy is not None:
        values["strategy"] = options.strategy
    if options.keep is not None:
        names = [] if options.keep == "none" else options.keep.split(",")
        values["keep"] = tuple(name.strip() for name in names if name.strip())
    return asked, values


def resolve(options: argparse.Namespace, checkpoint: Checkpoint) -> tuple[Pruning, Masks | None]:
    """Return the pruning to run and its masks; None where the checkpoint runs as stored."""
    from ..pruning.strategy import Ranking, as_stored

    asked, values = pruning_asked(options)
    stored = as_stored(checkpoint, None)
    if options.strategy is not None:
        # A strategy with a CR of its own says by its name how much goes.
        keep: Any = values.get("keep", stored.keep)
        fixed = Ranking(checkpoint, keep).fixed_crs(options.strategy)
        if fixed and not asked:
            values |= {f"cr_{branch}": cr for branch, cr in fixed.items()}
            asked = True
    if not asked:
        return stored, None
    base: dict[str, Any] = {"keep": stored.keep}
    base |= {f"cr_{branch}": stored.cr(branch) for branch in BRANCHES}
    pruning = Pruning(**(base | values))
    return pruning, Ranking(checkpoint, pruning.keep).masks(pruning)


@dataclass(frozen=True)
class Network:
    """What a command runs.

    Attributes
    ----------
    opened
        The checkpoint as the user named it.
    pruning
        What was asked for, else as stored.
    checkpoint, masks
        For the runtime; masks are None where the checkpoint runs as stored or was recovered.
    recovery
        How kept weights were refitted, for run.json; None where they were not.
    """

    opened: Checkpoint
    pruning: Pruning
    checkpoint: Checkpoint
    masks: Masks | None
    recovery: dict[str, Any] | None


def prepare(options: argparse.Namespace, checkpoint: Checkpoint) -> Network:
    """Prune a checkpoint as asked for, and recover it where ``--recover`` says so.

    Raises
    ------
    InputError
        Where ``--recover`` comes without a CR, or its image or folder cannot be used.
    """
    pruning, masks = resolve(options, checkpoint)
    if options.recover == "none":
        own = (checkpoint.pruning or {}).get("recovery") if masks is None else None
        return Network(checkpoint, pruning, checkpoint, masks, own)
    if masks is None:
        raise InputError(
            f"--recover {options.recover} refits what pruning leaves, and nothing is pruned: "
            "give --cr X too, or --cr-semantic X --cr-distance Y."
        )
    from .recovering import recovered

    started = time.perf_counter()
    found = recovered(options, checkpoint, pruning, masks)
    seconds = round(time.perf_counter() - started, 4)
    about = {**(found.pruning or {})["recovery"], "seconds": seconds}
    return Network(checkpoint, pruning, found, None, about)


def open_runtime(options: argparse.Namespace) -> Runtime:
    """Return a runtime, not yet loaded: wrong options must show before the work begins."""
    import torch

    from ..runtime import auto
    from ..runtime.base import TILE

    if options.threads is not None:
        if options.threads < 1:
            raise InputError(f"--threads is {options.threads}; give at least 1.")
        torch.set_num_threads(options.threads)
    tile = TILE if options.tile is None else options.tile
    return auto.open_runtime(options.runtime, options.device, options.threads, tile)


def about_runtime(opened: Checkpoint, runtime: Runtime) -> dict[str, Any]:
    """Return what results say of the checkpoint as the user named it, and of what ran it."""
    import torch

    return {
        "nucprune": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "checkpoint": {"name": opened.name, "sha256": opened.sha256, "mpp": opened.mpp},
        "merge": asdict(opened.merge),
        "runtime": runtime.name,
        "device": runtime.device,
        "threads": torch.get_num_threads(),
    }


def about_run(network: Network, runtime: Runtime) -> dict[str, Any]:
    """Return what run.json says of the network."""
    from ..pruning.cost import cost

    spent = cost(network.checkpoint, network.pruning, network.masks)
    return {
        **about_runtime(network.opened, runtime),
        "pruning": network.pruning.as_dict(),
        "recovery": network.recovery,
        "weights": spent.total,
        "kept": spent.kept,
        "cr": spent.cr,
        "sparsity": spent.sparsity,
        "compute_ratio": spent.compute_ratio,
    }


def open_annotated(options: argparse.Namespace) -> Folder:
    """Find the annotated images of ``FOLDER --layout L --options KEY=VALUE,... --patients P,...``.

    Raises
    ------
    InputError
        As `open_folder` and `Folder.of_patients` do, or where an option is no ``KEY=VALUE``.
    """
    from ..datasets.registry import open_folder

    given: dict[str, Any] = {}
    if options.mpp is not None:
        given["mpp"] = options.mpp
    for text in (options.options or "").split(","):
        key, equals, value = (part.strip() for part in text.partition("="))
        if text.strip() and not (key and equals):
            raise InputError(f"--options has {text!r}; give KEY=VALUE,KEY=VALUE.")
        if key:
            try:
                given[key] = float(value)
            except ValueError:
                given[key] = value
    folder = open_folder(options.folder, options.layout, **given)
    if options.patients is None:
        return folder
    return folder.of_patients([p.strip() for p in options.patients.split(",") if p.strip()])


def open_asked(options: argparse.Namespace) -> Checkpoint:
    """Open the checkpoint of ``--checkpoint``, else the bundled one."""
    from ..checkpoint.shipped import DEFAULT, open_checkpoint

    return open_checkpoint(options.checkpoint or DEFAULT)
