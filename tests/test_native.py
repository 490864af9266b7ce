"""The door to the native library: one sentence for each way in which there can be none."""

import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers import is_one_line
from napari_nucprune import native

ROOT = Path(__file__).resolve().parents[1]
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's library format")


@pytest.fixture
def fresh(monkeypatch):
    """Nothing loaded yet."""
    monkeypatch.setattr(native, "_found", None)


@pytest.fixture
def copy(tmp_path):
    """A copy of the library that a test may break."""
    try:
        path = native._path()
    except native.NativeMissing as missing:
        pytest.skip(str(missing))
    return Path(shutil.copy(path, tmp_path))


def why_not(path):
    with pytest.raises(native.NativeMissing) as caught:
        native._load(path)
    assert is_one_line(caught.value)
    return str(caught.value)


def test_there_is_one_where_it_is_required():
    """dev.py test and .ci/run require it: without it, less would be tested and nobody told."""
    if not os.environ.get("NUCPRUNE_REQUIRE_NATIVE") and not native.is_available():
        pytest.skip("no native library, and NUCPRUNE_REQUIRE_NATIVE is not set")
    assert native.library().nucprune_abi_version() == native.ABI


def test_the_header_has_the_same_version():
    header = (ROOT / "native" / "include" / "nucprune.h").read_text(encoding="utf-8")
    assert int(re.search(r"#define NUCPRUNE_ABI (\d+)", header)[1]) == native.ABI


def test_all_threads_get_the_same(fresh, copy, monkeypatch):
    monkeypatch.setattr(native, "_path", lambda: copy)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: id(native.library()), range(64)))
    assert len(found) == 1


def test_missing(fresh, monkeypatch, tmp_path):
    package = sys.modules["napari_nucprune"]
    monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    for _ in range(2):  # said again, not only the first time
        with pytest.raises(native.NativeMissing, match=r"no C\+\+17 compiler") as caught:
            native.library()
        assert is_one_line(caught.value)
    assert not native.is_available()


@linux
def test_cut_short(copy):
    whole = copy.read_bytes()
    for size in (0, 10, 64, 4096, len(whole) - 1):
        copy.write_bytes(whole[:size])
        assert "damaged" in why_not(copy)


@linux
def test_another_processor(copy):
    code = bytearray(copy.read_bytes())
    other = 183 if os.uname().machine == "x86_64" else 62
    struct.pack_into("<H", code, 18, other)
    copy.write_bytes(code)
    assert re.search(r"made for (aarch64|x86_64) and this computer is", why_not(copy))


def test_no_library_at_all(tmp_path):
    path = tmp_path / "_nucprune.so"
    path.write_text("not a library" * 20)
    assert "damaged" in why_not(path)


def test_another_version(copy, monkeypatch):
    monkeypatch.setattr(native, "ABI", native.ABI + 1)
    assert f"version {native.ABI - 1} of the interface" in why_not(copy)


def test_a_library_of_something_else(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "_check_elf", lambda path: None)
    monkeypatch.setattr(native.ctypes, "CDLL", lambda path: ctypes.pythonapi)
    assert "version 0" in why_not(tmp_path / "_nucprune.so")


def test_it_is_not_loaded_before_it_is_wanted():
    code = "import napari_nucprune.native as n, napari_nucprune.nuclei.watershed; print(n._found)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"
