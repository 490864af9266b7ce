"""The sparse runtime's library and networks, for its tests."""

import os
from dataclasses import replace

import pytest
import torch

from napari_nucprune.checkpoint.shipped import open_checkpoint
from napari_nucprune.native import NativeMissing
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.sparse_library import SparseNet, sparse_library


@pytest.fixture(autouse=True, scope="module")
def _needs_the_library():
    try:
        sparse_library()
    except NativeMissing as error:
        if os.environ.get("NUCPRUNE_REQUIRE_NATIVE"):
            raise
        pytest.skip(f"no native library: {error}")


@pytest.fixture(autouse=True, scope="module")
def _one_thread_of_torch():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained():
    return open_checkpoint()


@pytest.fixture(scope="module")
def ranking(trained):
    return Ranking(trained)


def net_of(checkpoint, branch, masks=None, name=None, threads=1):
    layers = checkpoint.layers(branch)
    weights = checkpoint.weights[branch]
    shapes = [weights[f"{layer.name}.weight"].shape for layer in layers]
    layers = [replace(a, shape=s) for a, s in zip(layers, shapes, strict=True)]
    net = SparseNet(layers, [s[-1] for s in shapes], name)
    net.load(weights, masks[branch] if masks else {}, threads)
    return net


def isas():
    names = ("avx512", "avx2", "neon", "baseline")
    return [n for n in names if sparse_library().nucprune_sparse_has_isa(n.encode())]
