"""Checkpoints that ship with the package, by name."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .format import Checkpoint, load

FOLDER = Path(__file__).parent / "weights"
DEFAULT = "he-nuclei"


def names() -> list[str]:
    """Return the names of the bundled checkpoints, the default first."""
    found = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
    return sorted(found, key=lambda name: name != DEFAULT)


def find(name_or_path: str | Path) -> Path:
    """Return the file of a bundled name or of a path.

    Raises
    ------
    InputError
        Where it is neither.
    """
    bundled = FOLDER / f"{name_or_path}.safetensors"
    if str(name_or_path) in names():
        return bundled
    path = Path(name_or_path)
    if not path.exists():
        raise InputError(
            f"{str(name_or_path)!r} is neither a bundled checkpoint ({', '.join(names())}) "
            "nor a file."
        )
    return path


def open_checkpoint(name_or_path: str | Path = DEFAULT, mpp: float | None = None) -> Checkpoint:
    """Load a checkpoint by bundled name or by path; see `format.load`."""
    return load(find(name_or_path), mpp)
