"""The training configuration: a TOML file, checked before anything starts."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..checkpoint import shipped
from ..doors import BRANCHES, Branch
from ..errors import InputError
from ..pruning.strategy import STRATEGIES

STARTS = ("recovered", "one-shot")
FILE = ".safetensors"
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Data:
    """One data set of a mixture.

    Attributes
    ----------
    layout, path
        As for ``evaluate``; the path is relative to the configuration file.
    weight
        How often one of its images is drawn, relative to the other sets' images.
    validation
        Patients (or image names) never trained on: the first half of the list picks parameters,
        the second half is reported.
    options
        Further options of the layout's reader.
    name
        What the dock, the model card and its scores call it, where the layout (``pairs``) does not
        say.
    """

    layout: str
    path: Path
    weight: float = 1.0
    validation: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    name: str = ""


@dataclass(frozen=True)
class Prune:
    """How a training prunes (`prune_finetune`).

    Attributes
    ----------
    strategy, cr
        As for `Pruning`; both branches get the same ratio.
    start
        ``one-shot`` takes the dense weights, ``recovered`` refits them first, without labels.
        Anything else is a network that was fine-tuned from the same one to the same ratio, and is
        trained on: a bundled name, or a file, relative to the configuration file.
    ramp
        Steps over which the sparsity grows to its last value; 0 prunes before the first step.
    every
        Steps between two masks while it grows.
    distil
        What the dense network's responses count in the loss, 0 to 1; the labels have the rest.
    levels
        What the responses of its levels count beside that of its output, times `levels.WEIGHT`
        (1 is what was picked); 0 teaches by the output alone.
    """

    strategy: str = "layer-wise"
    cr: float = 16.0
    start: str = "recovered"
    ramp: int = 0
    every: int = 25
    distil: float = 0.5
    levels: float = 0.0


@dataclass(frozen=True)
class Config:
    """All that decides a training run.

    Attributes
    ----------
    name
        The checkpoint's name.
    widths, dropout, mpp
        Of the network; ``mpp`` in um a pixel.
    distance_unit_um
        Unit of the distance target; 0 means each image's own maximum (the paper).
    steps, batch, crop
        Number of steps, crops a step, side of a crop in pixels.
    lr, seed, threads
        Peak learning rate of Adam (linear warm-up, then as `halve_every` says), seed, torch threads
        (0: all).
    scale, colour, stain
        Range of the random zoom, strength of the jitter of colours and of stains.
    save_every
        Steps between two states on disk.
    branches
        Those to train; another one stays as in the checkpoint started from.
    data
        The mixture.
    border
        How many times more than elsewhere an error between two nuclei that touch counts, less one
        (`targets.crowding`); U-Net's was 10.
    ema
        Part of the weights' running mean that stays from one step to the next, 0 for none; the
        mean is what the training gives.
    ema_warmup
        Whether the mean forgets faster at first: of n steps the part that stays is at most
        (1 + n) / (10 + n), as in TensorFlow's moving averages, so that a short training's mean is
        not one of its first steps.
    precision
        What the forward pass computes in: ``float32``, ``bfloat16`` (autocast), or ``auto``, the
        faster of the two where the run starts. Weights, losses and steps are float32 always.
    halve_every
        Steps after which the learning rate is halved (the published recipe); 0 lets it fall to zero
        on a cosine.
    prune
        How it prunes; None trains a dense network.
    """

    name: str
    data: tuple[Data, ...]
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    dropout: float = 0.0
    mpp: float = 0.25
    distance_unit_um: float = 4.0
    steps: int = 2000
    batch: int = 4
    crop: int = 256
    lr: float = 1e-3
    seed: int = 0
    threads: int = 0
    scale: tuple[float, float] = (0.8, 1.25)
    colour: float = 1.0
    stain: float = 0.0
    save_every: int = 50
    branches: tuple[Branch, ...] = BRANCHES
    border: float = 0.0
    ema: float = 0.0
    ema_warmup: bool = False
    precision: str = "auto"
    halve_every: int = 0
    prune: Prune | None = None


def load_config(
    path: str | Path, seed: int | None = None, changes: Mapping[str, Any] | None = None
) -> Config:
    """Read a configuration.

    Parameters
    ----------
    path
        TOML file: the keys of `Config` at the top, a ``[[data]]`` table a set.
    seed
        Replaces the file's.
    changes
        Further keys of the top that replace the file's.

    Raises
    ------
    InputError
        Where the file is missing, no TOML, has unknown keys or values of the wrong kind.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}.") from error
    raw |= changes or {}
    tables = raw.pop("data", None)
    if not isinstance(tables, list) or not tables:
        raise InputError(f"{path} names no data; add a [[data]] table with layout and path.")
    data = tuple(_data(table, path) for table in tables)
    if not any(own.weight for own in data):
        raise InputError(f"{path}: every weight of [[data]] is 0; give one set a weight above 0.")
    _known(raw, Config, path, "data")
    for key in ("widths", "scale", "branches"):
        if isinstance(raw.get(key), list):
            raw[key] = tuple(raw[key])
    if seed is not None:
        raw["seed"] = seed
    raw.setdefault("name", path.stem)
    if isinstance(raw.get("prune"), dict):
        _known(raw["prune"], Prune, path)
        raw["prune"] = Prune(**raw["prune"])
        start = raw["prune"].start
        if isinstance(start, str) and start.endswith(FILE):
            raw["prune"] = replace(raw["prune"], start=str(path.parent / start))
    config = Config(data=data, **raw)
    _check(config, path)
    return config


def _known(table: dict[str, Any], of: type, path: Path, *but: str) -> None:
    known = {f.name for f in fields(of)} - {*but}
    if unknown := sorted(set(table) - known):
        raise InputError(f"{path} has an unknown key {unknown[0]!r}; known are {sorted(known)}.")


def _number(value: object, low: float, high: float = math.inf) -> bool:
    """Whether a value is a finite number in low..high."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and low <= value <= high


def _whole(value: object, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _some_branches(value: object) -> bool:
    return value in (BRANCHES, BRANCHES[::-1], BRANCHES[:1], BRANCHES[1:])


def _a_start(value: object) -> bool:
    """Whether a fine-tuning can start so; whether the file is there, and fits, is seen later."""
    return isinstance(value, str) and (value in (*STARTS, *shipped.names()) or value.endswith(FILE))


def _check(config: Config, path: Path) -> None:
    """Raise InputError that names the first wrong value."""
    tiny = 1e-12
    widths, scale = config.widths, config.scale
    deep = isinstance(widths, tuple) and 2 <= len(widths) <= 8
    deep = deep and all(_whole(w, 1) for w in widths)
    grid = 2 ** (len(widths) - 1) if deep else 1
    pair = isinstance(scale, tuple) and len(scale) == 2 and all(_number(s, tiny) for s in scale)
    for ok, key, wanted in (
        (isinstance(config.name, str) and bool(config.name), "name", "a text"),
        (deep, "widths", "2 to 8 whole numbers of at least 1"),
        (_number(config.dropout, 0, 0.99), "dropout", "a number from 0 to 0.99"),
        (_number(config.mpp, tiny), "mpp", "um a pixel above 0"),
        (_number(config.distance_unit_um, 0), "distance_unit_um", "um, or 0"),
        (_whole(config.steps, 1), "steps", "a whole number of at least 1"),
        (_whole(config.batch, 1), "batch", "a whole number of at least 1"),
        (_whole(config.crop, 16) and config.crop % grid == 0, "crop", f"a multiple of {grid}"),
        (_number(config.lr, tiny), "lr", "a number above 0"),
        (_whole(config.seed, 0), "seed", "a whole number of at least 0"),
        (_whole(config.threads, 0), "threads", "a whole number of at least 0"),
        (pair and scale[0] <= scale[1], "scale", "two numbers above 0, the smaller first"),
        (_number(config.colour, 0), "colour", "a number of at least 0"),
        (_number(config.stain, 0, 4), "stain", "a number from 0 to 4"),
        (_whole(config.save_every, 1), "save_every", "a whole number of at least 1"),
        (_some_branches(config.branches), "branches", f"one or both of {list(BRANCHES)}"),
        (_whole(config.halve_every, 0), "halve_every", "a whole number of at least 0"),
        (_number(config.border, 0), "border", "a number of at least 0"),
        (_number(config.ema, 0, 0.999999), "ema", "a number from 0 to below 1"),
        (isinstance(config.ema_warmup, bool), "ema_warmup", "true or false"),
        (config.precision in PRECISIONS, "precision", f"one of {list(PRECISIONS)}"),
        (config.prune is None or isinstance(config.prune, Prune), "prune", "a table [prune]"),
    ):
        if not ok:
            raise InputError(f"{path}: {key} is {getattr(config, key)!r}; expected {wanted}.")
    if (prune := config.prune) is None:
        return
    for ok, key, wanted in (
        (prune.strategy in STRATEGIES, "strategy", f"one of {list(STRATEGIES)}"),
        (_number(prune.cr, 1), "cr", "a number of at least 1"),
        (_a_start(prune.start), "start", f"one of {list(STARTS)}, a bundled name or a file"),
        (_whole(prune.ramp, 0), "ramp", "a whole number of at least 0"),
        (_whole(prune.every, 1), "every", "a whole number of at least 1"),
        (_number(prune.distil, 0, 1), "distil", "a number from 0 to 1"),
        (_number(prune.levels, 0), "levels", "a number of at least 0"),
        (
            not prune.ramp or prune.start in STARTS,
            "start",
            f"one of {list(STARTS)} where a ramp prunes little by little",
        ),
        (
            not prune.ramp or len(config.branches) == len(BRANCHES),
            "ramp",
            "0 where branches trains one alone: the other one would stay dense",
        ),
    ):
        if not ok:
            value = getattr(prune, key)
            raise InputError(f"{path}: {key} of [prune] is {value!r}; expected {wanted}.")


def _data(table: Any, path: Path) -> Data:
    if not isinstance(table, dict):
        raise InputError(f"{path}: data holds {table!r}; write it as [[data]] tables.")
    table = dict(table)
    layout, folder = table.pop("layout", None), table.pop("path", None)
    weight, validation = table.pop("weight", 1.0), table.pop("validation", [])
    name = table.pop("name", "")
    for ok, key, value, wanted in (
        (isinstance(layout, str), "layout", layout, "a text"),
        (isinstance(folder, str), "path", folder, "a text"),
        (isinstance(name, str), "name", name, "a text"),
        (_number(weight, 0), "weight", weight, "a number of at least 0"),
        (
            isinstance(validation, list) and all(isinstance(v, str | int) for v in validation),
            "validation",
            validation,
            "a list of patients or images",
        ),
    ):
        if not ok:
            raise InputError(f"{path}: {key} of [[data]] is {value!r}; expected {wanted}.")
    return Data(layout, path.parent / folder, weight, tuple(map(str, validation)), table, name)
