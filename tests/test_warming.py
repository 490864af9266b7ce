"""What a first slide waits for is loaded while the window waits for the user."""

import subprocess
import sys
import threading

import pytest

pytestmark = pytest.mark.window


def printed(code):
    """What a process of its own prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_it_begins_once_in_a_thread_and_the_window_goes_on(qtbot, monkeypatch):
    pytest.importorskip("napari")
    from napari_nucprune.widgets import warming

    begun, may_end, threads = [], threading.Event(), []

    def load():
        threads.append(threading.current_thread())
        begun.append(1)
        may_end.wait(20)

    monkeypatch.setattr(warming, "_begun", threading.Event())
    monkeypatch.setattr(warming, "_load", load)
    for _ in range(3):
        warming.begin()
    assert not begun
    qtbot.waitUntil(lambda: bool(begun), timeout=5000)
    qtbot.wait(2 * warming._LATER_MS)
    assert begun == [1]
    assert threads[0] is not threading.main_thread()
    may_end.set()
    threads[0].join(20)
    assert not threads[0].is_alive()


def test_all_that_a_first_slide_imports_is_loaded(tmp_path):
    """In a process of its own: opening a slide after it imports nothing more of these."""
    code = (
        "import sys\n"
        "from napari_nucprune.widgets import warming\n"
        "names = ('openslide', 'tifffile', 'scipy.ndimage', 'pint')\n"
        "from napari_nucprune.widgets import dock\n"
        "print(sorted(set(names) - set(sys.modules)))\n"
        "warming._load()\n"
        "print(sorted(set(names) - set(sys.modules)), 'torch' in sys.modules)\n"
    )
    before, after = printed(code).splitlines()
    assert "openslide" in before
    assert after == "[] False"


def test_units_are_there_before_the_thread_begins():
    """pint's registry is filled by whoever asks first; a second thread then found no pixel in it."""
    code = (
        "import pint\n"
        "from napari_nucprune.widgets import warming\n"
        "said = []\n"
        "warming._load = lambda: said.append(type(pint.get_application_registry().get()).__name__)\n"
        "print(type(pint.get_application_registry().get()).__name__)\n"
        "warming._start()\n"
        "while not said: pass\n"
        "print(*said)\n"
    )
    assert printed(code).split() == ["LazyRegistry", "UnitRegistry"]
