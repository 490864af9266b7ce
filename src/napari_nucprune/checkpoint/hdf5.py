"""Keras' weight files (HDF5, ``.keras``): only their arrays are read, never a model's code."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

SUFFIXES = (".h5", ".hdf5", ".keras")
#: The published branch has 1.9 million values; files of more than this are no such network.
LARGEST = 64_000_000
#: Groups within groups, and members of a file.
DEEPEST, MOST = 12, 20_000
#: What training leaves beside the weights.
_SKIPPED = ("optimizer", "optimizer_weights", "_layer_checkpoint_dependencies")


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``conv2d_2`` before ``conv2d_10``."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d{1,18})", name) if p]


def read_hdf5(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read a Keras file's weights in their declared order.

    Parameters
    ----------
    path
        ``save_weights`` or ``save`` of Keras 2 (``layer_names`` says the order) or Keras 3 (by
        the numbers in the names, as Keras itself finds them), or a ``.keras`` archive.

    Returns
    -------
    dict
        Path in the file to float32 array, in Keras' own layout.

    Raises
    ------
    InputError
        Where the file is damaged, or holds links to other files or more than `LARGEST` values.
    """
    import h5py

    try:
        source: Any = _from_archive(path) if path.suffix.lower() == ".keras" else str(path)
        with h5py.File(source, "r") as file:
            root = _child(file, "model_weights") if "model_weights" in list(file) else file
            found: dict[str, NDArray[np.float32]] = {}
            total = 0
            for name, data in _declared(root) if "layer_names" in root.attrs else _walk(root):
                total += int(data.size)
                if total > LARGEST:
                    raise ValueError(f"it holds more than {LARGEST:,} values")
                found[name] = _array(name, data)
    except Exception as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise InputError(
            f"{path.name} cannot be read as Keras weights ({text}); "
            "save them anew with model.save_weights."
        ) from error
    return found


def _from_archive(path: Path) -> io.BytesIO:
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("model.weights.h5")
        if entry.file_size > 8 * LARGEST:
            raise ValueError(f"its weights have {entry.file_size:,} bytes")
        return io.BytesIO(archive.read(entry))


def _declared(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield what Keras 2 lists, in that order."""
    for layer in _names(root.attrs["layer_names"]):
        group = _child(root, layer)
        for weight in _names(group.attrs["weight_names"]):
            yield f"{layer}/{weight}", _child(group, weight)


def _names(attribute: Any) -> list[str]:
    values = np.asarray(attribute).ravel().tolist()[:MOST]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _walk(group: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    import h5py

    if depth > DEEPEST or len(group) > MOST:
        raise ValueError("it has too many groups")
    for name in sorted(group, key=natural):
        if name in _SKIPPED:
            continue
        child = _child(group, name)
        if isinstance(child, h5py.Group):
            yield from _walk(child, f"{prefix}{name}/", depth + 1)
        else:
            yield prefix + name, child


def _child(group: Any, path: str) -> Any:
    """Return a member that lies in this file: links may lead to any file of the computer."""
    import h5py

    for name in path.split("/"):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is missing or a link")
        group = group[name]
    return group


def _array(name: str, data: Any) -> NDArray[np.float32]:
    import h5py

    if not isinstance(data, h5py.Dataset) or data.dtype.kind != "f" or data.ndim > 5:
        raise ValueError(f"{name} is no array of floats")
    if data.is_virtual or data.external:
        raise ValueError(f"{name} lies in another file")
    return np.asarray(data[()], np.float32)
