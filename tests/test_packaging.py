"""What users install: wheel, sdist and editable, each with the manifest napari looks for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_string
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import npe2
import pytest

ROOT = Path(__file__).resolve().parents[1]
NAME = "napari-nucprune"
MANIFEST = "napari_nucprune/napari.yaml"
WEIGHTS = ROOT / "src" / "napari_nucprune" / "checkpoint" / "weights"
UI_PACKAGES = ("napari", "pyqt5", "pyqt6", "pyside2", "pyside6")

# Without -S the editable install's import hook would answer for the copy under test.
VALIDATE = """
import sys
target, site = sys.argv[1:]
sys.path[:0] = [target]
sys.path.append(site)
import napari_nucprune, npe2
assert napari_nucprune.__file__.startswith(target), napari_nucprune.__file__
manifest = npe2.PluginManifest.from_distribution("napari-nucprune")
print(manifest.name, manifest.package_version)
sys.argv = ["npe2", "validate", "napari-nucprune"]
import runpy
runpy.run_module("npe2", run_name="__main__")
"""


class Built(NamedTuple):
    """The two distributions."""

    wheel: Path
    sdist: Path


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist, and the wheel made FROM it: what the sdist lacks, the wheel lacks too."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="session")
def in_wheel(built: Built) -> dict[str, bytes]:
    """The wheel's files by name."""
    with zipfile.ZipFile(built.wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def dist_info(files: dict[str, bytes], name: str) -> str:
    """Text of a file in the wheel's dist-info."""
    (found,) = [n for n in files if n.endswith(f".dist-info/{name}")]
    return files[found].decode()


def test_wheel_holds_the_manifest(in_wheel: dict[str, bytes]):
    assert in_wheel[MANIFEST] == (ROOT / "src" / MANIFEST).read_bytes()
    entry_points = dist_info(in_wheel, "entry_points.txt").replace(" ", "")
    assert "[napari.manifest]\nnapari-nucprune=napari_nucprune:napari.yaml" in entry_points


def test_wheel_holds_licence_and_type_marker(in_wheel: dict[str, bytes]):
    assert dist_info(in_wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text("utf-8")
    assert "napari_nucprune/py.typed" in in_wheel
    metadata = message_from_string(dist_info(in_wheel, "METADATA"))
    licences = "BSD-3-Clause AND CC-BY-NC-SA-4.0 AND CC-BY-4.0"  # programme, weights
    assert metadata["License-Expression"] == licences
    for path in (WEIGHTS / "licences").glob("*.txt"):
        assert f"{WEIGHTS.relative_to(ROOT)}/licences/{path.name}" in metadata.get_all(
            "License-File"
        )
    assert "Framework :: napari" in metadata.get_all("Classifier", [])


def test_wheel_holds_the_bundled_weights(in_wheel: dict[str, bytes]):
    weights = sorted(WEIGHTS.glob("*.safetensors"))
    if not weights:
        pytest.skip("no weights are bundled yet")
    for path in weights:
        name = f"napari_nucprune/checkpoint/weights/{path.name}"
        assert len(in_wheel.get(name, b"")) == path.stat().st_size, name


def test_wheel_holds_nothing_else(in_wheel: dict[str, bytes]):
    tops = {name.split("/")[0] for name in in_wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"napari_nucprune"}
    assert not [name for name in in_wheel if name.endswith((".pyc", ".pt"))]


def test_wheel_holds_the_native_library(built: Built, in_wheel: dict[str, bytes]):
    found = [name for name in in_wheel if "/_native/" in name]
    if not found and not os.environ.get("NUCPRUNE_REQUIRE_NATIVE"):
        pytest.skip("no native library: no C++17 compiler here")
    (library,) = found
    assert library.startswith("napari_nucprune/_native/_nucprune.")
    assert b"nucprune_abi_version" in in_wheel[library]
    # One wheel a platform serves every Python.
    tag = message_from_string(dist_info(in_wheel, "WHEEL"))["Tag"]
    assert tag == f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
    assert built.wheel.name.endswith(f"-{tag}.whl")


NO_LIBRARY = """
import sys
sys.path[:0] = sys.argv[1:2]
sys.path.append(sys.argv[2])
import numpy as np
import napari_nucprune
from napari_nucprune import native
from napari_nucprune.doors import Maps, Merge
from napari_nucprune.nuclei.watershed import merge
assert napari_nucprune.__file__.startswith(sys.argv[1]), napari_nucprune.__file__
distance = np.zeros((32, 32), np.float32)
distance[8, 8] = distance[24, 24] = 1
assert len(merge(Maps(distance + 1, distance, 0.25), Merge(sigma_um=0.5))) == 2
try:
    native.library()
except native.NativeMissing as missing:
    print(missing)
"""


def test_without_a_compiler_all_but_the_native_library_is_built(built: Built, tmp_path: Path):
    with tarfile.open(built.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    env = os.environ | {"CC": "no-compiler", "CXX": "no-compiler"}
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path]
    refused = subprocess.run(
        [*build, source], env=env | {"NUCPRUNE_REQUIRE_NATIVE": "1"}, capture_output=True, text=True
    )
    assert refused.returncode
    assert "no-compiler" in refused.stderr + refused.stdout
    env.pop("NUCPRUNE_REQUIRE_NATIVE", None)
    assert "WITHOUT its native library" in run(*build, source, cwd=tmp_path, env=env)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    install(wheel, tmp_path / "site")
    site = sysconfig.get_path("purelib")
    said = run(sys.executable, "-S", "-c", NO_LIBRARY, tmp_path / "site", site, cwd=tmp_path)
    assert "no C++17 compiler worked" in said
    assert len(said.splitlines()) == 1


def test_base_dependencies_bring_no_viewer(in_wheel: dict[str, bytes]):
    """The plugin lives in the user's napari, with the user's Qt."""
    metadata = message_from_string(dist_info(in_wheel, "METADATA"))
    base = [r.lower() for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r]
    assert any(r.startswith("torch") for r in base)
    assert not [r for r in base if r.startswith(UI_PACKAGES)]


def test_sdist_holds_the_sources(built: Built):
    with tarfile.open(built.sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    needed = ["napari.yaml", "pyproject.toml", "LICENSE", "README.md", f"src/{MANIFEST}"]
    needed += [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "native").rglob("*")
        if path.suffix in (".cpp", ".hpp", ".h", ".txt")
    ]
    assert len(needed) > 8
    assert not [name for name in needed if name not in files]
    unwanted = ("build/", ".venv", "runs/", "out/", ".git/", "nucprune-demo")
    assert not [name for name in files if name.startswith(unwanted)]


def install(distribution: Path, target: Path) -> None:
    """Unpack a distribution as an installer does, without dependencies and without a network."""
    options = ["install", "--no-deps", "--no-build-isolation", "--target", str(target)]
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if find_spec("pip"):
        run(sys.executable, "-m", "pip", *options, "-q", "--no-index", distribution)
    elif uv:
        run(uv, "pip", *options, "--offline", "--python", sys.executable, distribution)
    else:
        pytest.skip("neither pip nor uv here")


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_npe2_validates_an_installed_copy(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    # The fixture has compiled the same sdist; nothing here looks at what a second time would give.
    monkeypatch.setenv("SKBUILD_WHEEL_CMAKE", "false")
    target = tmp_path / "site"
    install(getattr(built, kind), target)
    site = sysconfig.get_path("purelib")
    output = run(sys.executable, "-S", "-c", VALIDATE, str(target), site, cwd=tmp_path)
    assert output.startswith(NAME)
    assert " valid!" in output


def test_npe2_validates_the_running_package():
    """Mostly the editable install, where a manifest at the repository's top would not be found."""
    manifest = npe2.PluginManifest.from_distribution(NAME)
    assert manifest.name == NAME
    assert " valid!" in run(sys.executable, "-m", "npe2", "validate", NAME)


def test_every_command_of_the_manifest_can_be_imported():
    manifest = npe2.PluginManifest.from_distribution(NAME)
    manifest.validate_imports()
    assert manifest.contributions.widgets


@pytest.mark.skipif(os.name == "nt", reason="a checkout on Windows may hold no symlinks")
def test_top_level_manifest_is_a_link_to_the_real_one():
    link = ROOT / "napari.yaml"
    assert link.is_symlink()
    assert Path(os.readlink(link)) == Path("src") / MANIFEST
    assert link.resolve() == (ROOT / "src" / MANIFEST).resolve()
