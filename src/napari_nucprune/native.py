"""The native library: found beside the package, checked, loaded once."""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
import threading
from pathlib import Path

from .errors import NucpruneError

#: Interface that this package speaks: NUCPRUNE_ABI of native/include/nucprune.h.
ABI = 5

_FOLDER = "_native"
_NAMES = ("_nucprune.dll",) if sys.platform == "win32" else ("_nucprune.so", "_nucprune.dylib")
_AGAIN = "install napari-nucprune again"
#: ELF's numbers of the processors that wheels are made for.
_ELF_MACHINES = {62: "x86_64", 183: "aarch64"}

_lock = threading.Lock()
_found: ctypes.CDLL | str | None = None


class NativeMissing(NucpruneError):
    """The native library cannot be used; the text says why, in one sentence."""


def library() -> ctypes.CDLL:
    """Return the native library; the first call loads it, from any thread.

    Returns
    -------
    ctypes.CDLL
        Its functions release the GIL; those that use one set its ``argtypes``.

    Raises
    ------
    NativeMissing
        Where this installation has none, or one that is damaged, for another kind of
        processor or of another version.
    """
    global _found
    with _lock:
        if _found is None:
            try:
                _found = _load(_path())
            except NativeMissing as missing:
                _found = str(missing)
    if isinstance(_found, str):
        raise NativeMissing(_found)
    return _found


def is_available() -> bool:
    """Say whether `library` gives one."""
    try:
        library()
    except NativeMissing:
        return False
    return True


def _path() -> Path:
    """Find the file: an editable install has it in another folder than the sources."""
    for folder in sys.modules[__package__].__path__:
        for name in _NAMES:
            path = Path(folder) / _FOLDER / name
            if path.is_file():
                return path
    raise NativeMissing(
        "The native library is not part of this installation, since no C++17 compiler worked "
        f"when it was made; get one (g++, clang or Visual Studio) and {_AGAIN}."
    )


def _load(path: Path) -> ctypes.CDLL:
    """Load the library at `path` and check its version."""
    _check_elf(path)
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        text = str(error).replace(str(path), path.name).splitlines()[0][:200]
        raise NativeMissing(
            f"The native library is damaged or made for another kind of computer ({text}); "
            f"{_AGAIN}."
        ) from error
    try:
        version = int(loaded.nucprune_abi_version())
    except AttributeError:
        version = 0
    if version != ABI:
        raise NativeMissing(
            f"The native library has version {version} of the interface and this package wants "
            f"{ABI}; {_AGAIN}."
        )
    return loaded


def _check_elf(path: Path) -> None:
    """Refuse what the loader of Linux would die of or misname: a file cut short, another CPU."""
    if sys.platform != "linux":
        return
    damaged = NativeMissing(f"The native library is damaged; {_AGAIN}.")
    try:
        with path.open("rb") as file:
            head = file.read(64)
        size = path.stat().st_size
    except OSError as error:
        raise damaged from error
    if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
        raise damaged
    (machine,) = struct.unpack_from("<H", head, 18)
    (sections,) = struct.unpack_from("<Q", head, 40)
    each, count = struct.unpack_from("<HH", head, 58)
    here = platform.machine()
    if here in _ELF_MACHINES.values() and _ELF_MACHINES.get(machine) != here:
        made_for = _ELF_MACHINES.get(machine, "another kind of processor")
        raise NativeMissing(
            f"The native library is made for {made_for} and this computer is {here}; {_AGAIN}."
        )
    # The section table is a library's last part.
    if sections + each * count > size:
        raise damaged
