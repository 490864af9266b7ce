"""Checkpoint files: safetensors with both branches, or a torch state dict of our own networks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import BRANCHES, Branch, Merge
from ..errors import InputError
from ..files import cannot_write, replacing
from .architecture import Layer, layers, widths_of
from .branches import Weights as Weights
from .branches import branches
from .metadata import from_metadata, parse
from .packed import Packing, halved, pack, unpack
from .torch_file import plain_arrays, torch_state

FORMAT = "nucprune"
#: Of plain and of packed files: what reads only plain ones refuses the others with a sentence.
VERSION, PACKED_VERSION = "1", "2"
SUFFIXES = (".safetensors", ".pt", ".pth")


@dataclass(frozen=True)
class Checkpoint:
    """Two trained branches and what must be known to use them.

    Attributes
    ----------
    name
        Short name.
    weights
        By branch: tensor name to float32 array.
    mpp
        um a pixel that the network was trained at.
    merge
        Parameters of the watershed, fitted on validation.
    distance_unit_um
        The distance map is in multiples of this many um; 0 where each training image was divided
        by its own maximum.
    provenance
        Training sets with licences, metrics, anything JSON.
    pruning
        State of a stored pruned network (strategy, CRs, keep), None for a dense one.
    parent_sha256
        Of the dense checkpoint that a pruned one came from.
    """

    name: str
    weights: Mapping[Branch, Weights]
    mpp: float
    merge: Merge = field(default_factory=Merge)
    distance_unit_um: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    pruning: Mapping[str, Any] | None = None
    parent_sha256: str | None = None

    @cached_property
    def sha256(self) -> str:
        """Hash over all tensors' names, shapes and bytes (not over the file); -0 counts as 0."""
        digest = hashlib.sha256()
        for branch in BRANCHES:
            for name in sorted(self.weights[branch]):
                array = np.ascontiguousarray(self.weights[branch][name]) + np.float32(0)
                digest.update(f"{branch}.{name}{array.shape}".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()

    @property
    def for_research_only(self) -> bool:
        """Whether it was trained on data whose licence forbids commercial use."""
        licences = (str(d.get("licence", "")) for d in self.provenance.get("data", []))
        return any("NC" in re.split(r"[\s-]+", licence) for licence in licences)

    def layers(self, branch: Branch) -> list[Layer]:
        """Return the branch's convolutions in forward order."""
        return layers(widths_of(self.weights[branch]))

    @cached_property
    def own_cr(self) -> dict[Branch, float]:
        """Compression ratio of the stored weights by branch: all / nonzero, 1 where dense."""
        if self.pruning is None:
            return dict.fromkeys(BRANCHES, 1.0)
        ratios: dict[Branch, float] = {}
        for branch in BRANCHES:
            stored = [self.weights[branch][f"{x.name}.weight"] for x in self.layers(branch)]
            nonzero = sum(int(np.count_nonzero(w)) for w in stored)
            ratios[branch] = sum(w.size for w in stored) / max(nonzero, 1)
        return ratios


def load(path: str | Path, mpp: float | None = None) -> Checkpoint:
    """Load a checkpoint file. Never runs code from it.

    Parameters
    ----------
    path
        ``.safetensors``, or ``.pt``/``.pth`` with a state dict of both branches
        (names ``semantic.encoder.0.conv1.weight``, or two dicts under the branches' names).
    mpp
        um a pixel, for files that do not say.

    Raises
    ------
    InputError
        One sentence, where the file is missing, damaged, foreign or hostile.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file; give a checkpoint ({', '.join(SUFFIXES)}).")
    suffix, packed = path.suffix.lower(), False
    if suffix == ".safetensors":
        tensors, metadata, packed = read_safetensors(path)
    elif suffix in SUFFIXES:
        tensors, metadata = plain_arrays(torch_state(path), path), None
    else:
        tensors, metadata = _foreign(path), None
    if metadata is None and tensors and not any(n.startswith(BRANCHES) for n in tensors):
        from .foreign import one_branch

        raise InputError(one_branch(path))
    weights = branches(tensors, path.name, are_finite=packed)
    if metadata is None:
        metadata = {"mpp": mpp or 0.25, "provenance": {"mpp_assumed": mpp is None}}
    return from_metadata(weights, metadata, path, mpp)


def _foreign(path: Path) -> dict[str, NDArray[Any]]:
    from . import hdf5

    if path.suffix.lower() in hdf5.SUFFIXES:
        return dict(hdf5.read_hdf5(path))
    raise InputError(
        f"{path.name} is not a checkpoint that can be loaded; "
        f"expected one of {', '.join((*SUFFIXES, *hdf5.SUFFIXES))}."
    )


def save(checkpoint: Checkpoint, path: str | Path, packing: Packing = "none") -> None:
    """Write a safetensors file; the old file stays until the new one is complete.

    Parameters
    ----------
    checkpoint, path
        What to write, and where to.
    packing
        ``"none"`` writes plain tensors that any reader of safetensors loads; ``"lossless"`` and
        ``"half"`` only the weights that are not zero (see `packed`).

    Raises
    ------
    InputError
        Where the suffix is not ``.safetensors``, or the weights cannot be packed so.
    EnvironmentStopped
        Where the disk is full or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise InputError(f"{path.name}: checkpoints are saved as .safetensors; change the ending.")
    tensors, metadata = contents(checkpoint, packing)
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(tensors, temporary, metadata)
            # safetensors 0.8 makes files that nobody else may read; not every file system can.
            with contextlib.suppress(OSError):
                temporary.chmod(mode)
        except SafetensorError as error:
            # safetensors wraps what the system said in a type of its own.
            raise cannot_write(path, error) from error


def contents(
    checkpoint: Checkpoint, packing: Packing = "none"
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the tensors and the metadata of the file that `save` would write now."""
    if packing == "none":
        return _flat(checkpoint), _metadata(checkpoint)
    if packing == "half":
        checkpoint = halved(checkpoint)
    tensors, header = pack(checkpoint.weights, packing)
    return tensors, {**_metadata(checkpoint), **header, "version": PACKED_VERSION}


def saved_bytes(checkpoint: Checkpoint) -> int:
    """Return the size in bytes of the plain file that `save` would write now."""
    tensors = _flat(checkpoint)
    header: dict[str, Any] = {"__metadata__": _metadata(checkpoint)}
    offset = 0
    # safetensors lays tensors out by name within one dtype: offsets count as digits.
    for name in sorted(tensors):
        end = offset + tensors[name].nbytes
        header[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, end],
        }
        offset = end
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + -(-length // 8) * 8 + offset


def _flat(checkpoint: Checkpoint) -> dict[str, NDArray[np.float32]]:
    return {
        f"{branch}.{name}": np.ascontiguousarray(array, np.float32)
        for branch in BRANCHES
        for name, array in checkpoint.weights[branch].items()
    }


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    about = {
        "name": checkpoint.name,
        "mpp": checkpoint.mpp,
        "merge": asdict(checkpoint.merge),
        "distance_unit_um": checkpoint.distance_unit_um,
        "provenance": dict(checkpoint.provenance),
        "pruning": None if checkpoint.pruning is None else dict(checkpoint.pruning),
        "parent_sha256": checkpoint.parent_sha256,
    }
    return {"format": FORMAT, "version": VERSION, "nucprune": json.dumps(about)}


def read_safetensors(
    path: Path,
) -> tuple[dict[str, NDArray[Any]], dict[str, Any] | None, bool]:
    """Read a safetensors file's arrays by name, our metadata if any, and whether it was packed.

    Raises
    ------
    InputError
        Where it is damaged, or of a later version.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            tensors = {n: file.get_tensor(n) for n, kind in kinds.items() if kind != "BF16"}
        if len(tensors) < len(kinds):
            # numpy has no such type; torch does.
            with safe_open(path, "pt") as file:
                tensors = {
                    n: tensors[n] if n in tensors else file.get_tensor(n).float().numpy()
                    for n in kinds
                }
    except Exception as error:
        raise InputError(
            f"{path.name} is not a readable safetensors file ({str(error)[:100]}); "
            "it may be cut off: copy or download it again."
        ) from error
    if header.get("format", FORMAT) != FORMAT or "nucprune" not in header:
        return tensors, None, False
    packed = header.get("packed")
    if header.get("version") != (VERSION if packed is None else PACKED_VERSION):
        raise InputError(
            f"{path.name} has format version {header.get('version')}, this nucprune reads "
            f"{VERSION} and {PACKED_VERSION}; update napari-nucprune."
        )
    if packed is not None:
        tensors = unpack(tensors, packed, path.name)
    return tensors, parse(header["nucprune"], path), packed is not None
