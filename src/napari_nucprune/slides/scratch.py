"""The files of a run that goes on: a plan, each core's maps and objects, and done-marks."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import cannot_write, replacing
from .lattice import Core
from .ownership import Claims

#: In the output folder, until the run is done.
FOLDER = ".nucprune"
Stage = Literal["maps", "nuclei", "settled", "labels"]
STAGES: tuple[Stage, ...] = ("maps", "nuclei", "settled", "labels")


@dataclass(frozen=True)
class Found:
    """A core's objects with what is exported of them.

    Attributes
    ----------
    claims
        Where they are.
    table
        (n, columns) float64, as of `describe.COLUMNS`.
    shapes
        n lines, each a GeoJSON geometry.
    """

    claims: Claims
    table: NDArray[np.float64]
    shapes: list[str]


class Scratch:
    """A run's folder. All is written to a temporary name and renamed, marks last.

    Parameters
    ----------
    output
        The folder that the results go to.
    """

    def __init__(self, output: str | Path) -> None:
        self.output = Path(output)
        self.folder = self.output / FOLDER
        self.zarr = self.folder / "instances.zarr"
        self.network = self.folder / "network.safetensors"
        self.assembled = self.folder / "run.json"
        self.offsets = self.folder / "offsets.npy"
        self._plan = self.folder / "plan.json"

    # The plan ------------------------------------------------------------------------------

    def plan(self) -> dict[str, Any] | None:
        """Return the plan of the run that was begun here; None where there is none."""
        if not self._plan.exists():
            return None
        return self.read_json(self._plan, environment=dict, input=dict, about=dict, mpp=float)

    def make(self) -> None:
        """Make the folders.

        Raises
        ------
        InputError
            Where the output is a file.
        EnvironmentStopped
            Where it cannot be written.
        """
        if self.output.exists() and not self.output.is_dir():
            raise InputError(f"{self.output} is a file; give a folder for the results.")
        try:
            for name in ("maps", "nuclei", "settled", *(f"marks/{stage}" for stage in STAGES)):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.output, error) from error

    def begin(self, plan: dict[str, Any]) -> None:
        """Write the plan: from here on the run can be continued."""
        self.write_json(self._plan, plan)

    def drop(self) -> None:
        """Remove the folder, the plan first: what is left of it cannot be continued."""
        try:
            self._plan.unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    # Done-marks ----------------------------------------------------------------------------

    def mark(self, stage: Stage, core: Core, **about: Any) -> None:
        """Say that a stage of a core is done."""
        self.write_json(self._mark(stage, core), about)

    def is_done(self, stage: Stage, core: Core) -> bool:
        """Whether a stage of a core is done; a mark that a lost power left empty is none."""
        try:
            self.about(stage, core)
        except (FileNotFoundError, InputError):
            return False
        return True

    def about(self, stage: Stage, core: Core) -> dict[str, Any]:
        """Return what `mark` was told."""
        return self.read_json(self._mark(stage, core))

    def marked(self, stage: Stage) -> list[Core]:
        """Return the cores with a mark of a stage."""
        names = [path.stem.split(".") for path in (self.folder / "marks" / stage).glob("*.json")]
        return sorted((int(row), int(column)) for row, column in names)

    def lacks(self, stage: Stage, core: Core) -> bool:
        """Whether *maps* or *nuclei* are marked as done, and what they found is not there."""
        try:
            about = self.about(stage, core)
        except (FileNotFoundError, InputError):  # not done
            return False
        if stage == "maps":
            return bool(about["tissue_px"]) and not self._maps(core).exists()
        return bool(about["nuclei"]) and not self._found(stage, core).exists()

    def take_back(self, stage: Stage, core: Core) -> None:
        """Say that a stage of a core is not done after all."""
        self._mark(stage, core).unlink(missing_ok=True)

    def _mark(self, stage: str, core: Core) -> Path:
        return self.folder / "marks" / stage / f"{core[0]}.{core[1]}.json"

    # Arrays --------------------------------------------------------------------------------

    def save_maps(self, core: Core, maps: NDArray[np.uint16]) -> None:
        """Write a core's two maps, (2, core, core) uint16."""
        with replacing(self._maps(core)) as temporary:
            temporary.write_bytes(_packed(maps))

    def maps(self, core: Core, side: int) -> NDArray[np.uint16] | None:
        """Return a core's two maps, (2, side, side) uint16; None for glass."""
        try:
            data = self._maps(core).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return _unpacked(data, np.uint16).reshape(2, side, side)
        except Exception as error:
            raise self._damaged(self._maps(core)) from error

    def drop_maps(self, core: Core) -> None:
        """Remove a core's maps."""
        self._maps(core).unlink(missing_ok=True)

    def _maps(self, core: Core) -> Path:
        return self.folder / "maps" / f"{core[0]}.{core[1]}"

    def save_found(self, stage: Stage, core: Core, found: Found) -> None:
        """Write a core's objects."""
        claims = found.claims
        with replacing(self._found(stage, core)) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                labels=np.frombuffer(_packed(claims.labels), np.uint8),
                side=np.array(claims.labels.shape[0]),
                spill_y=claims.spill_y,
                spill_x=claims.spill_x,
                spill=claims.spill,
                seam=claims.seam,
                table=found.table,
                shapes=np.frombuffer("\n".join(found.shapes).encode(), np.uint8),
            )

    def claims(self, stage: Stage, core: Core, spill_only: bool = False) -> Claims | None:
        """Return where a core's objects are; None where it has none.

        ``spill_only`` leaves the core's own labels out, which take longest to read.
        """
        data = self._open(stage, core)
        if data is None:
            return None
        with data:
            return _claims(data, spill_only)

    def found(self, core: Core) -> Found | None:
        """Return a core's objects as they are in the end; None where it has none."""
        data = self._open("settled", core)
        if data is None:
            return None
        with data:
            shapes = data["shapes"].tobytes().decode()
            return Found(_claims(data), data["table"], shapes.split("\n") if shapes else [])

    def _open(self, stage: Stage, core: Core) -> Any:
        try:
            if stage == "settled" and not self.about("settled", core)["changed"]:
                stage = "nuclei"
            return np.load(self._found(stage, core), allow_pickle=False)
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._damaged(self._found(stage, core)) from error

    def _damaged(self, path: Path) -> InputError:
        return InputError(
            f"{path} is damaged; remove {self.folder} and repeat what you did, to begin anew."
        )

    def _found(self, stage: str, core: Core) -> Path:
        return self.folder / stage / f"{core[0]}.{core[1]}.npz"

    @staticmethod
    def read_json(path: Path, **wanted: type) -> dict[str, Any]:
        """Read what `write_json` wrote: a table with the values of types that are ``wanted``.

        Raises
        ------
        InputError
            Where it is damaged.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            good = isinstance(found, dict) and all(
                isinstance(found.get(name), (int, float) if kind is float else kind)
                for name, kind in wanted.items()
            )
        except FileNotFoundError:
            raise
        except (OSError, ValueError, RecursionError):
            good = False
        if not good:
            raise InputError(
                f"{path} is damaged; choose another folder, or add --overwrite on the command line."
            )
        table: dict[str, Any] = found
        return table

    @staticmethod
    def write_json(path: Path, values: Any) -> None:
        """Write JSON, whole or not at all."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(values, allow_nan=False), encoding="utf-8")


def _claims(data: Any, spill_only: bool = False) -> Claims:
    labels = np.zeros((0, 0), np.int32)
    if not spill_only:
        side = int(data["side"])
        labels = _unpacked(data["labels"].tobytes(), np.int32).reshape(side, side)
    return Claims(labels, data["spill_y"], data["spill_x"], data["spill"], data["seam"])


def _codec() -> Any:
    from numcodecs import Blosc

    return Blosc("lz4", clevel=1, shuffle=Blosc.SHUFFLE)


def _packed(array: NDArray[Any]) -> bytes:
    return bytes(_codec().encode(np.ascontiguousarray(array)))


def _unpacked(data: bytes, dtype: Any) -> NDArray[Any]:
    return np.frombuffer(_codec().decode(data), dtype)
