"""What is remembered between sessions, in the user's settings folder: one room for all of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import NucpruneError
from .files import replacing

#: Folder of the settings; the variable is for tests and for homes that cannot be written.
VARIABLE = "NUCPRUNE_SETTINGS"
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Settings:
    """What the dock starts with.

    Attributes
    ----------
    device
        For torch: auto, cpu, cuda or mps.
    checkpoint
        Bundled name or path of the last one; empty for the bundled default.
    cr
        Compression ratio of the slider, 1 to 64.
    live
        Whether it runs by itself.
    """

    device: str = "auto"
    checkpoint: str = ""
    cr: float = 1.0
    live: bool = True


def folder() -> Path:
    """Return the folder of the settings; it may not be there yet."""
    import platformdirs

    return Path(os.environ.get(VARIABLE) or platformdirs.user_config_dir("napari-nucprune", False))


def checked(values: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Return settings of unchecked values, and the names of those that were no such.

    Parameters
    ----------
    values
        By name; unknown names are left alone, missing ones get their defaults.
    """
    default, good, bad = asdict(Settings()), {}, []
    for name in (f.name for f in fields(Settings)):
        value = values.get(name, default[name])
        number = isinstance(value, int | float) and not isinstance(value, bool)
        ok = {
            "device": value in DEVICES if isinstance(value, str) else False,
            "checkpoint": isinstance(value, str) and "\0" not in value,
            "cr": number and 1 <= value <= 64,
            "live": isinstance(value, bool),
        }[name]
        good[name] = value if ok else default[name]
        if not ok:
            bad.append(name)
    return Settings(**good), bad


def read() -> tuple[Settings, str]:
    """Return what is remembered, and what to tell the user; a damaged file is replaced.

    Returns
    -------
    settings, said
        The sentence is empty where all is well.
    """
    path = folder() / "settings.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("no JSON object")
        found, bad = checked(values)
    except FileNotFoundError:
        return Settings(), ""
    except OSError as error:
        return Settings(), f"The settings {path} cannot be read ({error.strerror}); defaults serve."
    except (ValueError, RecursionError):
        found, bad = Settings(), ["all of it"]
    if bad:
        write(found)
        return found, replaced(path, bad)
    return found, ""


def replaced(path: Path, bad: list[str]) -> str:
    """Return the sentence for damaged settings."""
    return f"The settings {path} were damaged ({', '.join(bad)}) and have been replaced."


def write(found: Settings) -> None:
    """Remember settings; where nothing can be written, the next start has the old ones."""
    write_json(folder() / "settings.json", asdict(found))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a small JSON file whole or not at all; what cannot be written is not remembered."""
    with suppress(OSError, NucpruneError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(dict(values), indent=1), encoding="utf-8")
