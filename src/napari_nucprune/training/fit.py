"""Training of both branches; resumable after a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..checkpoint.architecture import widths_of
from ..checkpoint.format import Checkpoint
from ..checkpoint.unet import UNet, initialise
from ..doors import BRANCHES, Branch, Progress, ShouldStop, never, no_progress
from ..errors import Cancelled, InputError
from ..files import replacing
from .augment import Prepared
from .config import Config, Prune
from .mixture import batch_of
from .precision import faster
from .schedule import learning_rate, warming


def semantic_loss(logits: Tensor, inside: Tensor, counts: Tensor | None = None) -> Tensor:
    """0.5 BCE + 1 - soft Dice over the batch (the published loss up to a constant).

    ``counts`` weighs the pixels of the former, with a mean of 1.
    """
    probability = torch.sigmoid(logits)
    overlap = (probability * inside).sum()
    dice = (2 * overlap + 1) / (probability.sum() + inside.sum() + 1)
    return 0.5 * F.binary_cross_entropy_with_logits(logits, inside, counts) + 1 - dice


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
        self.averages = {b: self._averaged(net) for b, net in self.nets.items()}
        self.step = 0
        self.losses: dict[str, float] = {}
        #: What the forward pass computes in; None until it is known (`run`, `resume`).
        self.precision: str | None = None if config.precision == "auto" else config.precision

    def _averaged(self, net: UNet) -> AveragedModel | None:
        """Return the running mean of a network's weights, None where none is kept."""
        if not self.config.ema:
            return None
        update = warming if self.config.ema_warmup else get_ema_multi_avg_fn
        return AveragedModel(net, multi_avg_fn=update(self.config.ema))

    @property
    def state_file(self) -> Path:
        """Where the state lies."""
        return self.folder / "state.pt"

    @property
    def parents(self) -> dict[str, str]:
        """The sha256, by what they are for, of the networks that each step depends on."""
        return {}

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
            self.averages[branch] = self._averaged(self.nets[branch])

    def resume(self) -> None:
        """Take up the folder's state, if there is one.

        Raises
        ------
        InputError
            Where the folder holds the state of another configuration.
        """
        if not self.state_file.exists():
            return
        damaged = f"{self.state_file} is damaged; remove it to start this run anew."
        try:
            state = torch.load(self.state_file, map_location=self.device, weights_only=True)
            # A state from before a key was there has that key's default.
            began = {**asdict(Config("", ())), **json.loads(state["config"])}
            if began["prune"]:
                began["prune"] = {**asdict(Prune()), **began["prune"]}
        except Exception as error:
            raise InputError(damaged) from error
        if began != _identity(self.config):
            raise InputError(
                f"{self.folder} holds a run of another configuration; give an empty folder, "
                "or the configuration it was started with (only steps may differ)."
            )
        # A state from before they were kept names none.
        if state.get("parents", self.parents) != self.parents:
            raise InputError(
                f"{self.folder} holds a run that other checkpoints began or taught; "
                "give an empty folder, or those it was started with."
            )
        try:
            for branch in BRANCHES:
                self.nets[branch].load_state_dict(state["nets"][branch])
                self.optimisers[branch].load_state_dict(state["optimisers"][branch])
                if (average := self.averages[branch]) is not None:
                    average.load_state_dict(state["averages"][branch])
            self.step = int(state["step"])
            # A run goes on as it began, whatever this computer would choose.
            self.precision = state.get("precision", "float32")
        except Exception as error:
            raise InputError(damaged) from error

    def save(self) -> None:
        """Write the state so that a kill at any moment leaves the old or the new one."""
        state = {
            "config": json.dumps(_identity(self.config), sort_keys=True),
            "parents": self.parents,
            "step": self.step,
            "precision": self.precision,
            "nets": {b: n.state_dict() for b, n in self.nets.items()},
            "optimisers": {b: o.state_dict() for b, o in self.optimisers.items()},
            "averages": {b: a.state_dict() for b, a in self.averages.items() if a is not None},
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
            with self.autocast():
                out = self.respond(branch, rgb)
            loss = self.loss(branch, rgb, out.float(), targets)
            loss.backward()
            optimiser.step()
            self.after_step(branch)
            if (average := self.averages[branch]) is not None:
                average.update_parameters(net)
            self.losses[branch] = float(loss.detach())
        self.step += 1

    def respond(self, branch: Branch, rgb: Tensor) -> Tensor:
        """Run a branch on crops (N, 3, H, W)."""
        out: Tensor = self.nets[branch](rgb)
        return out

    def autocast(self) -> torch.autocast:
        """Return the context in which the networks run."""
        enabled = self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def loss(self, branch: Branch, rgb: Tensor, out: Tensor, targets: Tensor) -> Tensor:
        """Return what a branch's step lowers: ``out`` (N, 1, H, W), ``targets`` (N, 2-3, H, W)."""
        counts = None
        if self.config.border:
            counts = 1 + self.config.border * targets[:, 2]
            counts = counts / counts.mean()
        if branch == "semantic":
            return semantic_loss(out[:, 0], targets[:, 0], counts)
        off = (out[:, 0] - targets[:, 1]).square()
        return off.mean() if counts is None else (off * counts).mean()

    def after_step(self, branch: Branch) -> None:
        """Do what else a step does to a branch's weights."""

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
        if self.precision is None:
            self.precision = faster(self.config, self.device)
        for net in self.nets.values():
            net.train()
        started, first = time.monotonic(), self.step
        total: dict[Branch, float] = dict.fromkeys(BRANCHES, 0.0)
        logged = first
        while self.step < self.config.steps:
            if should_stop():
                self.save()
                if self.step > logged:
                    self._log(total, self.step - logged)
                raise Cancelled(f"Stopped at step {self.step}; the same command goes on from here.")
            self.train_step(training)
            for branch in self.config.branches:
                total[branch] += self.losses[branch]
            if self.step % self.config.save_every == 0 or self.step == self.config.steps:
                self.save()
                mean = self._log(total, self.step - logged)
                left = (time.monotonic() - started) / (self.step - first)
                left *= (self.config.steps - self.step) / 60
                parts = [f"{branch} {mean[branch]:.4f}" for branch in self.config.branches]
                text = ", ".join([*parts, str(self.precision), f"{left:.0f} min left"])
                progress(text, self.step, self.config.steps)
                total, logged = dict.fromkeys(BRANCHES, 0.0), self.step
        for net in self.nets.values():
            net.eval()

    def weights(self) -> dict[Branch, dict[str, NDArray[np.float32]]]:
        """Return both branches' weights by name, float32: their running means where kept."""
        nets = {
            b: net if (a := self.averages[b]) is None else a.module for b, net in self.nets.items()
        }
        return {branch: arrays(net) for branch, net in nets.items()}

    def finished(self) -> Checkpoint:
        """Return the network as trained so far, with merge parameters that are not yet fitted."""
        config = self.config
        return Checkpoint(
            config.name, self.weights(), config.mpp, distance_unit_um=config.distance_unit_um
        )

    def _log(self, total: Mapping[Branch, float], steps: int) -> dict[Branch, float]:
        """Write the mean losses of the last ``steps`` steps, of their sums; return them."""
        mean = {branch: value / steps for branch, value in total.items()}
        path = self.folder / "log.csv"
        new = not path.exists()
        with path.open("a", encoding="utf-8") as file:
            if new:
                file.write("step,lr,semantic_loss,distance_loss\n")
            rate = learning_rate(self.config, self.step - 1)
            trained = self.config.branches
            losses = (f"{mean[b]:.5f}" if b in trained else "" for b in BRANCHES)
            file.write(f"{self.step},{rate:.3g},{','.join(losses)}\n")
        return mean


def arrays(net: torch.nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return a network's weights by name, float32."""
    return {
        name: tensor.detach().cpu().contiguous().numpy().astype(np.float32)
        for name, tensor in net.state_dict().items()
    }


def _identity(config: Config) -> dict[str, Any]:
    """Return what must be equal for a run to go on: all but how long and how it is run."""
    values: dict[str, Any] = asdict(replace(config, steps=1, threads=0, save_every=1))
    for data in values["data"]:
        data["path"] = Path(data["path"]).name
        del data["name"]
    if values["prune"]:
        values["prune"]["start"] = Path(values["prune"]["start"]).name
    # As it comes back from a file: tuples are lists there.
    identity: dict[str, Any] = json.loads(json.dumps(values))
    return identity
