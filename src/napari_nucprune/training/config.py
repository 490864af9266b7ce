"""The training configuration: a TOML file, checked before anything starts."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..errors import InputError


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
    """

    layout: str
    path: Path
    weight: float = 1.0
    validation: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


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
        Peak learning rate of Adam (linear warm-up, cosine to zero), seed, torch threads (0: all).
    scale, colour
        Range of the random zoom, strength of the colour jitter.
    save_every
        Steps between two states on disk.
    data
        The mixture.
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
    save_every: int = 50


def load_config(path: str | Path, seed: int | None = None) -> Config:
    """Read a configuration.

    Parameters
    ----------
    path
        TOML file: the keys of `Config` at the top, a ``[[data]]`` table a set.
    seed
        Replaces the file's.

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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}.") from error
    tables = raw.pop("data", None)
    if not isinstance(tables, list) or not tables:
        raise InputError(f"{path} names no data; add a [[data]] table with layout and path.")
    data = tuple(_data(table, path) for table in tables)
    known = {f.name for f in fields(Config)} - {"data"}
    if unknown := sorted(set(raw) - known):
        raise InputError(f"{path} has an unknown key {unknown[0]!r}; known are {sorted(known)}.")
    for key in ("widths", "scale"):
        if key in raw:
            raw[key] = tuple(raw[key])
    if seed is not None:
        raw["seed"] = seed
    raw.setdefault("name", path.stem)
    try:
        config = Config(data=data, **raw)
        ok = config.steps > 0 and config.batch > 0 and config.crop >= 16 and config.lr > 0
        ok = ok and config.crop % 2 ** (len(config.widths) - 1) == 0 and config.mpp > 0
    except TypeError as error:
        raise InputError(f"{path}: {error}.") from error
    if not ok:
        raise InputError(
            f"{path}: steps, batch, lr and mpp must be above 0 and crop a multiple of "
            f"{2 ** (len(config.widths) - 1)}."
        )
    return config


def _data(table: dict[str, Any], path: Path) -> Data:
    table = dict(table)
    try:
        layout, folder = table.pop("layout"), path.parent / table.pop("path")
    except KeyError as error:
        raise InputError(f"{path}: a [[data]] table lacks the key {error}.") from error
    weight = float(table.pop("weight", 1.0))
    validation = tuple(str(v) for v in table.pop("validation", ()))
    return Data(layout, folder, weight, validation, table)
