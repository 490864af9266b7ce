"""The dock's *Open…*: checkpoints, and networks of others that come one branch a file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QInputDialog, QWidget

from ..checkpoint import foreign, shipped
from ..checkpoint.format import Checkpoint
from ..errors import InputError

PATTERN = f"Checkpoints ({' '.join(f'*{suffix}' for suffix in foreign.ALL_SUFFIXES)})"


class Opening:
    """Asks for files, and remembers what was put together of two."""

    def __init__(self) -> None:
        self._joined: dict[str, Checkpoint] = {}

    def load(self, origin: str) -> Checkpoint:
        """Return the checkpoint of a bundled name, of a path, or of what `ask` returned.

        Raises
        ------
        InputError
            As `shipped.open_checkpoint` does.
        """
        found = self._joined.get(origin)
        return shipped.open_checkpoint(origin) if found is None else found

    def is_joined(self, origin: str) -> bool:
        """Say whether `load` returns what was put together of two files."""
        return origin in self._joined

    def ask(self, parent: QWidget) -> str | None:
        """Ask for a checkpoint; for the second branch and the um/px where it needs them.

        Returns
        -------
        str or None
            For `load`; None where the user cancelled.

        Raises
        ------
        InputError
            Where two files don't make a network.
        """
        name, _ = QFileDialog.getOpenFileName(parent, "Open a checkpoint", "", PATTERN)
        if not name or not _is_one_branch(Path(name)):
            return name or None
        files = {"semantic": name, "distance": name}
        first = foreign.branch_of(Path(name).name) or "semantic"
        second = "distance" if first == "semantic" else "semantic"
        title = f"{Path(name).name} is taken as the {first} branch: open the {second} branch"
        files[second], _ = QFileDialog.getOpenFileName(
            parent, title, str(Path(name).parent), PATTERN
        )
        if not files[second]:
            return None
        mpp, said = QInputDialog.getDouble(
            parent, "Pixel size", "µm/pixel that the network was trained at", 0.25, 0.02, 20.0, 4
        )
        if not said:
            return None
        self._joined[name] = foreign.open_foreign(files["semantic"], files["distance"], mpp)
        return name


def _is_one_branch(path: Path) -> bool:
    """Say whether a file holds arrays, but not our two branches; what is damaged is no such."""
    if path.suffix.lower() in foreign.ALL_SUFFIXES:
        with suppress(InputError):
            return not foreign.is_ours(foreign.read_tensors(path))
    return False
