"""How the networks of ``benchmarks/study.py`` were trained, from what they say of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, NamedTuple

from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.doors import BRANCHES


class Training(NamedTuple):
    """A network's training: the steps of the last one and of those before, and its seed."""

    steps: str
    seed: int | None = None


def identity(network: Checkpoint) -> dict[str, Any]:
    """Return all of a network that decides a score."""
    return {
        "sha256": network.sha256,
        "merge": asdict(network.merge),
        "mpp": network.mpp,
        "distance_unit_um": network.distance_unit_um,
    }


def weights(network: Checkpoint) -> int:
    """Return the weights of both branches, without biases."""
    return sum(layer.size for branch in BRANCHES for layer in network.layers(branch))


def training_of(
    network: Checkpoint,
    dense: Checkpoint | None = None,
    ships: bool = False,
    with_weights: bool = False,
) -> Training:
    """Return how a network was trained; where asked for, with the number of its weights.

    What was fine-tuned from another network than ``dense`` says so. What ``ships`` is a run's
    weights rounded, no further seed of that training: it is told apart.
    """
    about, before = network.provenance, []
    text = "{steps:,} x {batch} x {crop} px".format_map(about) if "steps" in about else "not noted"
    earlier: dict[str, Any] | None = about.get("started_from")
    if network.pruning is None:
        while earlier:
            before.append(earlier.get("steps", 0))
            earlier = earlier.get("started_from")
    how = (network.pruning or {}).get("training", {})
    if len(trained := about.get("branches", BRANCHES)) < len(BRANCHES):
        text += f" of the {trained[0]} branch"
    if how.get("levels"):
        text += ", level by level"
    earlier = how.get("before")
    while earlier:
        before.append(earlier.get("steps", 0))
        earlier = earlier.get("before")
    if before:
        text += f", after {sum(before):,}"
    if dense is not None and network.parent_sha256 != dense.sha256:
        text += ", from an earlier dense network"
    if ships:
        text += ", as it ships"
    if with_weights:
        text = f"{weights(network):,}; {text}"
    return Training(text, about.get("seed"))
