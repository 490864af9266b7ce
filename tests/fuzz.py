"""Fuzzing of everything that reads other people's files: no crash, no hang, no memory over 1 GB.

    python tests/fuzz.py [TARGET ...] [--seconds 600] [--seed 0]

hypothesis bends good files (bytes replaced, cut, doubled, sizes overwritten); each target reads
them in a process of its own, whose death by a signal is a finding, too. Whatever is raised must be
an error whose text is one sentence for the user. What fails is kept as fuzz-TARGET.bin.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

HANG, MEMORY = 20, 1_000_000_000
EDGES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]


class Late(BaseException):
    """A target took too long; no ``except Exception`` of a reader may take it for bad input."""


def safetensors_seed(path: Path) -> None:
    from helpers import TINY, make_checkpoint
    from napari_nucprune.checkpoint.format import save

    save(make_checkpoint(TINY), path)


def packed_seed(path: Path) -> None:
    from helpers import TINY, make_checkpoint
    from napari_nucprune.checkpoint.format import save
    from napari_nucprune.doors import Pruning
    from napari_nucprune.pruning.strategy import Ranking, apply

    dense, asked = make_checkpoint(TINY), Pruning("layer-wise", 2, 2)
    save(apply(dense, asked, Ranking(dense).masks(asked)), path, "lossless")


def session_seed(path: Path) -> None:
    from napari_nucprune.difference.saved import FORMAT, VERSION

    scores = {"semantic_dice": 0.5, "distance_r2": None, "aji": 0.5, "pq": 0.5}
    point = {"strategy": "layer-wise", "cr": 5, "scores": scores, "start": scores}
    place = {"scale": [1, 1], "translate": [0, 0], "rotate": [[1, 0], [0, 1]], "shear": [0],
             "affine": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "units": ["um", "um"], "about": {}}  # fmt: skip
    tiff = path.with_name("pin.tif")
    import tifffile

    tifffile.imwrite(tiff, np.ones((4, 4), np.int32))
    path.write_text(json.dumps({
        "format": FORMAT, "version": VERSION, "live": True,
        "image": {"name": "a", "path": None, "area": "whole image", "mpp": 0.25},
        "checkpoint": {"origin": "full", "sha256": "0"},
        "pruning": {"strategy": "layer-wise", "recovery": "off", "reselect": False, "linked": True,
                    "cr": 5, "cr_semantic": 5, "cr_distance": 5.5, "keep": None},
        "compare": {"result": "shown", "reference": "dense", "differences": True, "filled": True,
                    "points": False, "maps": False},
        "sweep": {"about": "", "loss": 0.02, "points": [point]},
        "pins": [{"ident": "a", "label": "b",
                  "layers": {"instances": {"file": tiff.name, **place}}}],
    }))  # fmt: skip


def sweep_seed(path: Path) -> None:
    from napari_nucprune.compare.sweep_points import SweepPoint
    from napari_nucprune.datasets.sweep import Kept

    Kept(path, {}).add("a", [SweepPoint("LAMP", 5.0, "both", {"pq": 0.5}, {"pq": 0.6})])


def torch_seed(path: Path) -> None:
    import torch

    from helpers import TINY, branch_weights

    weights = branch_weights(TINY, np.random.default_rng(0))
    torch.save({f"net.{k}": torch.from_numpy(v) for k, v in weights.items()}, path)


def keras_seed(path: Path) -> None:
    from helpers import TINY, branch_weights
    from test_foreign import write_keras

    weights = branch_weights(TINY, np.random.default_rng(0))
    if path.suffix == ".keras":
        write_keras(path.with_suffix(".h5"), weights, TINY, 3)
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(path.with_suffix(".h5"), "model.weights.h5")
    else:
        write_keras(path, weights, TINY, 2)


def map_seed(path: Path) -> None:
    path.write_text(json.dumps({"semantic": {"encoder.0.conv1": "net.encoder.0.conv1.weight"},
                                "input": "0..255"}))  # fmt: skip


def xml_seed(path: Path) -> None:
    from test_annotations import aperio, square

    path.write_text(aperio(square(5, 3, 10), square(30, 20, 8), mpp=0.25))


def roi_seed(path: Path) -> None:
    from roifile import ImagejRoi

    from test_annotations import roi_set, square

    if path.suffix == ".zip":
        roi_set(path, (5, 3, 10), (30, 20, 8))
    else:
        path.write_bytes(ImagejRoi.frompoints(np.array(square(30, 20, 8))).tobytes())


def tiff_seed(path: Path) -> None:
    import tifffile

    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    tifffile.imwrite(path, rgb, photometric="rgb", tile=(32, 32), compression="zlib",
                     resolution=(4e4, 4e4), resolutionunit="CENTIMETER")  # fmt: skip


def png_seed(path: Path) -> None:
    from PIL import Image

    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(rgb).save(path)


def mat_seed(path: Path) -> None:
    from scipy.io import savemat

    savemat(path, {"inst_map": np.arange(64).reshape(8, 8)})


def settings_seed(path: Path) -> None:
    path.write_text('{"device": "auto", "checkpoint": "", "cr": 5.0, "live": true}')


def training_seed(path: Path) -> None:
    recipe = Path(__file__).resolve().parents[1] / "recipes" / "he-nuclei.toml"
    path.write_bytes(recipe.read_bytes())


def read_checkpoint(path: Path) -> Any:
    from napari_nucprune.checkpoint.format import load

    return load(path)


def read_session(path: Path) -> Any:
    from napari_nucprune.difference.saved import read

    return read(path)


def read_sweep(path: Path) -> Any:
    from napari_nucprune.datasets.sweep import Kept

    return Kept(path, {})


def read_foreign(path: Path) -> Any:
    from napari_nucprune.checkpoint.foreign import open_foreign

    return open_foreign(path, path)


def read_map(path: Path) -> Any:
    from napari_nucprune.checkpoint.foreign import open_foreign

    good = path.with_name("good.pt")
    if not good.exists():
        torch_seed(good)
    return open_foreign(good, mapping=path)


def read_annotation(path: Path) -> Any:
    from napari_nucprune import annotations

    return annotations.read_annotation(path) if annotations.is_annotation(path) else None


def read_image(path: Path) -> Any:
    from napari_nucprune.slides.image import read_image as read

    return read(path)


def read_slide(path: Path) -> Any:
    from napari_nucprune.slides.reader import open_slide

    slide = open_slide(path)
    return slide.read(0, 0, 0, 40, 40)


def read_by_openslide(path: Path) -> Any:
    from napari_nucprune.slides.reader import Slide

    return Slide.open(path).read(0, 0, 0, 40, 40)


def read_labels(path: Path) -> Any:
    from napari_nucprune.datasets.base import read_labels as read

    return read(path)


def ome_seed(path: Path) -> None:
    import tifffile

    rgb = np.full((64, 64, 3), 99, np.uint8)
    about = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(rgb, photometric="rgb", tile=(32, 32), subifds=1, metadata=about)
        tif.write(rgb[::2, ::2], photometric="rgb", tile=(32, 32), subfiletype=1)


def labels_seed(path: Path) -> None:
    import tifffile

    tifffile.imwrite(path, np.arange(64, dtype=np.int32).reshape(8, 8))


def plan_seed(path: Path) -> None:
    path.write_text(json.dumps({
        "environment": {"runtime": "sparse", "device": "cpu"}, "input": {"sha256": "0"},
        "about": {}, "mpp": 0.25,
    }))  # fmt: skip


def read_plan(path: Path) -> Any:
    from napari_nucprune.slides.scratch import FOLDER, Scratch

    folder = path.parent / "run" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_bytes(path.read_bytes())
    return Scratch(folder.parent).plan()


def fit_of(path: Path) -> Any:
    from napari_nucprune.training.config import Config
    from napari_nucprune.training.fit import Fit

    folder = path.parent / "fit"
    folder.mkdir(exist_ok=True)
    return Fit(Config("a", (), widths=(2, 3)), folder)


def state_seed(path: Path) -> None:
    made = fit_of(path)
    made.save()
    made.state_file.replace(path)


def read_state(path: Path) -> Any:
    made = fit_of(path)
    made.state_file.write_bytes(path.read_bytes())
    return made.resume()


def read_mat(path: Path) -> Any:
    from napari_nucprune.datasets.consep import labels_from_mat

    return labels_from_mat(path, (8, 8))


def read_settings(path: Path) -> Any:
    from napari_nucprune import settings

    os.environ[settings.VARIABLE] = str(path.parent)
    path.replace(path.with_name("settings.json"))
    return settings.read()


def read_training(path: Path) -> Any:
    from napari_nucprune.training.config import load_config

    return load_config(path)


#: File's ending, how a good one is made, what reads it.
TARGETS: dict[str, tuple[str, Callable[[Path], None], Callable[[Path], Any]]] = {
    "safetensors": (".safetensors", safetensors_seed, read_checkpoint),
    "packed": (".safetensors", packed_seed, read_checkpoint),
    "torch": (".pt", torch_seed, read_foreign),
    "keras-h5": (".h5", keras_seed, read_foreign),
    "keras": (".keras", keras_seed, read_foreign),
    "map": (".json", map_seed, read_map),
    "xml": (".xml", xml_seed, read_annotation),
    "roi": (".roi", roi_seed, read_annotation),
    "roi-zip": (".zip", roi_seed, read_annotation),
    "tiff": (".tif", tiff_seed, read_image),
    "png": (".png", png_seed, read_image),
    "slide": (".svs", tiff_seed, read_by_openslide),
    "ome-tiff": (".ome.tif", ome_seed, read_slide),
    "tiff-as-slide": (".tif", tiff_seed, read_slide),
    "labels": (".tif", labels_seed, read_labels),
    "plan": (".json", plan_seed, read_plan),
    "state": (".pt", state_seed, read_state),
    "mat": (".mat", mat_seed, read_mat),
    "settings": (".json", settings_seed, read_settings),
    "session": (".json", session_seed, read_session),
    "sweep": (".json", sweep_seed, read_sweep),
    "recipe": (".toml", training_seed, read_training),
}


def bend(data: bytes, steps: list[tuple[str, int, int, bytes]]) -> bytes:
    """Apply hypothesis' steps to a good file."""
    for kind, place, value, chunk in steps:
        at = place % (len(data) + 1)
        if kind == "put":
            data = data[:at] + chunk + data[at + len(chunk) :]
        elif kind == "insert":
            data = data[:at] + chunk + data[at:]
        elif kind == "cut":
            data = data[:at]
        elif kind == "drop":
            data = data[:at] + data[at + value % 64 :]
        elif kind == "double":
            data = data[:at] + data[at : at + value % 64] * 3 + data[at + value % 64 :]
        elif kind == "edge":
            number = EDGES[value % len(EDGES)]
            size = (1, 2, 4, 8)[len(chunk) % 4]
            raw = (number % 256**size).to_bytes(size, "little" if value % 2 else "big")
            data = data[:at] + raw + data[at + size :]
        elif kind == "digits":
            text = str(EDGES[value % len(EDGES)] * (-1) ** (place % 2)).encode()
            start = next((i for i in range(at, len(data)) if data[i : i + 1].isdigit()), None)
            if start is not None:
                end = start
                while end < len(data) and data[end : end + 1].isdigit():
                    end += 1
                data = data[:start] + text + data[end:]
    return data


def child(name: str, seconds: float, seed: int, folder: Path) -> int:
    """Fuzz one target in this process; print one line of JSON."""
    import resource

    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    from napari_nucprune.errors import NucpruneError

    suffix, make, read = TARGETS[name]
    good = folder / f"good{suffix}"
    make(good)
    data = good.read_bytes()
    path, kept = folder / f"fuzz-{name}{suffix}", folder / "kept"
    unit, before = (1 if sys.platform == "darwin" else 1024), 0

    def late(*_: Any) -> None:
        raise Late

    def once(content: bytes, limit: float = HANG) -> bool:
        path.write_bytes(content)
        kept.write_bytes(content)  # a target may move the other one
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            read(path)
            return True
        except NucpruneError as error:
            text = str(error)
            assert len(text) > 15, f"no sentence: {text!r}"
            assert "\n" not in text, f"no one line: {text!r}"
            return False
        except MemoryError as error:
            raise AssertionError("it asks for more memory than there is") from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
            assert before == 0 or more < MEMORY, f"{more / 1e9:.1f} GB more than at the start"

    signal.signal(signal.SIGALRM, late)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    # Imports take long the first time.
    assert once(data, 0), "the good file is refused: nothing would be tried"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    begun, counts = time.monotonic(), [0, 0]
    kinds = st.sampled_from(["put", "insert", "cut", "drop", "double", "edge", "digits"])
    # Headers, where the structure is, come first in most formats.
    places = st.one_of(st.integers(0, 400), st.integers(0, max(len(data), 1)))
    step = st.tuples(kinds, places, st.integers(0, 2**16), st.binary(max_size=8))

    @seeded(seed)
    @settings(
        max_examples=10**9, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(step, min_size=1, max_size=6))
    def run(steps: list[tuple[str, int, int, bytes]]) -> None:
        if time.monotonic() - begun > seconds:
            raise KeyboardInterrupt
        counts[once(bend(data, steps))] += 1

    found = ""
    try:
        run()
    except KeyboardInterrupt:
        pass
    except Late:
        found = f"more than {HANG} s for one input"
    except BaseException as error:
        found = f"{type(error).__name__}: {str(error)[:300]}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps({
        "target": name, "inputs": sum(counts), "read": counts[1], "refused": counts[0],
        "seconds": round(time.monotonic() - begun, 1), "seed": seed,
        "more_memory_mb": round((peak - before) / 1e6), "found": found,
    }))  # fmt: skip
    return bool(found)


def fuzz(name: str, seconds: float, seed: int) -> dict[str, Any]:
    """Fuzz one target in a child process; a dead child is a finding."""
    with tempfile.TemporaryDirectory(prefix="nucprune-fuzz-") as folder:
        command = [sys.executable, __file__, name, "--child", folder]
        command += ["--seconds", str(seconds), "--seed", str(seed)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=seconds + 20 * HANG
            )
            code, out = done.returncode, done.stdout
        except subprocess.TimeoutExpired:
            code, out = -signal.SIGKILL, ""
        lines = out.strip().splitlines()
        result = {"target": name, "found": f"the process died ({code})"}
        if lines:
            result = json.loads(lines[-1])
        if result["found"]:
            kept = Path(f"fuzz-{name}.bin")
            source = Path(folder) / "kept"
            if source.exists():
                kept.write_bytes(source.read_bytes())
        return result


def main() -> int:
    """Fuzz what the command line says, one line of JSON a target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options.targets[0], options.seconds, options.seed, Path(options.child))
    bad = 0
    for name in options.targets or TARGETS:
        result = fuzz(name, options.seconds, options.seed)
        print(json.dumps(result), flush=True)
        bad += bool(result["found"])
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
