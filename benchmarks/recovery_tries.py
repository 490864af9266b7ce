"""What else was tried at large CR: python benchmarks/recovery_tries.py [-o docs/recovery-tries.md].

On the images of ``benchmarks/recovery.py``, whose helper functions it shares. Every run is kept in
``runs/recovery_tries.json``: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recovery import Study, cells, crops_of, table
from torch.nn import functional as F

from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.checkpoint.shipped import open_checkpoint
from napari_nucprune.checkpoint.unet import build
from napari_nucprune.datasets.evaluate import count_image, run_on
from napari_nucprune.datasets.registry import open_folder
from napari_nucprune.doors import BRANCHES, Branch, Pruning
from napari_nucprune.files import replacing
from napari_nucprune.pruning import responses
from napari_nucprune.pruning.cost import cost
from napari_nucprune.pruning.recipe import RESELECT, Recipe
from napari_nucprune.pruning.recovery import Calibration
from napari_nucprune.pruning.sensitivity import sensitivities
from napari_nucprune.pruning.strategy import Masks, apply
from napari_nucprune.training.model_card import halves

POINTS = (("layer-wise", 16), ("network-wide", 16), ("network-wide", 32))
#: Seconds of self-distillation, both branches together, as the issue of recovery asks.
DISTILLED = 10.0
Way = Callable[["Case"], Checkpoint]


class Case:
    """One image at one pruning, and what ways share there."""

    def __init__(self, study: Study, crops: np.ndarray, calibration: Calibration) -> None:
        self.dense = study.checkpoint
        self.crops = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
        self.calibration = calibration
        self.pruning = Pruning()
        self.masks: Masks = {}

    def one_shot(self) -> Checkpoint:
        """Return the pruned network as it is."""
        return apply(self.dense, self.pruning, self.masks)

    def recovered(self, masks: Masks | None = None) -> Checkpoint:
        """Return the recovered one, on other masks where such are given."""
        return self.calibration.recover(self.pruning, self.masks if masks is None else masks)

    def kept_support(self, network: Checkpoint, masks: Masks) -> Checkpoint:
        """Refit a network's own weights on a mask, to the dense network's responses."""
        calibration = copy.copy(self.calibration)
        calibration.checkpoint = replace(network, pruning=None)
        calibration.recipe = Recipe()
        return calibration.recover(self.pruning, masks)


def nonzero(network: Checkpoint, like: Masks) -> Masks:
    """Return where a network's pruned layers are not zero."""
    return {
        b: {name: network.weights[b][f"{name}.weight"] != 0 for name in like[b]} for b in BRANCHES
    }


def second_sweep(case: Case) -> Checkpoint:
    """Refit all layers once more, from the recovered weights."""
    found = case.recovered()
    return case.kept_support(found, nonzero(found, case.masks))


def dense_inputs(case: Case) -> Checkpoint:
    """Fit every layer to the dense network's inputs, which is all that its statistics hold."""
    real = responses.watch

    def watch(net: torch.nn.Module, crops: torch.Tensor, before: Any, after: Any) -> None:
        fitted = {}

        def enter(name: str, module: responses.Conv, x: torch.Tensor) -> None:
            dense = {key: value.clone() for key, value in module.state_dict().items()}
            before(name, module, x)
            fitted[name] = {key: value.clone() for key, value in module.state_dict().items()}
            module.load_state_dict(dense)

        real(net, crops, enter, after)
        for name, module in responses.convolutions(net).items():
            module.load_state_dict(fitted[name])

    responses.watch = watch
    try:
        return case.recovered()
    finally:
        responses.watch = real


def matched(case: Case, network: Checkpoint) -> Checkpoint:
    """Scale and shift each channel to the dense one's mean and variance, layer by layer."""
    weights = {}
    for branch in BRANCHES:
        wanted: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

        def said(name: str, module: responses.Conv, y: torch.Tensor, wanted=wanted) -> None:
            wanted[name] = y.mean((0, 2, 3)), y.std((0, 2, 3))

        responses.watch(build(case.dense.weights[branch]), case.crops, lambda *_: None, said)
        net = build(network.weights[branch])

        def match(name: str, module: responses.Conv, x: torch.Tensor, wanted=wanted) -> None:
            y = module.forward(x)
            mean, spread = wanted[name]
            factor = spread / y.std((0, 2, 3)).clamp_min(1e-6)
            factor = torch.where(y.std((0, 2, 3)) > 1e-6, factor, torch.ones_like(factor))
            shape = (1, -1, 1, 1) if isinstance(module, torch.nn.ConvTranspose2d) else (-1, 1, 1, 1)
            module.weight.mul_(factor.reshape(shape))
            assert module.bias is not None
            module.bias.sub_(y.mean((0, 2, 3))).mul_(factor).add_(mean)

        responses.watch(net, case.crops, match, lambda *_: None)
        weights[branch] = {name: v.numpy() for name, v in net.state_dict().items()}
    return replace(network, weights=weights)


def distilled(case: Case, network: Checkpoint) -> Checkpoint:
    """Train the kept weights on the crops to say what the dense network says."""
    weights = {}
    support = nonzero(network, case.masks)
    for branch in BRANCHES:
        teacher, net = build(case.dense.weights[branch]), build(network.weights[branch])
        with torch.no_grad():
            wanted = torch.cat([teacher(part) for part in case.crops.split(4)])
        parameters = dict(net.named_parameters())
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        optimiser = torch.optim.Adam(net.parameters(), betas=(0.9, 0.95))
        draw = torch.Generator().manual_seed(0)
        begin, done = time.perf_counter(), 0.0
        while done < 1:
            for group in optimiser.param_groups:
                group["lr"] = 1e-3 * min(1, done * 10) * 0.5 * (1 + np.cos(np.pi * done))
            at = torch.randperm(len(wanted), generator=draw)[:4]
            off = loss(branch, net(case.crops[at]), wanted[at])
            optimiser.zero_grad()
            off.backward()
            for name, mask in support[branch].items():
                gradient = parameters[f"{name}.weight"].grad
                assert gradient is not None
                gradient.mul_(torch.from_numpy(mask))
            optimiser.step()
            done = (time.perf_counter() - begin) / (DISTILLED / 2)
        weights[branch] = {name: v.detach().numpy() for name, v in net.state_dict().items()}
    return replace(network, weights=weights)


def loss(branch: Branch, found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return what the branch's output is off the dense one's."""
    if branch == "semantic":
        return F.binary_cross_entropy_with_logits(found, torch.sigmoid(wanted))
    return F.mse_loss(found, wanted)


def scores_of_weights(case: Case, effect: bool) -> dict[Branch, dict[str, np.ndarray]]:
    """Return a score for each weight: ``w^2 * mean(x^2)``, times the effect of its row if asked.

    Without it, Wanda's activation-weighted magnitude (Sun et al. 2024).
    """
    out: dict[Branch, dict[str, np.ndarray]] = {}
    for branch in BRANCHES:
        net = build(case.dense.weights[branch])
        rows = sensitivities(net, case.crops, branch) if effect else {}
        found: dict[str, np.ndarray] = {}

        def before(name, module, x, found=found, rows=rows, branch=branch) -> None:  # type: ignore[no-untyped-def]
            where = responses.places(x.shape, 3000, 0)
            power = responses.features(x, module, where).square().mean(0)
            score = responses.rows_of(module.weight, module).square() * power
            if rows:
                score = score * rows[name].rows[:, None].square()
            found[name] = responses.weight_of(score, module).numpy()

        responses.watch(net, case.crops, before, lambda *_: None)
        out[branch] = {name: found[name] for name in case.masks[branch]}
    return out


def wanda(case: Case) -> Checkpoint:
    """Take each layer's highest activation-weighted magnitudes, then refit."""
    scored = scores_of_weights(case, effect=False)
    masks = {
        b: {n: highest(score, int(case.masks[b][n].sum())) for n, score in scored[b].items()}
        for b in BRANCHES
    }
    return case.kept_support(case.dense, masks)


def densities(case: Case, power: float = 0.0) -> Checkpoint:
    """Spread as many weights over the layers by effect / multiply-adds ** power, then recover."""
    scored = scores_of_weights(case, effect=True)
    masks: Masks = {}
    for b in BRANCHES:
        macs = {x.name: x.positions**power for x in case.dense.layers(b)}
        flat = np.concatenate([(s / macs[n]).ravel() for n, s in scored[b].items()])
        kept = highest(flat, sum(int(m.sum()) for m in case.masks[b].values()))
        ends = np.cumsum([s.size for s in scored[b].values()])[:-1]
        parts = np.split(kept, ends)
        named = zip(scored[b].items(), parts, strict=True)
        masks[b] = {name: part.reshape(score.shape) for (name, score), part in named}
    return case.recovered(masks)


def highest(score: np.ndarray, count: int) -> np.ndarray:
    """Return the ``count`` highest, True."""
    out = np.zeros(score.size, bool)
    out[np.argsort(-score, axis=None, kind="stable")[:count]] = True
    return out.reshape(score.shape)


WAYS: dict[str, Way] = {
    "recovered (the default)": Case.recovered,
    "recovered from the dense network's inputs": dense_inputs,
    "and a second sweep over the layers": second_sweep,
    "and each channel's mean and variance matched": lambda c: matched(c, c.recovered()),
    "and ten seconds of self-distillation": lambda c: distilled(c, c.recovered()),
    "one-shot, each channel's mean and variance matched": lambda c: matched(c, c.one_shot()),
    "one-shot, ten seconds of self-distillation": lambda c: distilled(c, c.one_shot()),
    "activation-weighted magnitude (Wanda), refitted": wanda,
    "recovered, layers' densities by effect": densities,
    "by effect for the square root of a multiply-add": lambda c: densities(c, 0.5),
    "by effect for a multiply-add": lambda c: densities(c, 1.0),
}


#: From here on the file is written by hand, and stays: read it again where the table changes.
BY_HAND = "## What was kept"


def main() -> None:
    """Run what is not done yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/recovery-tries.md"))
    parser.add_argument("--kept", type=Path, default=Path("runs/recovery_tries.json"))
    options = parser.parse_args()
    checkpoint = open_checkpoint()
    held = {d["layout"]: d["validation"] for d in checkpoint.provenance["data"]}
    folder = open_folder(options.data / "MoNuSeg/MoNuSegTrainingData", "monuseg")
    by_patient = {item.patient: item for item in folder}
    items = halves([by_patient[patient] for patient in held["monuseg"]])[1]
    study = Study(checkpoint, items, options.kept)
    for item in items:
        measure(study, item)
    dense = float(np.mean([study.done[key(study, i, "", 1, "dense")]["pq"] for i in items]))
    head = ["", *(f"{s} CR {cr}: {k}" for s, cr in POINTS for k in ("PQ", "R2", "s", "compute"))]
    rows = []
    for name in WAYS:
        row = [name]
        for strategy, cr in POINTS:
            found = [study.done[key(study, i, strategy, cr, name)] for i in items]
            mean = study.mean(found)
            figures = cells(mean, {"pq": dense})
            compute = np.mean([f["compute"] for f in found])
            row += [figures[0], figures[3], f"{mean['seconds']:.1f}", f"/ {compute:.1f}"]
        rows.append(row)
    text = [
        "# What else was tried",
        "",
        "The table is written by `python benchmarks/recovery_tries.py`; every figure is measured "
        "by it.",
        "",
        f"On the images and crops of [recovery](recovery.md), weights `{checkpoint.sha256[:12]}`, "
        f"dense PQ {dense:.3f}. Seconds are for both branches with the dense responses there, "
        "*compute* is by what the multiply-adds are divided.",
        "",
        *table(head, rows),
    ]
    if options.output.exists():
        before = options.output.read_text(encoding="utf-8")
        text.append(before[before.index(BY_HAND) :] if BY_HAND in before else "")
    options.output.write_text("\n".join(text), encoding="utf-8")
    print(f"wrote {options.output}")


def key(study: Study, item, strategy: str, cr: float, way: str) -> str:  # type: ignore[no-untyped-def]
    """Return what a run is kept under."""
    return "|".join((study.checkpoint.sha256[:12], item.name, strategy, f"{cr:g}", way))


def measure(study: Study, item) -> None:  # type: ignore[no-untyped-def]
    """Score every way on one image."""
    wanted = [(s, cr, name) for s, cr in POINTS for name in WAYS]
    if all(key(study, item, *what) in study.done for what in wanted):
        return
    crops = crops_of(item, study.checkpoint.mpp)
    case = Case(study, crops, Calibration(study.checkpoint, crops, "own", RESELECT))
    reference = study.dense_maps(item)
    scores = count_image(item, *reference, study.checkpoint.merge).scores()
    study.done[key(study, item, "", 1, "dense")] = {"pq": scores.pq}
    for strategy, cr, name in wanted:
        case.pruning = Pruning(strategy, cr, cr)
        case.masks = study.ranking.masks(case.pruning)
        started = time.perf_counter()
        network = WAYS[name](case)
        seconds = time.perf_counter() - started
        study.runtime.load(network)
        maps, transform = run_on(item, study.checkpoint, study.runtime)
        scores = count_image(item, maps, transform, study.checkpoint.merge).scores()
        off = np.mean((maps.distance - reference[0].distance) ** 2)
        found = {
            "pq": scores.pq,
            "aji": scores.aji,
            "dice": scores.dice,
            "r2": float(1 - off / reference[0].distance.var()),
            "seconds": seconds,
            "compute": cost(network, Pruning(), None).compute_ratio,
        }
        print(item.name, strategy, cr, name, {k: round(v, 3) for k, v in found.items()}, flush=True)
        study.done[key(study, item, strategy, cr, name)] = found
        with replacing(study.kept) as temporary:
            temporary.write_text(json.dumps(study.done, indent=0), encoding="utf-8")


if __name__ == "__main__":
    main()
