"""A session as files: one JSON, and the layers that it names beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compare.sweep_points import SweepPoint
from ..errors import InputError
from ..files import replacing

FORMAT, VERSION = "nucprune session", 1
LARGEST_BYTES = 50_000_000
NUMBER = (int, float)
#: What must be there, by section: the kind of each value.
SCHEMA: dict[str, dict[str, Any]] = {
    "image": {"name": (str, type(None)), "path": (str, type(None)), "area": str,
              "mpp": (*NUMBER, type(None))},
    "checkpoint": {"origin": str, "sha256": str},
    "pruning": {"strategy": str, "recovery": str, "reselect": bool, "linked": bool,
                "cr": NUMBER, "cr_semantic": NUMBER, "cr_distance": NUMBER,
                "keep": (list, type(None))},
    "compare": {"result": str, "reference": (str, dict), "differences": bool, "filled": bool,
                "points": bool, "maps": bool},
    "sweep": {"about": str, "loss": NUMBER, "points": list},
}  # fmt: skip
PIN = {"ident": str, "label": str, "layers": dict}
POINT = {"strategy": str, "cr": NUMBER, "scores": dict, "start": dict}
LAYER = {"file": str, "scale": list, "translate": list, "rotate": list, "shear": list,
         "affine": list, "units": list, "about": dict}  # fmt: skip
KINDS = ("instances", "semantic", "distance")


def write(path: Path, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a session: the arrays as TIFFs beside ``path`` first, the JSON last.

    Parameters
    ----------
    path
        Of the JSON.
    state
        The sections of `SCHEMA`, ``live`` and ``pins``.
    arrays
        By file name, as the pins name them.

    Raises
    ------
    EnvironmentStopped
        Where a file cannot be written; a session that was there is still whole.
    """
    import tifffile

    for name, array in arrays.items():
        with replacing(path.parent / name) as temporary:
            tifffile.imwrite(temporary, array, compression="zlib", photometric="minisblack")
    text = json.dumps({"format": FORMAT, "version": VERSION, **state}, indent=1, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read a session.

    Returns
    -------
    state, arrays
        As they were given to `write`.

    Raises
    ------
    InputError
        One sentence, where it is no session, another version's, damaged, or a file is missing.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path.name} is too large for a session; choose another file.")
        state = json.loads(path.read_text(encoding="utf-8"), parse_int=_whole)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); choose a session.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path.name} is damaged or no session: it holds no JSON; choose another file."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path.name} is not a session of napari-nucprune; choose another file.")
    if state.get("version") != VERSION:
        raise InputError(
            f"{path.name} has version {str(state.get('version'))[:20]} and this program reads "
            f"version {VERSION}: open it with the version that wrote it."
        )
    for section, kinds in SCHEMA.items():
        _check(path, state, section, kinds)
    if not isinstance(state.get("live"), bool):
        raise _damaged(path, "live", state.get("live"))
    for name in ("cr", "cr_semantic", "cr_distance"):
        value = state["pruning"][name]
        if not math.isfinite(value) or value < 1:
            raise _damaged(path, f"pruning.{name}", value)
    if not isinstance(state.get("pins"), list):
        raise _damaged(path, "pins", state.get("pins"))
    arrays: dict[str, NDArray[Any]] = {}
    for index, pin in enumerate(state["pins"]):
        _check(path, {f"pins.{index}": pin}, f"pins.{index}", PIN)
        if "instances" not in pin["layers"]:
            raise _damaged(path, f"pins.{index}.layers", list(pin["layers"]))
        for kind, layer in pin["layers"].items():
            where = f"pins.{index}.layers.{kind}"
            _check(path, {where: layer}, where, LAYER)
            if kind not in KINDS:
                raise _damaged(path, where, kind)
            arrays[layer["file"]] = _array(path, layer["file"], kind)
    points_of(path, state)
    return state, arrays


def _whole(digits: str) -> float:
    """Return a whole number, one that no float can hold as infinite: no check may overflow."""
    return int(digits) if len(digits) < 300 else math.inf


def points_of(path: Path, state: Mapping[str, Any]) -> list[SweepPoint]:
    """Return the sweep's points.

    Raises
    ------
    InputError
        Where they are damaged.
    """
    found: list[SweepPoint] = []
    for index, point in enumerate(state["sweep"]["points"]):
        where = f"sweep.points.{index}"
        _check(
            path,
            {where: point},
            where,
            {"strategy": str, "cr": NUMBER, "scores": dict, "start": dict},
        )
        wanted = set(found[0].scores) if found else {"semantic_dice", "distance_r2", "aji", "pq"}
        for side in ("scores", "start"):
            values = point[side]
            numbers = all(v is None or isinstance(v, NUMBER) for v in values.values())
            if not numbers or not wanted <= set(values):
                raise _damaged(path, f"{where}.{side}", values)
        if not math.isfinite(point["cr"]) or point["cr"] < 1:
            raise _damaged(path, f"{where}.cr", point["cr"])
        found.append(
            SweepPoint(
                point["strategy"], float(point["cr"]), "both", point["scores"], point["start"]
            )
        )
    return found


def _check(path: Path, state: Mapping[str, Any], section: str, kinds: Mapping[str, Any]) -> None:
    own = state.get(section)
    if not isinstance(own, dict):
        raise _damaged(path, section, own)
    for name, kind in kinds.items():
        value = own.get(name)
        # True is an int to Python, not to us.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise _damaged(path, f"{section}.{name}", value)


def _damaged(path: Path, where: str, value: Any) -> InputError:
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return InputError(f"{path.name} is damaged: {where} is {text}; choose another session.")


def _array(path: Path, name: str, kind: str) -> NDArray[Any]:
    import tifffile

    if Path(name).name != name or not name.endswith(".tif"):
        raise _damaged(path, "a layer's file", name)
    try:
        array = tifffile.imread(path.parent / name)
    except FileNotFoundError as error:
        raise InputError(
            f"{path.name} needs {name} beside it, and that is not there; put it back."
        ) from error
    except Exception as error:
        raise InputError(f"{name} beside {path.name} cannot be read: it is damaged.") from error
    whole = (
        np.issubdtype(array.dtype, np.integer) if kind == "instances" else array.dtype.kind == "f"
    )
    if array.ndim != 2 or not whole:
        raise InputError(
            f"{name} beside {path.name} has shape {array.shape} and type {array.dtype}; it is not "
            f"the {kind} layer that was saved."
        )
    return array
