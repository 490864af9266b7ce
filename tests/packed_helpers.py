"""Pruned networks and a packed file of one, for the tests of packed checkpoints."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from helpers import QUICK, make_checkpoint
from napari_nucprune.checkpoint.format import save
from napari_nucprune.doors import Pruning
from napari_nucprune.pruning.strategy import Ranking, apply

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def pruned(checkpoint, cr, strategy="layer-wise"):
    pruning = Pruning(strategy, cr, cr)
    return apply(checkpoint, pruning, Ranking(checkpoint).masks(pruning))


@pytest.fixture(scope="module")
def sparse():
    return pruned(make_checkpoint(QUICK, seed=5), 8)


@pytest.fixture
def written(sparse, tmp_path):
    path = tmp_path / "packed.safetensors"
    save(sparse, path, "lossless")
    return path


def frame(data):
    return np.frombuffer(zstd.compress(bytes(data)), np.uint8)
