"""Training of both branches on a mixture of data sets; resumable after a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..checkpoint.architecture import widths_of
from ..checkpoint.format import Checkpoint
from ..checkpoint.unet import UNet, initialise
from ..datasets.base import Annotated
from ..datasets.registry import open_folder
from ..doors import BRANCHES, Branch, Progress, ShouldStop, never, no_progress
from ..errors import Cancelled, InputError
from ..files import replacing
from .augment import Prepared, random_crop
from .config import Config
from .targets import distance_target


def prepare(config: Config) -> tuple[list[Prepared], dict[str, list[Annotated]]]:
    """Read all data of a configuration.

    Parameters
    ----------
    config
        Names the sets and their validation patients.

    Returns
    -------
    training
        Images with targets, resampled to the network's um/px.
    validation
        By layout: the annotated images of the validation patients, in the order of the list.

    Raises
    ------
    InputError
        Where a set is missing, incomplete, without um/px, or a validation patient is not in it.
    """
    training: list[Prepared] = []
    validation: dict[str, list[Annotated]] = {}
    for data in config.data:
        folder = open_folder(data.path, data.layout, **data.options)
        held: dict[str, list[Annotated]] = {name: [] for name in data.validation}
        for item in folder:
            key = item.patient if item.patient in held else item.name
            if key in held:
                held[key].append(item)
            else:
                training.append(_prepared(item, data.weight, config))
        if absent := [name for name, items in held.items() if not items]:
            raise InputError(f"{data.path} has no patient or image {absent[0]!r} to validate on.")
        found = [item for name in data.validation for item in held[name]]
        validation.setdefault(data.layout, []).extend(found)
    if not training:
        raise InputError("Every image is held out for validation; nothing is left to train on.")
    return training, validation


def _prepared(item: Annotated, weight: float, config: Config) -> Prepared:
    import cv2

    if item.mpp is None:
        raise InputError(f"{item.name} has no pixel size; set mpp in its [[data]] table.")
    rgb, labels = item.rgb, item.labels
    zoom = item.mpp / config.mpp
    if abs(zoom - 1) > 0.02:
        size = (round(rgb.shape[1] * zoom), round(rgb.shape[0] * zoom))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    distance = distance_target(labels, config.mpp, config.distance_unit_um or None)
    targets = np.stack([(labels > 0).astype(np.float32), distance], axis=2)
    return Prepared(item.name, item.patient, np.ascontiguousarray(rgb), targets, weight)


def semantic_loss(logits: Tensor, inside: Tensor) -> Tensor:
    """0.5 BCE + 1 - soft Dice over the batch (the published loss up to a constant)."""
    probability = torch.sigmoid(logits)
    overlap = (probability * inside).sum()
    dice = (2 * overlap + 1) / (probability.sum() + inside.sum() + 1)
    return 0.5 * F.binary_cross_entropy_with_logits(logits, inside) + 1 - dice


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up over 5 % of the steps (at most 200), then a cosine to zero."""
    warm = min(200, max(1, config.steps // 20))
    if step < warm:
        return config.lr * (step + 1) / warm
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, config.steps - warm)))


def batch_of(config: Config, training: list[Prepared], step: int) -> tuple[Tensor, Tensor]:
    """Draw the crops of a step; the same for the same seed and step, whatever came before."""
    rng = np.random.default_rng([config.seed, step])
    weights = np.array([image.weight for image in training], np.float64)
    chosen = rng.choice(len(training), config.batch, p=weights / weights.sum())
    in_um = bool(config.distance_unit_um)
    crops = [
        random_crop(rng, training[i], config.crop, config.scale, config.colour, in_um)
        for i in chosen
    ]
    rgb = torch.from_numpy(np.stack([c[0] for c in crops]))
    return rgb, torch.from_numpy(np.stack([c[1] for c in crops]))


class Fit:
    """A training run in a folder.

    Parameters
    ----------
    config
        What to train.
    folder
        Holds ``state.pt`` (written atomically every ``save_every`` steps) and ``log.csv``.
    device
        A torch device.
    """

    def __init__(self, config: Config, folder: Path, device: str = "cpu") -> None:
        self.config = config
        self.folder = folder
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        self.nets = {b: UNet(config.widths, config.dropout).to(self.device) for b in BRANCHES}
        for net in self.nets.values():
            initialise(net)
            torch.nn.Module.to(net, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimisers = {b: torch.optim.Adam(n.parameters()) for b, n in self.nets.items()}
        self.step = 0
        self.losses: dict[str, float] = {}

    @property
    def state_file(self) -> Path:
        """Where the state lies."""
        return self.folder / "state.pt"

    def start_from(self, checkpoint: Checkpoint) -> None:
        """Take a checkpoint's weights instead of random ones.

        Raises
        ------
        InputError
            Where its widths are not the configuration's.
        """
        for branch in BRANCHES:
            found = widths_of(checkpoint.weights[branch])
            if found != self.config.widths:
                raise InputError(
                    f"{checkpoint.name} has the widths {found}, the configuration "
                    f"{self.config.widths}; make them equal."
                )
            state = {k: torch.from_numpy(v) for k, v in checkpoint.weights[branch].items()}
            self.nets[branch].load_state_dict(state)

    def resume(self) -> None:
        """Take up the folder's state, if there is one.

        Raises
        ------
        InputError
            Where the folder holds the state of another configuration.
        """
        if not self.state_file.exists():
            return
        try:
            state = torch.load(self.state_file, map_location=self.device, weights_only=True)
        except Exception as error:
            raise InputError(
                f"{self.state_file} is damaged; remove it to start this run anew."
            ) from error
        if state["config"] != _identity(self.config):
            raise InputError(
                f"{self.folder} holds a run of another configuration; give an empty folder, "
                "or the configuration it was started with (only steps may differ)."
            )
        for branch in BRANCHES:
            self.nets[branch].load_state_dict(state["nets"][branch])
            self.optimisers[branch].load_state_dict(state["optimisers"][branch])
        self.step = state["step"]

    def save(self) -> None:
        """Write the state so that a kill at any moment leaves the old or the new one."""
        state = {
            "config": _identity(self.config),
            "step": self.step,
            "nets": {b: n.state_dict() for b, n in self.nets.items()},
            "optimisers": {b: o.state_dict() for b, o in self.optimisers.items()},
        }
        with replacing(self.state_file) as temporary:
            torch.save(state, temporary)

    def train_step(self, training: list[Prepared]) -> None:
        """Do one step of both branches on the same crops."""
        # Dropout too depends on seed and step alone, so that a resumed run is the same run.
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        rgb, targets = (t.to(self.device) for t in batch_of(self.config, training, self.step))
        rgb = rgb.contiguous(memory_format=torch.channels_last)
        for branch in self.config.branches:
            net, optimiser = self.nets[branch], self.optimisers[branch]
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(self.config, self.step)
            optimiser.zero_grad(set_to_none=True)
            out = net(rgb)
            if branch == "semantic":
                loss = semantic_loss(out[:, 0], targets[:, 0])
            else:
                loss = F.mse_loss(out[:, 0], targets[:, 1])
            loss.backward()
            optimiser.step()
            self.losses[branch] = float(loss.detach())
        self.step += 1

    def run(
        self,
        training: list[Prepared],
        progress: Progress = no_progress,
        should_stop: ShouldStop = never,
    ) -> None:
        """Train to the last step.

        Raises
        ------
        Cancelled
            Where ``should_stop`` said so; the state is saved first.
        """
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        for net in self.nets.values():
            net.train()
        started, first = time.monotonic(), self.step
        mean: dict[Branch, float] = dict.fromkeys(BRANCHES, 0.0)
        while self.step < self.config.steps:
            if should_stop():
                self.save()
                raise Cancelled(f"Stopped at step {self.step}; the same command goes on from here.")
            self.train_step(training)
            for branch in self.config.branches:
                mean[branch] += self.losses[branch] / self.config.save_every
            if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self.save()
                self._log(mean)
                left = (time.monotonic() - started) / (self.step - first)
                left *= (self.config.steps - self.step) / 60
                parts = [f"{branch} {mean[branch]:.4f}" for branch in self.config.branches]
                text = ", ".join([*parts, f"{left:.0f} min left"])
                progress(text, self.step, self.config.steps)
                mean = dict.fromkeys(BRANCHES, 0.0)
        for net in self.nets.values():
            net.eval()

    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        """Return both branches' weights by name, float32."""
        return {
            branch: {
                name: tensor.detach().cpu().contiguous().numpy().astype(np.float32)
                for name, tensor in net.state_dict().items()
            }
            for branch, net in self.nets.items()
        }

    def _log(self, mean: Mapping[Branch, float]) -> None:
        path = self.folder / "log.csv"
        new = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            if new:
                file.write("step,lr,semantic_loss,distance_loss\n")
            rate = learning_rate(self.config, self.step - 1)
            trained = self.config.branches
            losses = (f"{mean[b]:.5f}" if b in trained else "" for b in BRANCHES)
            file.write(f"{self.step},{rate:.3g},{','.join(losses)}\n")


def _identity(config: Config) -> str:
    """Return what must be equal for a run to go on: all but how long and how it is run."""
    free = replace(config, steps=1, threads=0, save_every=1)
    values: dict[str, Any] = asdict(free)
    for data in values["data"]:
        data["path"] = Path(data["path"]).name
    return json.dumps(values, sort_keys=True)
