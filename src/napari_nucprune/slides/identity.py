"""What a run's bytes depend on: input, settings and what computes them."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__, native

#: Read at once while a slide is hashed.
_BLOCK = 1 << 22


def input_sha256(path: Path) -> str:
    """Return the SHA-256 of a slide; an .mrxs takes the files of its folder along."""
    digest = hashlib.sha256()
    files = [path]
    folder = path.with_suffix("")
    if path.suffix.lower() == ".mrxs" and folder.is_dir():
        files += sorted(file for file in folder.iterdir() if file.is_file())
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def environment(runtime: str, device: str) -> dict[str, str]:
    """Return what must be the same wherever a part of a slide is computed.

    Parameters
    ----------
    runtime
        ``"sparse"`` or ``"torch"``.
    device
        As torch names it.
    """
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
        from importlib.metadata import version

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
