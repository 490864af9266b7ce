"""What all tests share: the data folder, napari's settings out of the way, screens."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from napari_nucprune.checkpoint.format import Checkpoint

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports napari: the user's own settings are neither read nor written.
# (napari keeps the settings of plugins in the same folder.)
SETTINGS = Path(tempfile.mkdtemp(prefix="nucprune-settings-"))
os.environ["NAPARI_CONFIG"] = str(SETTINGS / "settings.yaml")
os.environ["NUCPRUNE_SETTINGS"] = str(SETTINGS)

NEED_A_SCREEN = {"qapp", "qtbot", "make_napari_viewer", "make_napari_viewer_proxy"}


def load_dev() -> ModuleType:
    """The module dev.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("nucprune_dev", ROOT / "dev.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def why_no_window() -> str:
    """Why no window can open here, or an empty string. pytest-xvfb makes the screen from Xvfb."""
    if not sys.platform.startswith("linux"):
        return ""
    has_screen = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_screen and not shutil.which("Xvfb"):
        return "no screen and no Xvfb"
    missing = load_dev().missing_packages(virtual_screen=False)
    return f"missing: {' '.join(missing)}" if missing else ""


def pytest_configure(config: pytest.Config) -> None:
    # npe2 still speaks pydantic 1: not ours to mend.
    for module in ("npe2", "pydantic"):
        config.addinivalue_line("filterwarnings", f"ignore::DeprecationWarning:{module}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_no_window()
    for item in items if reason else []:
        if item.get_closest_marker("window") or NEED_A_SCREEN & set(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker(pytest.mark.skip(reason=f"cannot open a window ({reason})"))


def pytest_unconfigure() -> None:
    shutil.rmtree(SETTINGS, ignore_errors=True)


@pytest.fixture(autouse=True)
def _own_napari_settings() -> Iterator[None]:
    """Undo what a test changed in napari's settings (where it imported napari at all)."""
    yield
    settings = sys.modules.get("napari.settings")
    if settings is not None and settings._SETTINGS is not None:
        settings._SETTINGS.reset()
    # The dock remembers its controls there, or in a file of its own.
    for plugin in getattr(settings, "_PLUGIN_SETTINGS", {}).values():
        plugin.reset()
    (SETTINGS / "settings.json").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets beside the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return folder


@pytest.fixture(scope="session")
def dev() -> ModuleType:
    """dev.py as a module."""
    return load_dev()


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A small network of random weights in the place of the bundled one."""
    from helpers import QUICK, put_checkpoint

    return put_checkpoint(tmp_path, monkeypatch, QUICK)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch on one thread: the same sums in the same order on every machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress in a log comes once a minute: on a busy machine it met tests of what is said."""
    monkeypatch.setattr("napari_nucprune.commands.common.QUIET", float("inf"))


@pytest.fixture
def tiny() -> Checkpoint:
    """A network of two levels with random weights."""
    from helpers import TINY, make_checkpoint

    return make_checkpoint(TINY, seed=3)


@pytest.fixture
def saved(tiny: Checkpoint, tmp_path: Path) -> Path:
    """A file of ours with `tiny`."""
    from napari_nucprune.checkpoint.format import save

    path = tmp_path / "tiny.safetensors"
    save(tiny, path)
    return path
