"""dev.py's decisions, without installing anything."""

import platform
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

WHEELS = [
    "torch-2.9.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
    "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
    "torch-2.14.0+cu130-cp311-cp311-manylinux_2_28_x86_64.whl",
    "torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    "torch-2.13.1+cpu-cp312-cp312-manylinux_2_28_x86_64.whl",
    "torch-2.12.0+cpu-cp311-cp311-manylinux_2_28_aarch64.whl",
    "torch-2.16.0+cpu-cp313-cp313t-manylinux_2_28_x86_64.whl",
    "torch-2.16.0+cpu-cp311-cp311-win_amd64.whl",
    "torchvision-0.28.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl",
    "torch-2.13.0.tar.gz",
]


@pytest.mark.parametrize(
    ("python", "machine", "need", "pin"),
    [
        ((3, 11), "x86_64", "torch>=2.10", "torch==2.13.0+cpu"),  # 2.13 > 2.9, no CUDA build
        ((3, 12), "x86_64", "torch>=2.10", "torch==2.13.1+cpu"),
        ((3, 11), "aarch64", "torch>=2.10", "torch==2.12.0+cpu"),
        ((3, 13), "x86_64", "torch>=2.10", None),  # the free-threaded build does not fit
        ((3, 11), "x86_64", "torch>=2.14", None),  # older than what the project takes
    ],
)
def test_torch_wheel_of_find_links(dev, monkeypatch, python, machine, need, pin):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert dev.torch_pin(WHEELS, python, need) == pin


def test_uv_looks_where_pip_does(dev):
    listing = "global.find-links='/wheels\\n/more'\nglobal.timeout='60'\ninstall.cert='/c.pem'\n"
    env = dev.uv_environment(listing, {"HOME": "/h"})
    assert env == {"HOME": "/h", "UV_FIND_LINKS": "/wheels,/more", "SSL_CERT_FILE": "/c.pem"}
    env = dev.uv_environment(listing, {"PIP_FIND_LINKS": "/a /b", "SSL_CERT_FILE": "/mine"})
    assert (env["UV_FIND_LINKS"], env["SSL_CERT_FILE"]) == ("/a,/b", "/mine")


def test_stamp_follows_what_decides_an_installation(dev, tmp_path):
    (tmp_path / "native" / "build").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("a = 1\n")
    (tmp_path / "native" / "kernel.cpp").write_text("int x;\n")
    first = dev.stamp_key(tmp_path, (3, 11))
    (tmp_path / "native" / "build" / "kernel.o").write_text("compiled")
    (tmp_path / "README.md").write_text("not looked at")
    assert dev.stamp_key(tmp_path, (3, 11)) == first
    assert dev.stamp_key(tmp_path, (3, 12)) != first
    keys = {first}
    for name in ("pyproject.toml", "native/kernel.cpp", "native/new.h", "CMakeLists.txt"):
        (tmp_path / name).write_text("changed\n")
        keys.add(dev.stamp_key(tmp_path, (3, 11)))
    assert len(keys) == 5


def test_stamp_says_whether_there_is_a_library(dev, tmp_path, monkeypatch):
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "VENV", tmp_path)
    monkeypatch.setattr(dev, "compiler", lambda: None)
    without = dev.stamp_text((3, 11))
    # A compiler that turned up is a reason to try again, one that failed is not.
    monkeypatch.setattr(dev, "compiler", lambda: "g++")
    tried = dev.stamp_text((3, 11))
    assert without != tried == dev.stamp_text((3, 11))
    site = dev.SITE.replace("*", "3")
    folder = tmp_path / site / "site-packages" / "napari_nucprune" / "_native"
    folder.mkdir(parents=True)
    (folder / "_nucprune.so").write_text("code")
    assert dev.stamp_text((3, 11)) == dev.stamp_key(tmp_path, (3, 11))


def test_compiler_is_the_one_asked_for_or_the_first_there_is(dev, monkeypatch):
    monkeypatch.setattr(dev.shutil, "which", lambda name: name if name != "c++" else None)
    monkeypatch.delenv("CXX", raising=False)
    assert dev.compiler() == "g++"
    monkeypatch.setenv("CXX", "clang++-14")
    assert dev.compiler() == "clang++-14"
    monkeypatch.setattr(dev.shutil, "which", lambda name: None)
    assert dev.compiler() is None


def test_half_installed_packages_are_found(dev, tmp_path):
    for name in ("whole", "cut", "short", "early"):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (tmp_path / f"{name}.py").write_text("x = 1\n", newline="\n")
        (info / "RECORD").write_text(f"{name}.py,sha256=x,6\n{name}-1.0.dist-info/RECORD,,\n")
        (info / "INSTALLER").write_text("uv")
    (tmp_path / "cut.py").unlink()
    (tmp_path / "short.py").write_text("x")
    (tmp_path / "early-1.0.dist-info" / "INSTALLER").unlink()
    broken = [info.name.partition("-")[0] for info in dev.half_installed(tmp_path)]
    assert broken == ["cut", "early", "short"]


def test_missing_system_packages(dev, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(dev, "is_present", lambda probe: probe != "libxcb-cursor.so.0")
    assert dev.missing_packages() == ["libxcb-cursor0"]
    monkeypatch.setattr(dev, "is_present", lambda probe: False)
    assert set(dev.missing_packages()) - set(dev.missing_packages(False)) == {"xvfb", "xauth"}
    monkeypatch.setattr(sys, "platform", "darwin")
    assert dev.missing_packages() == []


def test_absent_tools_and_libraries_are_absent(dev):
    assert not dev.is_present("no-such-tool-of-ours")
    assert not dev.is_present("libnosuchlibraryofours.so.0")


def test_workflow_installs_the_same_system_packages(dev, monkeypatch):
    workflow = ROOT / ".github" / "workflows" / "test.yml"
    if not workflow.exists():
        pytest.skip("no workflow here (sdist)")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(dev, "is_present", lambda probe: False)
    assert set(dev.missing_packages()) <= set(workflow.read_text(encoding="utf-8").split())


@pytest.mark.parametrize(
    ("platform", "environ", "screen"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
        ("win32", {"CI": "true"}, False),
    ],
)
def test_screen(dev, platform, environ, screen):
    assert dev.has_screen(environ, platform) is screen


def test_errors_are_one_sentence(dev, monkeypatch, capsys):
    monkeypatch.setattr(dev, "is_set_up", lambda: True)
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    with pytest.raises(SystemExit, match=r"^dev.py: Python 3.11 or newer"):
        dev.main(["setup"])
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))

    def full(arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dev, "run", full)
    assert dev.main(["run"]) == 1
    assert capsys.readouterr().err == "dev.py: The disk is full.\n"


def test_unknown_command_prints_the_usage(dev, capsys):
    assert dev.main(["tset"]) == 2
    assert "python dev.py test" in capsys.readouterr().out
