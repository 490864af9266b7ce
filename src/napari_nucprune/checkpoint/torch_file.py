"""Plain torch files: dicts of tensors, and nothing that could run code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import InputError


def torch_state(path: Path) -> dict[Any, Any]:
    """Load a torch file's dict, tensors only.

    Raises
    ------
    InputError
        Where it is damaged, holds other things, or no dict.
    """
    import torch

    release = tuple(int(x) for x in torch.__version__.split("+")[0].split(".")[:2])
    if release < (2, 10):
        raise InputError(
            f"torch {torch.__version__} cannot load state dicts safely; "
            "install torch 2.10 or newer, or convert the file to safetensors."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if not _is_pickle(path):
            raise InputError(
                f"{path.name} is no torch file, or cut off; copy or download it again."
            ) from error
        raise InputError(
            f"{path.name} is not a plain state dict of tensors, and nothing else is loaded because "
            "it could run code; save only the tensors, best as safetensors."
        ) from error
    if not isinstance(state, dict):
        raise InputError(
            f"{path.name} holds a {type(state).__name__}; expected a dict of tensors by name."
        )
    return state


def _is_pickle(path: Path) -> bool:
    """Say whether a file is a whole zip archive, as torch writes, or begins as a pickle does."""
    with path.open("rb") as file:
        start = file.read(2)
    return zipfile.is_zipfile(path) or (start[:1] == b"\x80" and start[1:2] <= b"\x05")


def plain_arrays(state: Mapping[Any, Any], path: Path) -> dict[str, NDArray[Any]]:
    """Return a dict's tensors, or those of dicts within it, as float32 arrays by name.

    Raises
    ------
    InputError
        Where it holds other things.
    """
    import torch

    flat: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{name}": tensor for name, tensor in value.items()})
        else:
            flat[str(key)] = value
    if not all(
        isinstance(t, torch.Tensor) and t.is_floating_point() and t.layout == torch.strided
        for t in flat.values()
    ):
        raise InputError(
            f"{path.name} holds other things than weights; expected only dense tensors."
        )
    return {name: t.detach().to(torch.float32).numpy() for name, t in flat.items()}
