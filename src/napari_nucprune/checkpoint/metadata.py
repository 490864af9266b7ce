"""The metadata of checkpoint files: plain JSON, checked value by value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..doors import Branch, Merge
from ..errors import InputError

if TYPE_CHECKING:
    from .format import Checkpoint, Weights


def parse(text: str, path: Path) -> dict[str, Any]:
    """Return the JSON object that a file's header holds.

    Raises
    ------
    InputError
        Where it is no JSON object.
    """
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "no JSON") from error
    if not isinstance(metadata, dict):
        raise _damaged(path, "no JSON object")
    return metadata


def from_metadata(
    weights: Mapping[Branch, Weights],
    metadata: Mapping[str, Any],
    path: Path,
    mpp: float | None,
) -> Checkpoint:
    """Return a checkpoint of checked weights and unchecked metadata.

    Raises
    ------
    InputError
        Names the value that is missing or wrong.
    """
    from .format import Checkpoint

    try:
        own_mpp = float(mpp or metadata["mpp"])
        unit = float(metadata.get("distance_unit_um", 0.0))
        merge = Merge(**metadata.get("merge", {}))
    except (KeyError, TypeError, ValueError, OverflowError, InputError) as error:
        raise _damaged(path, str(error)[:80]) from error
    name = metadata.get("name", path.stem)
    provenance = metadata.get("provenance", {})
    pruning, parent = metadata.get("pruning"), metadata.get("parent_sha256")
    for ok, what in (
        (0 < own_mpp < 100, "mpp"),
        (math.isfinite(unit) and unit >= 0, "distance_unit_um"),
        (isinstance(name, str), "name"),
        (isinstance(provenance, dict), "provenance"),
        (pruning is None or _is_state(pruning), "pruning"),
        (parent is None or isinstance(parent, str), "parent_sha256"),
    ):
        if not ok:
            raise _damaged(path, f"{what} is {str(metadata.get(what))[:40]}")
    return Checkpoint(name, weights, own_mpp, merge, unit, provenance, pruning, parent)


def _is_state(pruning: Any) -> bool:
    """Say whether a stored pruning state can be used."""
    if not isinstance(pruning, dict):
        return False
    keep = pruning.get("keep")
    return (
        isinstance(pruning.get("strategy", ""), str)
        and isinstance(pruning.get("recovery", {}), dict)
        and (keep is None or (isinstance(keep, list) and all(isinstance(k, str) for k in keep)))
    )


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path.name} has damaged metadata ({what}); save it again from its source.")
