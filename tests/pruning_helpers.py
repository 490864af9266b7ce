"""Networks without ties and their sizes, for the tests of pruning."""

import numpy as np
import pytest
from hypothesis import settings

from helpers import PUBLISHED, QUICK, distinct_checkpoint
from napari_nucprune.checkpoint.architecture import HEAD, layers
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.pruning.strategy import Ranking

NAMES = ("layer-wise", "network-wide")
quick = settings(max_examples=40, deadline=None)


@pytest.fixture(scope="module")
def published():
    return distinct_checkpoint(PUBLISHED, seed=4)


@pytest.fixture(scope="module")
def small():
    return distinct_checkpoint(QUICK, seed=1)


def sizes(widths):
    return {layer.name: layer.size for layer in layers(widths)}


def kept_layers(keep, branch):
    """Which layers DESIGN leaves dense, written down again."""
    if keep is None:
        return {HEAD}
    other = "distance" if branch == "semantic" else "semantic"
    return {n.removeprefix(f"{branch}.") for n in keep if not n.startswith(f"{other}.")}


def with_ties(checkpoint):
    """The same checkpoint, its weights rounded to quarters."""
    for branch in BRANCHES:
        for name, array in checkpoint.weights[branch].items():
            checkpoint.weights[branch][name] = np.round(array * 4) / 4
    return checkpoint


def assert_nested(checkpoint, strategy, crs):
    """What a larger ratio keeps, a smaller one keeps too."""
    ranking = Ranking(checkpoint)
    before = None
    for cr in sorted(crs):
        masks = ranking.masks(Pruning(strategy, cr, cr))
        if before is not None:
            for branch in BRANCHES:
                for name, mask in masks[branch].items():
                    assert not (mask & ~before[branch][name]).any()
        before = masks
