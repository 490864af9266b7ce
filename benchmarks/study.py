"""The study of pruning: python benchmarks/study.py [CONFIG] [-o docs/study.md].

Runs all that the configuration names, on the validation patients: sweeps over compression ratios,
one-shot and recovered without labels, the fine-tuned networks, and the dense ones beside them. What
is done is kept in ``runs/study``, image by image: the same command goes on from there. Tables go to
the page, figures beside it, every point to ``runs/study/study.csv``.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation import ablation
from study_curves import Curve, Images, Set, against_better, figures, floor, rows_of
from study_text import page

from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.compare.metrics import score
from napari_nucprune.compare.sweep_points import SweepPoint, write_csv
from napari_nucprune.datasets.base import Annotated
from napari_nucprune.datasets.evaluate import count_image, distance_of, run_on
from napari_nucprune.datasets.registry import open_folder
from napari_nucprune.datasets.sweep import Kept, Network, sweep_folder
from napari_nucprune.pruning.recipe import RESELECT
from napari_nucprune.pruning.recovery import Calibration
from napari_nucprune.runtime.auto import AutoRuntime
from napari_nucprune.slides.crops import tissue_crops
from napari_nucprune.slides.source import Source

HERE = Path(__file__).parent


class Study:
    """Runs what is not done yet, one curve after the other."""

    def __init__(self, config: Path, kept: Path) -> None:
        self.base = config.parent
        self.config = tomllib.loads(config.read_text(encoding="utf-8"))
        self.kept = kept
        self.runtime = AutoRuntime()
        self.missing: list[str] = []
        checkpoint = self.network(self.config["checkpoint"])
        if checkpoint is None:
            raise SystemExit(f"{config} prunes {self.missing[0]}, which is not there.")
        self.checkpoint = checkpoint
        self.sets = [self._set(table) for table in self.config["data"]]

    def _set(self, table: Mapping[str, Any]) -> Set:
        known = ("name", "layout", "path", "patients")
        own = {key: value for key, value in table.items() if key not in known}
        folder = open_folder(self.base / table["path"], table["layout"], **own)
        patients = table["patients"]
        late = patients[len(patients) // 2 :]
        second = frozenset(e.name for e in folder.entries if e.patient in late)
        return Set(table["name"], folder.of_patients(patients), second)

    def network(self, name: str) -> Checkpoint | None:
        """Return a bundled or trained network; None where it is not there."""
        if name in shipped.names():
            return shipped.open_checkpoint(name)
        path = self.base / name
        if not path.is_file():
            self.missing.append(f"{path.parent.name}/{path.stem}" if path.suffix else name)
            return None
        return shipped.open_checkpoint(path)

    def sweeps(self, data: Set, recover: bool) -> list[Curve]:
        """Return a curve a strategy, pruned one-shot or refitted on the image itself."""
        how = "recovered" if recover else "one-shot"
        return [
            Curve(data.name, how, strategy, (self._swept(data, how, strategy, recover),))
            for strategy in self.config["strategies"]
        ]

    def _swept(self, data: Set, how: str, strategy: str, recover: bool) -> Images:
        def recovered(item: Annotated) -> Network:
            source = Source([item.rgb], (item.mpp, item.mpp), item.name)
            crops = tissue_crops(source, self.checkpoint.mpp)
            return Calibration(self.checkpoint, crops, item.name, RESELECT).recover

        crs = [float(cr) for cr in self.config["crs"]]
        return self._points(
            data,
            f"{how}-{strategy}",
            (self.checkpoint, strategy, crs, recovered if recover else None),
        )

    def tuned(self, data: Set) -> list[Curve]:
        """Return a curve a strategy of the fine-tuned networks; seeds beside each other."""
        found: dict[str, list[Images]] = {}
        for table in self.config.get("tuned", ()):
            strategy, cr = table["strategy"], table["cr"]
            for seed, file in enumerate(table["files"]):
                network = self.network(file)
                if network is None:
                    continue
                if network.parent_sha256 != self.checkpoint.sha256:
                    raise SystemExit(f"{file} was not fine-tuned from {self.checkpoint.name}.")
                own = self._points(
                    data,
                    f"fine-tuned-{network.sha256[:12]}",
                    (self.checkpoint, strategy, [cr], lambda item, n=network: lambda p, m: n),
                )
                seeds = found.setdefault(strategy, [])
                while len(seeds) <= seed:
                    seeds.append({})
                for name, points in own.items():
                    seeds[seed].setdefault(name, []).extend(p for p in points if p.cr > 1)
        return [Curve(data.name, "fine-tuned", s, tuple(seeds)) for s, seeds in found.items()]

    def _points(
        self,
        data: Set,
        name: str,
        what: tuple[Checkpoint, str, Sequence[float], Callable[[Annotated], Network] | None],
    ) -> Images:
        """Return the points of a sweep, of images that are done from their file."""
        checkpoint, strategy, crs, network = what
        about = {"sha256": checkpoint.sha256, "strategy": strategy, "crs": list(crs), "how": name}
        kept = Kept(self.kept / f"{data.name}-{name}.json", about)
        return sweep_folder(
            data.folder,
            checkpoint,
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
        found = []
        for table in tables:
            network = self.network(table["file"])
            if network is not None:
                images = self._scored(data, table["name"], network)
                found.append(Curve(data.name, "dense", table["name"], (images,)))
        images = self._scored(data, "deconvolution, Otsu, watershed", None)
        return [*found, Curve(data.name, "dense", "deconvolution, Otsu, watershed", (images,))]

    def _scored(self, data: Set, name: str, network: Checkpoint | None) -> Images:
        sha256 = network.sha256 if network else "floor"
        kept = Kept(self.kept / f"{data.name}-dense-{sha256[:12]}.json", {"sha256": sha256})
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
        return {entry.name: kept.points[entry.name] for entry in data.folder.entries}


def main() -> None:
    """Run what is not done yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, nargs="?", default=HERE / "study.toml")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/study.md"))
    parser.add_argument("--kept", type=Path, default=Path("runs/study"))
    parser.add_argument("--ablation", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--skip", default="", help="parts not to run: one-shot,recovered,tuned")
    options = parser.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    study = Study(options.config, options.kept)
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
                curves += study.sweeps(data, how == "recovered")
    rows = rows_of(curves, study.sets)
    write_csv(options.kept / "study.csv", rows)
    folder = options.output.parent / "images"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = figures(folder, curves, study.sets, study.config["loss"])
    missing = list(dict.fromkeys(study.missing))
    helped = ablation(HERE / "ablation.toml", options.ablation)
    text = page(study.checkpoint, rows, study.config, drawn, missing, helped)
    options.output.write_text(text, encoding="utf-8")
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
