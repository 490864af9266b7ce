"""Pins: copies of the result layers that are never updated, found again by their metadata."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer

from ..errors import InputError
from .layers import KEY, ROLES, find


@dataclass(frozen=True, eq=False)
class Pin:
    """A kept result.

    Attributes
    ----------
    ident
        Names it, also in a saved session.
    label
        For people, e.g. ``layer-wise CR 16``.
    layers
        By role of what was copied; ``"instances"`` at least.
    """

    ident: str
    label: str
    layers: dict[str, Layer]


def pins(viewer: Any) -> list[Pin]:
    """Return the pins whose instances are still in the viewer, oldest first."""
    found: dict[str, Pin] = {}
    for layer in viewer.layers:
        about = layer.metadata.get(KEY, {})
        if "pin" in about:
            own = found.setdefault(about["pin"], Pin(about["pin"], about.get("label", "pin"), {}))
            own.layers[about["role"].removeprefix("pinned ")] = layer
    whole = [pin for pin in found.values() if isinstance(pin.layers.get("instances"), Labels)]
    return sorted(whole, key=lambda pin: [int(n) for n in pin.ident.split("-") if n.isdigit()])


def pin(viewer: Any, label: str) -> Pin:
    """Copy our result layers under names with ``· label``; the copies are never updated.

    Raises
    ------
    InputError
        Where there are no results yet.
    """
    found = {role: layer for role in ROLES if (layer := find(viewer, role)) is not None}
    if "instances" not in found:
        raise InputError("There is no result to pin yet; run first.")
    taken = {own.ident for own in pins(viewer)}
    ident = next(name for n in itertools.count(1) if (name := f"pin-{n}") not in taken)
    copies = {}
    active = viewer.layers.selection.active
    for role, layer in found.items():
        data, state, kind = layer.as_layer_data_tuple()
        about = {**state["metadata"][KEY], "role": f"pinned {role}", "pin": ident, "label": label}
        state["name"] = f"{layer.name} · {label}"
        state["metadata"] = {KEY: about}
        state["visible"] = False
        cls = Labels if kind == "labels" else Image
        copies[role] = viewer.add_layer(cls(np.array(data), **state))
    if active is not None:
        viewer.layers.selection.active = active
    return Pin(ident, label, copies)
