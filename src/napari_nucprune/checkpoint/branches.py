"""A file's arrays checked: both branches, the shapes of a U-Net, finite numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..doors import BRANCHES, Branch
from ..errors import InputError
from .architecture import expected_shapes, widths_of

Weights = Mapping[str, NDArray[np.float32]]


def branches(
    tensors: Mapping[str, NDArray[Any]], file: str, are_finite: bool = False
) -> dict[Branch, Weights]:
    """Check the arrays of both branches, named ``semantic.encoder.0.conv1.weight`` and so on.

    ``are_finite`` says that their numbers have been looked at.

    Raises
    ------
    InputError
        Names what is missing, left over, of another shape or not finite.
    """
    weights: dict[Branch, Weights] = {}
    for branch in BRANCHES:
        own = {
            name.removeprefix(f"{branch}."): array
            for name, array in tensors.items()
            if name.startswith(f"{branch}.")
        }
        if not own:
            raise InputError(
                f"{file} has no {branch} branch (its first tensor is "
                f"{next(iter(tensors), 'missing')!r}); expected both branches with names like "
                f"'{branch}.encoder.0.conv1.weight'."
            )
        weights[branch] = _checked(own, branch, file, are_finite)
    extra = len(tensors) - sum(len(w) for w in weights.values())
    if extra:
        raise InputError(f"{file} holds {extra} tensors of no branch; expected only two branches.")
    return weights


def _checked(own: dict[str, NDArray[Any]], branch: Branch, file: str, are_finite: bool) -> Weights:
    widths = widths_of(own)
    if not 2 <= len(widths) <= 8 or min(widths) < 1:
        raise InputError(f"{file}: the {branch} branch is not a U-Net of 2 to 8 levels.")
    shapes = expected_shapes(widths)
    for name, shape in shapes.items():
        if name not in own or own[name].shape != shape:
            found = own[name].shape if name in own else "nothing"
            raise InputError(f"{file}: {branch}.{name} is {found}; expected the shape {shape}.")
    if len(own) != len(shapes):
        unknown = sorted(set(own) - set(shapes))[0]
        raise InputError(f"{file}: {f'{branch}.{unknown}'!r} belongs to no layer of this U-Net.")
    result: dict[str, NDArray[np.float32]] = {}
    for name in shapes:
        if own[name].dtype.kind != "f":
            raise InputError(f"{file}: {branch}.{name} is {own[name].dtype}; expected floats.")
        array = own[name].astype(np.float32, copy=False)
        if not are_finite and not np.isfinite(array).all():
            raise InputError(
                f"{file}: {branch}.{name} holds values that are not finite (NaN or infinite); "
                "the training has diverged or the file is damaged."
            )
        result[name] = array
    return result
