"""Networks without ties and their sizes, for the tests of pruning."""

import pytest
from hypothesis import settings

from helpers import PUBLISHED, QUICK, distinct_checkpoint
from napari_nucprune.checkpoint.architecture import HEAD, layers

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
