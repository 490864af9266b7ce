"""Teaching by levels: what is heard, the error, and that a pupil comes nearer by it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import TINY, make_checkpoint, smooth
from napari_nucprune.checkpoint.unet import build
from napari_nucprune.doors import BRANCHES
from napari_nucprune.training.augment import Prepared
from napari_nucprune.training.config import Config, Data, Prune
from napari_nucprune.training.levels import listening, relative_error
from napari_nucprune.training.prune_finetune import FineTune

pytestmark = pytest.mark.usefixtures("one_thread")


def crop(seed):
    return torch.from_numpy(smooth(seed, 32, 48).astype(np.float32).transpose(2, 0, 1)[None])


def test_every_level_is_heard_and_only_within_the_block():
    net = build(make_checkpoint(TINY, seed=1).weights["semantic"])
    with listening(net) as heard:
        out = net(crop(0))
    depth = len(TINY)
    sizes = [*range(depth), *range(depth - 2, -1, -1)]
    wanted = [(1, TINY[level], 32 >> level, 48 >> level) for level in sizes]
    assert [tuple(level.shape) for level in heard] == wanted
    # The last one is what the head turns into the output.
    torch.testing.assert_close(net.head(heard[-1]), out)
    net(crop(1))
    assert len(heard) == len(wanted)


def test_a_failed_run_leaves_nothing_listening():
    net = build(make_checkpoint(TINY, seed=1).weights["semantic"])
    with pytest.raises(RuntimeError), listening(net) as heard:
        net(torch.zeros(1, 5, 32, 32))
    net(crop(0))
    assert heard == []


def test_the_error_is_relative_level_by_level():
    teacher = [torch.full((1, 2, 4, 4), 3.0), torch.full((1, 8, 2, 2), 0.01)]
    assert relative_error(teacher, teacher) == 0
    # 10 % off in one of two levels, whatever its size or power: (0.1^2 + 0) / 2.
    for which in (0, 1):
        pupil = [t * (1.1 if i == which else 1.0) for i, t in enumerate(teacher)]
        assert float(relative_error(pupil, teacher)) == pytest.approx(0.005, rel=1e-4)
    dead = [torch.zeros(1, 2, 4, 4)]
    assert relative_error(dead, dead) == 0
    with pytest.raises(ValueError, match="zip"):
        relative_error(teacher, teacher[:1])


@pytest.mark.parametrize("cr", [1, 4])
def test_a_pupil_taught_by_levels_comes_nearer_to_them(cr, tmp_path):
    dense = make_checkpoint(TINY, seed=5)
    rgb = smooth(3, 140, 150)
    targets = np.stack([np.zeros((140, 150)), np.zeros((140, 150))], axis=2).astype(np.float32)
    training = [Prepared("x", "p", rgb, targets, 1.0)]
    errors = {}
    for levels in (0.0, 1.0):
        prune = Prune(cr=cr, start="one-shot", distil=0.5, levels=levels)
        config = Config(
            "tuned", (Data("pairs", "nowhere"),), TINY, batch=2, crop=32, lr=5e-3, steps=25,
            precision="float32", prune=prune, ema=0.0,
        )  # fmt: skip
        folder = tmp_path / f"{levels}"
        folder.mkdir()
        fit = FineTune(config, folder, dense)
        fit.begin(training)
        for _ in range(25):
            fit.train_step(training)
        made = fit.finished()
        for branch in BRANCHES:
            own, parent = (build(c.weights[branch]) for c in (made, dense))
            with listening(own) as pupil, listening(parent) as teacher:
                own(crop(9)), parent(crop(9))
            errors[branch, levels] = float(relative_error(pupil, teacher))
        said = (made.pruning or {}).get("training", {})
        assert said.get("levels") == (levels or None if cr > 1 else None)
    # The labels pull both away from the dense network; its levels hold one of them.
    for branch in BRANCHES:
        assert errors[branch, 1.0] < 0.9 * errors[branch, 0.0], errors
