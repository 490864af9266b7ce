"""Map files: which kernel of a foreign file is which layer, and how that network reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import BRANCHES
from ..errors import InputError
from .architecture import layers
from .foreign_kernels import Tensors, kernels, put, stem

#: What the first convolution sees of a pixel's 0..255, as a map file names it.
INPUTS = {"0..1": 1.0, "0..255": 255.0}
#: Which half of a decoder's input comes first: what was up-sampled (as published), or the skip.
CONCATS = ("up-first", "skip-first")


@dataclass(frozen=True)
class KeyMap:
    """What a map file says; all of it may be left out.

    Attributes
    ----------
    names
        By branch: our layer's name to the kernel's name in the file. A branch that is not there
        is mapped by the order of its file.
    input
        Of `INPUTS`.
    concat
        Of `CONCATS`.
    """

    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    input: str = "0..1"
    concat: str = "up-first"

    def as_ours(self, weights: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """Return one branch's arrays as our network reads them: RGB / 255, up-sampled first."""
        own = dict(weights)
        first = "encoder.0.conv1.weight"
        own[first] = own[first] * np.float32(INPUTS[self.input])
        for name in own if self.concat == "skip-first" else ():
            if name.startswith("decoder.") and name.endswith(".conv1.weight"):
                # (out, skip + up, 3, 3), both halves of one width.
                skip, up = np.split(own[name], 2, axis=1)
                own[name] = np.concatenate([up, skip], axis=1)
        return own


def read_map(path: Path) -> KeyMap:
    """Read a map file.

    Raises
    ------
    InputError
        Where it cannot be read or says nothing that is known.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = str(getattr(error, "strerror", None) or error)[:100]
        raise InputError(f"The map {path} cannot be read ({why}); give a JSON file.") from error
    said: dict[str, Any] = found if isinstance(found, dict) else {}
    names: dict[str, Any] = {branch: said[branch] for branch in BRANCHES if branch in said}
    options = {name: said[name] for name in ("input", "concat") if name in said}
    texts = all(
        isinstance(m, dict) and all(isinstance(v, str) for v in m.values()) for m in names.values()
    )
    known = said.get("input", "0..1") in [*INPUTS] and said.get("concat", CONCATS[0]) in CONCATS
    if not said or not texts or not known or len(names) + len(options) != len(said):
        raise InputError(
            f'The map {path.name} is not as expected: {{"semantic": {{"encoder.0.conv1": "KEY", '
            '...}, "distance": {...}, "input": "0..1" or "0..255", "concat": "up-first" or '
            '"skip-first"}, each of the four only where it is needed.'
        )
    return KeyMap(names, **options)


def mapped(tensors: Tensors, names: Mapping[str, str], file: str) -> dict[str, NDArray[np.float32]]:
    """Take the kernels that a map names.

    Returns
    -------
    dict
        Our tensor names to float32 arrays.

    Raises
    ------
    InputError
        Where the file has no such kernel, or they make no U-Net.
    """
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
        put(weights, layer, by_key[names[layer.name]], file)
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
    return bool(stem(name)) and any(stem(key) == stem(name) for key in names.values())
