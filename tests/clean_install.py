"""Wheel, sdist and editable, each into a clean environment, and what a user does first there.

    python tests/clean_install.py [wheel] [sdist] [editable] [--with "torch==2.13.0"]

Builds both distributions of this checkout, installs each (and a copy of the checkout, editable) by
pip with its base dependencies alone, and runs `npe2 validate`, `nucprune info` and `nucprune
segment` on the synthetic field there. Prints a line a kind; exit code 1 where one fails. Takes
minutes and about 2 GB, so it is no test of the suite.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from menu_install import ROOT, call

KINDS = ("wheel", "sdist", "editable")
# Where the package is imported from, a picture to segment, and whether the kernels came with it.
PICTURE = """
import napari_nucprune, tifffile
from napari_nucprune import native
from napari_nucprune.synthetic import synthetic
tifffile.imwrite("field.tif", synthetic(seed=0, size=256)[0], photometric="rgb")
print(napari_nucprune.__file__, native.is_available())
"""


def checkout(folder: Path) -> Path:
    """Return a copy of what git knows of this checkout, as it lies there now."""
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def main() -> int:
    """Do all of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", help="of wheel, sdist, editable; all by default")
    parser.add_argument("--with", dest="extra", default="", help="e.g. a CPU torch")
    options = parser.parse_args()
    if odd := set(options.kinds) - set(KINDS):
        parser.error(f"{odd.pop()!r} is none of {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory(prefix="nucprune-clean-") as name:
        folder = Path(name)
        call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
        given = {
            "wheel": [next(folder.glob("*.whl"))],
            "sdist": [next(folder.glob("*.tar.gz"))],
            "editable": ["-e", checkout(folder / "checkout")],
        }
        for kind in options.kinds or KINDS:
            place = folder / kind
            call(sys.executable, "-m", "venv", place / "venv")
            bin_ = place / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
            call(bin_ / "python", "-m", "pip", "install", "-q", *given[kind], "npe2",
                 *options.extra.split())  # fmt: skip
            assert "valid!" in call(bin_ / "npe2", "validate", "napari-nucprune", cwd=place)
            where, native = call(bin_ / "python", "-c", PICTURE, cwd=place).split()
            assert (folder / "checkout" in Path(where).parents) == (kind == "editable"), where
            about = call(bin_ / "nucprune", "info", "full", cwd=place).splitlines()[0]
            said = json.loads(
                call(bin_ / "nucprune", "segment", "field.tif", "-o", "out", "--mpp", "0.25",
                     "--cr", "8", "--recover", "field.tif", "--json", cwd=place)
            )  # fmt: skip
            print(
                f"{kind}: valid manifest; {about}; {said['nuclei']} nuclei at CR 8, recovered; "
                f"fast kernels: {native}",
                flush=True,
            )
            shutil.rmtree(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
