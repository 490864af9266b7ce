"""Packed checkpoints: of pruned branches only what is not zero, and where it lies.

A branch is three tensors of a safetensors file: ``gaps`` and ``values``, the two streams of bytes
of all its weights in forward order (`coding` says which and why; where many weights stay, ``gaps``
holds a bit each), and ``biases`` as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..doors import BRANCHES, Branch
from ..errors import InputError
from .architecture import expected_shapes, widths_of
from .coding import FAR, Damaged, decode, encode

if TYPE_CHECKING:
    from .format import Checkpoint, Weights

#: How a checkpoint is written: every weight, or the nonzero ones as they are or in half precision.
Packing = Literal["none", "lossless", "half"]
#: By packing, little endian as safetensors is.
DTYPES: dict[str, np.dtype[Any]] = {"lossless": np.dtype("<f4"), "half": np.dtype("<f2")}
CODER = "zstd"
#: Weights of a branch that a packed file may claim: 256 MB, 34 times the published network.
MOST = 2**26


def halved(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with its convolution weights rounded to half precision.

    Raises
    ------
    InputError
        Where a weight is too large for it.
    """
    weights: dict[Branch, Weights] = {}
    for branch in BRANCHES:
        rounded = dict(checkpoint.weights[branch])
        for name, array in rounded.items():
            if name.endswith(".weight"):
                with np.errstate(over="ignore"):
                    rounded[name] = array.astype(np.float16).astype(np.float32)
                if not np.isfinite(rounded[name]).all():
                    raise InputError(
                        f"{branch}.{name} holds a weight of {np.abs(array).max():.3g}, half "
                        "precision ends at 65504; save it without."
                    )
        weights[branch] = rounded
    parent = checkpoint.parent_sha256 or checkpoint.sha256
    return replace(checkpoint, weights=weights, parent_sha256=parent)


def pack(
    weights: Mapping[Branch, Weights], packing: Packing
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the tensors of a packed file, and what its header says of them.

    Parameters
    ----------
    weights
        By branch: tensor name to float32 array. For ``"half"`` as `halved` leaves them. The sign
        of zeros is not kept.
    packing
        ``"lossless"`` or ``"half"``.

    Raises
    ------
    InputError
        Where a branch has more than `MOST` weights.
    """
    with ThreadPoolExecutor(len(BRANCHES)) as pool:  # zstd and numpy drop the GIL
        done = list(pool.map(lambda branch: _pack(branch, weights[branch], packing), BRANCHES))
    tensors = {f"{branch}.{key}": a for branch, (own, _) in zip(BRANCHES, done, strict=True)
               for key, a in own.items()}  # fmt: skip
    dtype = DTYPES[packing]
    header: dict[str, Any] = {"coder": CODER, "values": dtype.name, "raw": dtype.itemsize - 1}
    header |= {branch: counts for branch, (_, counts) in zip(BRANCHES, done, strict=True)}
    return tensors, {"packed": json.dumps(header)}


def unpack(
    tensors: Mapping[str, NDArray[Any]], header: str, file: str
) -> dict[str, NDArray[np.float32]]:
    """Return dense tensors by ``branch.name`` from the tensors and header of a packed file.

    Trusts nothing: memory stays within what `MOST` allows, and all are finite.

    Parameters
    ----------
    tensors
        By name, as the file has them.
    header
        JSON as `pack` gave it.
    file
        Name for messages.

    Raises
    ------
    InputError
        Where the header, a stream or a count is wrong.
    """
    about = _header(header, file)
    wanted = {f"{branch}.{key}" for branch in BRANCHES for key in ("gaps", "values", "biases")}
    if set(tensors) != wanted:
        odd = sorted(set(tensors) ^ wanted)[0]
        raise _damaged(file, f"{odd!r} is missing or unknown")
    for name, tensor in tensors.items():
        kind = np.dtype("float32" if name.endswith(".biases") else "uint8")
        if tensor.dtype != kind or tensor.ndim != 1:
            found = f"{tensor.dtype} with {tensor.ndim} axes"
            raise _damaged(file, f"{name} is {found}, expected {kind} with one")
        if kind.kind == "f" and not np.isfinite(tensor).all():
            raise _damaged(file, f"{name} holds what is not finite")
    dtype: np.dtype[Any] = about["dtype"]
    result: dict[str, NDArray[np.float32]] = {}
    try:
        shapes = {branch: _shapes(branch, tensors, *about[branch]) for branch in BRANCHES}

        def unpacked(branch: Branch) -> NDArray[np.float32]:
            _, kept, entries = about[branch]
            streams = tensors[f"{branch}.gaps"], tensors[f"{branch}.values"]
            counts = entries, kept
            return decode(_weights(shapes[branch]), streams, counts, dtype, about["raw"])

        with ThreadPoolExecutor(2, thread_name_prefix="nucprune-unpack") as pool:
            for branch, flat in zip(BRANCHES, pool.map(unpacked, BRANCHES), strict=True):
                own = _split(flat, shapes[branch], tensors[f"{branch}.biases"])
                result |= {f"{branch}.{name}": array for name, array in own.items()}
    except Damaged as error:
        raise _damaged(file, str(error)) from error
    return result


def values_of(path: Path) -> str | None:
    """Return the type of a packed file's values, ``"float32"`` or ``"float16"``, else None.

    Parameters
    ----------
    path
        A file that was loaded.
    """
    if path.suffix.lower() != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        text = (file.metadata() or {}).get("packed")
    return None if text is None else str(_header(text, path.name)["dtype"])


def coded_bytes(tensors: Mapping[str, NDArray[Any]]) -> int:
    """Return the bytes of values and positions of a packed file's tensors."""
    return sum(t.nbytes for name, t in tensors.items() if not name.endswith(".biases"))


def _pack(
    branch: Branch, weights: Weights, packing: Packing
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    widths = widths_of(weights)
    names = list(expected_shapes(widths))
    flat = np.concatenate([weights[n].ravel() for n in names if n.endswith(".weight")])
    if flat.size > MOST:
        raise InputError(
            f"The {branch} branch has {flat.size:,} weights, packed files hold at most {MOST:,}; "
            "save it without packing."
        )
    gaps, values, kept, entries = encode(flat, DTYPES[packing])
    biases = np.concatenate([weights[n] for n in names if n.endswith(".bias")])
    counts = {"widths": list(widths), "kept": kept, "gaps": entries}
    return {"gaps": gaps, "values": values, "biases": biases}, counts


def _shapes(
    branch: Branch,
    tensors: Mapping[str, NDArray[Any]],
    widths: tuple[int, ...],
    kept: int,
    entries: int | None,
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a branch's tensors, its counts compared with them."""
    shapes = expected_shapes(widths)
    total = _weights(shapes)
    if total > MOST:
        raise Damaged(f"it claims {total:,} weights of the {branch} branch")
    if kept > total or not kept <= (kept if entries is None else entries) <= kept + total // FAR:
        raise Damaged(f"{kept:,} weights and {entries or 0:,} gaps do not fit {total:,} weights")
    biases = sum(shape[0] for name, shape in shapes.items() if name.endswith(".bias"))
    found = len(tensors[f"{branch}.biases"])
    if found != biases:
        raise Damaged(f"{branch} has {found:,} biases, expected {biases:,}")
    return shapes


def _weights(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(prod(shape) for name, shape in shapes.items() if name.endswith(".weight"))


def _split(
    flat: NDArray[np.float32], shapes: Mapping[str, tuple[int, ...]], biases: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    result: dict[str, NDArray[np.float32]] = {}
    rest = {"weight": flat, "bias": biases}
    for name, shape in shapes.items():
        kind, size = name.rpartition(".")[2], prod(shape)
        result[name], rest[kind] = rest[kind][:size].reshape(shape), rest[kind][size:]
    return result


def _header(text: str, file: str) -> dict[str, Any]:
    """Return the dtype, and by branch the widths and counts, all checked for their types."""
    try:
        found = json.loads(text)
        coder, values, raw = found["coder"], found["values"], found.get("raw")
        about: dict[str, Any] = {}
        for branch in BRANCHES:
            own = found[branch]
            about[branch] = (tuple(own["widths"]), own["kept"], own["gaps"])
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise _damaged(file, "its header is incomplete") from error
    dtypes = {dtype.name: dtype for dtype in DTYPES.values()}
    if coder != CODER or not isinstance(values, str) or values not in dtypes:
        raise InputError(
            f"{file} is packed with {str(coder)[:20]!r} and {str(values)[:20]!r}; this nucprune "
            f"reads {CODER} with {' or '.join(dtypes)}: update napari-nucprune."
        )
    for branch in BRANCHES:
        widths, kept, gaps = about[branch]
        numbers = (*widths, kept, 0 if gaps is None else gaps)
        if not 2 <= len(widths) <= 8 or not _counts(*numbers) or min(widths) < 1:
            raise _damaged(file, f"its header's numbers of the {branch} branch are out of range")
    dtype = dtypes[values]
    if raw is None:  # files from before it was written
        raw = dtype.itemsize // 2
    if type(raw) is not int or not 0 < raw < dtype.itemsize:
        raise _damaged(file, f"it claims {str(raw)[:20]} plain planes of {dtype.itemsize}")
    return {**about, "dtype": dtype, "raw": raw}


def _counts(*numbers: Any) -> bool:
    return all(type(n) is int and 0 <= n <= 2 * MOST for n in numbers)


def _damaged(file: str, what: str) -> InputError:
    return InputError(f"{file} is a damaged packed checkpoint ({what}); save it again.")
