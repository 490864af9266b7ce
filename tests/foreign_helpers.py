"""Checkpoints as other people write them: torch under other names, and Keras."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from helpers import branch_weights, is_one_line
from napari_nucprune.checkpoint.foreign import open_foreign
from napari_nucprune.doors import BRANCHES
from napari_nucprune.errors import InputError

WIDTHS = (2, 3, 5)


def forward_order(widths):
    """Layer names as the data flows."""
    levels = range(len(widths))
    names = [f"encoder.{i}.conv{j}" for i in levels for j in (1, 2)]
    for i in levels[:-1]:
        names += [f"up.{i}", f"decoder.{i}.conv1", f"decoder.{i}.conv2"]
    return [*names, "head"]


def foreign_state(weights, widths, order="forward", bias=True):
    """A torch state dict with names of another author."""
    names = forward_order(widths)
    if order == "by kind":  # encoders, then all up-convolutions, then decoders
        names = sorted(names, key=lambda n: n.startswith(("up", "decoder", "head")))
        names = sorted(names, key=lambda n: n.startswith(("decoder", "head")))
    elif order == "backwards":
        names = names[::-1]
    elif order == "swapped":  # same shapes' kinds, another place
        names[2], names[4] = names[4], names[2]
    state = {}
    for i, name in enumerate(names):
        state[f"net.block{i}.0.weight"] = torch.from_numpy(weights[f"{name}.weight"])
        if bias:
            state[f"net.block{i}.0.bias"] = torch.from_numpy(weights[f"{name}.bias"])
    return state


def keras_names(widths):
    """Our layer names by the names that Keras gives."""
    named, counts = {}, {}
    for name in forward_order(widths):
        kind = "conv2d_transpose" if name.startswith("up") else "conv2d"
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        named[f"{kind}_{number}" if number else kind] = name
    return named


def write_keras(path, weights, widths, version=2, group=None, extra=None):
    """What Keras writes: version 2 with layer_names, version 3 with groups by name alone."""
    with h5py.File(path, "w") as file:
        root = file.create_group(group) if group else file
        named = keras_names(widths)
        for keras, ours in named.items():
            kernel = weights[f"{ours}.weight"].transpose(2, 3, 1, 0)
            if version == 3:
                variables = root.create_group(f"layers/{keras}/vars")
                variables["0"], variables["1"] = kernel, weights[f"{ours}.bias"]
            else:
                layer = root.create_group(keras)
                layer[f"{keras}/kernel:0"] = kernel
                layer[f"{keras}/bias:0"] = weights[f"{ours}.bias"]
                keys = [f"{keras}/kernel:0", f"{keras}/bias:0"]
                layer.attrs["weight_names"] = [k.encode() for k in keys]
        if version == 2:
            root.attrs["layer_names"] = [k.encode() for k in named]
        if extra:
            extra(root)


@pytest.fixture
def two():
    rng = np.random.default_rng(5)
    return {branch: branch_weights(WIDTHS, rng) for branch in BRANCHES}


def check(found, wanted):
    for branch in BRANCHES:
        for name, array in wanted[branch].items():
            np.testing.assert_array_equal(found.weights[branch][name], array, err_msg=name)


def refused(*arguments, **options):
    with pytest.raises(InputError) as caught:
        open_foreign(*arguments, **options)
    assert is_one_line(caught.value)
    return str(caught.value)
