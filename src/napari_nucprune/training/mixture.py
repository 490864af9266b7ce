"""The images of a training's mixture of data sets, and the crops of a step."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..datasets.base import Annotated
from ..datasets.registry import open_folder
from ..errors import InputError
from .augment import Prepared, random_crop
from .config import Config, Data
from .targets import crowding, distance_target


class Mixture(NamedTuple):
    """All data of a configuration.

    Attributes
    ----------
    training
        Images with targets, resampled to the network's um/px.
    validation
        By table (`titles`): the annotated images of its validation patients, in the list's order.
    sets
        Of each ``[[data]]`` table, the licence (several are joined) and the sha256 over names and
        pixels of images and labels, as they were read.
    """

    training: list[Prepared]
    validation: dict[str, list[Annotated]]
    sets: list[tuple[str, str]]


def prepare(config: Config) -> Mixture:
    """Read all data of a configuration.

    Parameters
    ----------
    config
        Names the sets and their validation patients.

    Raises
    ------
    InputError
        Where a set is missing, incomplete, without um/px, or a validation patient is not in it.
    """
    training: list[Prepared] = []
    validation: dict[str, list[Annotated]] = {}
    sets: list[tuple[str, str]] = []
    for title, data in zip(titles(config.data), config.data, strict=True):
        folder = open_folder(data.path, data.layout, **data.options)
        held: dict[str, list[Annotated]] = {name: [] for name in data.validation}
        digest, licences = hashlib.sha256(), dict[str, None]()
        for item in folder:
            licences[item.licence] = None
            digest.update(f"{item.name}{item.rgb.shape}".encode())
            digest.update(np.ascontiguousarray(item.rgb).tobytes())
            digest.update(np.ascontiguousarray(item.labels).tobytes())
            key = item.patient if item.patient in held else item.name
            if key in held:
                held[key].append(item)
            else:
                training.append(_prepared(item, data.weight, config))
        if absent := [name for name, items in held.items() if not items]:
            raise InputError(f"{data.path} has no patient or image {absent[0]!r} to validate on.")
        validation[title] = [item for name in data.validation for item in held[name]]
        sets.append((" / ".join(licences), digest.hexdigest()))
    if not any(image.weight for image in training):
        raise InputError(
            "Every image is held out for validation, or has the weight 0; nothing is left to train "
            "on: hold out fewer patients, or give a set a weight above 0."
        )
    return Mixture(training, validation, sets)


def titles(data: Sequence[Data]) -> list[str]:
    """Return what each table is called: its name or layout, and its folder where two share that."""
    plain = [own.name or own.layout for own in data]
    long = [
        f"{title} ({own.path.name})" if plain.count(title) > 1 else title
        for title, own in zip(plain, data, strict=True)
    ]
    return [
        f"{title} {long[: at + 1].count(title)}" if long.count(title) > 1 else title
        for at, title in enumerate(long)
    ]


def folded(config: Config, fold: int, folds: int) -> Config:
    """Return the configuration that holds out one of ``folds`` parts of every set's patients.

    Parameters
    ----------
    config
        Its lists of validation patients are replaced.
    fold, folds
        Which part, 1 to ``folds``. Parts depend on the sets alone, not on the seed: every patient
        is in one of them.

    Raises
    ------
    InputError
        Where ``fold`` is not one of them, or no set has a patient in it.
    """
    if not 1 <= fold <= folds or folds < 2:
        raise InputError(f"There is no fold {fold} of {folds}; give I/K with K from 2, I from 1.")
    data: list[Data] = []
    for own in config.data:
        folder = open_folder(own.path, own.layout, **own.options)
        patients = sorted({entry.patient for entry in folder.entries})
        order = np.random.default_rng(folds).permutation(len(patients))
        held = sorted(patients[i] for i in order[fold - 1 :: folds])
        data.append(replace(own, validation=tuple(held)))
    if not any(own.validation for own in data):
        raise InputError(f"Fold {fold} of {folds} holds no patient; give fewer folds.")
    return replace(config, data=tuple(data))


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
    maps = [(labels > 0).astype(np.float32), distance]
    if config.border:
        maps.append(crowding(labels, config.mpp))
    targets = np.stack(maps, axis=2)
    return Prepared(item.name, item.patient, np.ascontiguousarray(rgb), targets, weight)


def batch_of(config: Config, training: list[Prepared], step: int) -> tuple[Tensor, Tensor]:
    """Draw the crops of a step; the same for the same seed and step, whatever came before."""
    rng = np.random.default_rng([config.seed, step])
    weights = np.array([image.weight for image in training], np.float64)
    chosen = rng.choice(len(training), config.batch, p=weights / weights.sum())
    in_um = bool(config.distance_unit_um)
    crops = [
        random_crop(rng, training[i], config.crop, config.scale, config.colour, in_um, config.stain)
        for i in chosen
    ]
    rgb = torch.from_numpy(np.stack([c[0] for c in crops]))
    return rgb, torch.from_numpy(np.stack([c[1] for c in crops]))
