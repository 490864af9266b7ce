"""Set up, run and test napari-nucprune with nothing but a Python >= 3.11.

python dev.py setup                 makes .venv and installs everything into it
python dev.py run [IMAGE]           opens the viewer (without a screen: writes the same as files)
python dev.py test [pytest ...]     runs the tests
python dev.py lint [NAME ...]       runs ruff, mypy and lint-imports, or those named

Each command sets up first; where nothing changed, that takes no time. What an interrupted
set-up left half done, the next call completes. NUCPRUNE_INSTALLER=pip does without uv.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / ".nucprune-stamp"
WINDOWS = os.name == "nt"
BIN, SITE = ("Scripts", "Lib") if WINDOWS else ("bin", "lib/python*")
EXE = ".exe" if WINDOWS else ""
PYTHON = VENV / BIN / f"python{EXE}"

# Debian package = the tool or shared library by which its presence is seen.
SYSTEM_PACKAGES = """
xvfb=Xvfb xauth=xauth libgl1=libGL.so.1 libegl1=libEGL.so.1 libglib2.0-0=libglib-2.0.so.0
libdbus-1-3=libdbus-1.so.3 libfontconfig1=libfontconfig.so.1 libxkbcommon0=libxkbcommon.so.0
libxkbcommon-x11-0=libxkbcommon-x11.so.0 libxcb-cursor0=libxcb-cursor.so.0
libxcb-icccm4=libxcb-icccm.so.4 libxcb-keysyms1=libxcb-keysyms.so.1 libxcb-shape0=libxcb-shape.so.0
"""


def say(text: str) -> None:
    """Print one line to stderr, so that stdout stays the tool's."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def venv_version() -> tuple[int, int] | None:
    """Return the environment's Python version, or None where it cannot be used."""
    with suppress(OSError):
        text = (VENV / "pyvenv.cfg").read_text(encoding="utf-8")
        found = re.search(r"^version(?:_info)?\s*=\s*(\d+)\.(\d+)", text, re.MULTILINE)
        return (int(found[1]), int(found[2])) if found and PYTHON.exists() else None
    return None


def stamp_key(root: Path, version: tuple[int, int]) -> str:
    """Hash everything that decides what an installation looks like."""
    digest = hashlib.sha256(f"{root}\0{version}".encode())
    native = sorted(p for p in root.glob("native/**/*") if "build" not in p.parts)
    for path in filter(Path.is_file, (root / "pyproject.toml", root / "CMakeLists.txt", *native)):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def compiler() -> str | None:
    """Name the C++ compiler that a build would take, as far as can be told cheaply."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    return next((name for name in names if name and shutil.which(name)), None)


def stamp_text(version: tuple[int, int]) -> str:
    """Return what the stamp of a whole installation holds.

    Without the native library it names the compiler that there was: another is a new try.
    """
    key = stamp_key(ROOT, version)
    has_library = any(VENV.glob(f"{SITE}/site-packages/napari_nucprune/_native/_nucprune.*"))
    return key if has_library else f"{key} without a library by {compiler()}"


def is_set_up() -> bool:
    """Say whether the last set-up finished and nothing it depends on has changed."""
    version = venv_version() if STAMP.is_file() else None
    return version is not None and STAMP.read_text("utf-8") == stamp_text(version)


def half_installed(site: Path) -> list[Path]:
    """Find ``*.dist-info`` folders whose files are not all there (a killed installation)."""

    def is_whole(info: Path) -> bool:
        try:
            rows = csv.reader((info / "RECORD").read_text("utf-8").splitlines())
            whole = all((site / name).stat().st_size == int(size) for name, _, size in rows if size)
        except (OSError, ValueError):
            return False
        return whole and (info / "INSTALLER").is_file()

    return [info for info in sorted(site.glob("*.dist-info")) if not is_whole(info)]


def uv_environment(pip_config: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Make uv look where pip would: from ``pip config list``'s text and ``PIP_*`` variables."""
    env = dict(environ)
    options = {"find-links": "UV_FIND_LINKS", "index-url": "UV_DEFAULT_INDEX"}
    options |= {"extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
    for option, variable in options.items():
        in_file = re.search(rf"^(?:global|install)\.{option}='(.*)'$", pip_config, re.MULTILINE)
        value = environ.get("PIP_" + option.upper().replace("-", "_")) or (in_file and in_file[1])
        if value:
            joint = "," if option == "find-links" else " "
            env.setdefault(variable, joint.join(value.replace("\\n", " ").split()))
    return env


def numbers(text: str) -> tuple[int, ...]:
    """Turn 'torch>=2.10' into (2, 10)."""
    return tuple(int(part) for part in re.findall(r"\d+", text))


def torch_pin(names: Iterable[str], python: tuple[int, int], need: str) -> str | None:
    """Pick the newest Linux CPU build that meets ``torch>=...``, as ``torch==...``, or None."""
    tag = "cp{}{}".format(*python)
    pattern = rf"torch-([\d.]+)\+cpu-{tag}-{tag}-(?:many)?linux\w*_{platform.machine()}\.whl"
    found = [match[1] for name in names if (match := re.fullmatch(pattern, name))]
    fitting = [v for v in found if numbers(v) >= numbers(need)]
    return f"torch=={max(fitting, key=numbers)}+cpu" if fitting else None


def is_present(probe: str) -> bool:
    """Say whether a tool is on the PATH or a shared library can be loaded."""
    with suppress(OSError):
        return bool(ctypes.CDLL(probe) if ".so" in probe else shutil.which(probe))
    return False


def missing_packages(virtual_screen: bool = True) -> list[str]:
    """Name the Debian packages that a window needs and this Linux lacks."""
    pairs = [item.split("=") for item in SYSTEM_PACKAGES.split() if sys.platform == "linux"]
    skipped = () if virtual_screen else ("xvfb", "xauth")
    return [name for name, probe in pairs if name not in skipped and not is_present(probe)]


def has_screen(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> bool:
    """Say whether a window can be shown to somebody."""
    window_system = platform in ("win32", "darwin") and not environ.get("CI")
    return bool(window_system or environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def get_system_packages(missing: list[str], who: str) -> None:
    """Install Debian packages where we may, else say how to; ``who`` needs them."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if missing and (not shutil.which("apt-get") or os.geteuid() != 0):
        say(f"{who} (by Debian's names): sudo {' '.join(command)}")
    elif missing:
        say(f"installing {' '.join(missing)} with apt-get ...")
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for step in (["apt-get", "update"], command):
            done = subprocess.run(step, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            say(f"apt-get failed: {done.stderr.strip()[-200:]}")


def get_window_packages() -> None:
    """Install what a window needs."""
    get_system_packages(missing_packages(not has_screen()), "windows and their tests need")


def take_lock() -> IO[str]:
    """Lock this file; the lock falls off when we and the installer we started have died."""
    file = open(__file__, encoding="utf-8")  # noqa: SIM115
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another set-up is at work here; waiting for it ...")
            fcntl.flock(file, fcntl.LOCK_EX)
    return file


def call(command: list[str], what: str, env: Mapping[str, str], lock: IO[str]) -> None:
    """Run an installer; where it fails, add one sentence to its own message."""
    held = () if WINDOWS else (lock.fileno(),)
    if subprocess.run(command, env=env, cwd=ROOT, pass_fds=held, check=False).returncode:
        full = "the disk is full" if shutil.disk_usage(ROOT).free < 2e8 else "is there a network?"
        raise SystemExit(f"dev.py: {what} failed (see above; {full}); call again to continue.")


def find_uv(env: Mapping[str, str]) -> str | None:
    """Find a uv that answers (a pyenv shim may not)."""
    for path in (shutil.which("uv"), str(VENV / BIN / f"uv{EXE}")):
        with suppress(OSError, subprocess.CalledProcessError):
            if path and env.get("NUCPRUNE_INSTALLER") != "pip":
                subprocess.run([path, "--version"], capture_output=True, check=True)
                return path
    return None


def make_venv(uv: str | None, env: Mapping[str, str], lock: IO[str]) -> tuple[int, int]:
    """Keep a usable .venv, else make one with the Python that runs this."""
    version = venv_version()
    if version is None or version < (3, 11):
        if VENV.exists():
            say("replacing the unusable .venv ...")
            shutil.rmtree(VENV)
        here = sys.executable
        tool = [uv, "venv", "-q", "--python", here] if uv else [here, "-m", "venv"]
        call([*tool, str(VENV)], "Making .venv (on Debian it needs python3-venv)", env, lock)
        return sys.version_info[:2]
    for info in half_installed(next(VENV.glob(f"{SITE}/site-packages"), VENV)):
        say(f"installing {info.stem} again, which was left half done")
        shutil.rmtree(info)
    return version


def install_everything(lock: IO[str]) -> None:
    """Make .venv hold the project (editable), its extras ``all`` and ``bench``, and the tools."""
    import tomllib

    if is_set_up():  # by the other set-up that was waited for
        return
    say("setting up .venv (about 2 GB; minutes the first time) ...")
    ask = [sys.executable, "-m", "pip", "config", "list"]
    known = subprocess.run(ask, capture_output=True, text=True, check=False)
    env = uv_environment(known.stdout, os.environ)
    if not compiler() and sys.platform == "linux":
        get_system_packages(["g++"], "the native library needs")
    uv = find_uv(env)
    STAMP.unlink(missing_ok=True)
    version = make_venv(uv, env, lock)
    key = stamp_key(ROOT, version)  # before the installation: what changes meanwhile is not in it
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    what = ["-e", ".[all,bench]", *project["dependency-groups"]["test"]]
    what += project["dependency-groups"]["lint"]
    need = next(d for d in project["project"]["dependencies"] if d.startswith("torch>"))
    places = [Path(place) for place in env.get("UV_FIND_LINKS", "").split(",") if place]
    names = [path.name for place in places if place.is_dir() for path in place.iterdir()]
    pin = torch_pin(names, version, need)
    if pin and sys.platform == "linux":
        what.append(pin)
    elif sys.platform == "linux" and not shutil.which("nvidia-smi"):
        say("no NVIDIA GPU: UV_TORCH_BACKEND=cpu or the README's pip line spares GBs of CUDA.")
    pip = [str(PYTHON), "-m", "pip"]
    if uv is None:
        subprocess.run([str(PYTHON), "-m", "ensurepip"], capture_output=True, check=False)
        if env.get("NUCPRUNE_INSTALLER") != "pip":
            subprocess.run([*pip, "install", "-q", "uv"], env=env, check=False)
            uv = find_uv(env)
    with_uv = ["pip", "install", "--python", str(PYTHON), "--reinstall-package", "napari-nucprune"]
    tool = [uv, *with_uv] if uv else [*pip, "install", "--disable-pip-version-check"]
    call([*tool, *what], "Installing the packages", env, lock)
    text = stamp_text(version)
    if " without " in text:
        say(f"no native library could be built (C++ compiler: {compiler()}): all works, slower.")
    if text.startswith(key):
        STAMP.write_text(text, encoding="utf-8")


def become(*command: str) -> NoReturn:
    """Replace this process by the command (on Windows: wait for it)."""
    if WINDOWS:
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


def run(arguments: list[str]) -> NoReturn:
    """Open the viewer; without a screen write the same comparison as files."""
    nucprune = str(VENV / BIN / f"nucprune{EXE}")
    if has_screen():
        get_window_packages()
        become(nucprune, "view", *arguments)
    say("no screen here: writing what the viewer would show to nucprune-demo ...")
    become(nucprune, "demo", *arguments, "-o", "nucprune-demo")


def test(arguments: list[str]) -> NoReturn:
    """Run pytest; window tests get a virtual screen where Xvfb is installed."""
    get_window_packages()
    if os.environ.get("QT_QPA_PLATFORM") == "offscreen":  # napari cannot draw layers on it
        del os.environ["QT_QPA_PLATFORM"]
    # A test says so where the native library is missing, instead of testing less.
    os.environ.setdefault("NUCPRUNE_REQUIRE_NATIVE", "1")
    os.chdir(ROOT)
    if all(argument in ("-q", "-v", "-x") for argument in arguments):  # all of it: two at a time
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # their threads share the cores
        # A worker that dies fails its test; with another in its place xdist may wait for ever.
        arguments = ["-n", "2", "--dist", "loadfile", "--max-worker-restart=0", *arguments]
    become(str(PYTHON), "-m", "pytest", *arguments)


def lint(arguments: list[str]) -> NoReturn:
    """Run the linters and type checks, or those named."""
    os.chdir(ROOT)
    tools = [t.split() for t in ("ruff check", "ruff format --check", "mypy", "lint-imports")]
    chosen = [tool for tool in tools if not arguments or tool[0] in arguments]
    bad = [t[0] for t in chosen if subprocess.call([str(VENV / BIN / f"{t[0]}{EXE}"), *t[1:]])]
    sys.exit(f"dev.py: These complain: {', '.join(bad)}." if bad else 0)


def main(argv: list[str]) -> int:
    """Do what the command line says."""
    commands = {"run": run, "test": test, "lint": lint}
    if not argv or argv[0] not in ("setup", *commands):
        print(__doc__)
        return 0 if "--help" in argv else 2
    try:
        if sys.version_info[:2] < (3, 11):  # noqa: UP036
            raise SystemExit(
                f"dev.py: Python 3.11 or newer is needed; this is {sys.version[:6].strip()}."
            )
        if not is_set_up():
            install_everything(take_lock())
        if argv[0] != "setup":
            commands[argv[0]](argv[1:])
        get_window_packages()
        say("ready: python dev.py run [IMAGE], python dev.py test, python dev.py lint")
    except OSError as error:
        say("The disk is full." if error.errno == 28 else str(error))
        return 1
    except KeyboardInterrupt:
        say("stopped; call again to continue.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
