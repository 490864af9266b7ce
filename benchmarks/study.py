"""The study of pruning: python benchmarks/study.py [CONFIG] [-o docs/study.md].

Runs all that the configuration names, on the validation patients: sweeps over compression ratios,
one-shot and recovered without labels, the fine-tuned networks, and the dense ones beside them. What
is done is kept in ``runs/study``, image by image: the same command goes on from there. Tables go to
the page, figures beside it, every point to ``runs/study/study.csv``.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ablation import ablation
from study_curves import Curve, Images, Set, against_better, ahead, figures, floor, rows_of
from study_networks import Training, identity, training_of
from study_text import page

from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.compare.metrics import score
from napari_nucprune.compare.sweep_points import SweepPoint, write_csv
from napari_nucprune.datasets.base import Annotated
from napari_nucprune.datasets.evaluate import count_image, distance_of, run_on
from napari_nucprune.datasets.registry import open_folder
from napari_nucprune.datasets.sweep import Kept, Network, calibration_of, sweep_folder
from napari_nucprune.doors import Pruning
from napari_nucprune.errors import InputError, NucpruneError
from napari_nucprune.pruning.recipe import RESELECT
from napari_nucprune.pruning.recovery import Calibration
from napari_nucprune.pruning.strategy import Masks
from napari_nucprune.runtime.auto import AutoRuntime
from napari_nucprune.training.prune_finetune import has_training

HERE = Path(__file__).parent
FLOOR = "deconvolution, Otsu, watershed"


class Study:
    """Runs what is not done yet, one curve after the other."""

    def __init__(self, config: Path, kept: Path, finished: bool = False) -> None:
        self.base = config.parent
        self.config = tomllib.loads(config.read_text(encoding="utf-8"))
        self.kept = kept
        self.runtime = AutoRuntime()
        #: Whether sweeps that are not done are left out, instead of being run.
        self.finished = finished
        self.missing: list[str] = []
        self.unfinished: list[str] = []
        checkpoint = self.network(self.config["checkpoint"])
        if checkpoint is None:
            raise InputError(f"{config} prunes {self.missing[0]}, which is not there.")
        self.checkpoint = checkpoint
        self.sets = [self._set(table) for table in self.config["data"]]

    def _set(self, table: Mapping[str, Any]) -> Set:
        known = ("name", "layout", "path", "patients")
        own = {key: value for key, value in table.items() if key not in known}
        folder = open_folder(self.base / table["path"], table["layout"], **own)
        about = {key: value for key, value in table.items() if key != "name"}
        patients = table["patients"]
        late = patients[len(patients) // 2 :]
        second = frozenset(e.name for e in folder.entries if e.patient in late)
        return Set(table["name"], folder.of_patients(patients), about, second)

    def network(self, name: str) -> Checkpoint | None:
        """Return a bundled or trained network; None where it is not there."""
        if name in shipped.names():
            return shipped.open_checkpoint(name)
        path = self.base / name
        if not path.is_file():
            self.missing.append(f"{path.parent.name}/{path.stem}" if path.suffix else name)
            return None
        return shipped.open_checkpoint(path)

    def sweeps(self, data: Set, how: str) -> list[Curve]:
        """Return a curve a strategy: ``one-shot``, or ``recovered`` on the image itself."""
        found = []
        for strategy in self.config["strategies"]:
            images = self._swept(data, how, strategy)
            if len(images) < len(data.folder):
                done = f"{len(images)} of {len(data.folder)} images"
                self.unfinished.append(f"{data.name}, {how}, {strategy} ({done})")
            else:
                found.append(Curve(data.name, how, strategy, (images,)))
        return found

    def _swept(self, data: Set, how: str, strategy: str) -> Images:
        def refitted(item: Annotated) -> Network:
            made: list[Calibration] = []

            def network(pruning: Pruning, masks: Masks) -> Checkpoint:
                if not made:  # here, where the sweep takes an image without tissue
                    made.append(calibration_of(item, self.checkpoint, RESELECT))
                return made[0].recover(pruning, masks)

            return network

        crs = [float(cr) for cr in self.config["crs"]]
        name = f"{how}-{strategy}"
        if how == "one-shot":
            return self._points(data, name, strategy, crs, None)
        return self._points(data, name, strategy, crs, refitted, asdict(RESELECT))

    def tuned(self, data: Set) -> list[Curve]:
        """Return a curve a strategy of the fine-tuned networks; those of one ratio in a row."""
        images: dict[str, list[Images]] = {}
        about: dict[str, dict[tuple[float, int], Training]] = {}
        for table in self.config.get("tuned", ()):
            strategy, cr = table["strategy"], float(table["cr"])
            found, known = images.setdefault(strategy, []), about.setdefault(strategy, {})
            for file in table["files"]:
                network = self.network(file)
                if network is None:
                    continue
                self._check(file, network, strategy, cr)

                def given(item: Annotated, network: Checkpoint = network) -> Network:
                    return lambda pruning, masks: network

                name = f"fine-tuned-{network.sha256[:12]}"
                own = self._points(data, name, strategy, [cr], given, network.sha256)
                place = sum(ratio == cr for ratio, _ in known)
                known[cr, place] = training_of(network, self.checkpoint, file in shipped.names())
                if len(found) <= place:
                    found.append({})
                for image, points in own.items():
                    found[place].setdefault(image, []).extend(p for p in points if p.cr > 1)
        return [
            Curve(data.name, "fine-tuned", strategy, tuple(found), about[strategy])
            for strategy, found in images.items()
            if found
        ]

    def _check(self, file: str, network: Checkpoint, strategy: str, cr: float) -> None:
        """Raise InputError where a fine-tuned network is not what the configuration says."""
        if not has_training(network, Pruning(strategy, cr, cr)):
            raise InputError(
                f"{file} was not fine-tuned after pruning, {strategy} at CR {cr:g}; correct the "
                "configuration."
            )

    def _points(
        self,
        data: Set,
        name: str,
        strategy: str,
        crs: Sequence[float],
        network: Callable[[Annotated], Network] | None,
        how: Any = None,
    ) -> Images:
        """Return the points of a sweep, of images that are done from their file."""
        about = {"dense": identity(self.checkpoint), "data": data.about, "network": how}
        about |= {"strategy": strategy, "crs": list(crs)}
        kept = Kept(self.kept / f"{data.name}-{name}.json", about)
        if self.finished and name.startswith(("one-shot", "recovered")):
            return kept.points
        return sweep_folder(
            data.folder,
            self.checkpoint,
            self.runtime,
            [strategy],
            crs,
            network=network,
            kept=kept,
            notice=lambda text: print(f"{data.name} {name}: {text}", flush=True),
            progress=lambda text, done, total: print(f"{data.name} {name}: {text}", flush=True),
        )

    def dense(self, data: Set) -> list[Curve]:
        """Return the scores of the dense networks, and of what needs no network."""
        tables = [
            {"name": self.checkpoint.name, "file": self.config["checkpoint"]},
            {"name": "more steps", "file": self.config["control"]},
            *self.config.get("dense", ()),
        ]
        found: list[Curve] = []
        for table in tables:
            network = self.network(table["file"])
            if network is not None:
                images = self._scored(data, table["name"], network)
                about = {(1.0, 0): training_of(network, with_weights=True)}
                found.append(Curve(data.name, "dense", table["name"], (images,), about))
        images = self._scored(data, FLOOR, None)
        found.append(Curve(data.name, "dense", FLOOR, (images,), {(1.0, 0): Training("none")}))
        return [against_better(curve, found[:1]) for curve in found]

    def _scored(self, data: Set, name: str, network: Checkpoint | None) -> Images:
        about = {"network": identity(network) if network else "floor 1", "data": data.about}
        short = network.sha256[:12] if network else "floor"
        kept = Kept(self.kept / f"{data.name}-dense-{short}.json", about)
        if network:
            self.runtime.load(network)
        for item in data.folder:
            if item.name in kept.points:
                continue
            print(f"{data.name} {name}: {item.name}", flush=True)
            if network:
                maps, transform = run_on(item, network, self.runtime)
                distance = distance_of(item, transform, network)
                scores = count_image(item, maps, transform, network.merge, distance).scores()
            else:
                scores = score(floor(item), item.labels)
            row = scores.as_dict()
            kept.add(item.name, [SweepPoint(name, 1.0, "both", row, row)])
        return {
            entry.name: [replace(p, strategy=name) for p in kept.points[entry.name]]
            for entry in data.folder.entries
        }


def main() -> None:
    """Run what is not done yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=HERE / "study.toml")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/study.md"))
    parser.add_argument("--kept", type=Path, default=Path("runs/study"))
    parser.add_argument("--ablation", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--skip", default="", help="parts not to run: one-shot,recovered,tuned")
    parser.add_argument(
        "--finished", action="store_true", help="leave out the sweeps that are not done yet"
    )
    options = parser.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    try:
        write(options)
    except NucpruneError as error:
        sys.exit(f"{error}")


def write(options: argparse.Namespace) -> None:
    """Do what `main` was asked for."""
    study = Study(options.config, options.kept, options.finished)
    skipped = options.skip.split(",")
    curves: list[Curve] = []
    for data in study.sets:
        dense = study.dense(data)
        curves += dense
        reference = dense[: 1 + any(c.name == "more steps" for c in dense)]
        if "tuned" not in skipped:
            curves += [against_better(c, reference) for c in study.tuned(data)]
        for how in ("one-shot", "recovered"):
            if how not in skipped:
                curves += study.sweeps(data, how)
    rows = rows_of(curves, study.sets)
    write_csv(options.kept / "study.csv", rows)
    folder = options.output.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = figures(folder, curves, study.sets, study.config["loss"])
    missing = {
        "Not trained": list(dict.fromkeys(study.missing)),
        "Not finished": study.unfinished,
    }
    helped = ablation(HERE / "ablation.toml", options.ablation)
    before = ahead(curves, study.sets)
    text = page(study.checkpoint, rows, before, study.config, drawn, missing, helped)
    options.output.write_text(text, encoding="utf-8")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
