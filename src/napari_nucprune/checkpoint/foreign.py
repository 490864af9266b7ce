"""Other people's networks: torch state dicts with foreign names, Keras weights.

The published weights come one branch a file. A file is mapped only where its convolutions, in the
file's own order, have exactly the shapes of the U-Net's (3x3, 2x2 and 1x1 kernels each by
themselves: modules are often listed by kind). Else a map file says which is which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import BRANCHES, Branch
from ..errors import InputError
from . import hdf5
from .architecture import Layer, layers
from .format import (
    SUFFIXES,
    Checkpoint,
    branches,
    read_safetensors,
)
from .metadata import from_metadata
from .torch_file import plain_arrays, torch_state

Tensors = Mapping[str, NDArray[np.float32]]
#: What `nucprune convert` and the dock take.
ALL_SUFFIXES = (*SUFFIXES, *hdf5.SUFFIXES)
#: Kernel sizes of convolutions, up-convolutions and the head.
KINDS = {(3, 3): "3x3 convolutions", (2, 2): "2x2 up-convolutions", (1, 1): "1x1 heads"}
#: Where training loops keep the weights within what they save.
STATES = ("state_dict", "model_state_dict", "model", "net")
#: What the first convolution sees of a pixel's 0..255, as a map file names it.
INPUTS = {"0..1": 1.0, "0..255": 255.0}


@dataclass(frozen=True)
class Kernel:
    """A foreign convolution.

    Attributes
    ----------
    key
        Its kernel's name in the file.
    weight, bias
        In torch's layout (`architecture.Layer`); a missing bias is zeros.
    """

    key: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


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
        tensors, _ = read_safetensors(path)
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


def kernels(tensors: Tensors, file: str) -> list[Kernel]:
    """Pair each kernel with its bias.

    Raises
    ------
    InputError
        Where an array belongs to no convolution.
    """
    found = []
    left = dict(tensors)
    for key, weight in tensors.items():
        if weight.ndim != 4:
            continue
        del left[key]
        stem = _stem(key)
        bias = next((k for k in left if _stem(k) == stem and left[k].ndim == 1), None)
        outputs = weight.shape[1] if weight.shape[2:] == (2, 2) else weight.shape[0]
        values = left.pop(bias) if stem and bias else np.zeros(outputs, np.float32)
        found.append(Kernel(key, weight, values))
    if left:
        name, array = next(iter(left.items()))
        raise InputError(
            f"{file} holds {name!r} of shape {array.shape}, which belongs to no convolution (batch "
            "normalisation?); only the published U-Net without normalisation can be run."
        )
    return found


def matched(found: list[Kernel], file: str) -> dict[str, NDArray[np.float32]]:
    """Map a file's convolutions to one branch, where their order fits exactly.

    Returns
    -------
    dict
        Our tensor names to float32 arrays.

    Raises
    ------
    InputError
        Says what does not fit, and that a map file can tell.
    """
    by_kind: dict[Any, list[Kernel]] = {kind: [] for kind in KINDS}
    for kernel in found:
        if kernel.weight.shape[2:] not in by_kind:
            raise _unmapped(file, f"{kernel.key} is {kernel.weight.shape}")
        by_kind[kernel.weight.shape[2:]].append(kernel)
    count = len(by_kind[(2, 2)]) + 1
    numbers = tuple(len(found) for found in by_kind.values())
    if not 2 <= count <= 8 or numbers != (4 * count - 2, count - 1, 1):
        text = ", ".join(f"{n} {name}" for n, name in zip(numbers, KINDS.values(), strict=True))
        raise _unmapped(file, f"it has {text}; the published branch has 18, 4 and 1")
    widths = [k.weight.shape[0] for k in by_kind[(3, 3)][: 2 * count : 2]]
    weights: dict[str, NDArray[np.float32]] = {}
    for layer in layers(widths):
        kernel = by_kind[layer.shape[2:]].pop(0)
        _put(weights, layer, kernel, file)
    return weights


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
        each layer's kernel, and optionally ``"input": "0..1"`` (default) or ``"0..255"``, what
        the first convolution sees.

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
    map_of = None if mapping is None else _read_map(Path(mapping))
    weights: dict[str, Any] = {}
    if map_of is None and distance is None:
        if not is_ours(tensors[first]):
            raise InputError(one_branch(first))
        weights = tensors[first]
    for branch, path in files.items() if not weights or map_of or distance else ():
        file, own = path.name, tensors[path]
        if map_of is not None and branch in map_of:
            named = _mapped(own, map_of[branch], file)
        else:
            named = matched(kernels(own, file), file)
        factor = INPUTS[map_of["input"]] if map_of else 1.0
        named["encoder.0.conv1.weight"] = named["encoder.0.conv1.weight"] * np.float32(factor)
        weights |= {f"{branch}.{name}": array for name, array in named.items()}
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


def _put(weights: dict[str, NDArray[np.float32]], layer: Layer, kernel: Kernel, file: str) -> None:
    if kernel.weight.shape != layer.shape or kernel.bias.shape != (layer.outputs,):
        raise _unmapped(
            file,
            f"{kernel.key} is {kernel.weight.shape} where {layer.name} is {layer.shape}",
        )
    weights[f"{layer.name}.weight"] = np.ascontiguousarray(kernel.weight, np.float32)
    weights[f"{layer.name}.bias"] = np.ascontiguousarray(kernel.bias, np.float32)


def _unmapped(file: str, why: str) -> InputError:
    return InputError(
        f"{file} is not in the order of the published U-Net ({why}); if it is that network, say "
        "which is which with --map FILE of nucprune convert (--keys lists its names)."
    )


def _read_map(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = str(getattr(error, "strerror", None) or error)[:100]
        raise InputError(f"The map {path} cannot be read ({why}); give a JSON file.") from error
    branch_maps = found if isinstance(found, dict) else {}
    known: dict[str, Any] = {b: branch_maps[b] for b in BRANCHES if b in branch_maps}
    texts = all(
        isinstance(m, dict) and all(isinstance(v, str) for v in m.values()) for m in known.values()
    )
    seen = branch_maps.get("input", "0..1")
    extra = set(branch_maps) - set(BRANCHES) - {"input"}
    if not known or not texts or seen not in INPUTS or extra:
        raise InputError(
            f'The map {path.name} is not as expected: {{"semantic": {{"encoder.0.conv1": "KEY", '
            '...}, "distance": {...}, "input": "0..1" or "0..255"}.'
        )
    return {**known, "input": seen}


def _mapped(
    tensors: Tensors, names: Mapping[str, str], file: str
) -> dict[str, NDArray[np.float32]]:
    """Take the kernels that a map names."""
    missing = [key for key in names.values() if key not in tensors or tensors[key].ndim != 4]
    if missing:
        raise InputError(
            f"The map names {missing[0]!r}, which is no kernel of {file}; --keys lists its names."
        )
    chosen = {name: tensors[name] for name in tensors if _belongs(name, names, tensors)}
    by_key = {kernel.key: kernel for kernel in kernels(chosen, file)}
    widths: list[int] = []
    while (key := names.get(f"encoder.{len(widths)}.conv1")) is not None:
        widths.append(int(tensors[key].shape[0]))
    weights: dict[str, NDArray[np.float32]] = {}
    for layer in layers(widths) if 2 <= len(widths) <= 8 else []:
        if layer.name not in names:
            raise InputError(f"The map names no kernel for {layer.name}; add it.")
        _put(weights, layer, by_key[names[layer.name]], file)
    if not weights or len(names) != len(layers(widths)):
        raise InputError(
            f"The map has {len(names)} layers; expected those of a U-Net of 2 to 8 levels "
            "(encoder.0.conv1, encoder.0.conv2, ..., up.0, decoder.0.conv1, ..., head)."
        )
    return weights


def _belongs(name: str, names: Mapping[str, str], tensors: Tensors) -> bool:
    """Say whether an array is a named kernel, or lies beside one."""
    if tensors[name].ndim == 4:
        return name in names.values()
    return bool(_stem(name)) and any(_stem(key) == _stem(name) for key in names.values())


def _stem(key: str) -> str:
    """Return the module's part of an array's name: ``down.0.`` of ``down.0.weight``."""
    return key[: len(key) - len(key.replace("/", ".").rsplit(".", 1)[-1])]


def branch_of(name: str) -> Branch | None:
    """Guess from a file's name which branch it holds; None where it does not say."""
    text = name.lower()
    distance = any(word in text for word in ("dist", "edt", "regress"))
    semantic = any(word in text for word in ("sem", "seg", "mask", "binary"))
    if distance == semantic:
        return None
    return "distance" if distance else "semantic"
