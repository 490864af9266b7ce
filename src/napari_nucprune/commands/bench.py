"""``nucprune bench``: the sparse kernels against dense runtimes on this computer."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..files import replacing
from .common import open_asked, say

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..runtime.versus import Matrix


def bench(options: argparse.Namespace) -> None:
    """``nucprune bench``."""
    from ..native import NativeMissing
    from ..pruning.strategy import Ranking
    from ..runtime.versus import KEYS, rows, table

    checkpoint = open_asked(options)
    if checkpoint.pruning:
        raise InputError(f"{checkpoint.name} is pruned already; bench wants its dense parent.")
    asked = matrix(options)
    target = Path(options.json) if options.json else None
    if target is not None and not target.parent.is_dir():
        raise InputError(f"{target.parent} is no folder; --json cannot be written there.")

    def done(group: list[dict[str, Any]]) -> None:
        print(f"{table(group)}\n", flush=True)

    try:
        found = rows(Ranking(checkpoint), asked, image, done, say)
    except NativeMissing as error:
        raise InputError(f"The sparse runtime cannot be timed: {error}") from error
    if target is not None:
        kept = [{key: row[key] for key in KEYS} for row in found]
        with replacing(target) as temporary:
            temporary.write_text(json.dumps({"rows": kept}, indent=1), encoding="utf-8")


def matrix(options: argparse.Namespace) -> Matrix:
    """Return what the options ask to be timed.

    Raises
    ------
    InputError
        Where a list holds what it should not.
    """
    from ..runtime.sparse_runtime import default_threads
    from ..runtime.versus import Matrix

    def listed(name: str, kind: Callable[[str], Any], usual: tuple[Any, ...]) -> tuple[Any, ...]:
        text = getattr(options, name)
        if text is None:
            return usual
        try:
            return tuple(kind(part.strip()) for part in text.split(","))
        except ValueError as error:
            raise InputError(f"--{name} is {text!r}; give a list like {usual}.") from error

    full = Matrix()
    threads = dict.fromkeys((1, default_threads())) if options.full else (1,)
    return Matrix(
        listed("size", int, tuple(full.sizes) if options.full else (512,)),
        listed("cr", float, tuple(full.crs) if options.full else (1, 5, 16, 20, 50)),
        listed("strategy", str, tuple(full.strategies)),
        listed("threads", lambda t: default_threads() if t == "all" else int(t), tuple(threads)),
        listed("branch", str, ("semantic", "distance", "both") if options.full else ("semantic",)),
        listed("rivals", str, tuple(full.rivals)),
        options.runs,
        not options.no_error,
        time.process_time if options.cpu_time else time.perf_counter,
    )


def image(size: int) -> NDArray[np.uint8]:
    """Return tissue of a size, repeated where the picture ends."""
    from ..samples import tissue

    tile = tissue()
    times = -(-size // min(tile.shape[:2]))
    return np.ascontiguousarray(np.tile(tile, (times, times, 1))[:size, :size])
