"""What a run's bytes depend on: input, settings and what computes them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__, native
from ..doors import Progress, ShouldStop, never, no_progress
from ..errors import Cancelled

#: Read at once while a slide is hashed, and bytes between two words on how far it is.
_BLOCK, _SAID = 1 << 22, 1 << 26


def input_sha256(
    path: Path, progress: Progress = no_progress, should_stop: ShouldStop = never
) -> str:
    """Return the SHA-256 of a slide, of all its files where it has several.

    Parameters
    ----------
    path
        The slide.
    progress
        Told megabytes, every 64 of them.

    Raises
    ------
    Cancelled
        Within 4 MB, where ``should_stop`` says so.
    """
    digest = hashlib.sha256()
    files = _files_of(path)
    total, done = sum(file.stat().st_size for file in files), 0
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                if should_stop():
                    raise Cancelled("Cancelled.")
                digest.update(block)
                done += len(block)
                if done % _SAID < len(block):
                    progress("Reading all of the slide once (MB)", done >> 20, total >> 20)
    return digest.hexdigest()


def _files_of(path: Path) -> list[Path]:
    """Return a slide's files: .mrxs has a folder, .vms its pictures, DICOM a file a level."""
    kind, folder = path.suffix.lower(), path.with_suffix("")
    others: list[Path] = []
    if kind == ".mrxs" and folder.is_dir():
        others = [file for file in folder.iterdir() if file.is_file()]
    elif kind == ".vms":
        # Pictures and their index; QuPath's data or our results may lie beside them.
        others = [
            file
            for file in path.parent.iterdir()
            if file.name.startswith(path.stem)
            and file.suffix.lower() in (".jpg", ".opt")
            and file.is_file()
        ]
    elif kind == ".dcm" and (series := _dicom_series(path)):
        others = [f for f in path.parent.glob("*.dcm") if _dicom_series(f) == series]
    return [path, *sorted(file for file in others if file != path)]


def _dicom_series(path: Path) -> bytes:
    """Return a DICOM file's SeriesInstanceUID, which stands before its pixels; empty where none."""
    with path.open("rb") as file:
        start = file.read(1 << 16)
    at = start.find(b"\x20\x00\x0e\x00UI")
    if at < 0:
        return b""
    length = int.from_bytes(start[at + 6 : at + 8], "little")
    return start[at + 8 : at + 8 + length]


def environment(runtime: str, device: str) -> dict[str, str]:
    """Return what must be the same wherever a part of a slide is computed.

    Parameters
    ----------
    runtime
        ``"sparse"`` or ``"torch"``.
    device
        As torch names it.
    """
    from importlib.metadata import version

    import cv2
    import numpy as np
    import openslide

    found = {
        "nucprune": __version__,
        "machine": platform.machine(),
        "runtime": runtime,
        "device": device,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "openslide": openslide.__library_version__,
        **{name: version(name) for name in ("scipy", "tifffile", "imagecodecs")},
        "native": "yes" if native.is_available() else "no",
    }
    if runtime == "sparse":
        from ..runtime.sparse_library import isa

        found["isa"] = isa()
    else:
        import torch

        found["torch"] = torch.__version__
        found["isa"] = torch.backends.cpu.get_cpu_capability()
    if not native.is_available():
        found["scikit-image"] = version("scikit-image")
    return found


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """Return the first thing in which two plans differ, in words; empty where they agree."""
    for key in [*old, *(key for key in new if key not in old)]:
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if found := difference(a, b, f"{prefix}{key} "):
                return found
        elif a != b:
            return f"{prefix}{key} {_short(a)}, now {_short(b)}"
    return ""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
