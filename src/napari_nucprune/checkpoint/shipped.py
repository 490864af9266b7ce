"""Checkpoints that ship with the package, by name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .format import Checkpoint, load

FOLDER = Path(__file__).parent / "weights"
DEFAULT = "full"
#: Names of earlier versions, in settings, sessions and scripts.
FORMER = {"he-nuclei": DEFAULT}


def names() -> list[str]:
    """Return the names of the bundled checkpoints: the default, others by name, CRs by size."""
    found = [path.stem for path in FOLDER.glob("*.safetensors")]

    def key(name: str) -> tuple[bool, str, float]:
        stem, _, cr = name.partition("-cr")
        return name != DEFAULT, stem, float(cr) if re.fullmatch(r"\d+", cr) else 0.0

    return sorted(found, key=key)


def state(name: str) -> tuple[dict[str, Any] | None, str | None]:
    """Return a bundled checkpoint's pruning state and its dense parent's sha256, both or neither.

    Only the header is read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(FOLDER / f"{name}.safetensors", "numpy") as file:
            about = json.loads((file.metadata() or {})["nucprune"])
        return about["pruning"], about["parent_sha256"]
    except (SafetensorError, OSError, ValueError, KeyError):
        return None, None  # whoever opens it is told


def dense_names() -> list[str]:
    """Return the names of those that are not pruned."""
    return [name for name in names() if state(name)[0] is None]


def find(name_or_path: str | Path) -> Path:
    """Return the file of a bundled name or of a path.

    Raises
    ------
    InputError
        Where it is neither.
    """
    name = FORMER.get(str(name_or_path), str(name_or_path))
    if name in names():
        return FOLDER / f"{name}.safetensors"
    path = Path(name_or_path)
    if not path.exists():
        raise InputError(
            f"{str(name_or_path)!r} is neither a bundled checkpoint ({', '.join(names())}) "
            "nor a file."
        )
    return path


def open_checkpoint(name_or_path: str | Path = DEFAULT, mpp: float | None = None) -> Checkpoint:
    """Load a checkpoint by bundled name or by path; see `format.load`."""
    path = find(name_or_path)
    found = load(path, mpp)
    return replace(found, name=path.stem) if path.parent == FOLDER else found
