"""Writing files so that nothing half-written stays."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

from .errors import EnvironmentStopped, InputError


def no_file(path: Path, wanted: str) -> InputError:
    """Return the sentence for a path that is none of a file."""
    if path.is_dir():
        return InputError(
            f"{path} is a folder; give the file of {wanted}. An OME-Zarr is run where it is "
            "visible in the viewer; to run all of it, convert it to a pyramidal OME-TIFF."
        )
    return InputError(f"{path} is not a file; give the path of {wanted}.")


def cannot_write(path: Path, error: Exception) -> EnvironmentStopped:
    """Return the sentence for a write that failed."""
    text = str(getattr(error, "strerror", None) or error)
    # safetensors words the system's error in its own way, with a temporary name of its own.
    if number := re.search(r"\(os error (\d+)\)", text):
        text = os.strerror(int(number[1]))
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
        return EnvironmentStopped(f"The disk of {path} is full; make room and run again.")
    return EnvironmentStopped(
        f"{path} cannot be written ({text[:120]}); choose a folder that exists and can be written."
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside ``path`` that takes its place when the block succeeds.

    Raises
    ------
    EnvironmentStopped
        Where it cannot be written; the old file is still there.
    """
    # Processes of several containers may share their number and a folder.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        # Below a regular file even the removal fails.
        with contextlib.suppress(OSError):
            temporary.unlink()
