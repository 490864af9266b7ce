"""Trains what the study scores: python benchmarks/study_training.py [CONFIG] [--only FOLDER ...].

Runs ``nucprune train`` for every ``[[run]]`` of the configuration, one after the other. A run that
was cut off goes on, and a finished one is not run again; days on two cores.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_nucprune.cli import main as nucprune
from napari_nucprune.training.config import load_config

HERE = Path(__file__).parent


def command(run: Mapping[str, Any], base: Path) -> list[str]:
    """Return the arguments of ``nucprune`` for a run, its paths from where the study lies."""
    recipe = base.parent / "recipes" / f"{run['recipe']}.toml"
    said = ["train", str(recipe), "-o", str(base.parent / "runs" / folder(run))]
    if "from" in run:
        # A bundled network's name, or a file by its path from the configuration.
        own = base / run["from"]
        said += ["--from", str(own.resolve() if own.suffix else run["from"])]
    return said + (["--seed", str(run["seed"])] if "seed" in run else [])


def folder(run: Mapping[str, Any]) -> str:
    """Return the folder of a run in ``runs``."""
    return str(run.get("folder", run["recipe"]))


def done(run: Mapping[str, Any], base: Path) -> bool:
    """Whether a run wrote its network."""
    name = load_config(base.parent / "recipes" / f"{run['recipe']}.toml").name
    return (base.parent / "runs" / folder(run) / f"{name}.safetensors").is_file()


def main() -> None:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=HERE / "study.toml")
    parser.add_argument("--only", nargs="+", metavar="FOLDER", help="of these runs alone")
    parser.add_argument("--dry", action="store_true", help="say the commands, run none")
    options = parser.parse_args()
    base = options.config.resolve().parent
    runs = tomllib.loads(options.config.read_text(encoding="utf-8"))["run"]
    if unknown := set(options.only or ()) - {folder(run) for run in runs}:
        parser.error(f"{options.config.name} has no run {sorted(unknown)[0]}.")
    for run in runs:
        if options.only and folder(run) not in options.only:
            continue
        arguments = command(run, base)
        if done(run, base):
            print(f"{folder(run)}: there")
            continue
        print(f"nucprune {shlex.join(arguments)}", flush=True)
        if not options.dry and (code := nucprune(arguments)):
            sys.exit(code)


if __name__ == "__main__":
    main()
