"""Peak memory of a whole slide does not grow with the slide."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

#: A run in a process of its own, whose peak the kernel keeps. The network is a threshold and
#: OpenSlide's cache is small and full on both slides: neither grows, and both would hide what does.
RUN = """
import json, sys
from pathlib import Path
import numpy as np
from oracle import oracle
from napari_nucprune.doors import Maps
from napari_nucprune.slides import bench, slide, whole
from napari_nucprune.slides.cluster import Crew
from napari_nucprune.slides.plan import Ask, Network

path, output = Path(sys.argv[1]), Path(sys.argv[2])
slide.CACHE_BYTES = 8 << 20

class Dark:
    name, device = "sparse", "cpu"

    def run(self, field, *_):
        dark = 1 - field.rgb.mean(2, dtype=np.float32) / 255
        return Maps((dark > 0.35).astype(np.float32), dark, field.mpp)

bench.Bench._opened = lambda self: Dark()
checkpoint = oracle(0.25)
network = Network(checkpoint, "sparse", "cpu", {"name": "dark"})
ask = Ask(path, output, checkpoint, {"dark": 1}, lambda *_: network, runtime="sparse", crew=Crew(2))
run = whole.segment_slide(ask)
peak = next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]
print(json.dumps([int(peak) // 1024, run["cores_run"], run["cores"], run["nuclei"]]))
"""


def pyramids():
    spec = importlib.util.spec_from_file_location("benchmark_pyramid", BENCHMARKS / "pyramid.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(path, output):
    """Peak in MB, cores run, cores, nuclei."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    # One heap for all threads: how glibc shares them out is no property of the slide.
    own = {"PYTHONPATH": paths, "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(output)],
        capture_output=True, text=True, env=os.environ | own, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_slide_of_nine_times_the_area_takes_no_more_memory(tmp_path):
    """With four times the tissue, too; what is kept of every core would show."""
    rng = np.random.default_rng(0)
    block = np.full((512, 512, 3), 225, np.uint8)
    for y, x in rng.integers(12, 500, (120, 2)):
        block[y - 8 : y + 8, x - 8 : x + 8] = rng.integers(60, 130)
    found = {}
    for size, tissue in ((4096, 0.2), (12_000, 0.27)):
        path = tmp_path / f"{size}.tif"
        pyramids().write_slide(path, size, block, tissue)
        found[size] = measured(path, tmp_path / f"out{size}")
    (small, small_run, small_all, _), (large, large_run, large_all, nuclei) = found.values()
    assert large_all > 8 * small_all
    assert large_run > 3 * small_run
    assert nuclei > 3000
    # Keeping 4 MB of every core that was run would make it 1.3 times.
    assert large < 1.1 * small, found
