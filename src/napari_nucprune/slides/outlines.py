"""Outlines of labels along the pixels' own edges, all objects at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ring:
    """A closed line around an object or one of its holes.

    Attributes
    ----------
    label
        Of the object.
    hole
        Whether it runs around a hole.
    corners
        (y, x) of each corner, in pixel edges: the first pixel lies between 0 and 1. The first
        corner is not repeated. Around an object x turns towards y (positive area), around a hole
        the other way.
    """

    label: int
    hole: bool
    corners: list[tuple[int, int]]


def outlines(labels: NDArray[np.integer]) -> list[Ring]:
    """Trace every object of a label map.

    Parameters
    ----------
    labels
        (H, W) integer, 0 is background.

    Returns
    -------
    list of Ring
        In a fixed order. Pixels that touch by a corner alone
        are not joined (4-connected), and no ring comes to a vertex twice: where an object closes
        around a hole by a corner, the hole has a ring of its own, as the geometries of GeoJSON
        want it. The signed areas of a label's rings sum to its pixels.
    """
    starts, turns, follows, label_of, width = _edges(labels)
    visited = bytearray(len(starts))
    rings = []
    turn, follow = turns.tolist(), follows.tolist()
    vertex = starts.tolist()
    for first in range(len(vertex)):
        if visited[first]:
            continue
        path = []
        at = first
        while not visited[at]:
            visited[at] = 1
            path.append(at)
            at = follow[at]
        label = int(label_of[first])
        for part in _parts([vertex[edge] for edge in path]):
            rings.append(_ring(label, [path[i] for i in part], vertex, turn, width))
    return rings


def _parts(vertices: list[int]) -> list[list[int]]:
    """Cut a closed line wherever it comes to a vertex again; return the positions of each part."""
    if len(set(vertices)) == len(vertices):
        return [list(range(len(vertices)))]
    parts: list[list[int]] = []
    path: list[int] = []
    since: dict[int, int] = {}
    for position, vertex in enumerate(vertices):
        if vertex in since:
            start = since[vertex]
            parts.append(path[start:])
            for left in path[start:]:
                del since[vertices[left]]
            del path[start:]
        since[vertex] = len(path)
        path.append(position)
    return [path, *parts]


def _ring(label: int, path: list[int], vertex: list[int], turn: list[int], width: int) -> Ring:
    """Return the ring of edges that follow each other."""
    # From its topmost leftmost vertex on: an object's first edge goes right there, a hole's down.
    first = path.index(min(path, key=vertex.__getitem__))
    corners = []
    before = turn[path[first - 1]]
    for edge in path[first:] + path[:first]:
        if turn[edge] != before:
            corners.append(divmod(vertex[edge], width))
            before = turn[edge]
    return Ring(label, turn[path[first]] != 0, corners)


def _edges(
    labels: NDArray[np.integer],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int]:
    """Return directed edges with their object at one hand: start, direction, next one, label."""
    width = labels.shape[1]
    across = width + 1
    padded = np.pad(labels, 1)
    inside = padded[1:-1, 1:-1]
    # Directions: 0 +x, 1 +y, 2 -x, 3 -y; for each, the neighbour beyond that side of the pixel
    # and the vertex at which the side starts.
    beyond = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    corner = (0, 1, across + 1, across)
    step = (1, across, -1, -across)
    keys, owners = [], []
    for direction in range(4):
        y, x = np.nonzero((inside != beyond[direction]) & (inside != 0))
        keys.append((y * across + x + corner[direction]) * 4 + direction)
        owners.append(inside[y, x].astype(np.int64))
    key, owner = np.concatenate(keys), np.concatenate(owners)
    order = np.argsort(key, kind="stable")
    key, owner = key[order], owner[order]
    start, direction_of = key >> 2, key & 3
    end = start + np.array(step)[direction_of]

    def found(turned: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        wanted = end * 4 + ((direction_of + turned) & 3)
        at = np.minimum(np.searchsorted(key, wanted), max(len(key) - 1, 0))
        return at, (key[at] == wanted) & (owner[at] == owner)

    if not len(key):
        return start, direction_of, start, owner, across
    # Round the pixel's own corner first, which keeps pixels that touch by a corner apart.
    (near, is_near), (straight, is_straight), (far, _) = found(1), found(0), found(3)
    follows = np.where(is_near, near, np.where(is_straight, straight, far))
    return start, direction_of, follows, owner, across
