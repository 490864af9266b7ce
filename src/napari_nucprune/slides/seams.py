"""Where objects of several cores meet: whose a contested pixel is, and labels of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .lattice import Core, Lattice
from .ownership import Claims


def _at(lattice: Lattice, core: Core, claims: Claims) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return which spilled pixels of some core's claims lie in `core`, and where in it (flat)."""
    y, x = claims.spill_y - core[0] * lattice.core, claims.spill_x - core[1] * lattice.core
    there = (y >= 0) & (x >= 0) & (y < lattice.core) & (x < lattice.core)
    return there, y[there].astype(np.intp) * lattice.core + x[there]


def settle(
    lattice: Lattice,
    core: Core,
    claims: Claims,
    lower: Sequence[tuple[Core, Claims]],
    least: int,
) -> Claims:
    """Give contested pixels to the lower (core row, core column).

    Parameters
    ----------
    lattice, core, claims
        A core and what it claims.
    lower
        The cores before it that touch it, with what they claim.
    least
        Objects that are left with fewer pixels go; so their numbers close up.

    Returns
    -------
    Claims
        The same object where nothing is contested: only components that do not fit are.
    """
    labels = claims.labels
    lost_spill = np.zeros(len(claims.spill), bool)
    places = claims.spill_y.astype(np.int64) * lattice.shape[1] + claims.spill_x
    for other, theirs in lower:
        _, at = _at(lattice, core, theirs)
        if labels.ravel()[at].any():
            labels = labels.copy() if labels is claims.labels else labels
            labels.ravel()[at] = 0
        there, at = _at(lattice, other, claims)
        lost_spill[there] |= theirs.labels.ravel()[at] > 0
        their_places = theirs.spill_y.astype(np.int64) * lattice.shape[1] + theirs.spill_x
        lost_spill |= np.isin(places, their_places)
    if labels is claims.labels and not lost_spill.any():
        return claims
    spill = np.where(lost_spill, 0, claims.spill)
    n = len(claims)
    pixels = np.bincount(labels.ravel(), minlength=n + 1) + np.bincount(spill, minlength=n + 1)
    own = np.bincount(claims.labels.ravel(), minlength=n + 1)
    had = own + np.bincount(claims.spill, minlength=n + 1)
    stays = pixels >= least
    stays[0] = False
    number = np.where(stays, np.cumsum(stays), 0).astype(np.int32)
    spill = number[spill]
    left = spill > 0
    return replace(
        claims,
        labels=number[labels],
        spill_y=claims.spill_y[left],
        spill_x=claims.spill_x[left],
        spill=spill[left],
        # What lost a pixel to a lower core is another object than one watershed would have given.
        seam=(claims.seam | (pixels < had)[1:])[stays[1:]],
    )


def compose(
    lattice: Lattice,
    core: Core,
    offsets: dict[Core, int],
    settled: Sequence[tuple[Core, Claims]],
) -> NDArray[np.int32]:
    """Return the slide's labels within a core.

    Parameters
    ----------
    lattice, core
        Where.
    offsets
        What is added to each core's numbers.
    settled
        It and the cores that touch it, after `settle`, where they have objects.

    Returns
    -------
    NDArray
        (h, w) int32 of the core's box.
    """
    out = np.zeros((lattice.core, lattice.core), np.int32)
    for other, claims in settled:
        if other == core:
            own = claims.labels > 0
            out[own] = claims.labels[own] + np.int32(offsets[other])
        else:
            there, at = _at(lattice, core, claims)
            out.ravel()[at] = claims.spill[there] + np.int32(offsets[other])
    y0, x0, y1, x1 = lattice.box(core)
    return out[: y1 - y0, : x1 - x0]
