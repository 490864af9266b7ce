"""Other people's networks: torch state dicts with foreign names, Keras weights.

The published weights come one branch a file. A file is mapped only where its convolutions, in the
file's own order, have exactly the shapes of the U-Net's (3x3, 2x2 and 1x1 kernels each by
themselves: modules are often listed by kind). Else a map file says which is which, and what
shapes do not show: the input's range and the order of concatenation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import BRANCHES, Branch
from ..errors import InputError
from . import hdf5
from .branches import branches
from .foreign_kernels import kernels, matched
from .foreign_map import KeyMap, mapped, read_map
from .format import SUFFIXES, Checkpoint, read_safetensors
from .metadata import from_metadata
from .torch_file import plain_arrays, torch_state

#: What `nucprune convert` and the dock take.
ALL_SUFFIXES = (*SUFFIXES, *hdf5.SUFFIXES)
#: Where training loops keep the weights within what they save.
STATES = ("state_dict", "model_state_dict", "model", "net")


def read_tensors(path: str | Path) -> dict[str, NDArray[np.float32]]:
    """Read a file's arrays in the order that it declares, kernels in torch's layout.

    Raises
    ------
    InputError
        Where it is missing, damaged, hostile or of no known kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} is not a file; give a checkpoint ({', '.join(ALL_SUFFIXES)}).")
    suffix = path.suffix.lower()
    if suffix in hdf5.SUFFIXES:
        # (k, k, in, out), and (k, k, out, in) where it is transposed: torch's order either way.
        found = hdf5.read_hdf5(path)
        return {k: a.transpose(3, 2, 0, 1) if a.ndim == 4 else a for k, a in found.items()}
    if suffix == ".safetensors":
        # The format lists tensors by name: the numbers in the names are the only order.
        tensors = read_safetensors(path)[0]
        return {k: tensors[k] for k in sorted(tensors, key=hdf5.natural)}
    if suffix in SUFFIXES:
        state = torch_state(path)
        # What a training loop saves beside the epoch and the optimizer.
        inner = next((state[k] for k in STATES if isinstance(state.get(k), dict)), state)
        return plain_arrays(inner, path)
    raise InputError(
        f"{path.name} is no checkpoint that can be loaded; expected one of "
        f"{', '.join(ALL_SUFFIXES)}."
    )


def is_ours(tensors: Mapping[str, Any]) -> bool:
    """Say whether a file's names are those of our own two branches."""
    return all(any(key.startswith(f"{branch}.") for key in tensors) for branch in BRANCHES)


def open_foreign(
    semantic: str | Path,
    distance: str | Path | None = None,
    mpp: float | None = None,
    mapping: str | Path | None = None,
) -> Checkpoint:
    """Open a network that was trained and saved elsewhere.

    Parameters
    ----------
    semantic, distance
        The files of the branches. With a map file one file may hold both; without one, a file
        of our own names may.
    mpp
        um a pixel that it was trained at; None takes 0.25 and marks it as assumed.
    mapping
        JSON: ``{"semantic": {"encoder.0.conv1": "KEY", ...}, "distance": {...}}`` with the key of
        each layer's kernel (a branch that is left out is mapped by its order), ``"input": "0..1"``
        (default) or ``"0..255"``, what the first convolution sees, and ``"concat": "up-first"``
        (default) or ``"skip-first"``, a decoder's input. Each of them only where it is needed.

    Raises
    ------
    InputError
        One sentence, where anything does not fit.
    """
    if mpp is not None and not 0 < mpp < 100:
        raise InputError(f"The pixel size is {mpp:g} um; give a number above 0.")
    files: dict[str, Path] = {"semantic": Path(semantic), "distance": Path(distance or semantic)}
    tensors: dict[Path, dict[str, NDArray[np.float32]]] = {}
    for path in files.values():
        if path not in tensors:
            tensors[path] = read_tensors(path)
    first = files["semantic"]
    weights: dict[str, Any] = {}
    if mapping is None and distance is None:
        if not is_ours(tensors[first]):
            raise InputError(one_branch(first))
        weights = tensors[first]
    else:
        key_map = KeyMap() if mapping is None else read_map(Path(mapping))
        for branch, path in files.items():
            own, names = tensors[path], key_map.names.get(branch)
            named = (
                matched(kernels(own, path.name), path.name)
                if names is None
                else mapped(own, names, path.name)
            )
            weights |= {f"{branch}.{k}": a for k, a in key_map.as_ours(named).items()}
    about = {
        "name": first.stem,
        "mpp": 0.25 if mpp is None else mpp,
        "provenance": {
            "imported_from": [files[b].name for b in BRANCHES],
            "mpp_assumed": mpp is None,
        },
    }
    return from_metadata(branches(weights, first.name), about, first, mpp)


def one_branch(path: Path) -> str:
    """Return the sentence for a file that needs a second one."""
    return (
        f"{path.name} has foreign names, and published weights come one branch a file: open it "
        f"with the dock's Open…, or join both with: nucprune convert {path.name} DISTANCE-FILE "
        "-o FILE.safetensors --mpp X."
    )


def branch_of(name: str) -> Branch | None:
    """Guess from a file's name which branch it holds; None where it does not say."""
    text = name.lower()
    distance = any(word in text for word in ("dist", "edt", "regress"))
    semantic = any(word in text for word in ("sem", "seg", "mask", "binary"))
    if distance == semantic:
        return None
    return "distance" if distance else "semantic"
