"""The merge (maps to labels and table) against scikit-image's, interleaved in one run.

python benchmarks/postprocessing.py [--images 3] [--repeats 15] [--folder FOLDER] [--json FILE]

The maps are the bundled network's, on fields of MoNuSeg's images (those are 1000x1000: the larger
field is mirrored by 12 px at each edge). Without the images, on the package's sample tissue.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "MoNuSeg"
PROPERTIES = ("label", "centroid", "area", "eccentricity", "intensity_mean")


def labels_by_skimage(maps, parameters) -> NDArray[np.int32]:
    """Label as somebody would with scikit-image: the same steps, the same parameters."""
    from skimage.feature import peak_local_max
    from skimage.filters import gaussian
    from skimage.measure import label
    from skimage.morphology import remove_small_objects
    from skimage.segmentation import relabel_sequential, watershed

    mask = maps.semantic >= parameters.threshold
    least = math.ceil(parameters.min_area_um2 / maps.mpp**2 - 1e-6)
    smoothed = gaussian(maps.distance, parameters.sigma_um / maps.mpp, mode="reflect")
    radius = max(1, round(parameters.footprint_um / maps.mpp))
    window = np.ones((2 * radius + 1, 2 * radius + 1), bool)
    peaks = peak_local_max(smoothed, footprint=window, exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks[mask[tuple(peaks.T)]].T)] = 1
    # A part of the mask without a maximum is an object all the same.
    parts = label(mask, connectivity=1)
    lacking = np.bincount(parts.ravel(), markers.ravel()) == 0
    lacking[0] = False
    lone = lacking[parts]
    at = np.flatnonzero(lone)
    order = np.lexsort((at, -smoothed.ravel()[at], parts.ravel()[at]))
    _, first = np.unique(parts.ravel()[at[order]], return_index=True)
    markers.ravel()[at[order][first]] = 1
    markers.ravel()[np.flatnonzero(markers)] = np.arange(1, np.count_nonzero(markers) + 1)
    labels = watershed(-smoothed, markers, mask=mask)
    labels = remove_small_objects(labels, max_size=least - 1)
    return relabel_sequential(labels)[0].astype(np.int32, copy=False)


def table_by_skimage(labels, maps) -> dict[str, Any]:
    """Measure what the package's table holds."""
    from skimage.measure import regionprops_table

    return regionprops_table(labels, maps.distance, properties=PROPERTIES)


def agreement(a: NDArray[np.int32], b: NDArray[np.int32]) -> tuple[bool, float]:
    """Compare two label maps: same foreground, and the share of pixels in the same object.

    Objects are matched one to one so that the most pixels agree.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_matrix

    both = (a > 0) & (b > 0)
    same = bool(np.array_equal(a > 0, b > 0))
    shared = coo_matrix((np.ones(both.sum()), (a[both], b[both]))).toarray()
    rows, columns = linear_sum_assignment(shared, maximize=True)
    either = np.count_nonzero((a > 0) | (b > 0))
    return same, float(shared[rows, columns].sum() / either) if either else 1.0


def fields(folder: Path, sizes: list[int], images: int):
    """Yield (name, size, maps) of the first images."""
    from napari_nucprune.checkpoint.shipped import open_checkpoint
    from napari_nucprune.doors import Field
    from napari_nucprune.runtime.torch_runtime import TorchRuntime

    checkpoint = open_checkpoint()
    runtime = TorchRuntime()
    runtime.load(checkpoint)
    for name, rgb in pictures(folder, images):
        for size in sizes:
            missing = [max(0, size - n) for n in rgb.shape[:2]]
            around = [(n // 2, n - n // 2) for n in missing]
            part = np.pad(rgb, [*around, (0, 0)], mode="symmetric")[:size, :size]
            yield name, size, runtime.run(Field(part, checkpoint.mpp))


def pictures(folder: Path, images: int) -> list[tuple[str, NDArray[np.uint8]]]:
    """Read the first images of a folder, or take the sample tissue."""
    from PIL import Image

    from napari_nucprune.samples import tissue

    paths = sorted(folder.rglob("*.tif"))[:images]
    if not paths:
        print(f"no images in {folder}: the sample tissue instead")
        return [("sample tissue", tissue())]
    return [(path.stem, np.asarray(Image.open(path).convert("RGB"))) for path in paths]


def spread(values: list[float]) -> dict[str, float]:
    """Median and the tenth and ninetieth percentile."""
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"median": round(median, 3), "p10": round(low, 3), "p90": round(high, 3)}


def measure_one(maps, parameters, repeats: int) -> dict[str, Any]:
    """Time the ways on one field, one after the other in each round."""
    from napari_nucprune import native
    from napari_nucprune.nuclei.watershed import merge

    def without_library() -> Any:
        absent = native.NativeMissing("switched off")
        with mock.patch.object(native, "library", side_effect=absent):
            return merge(maps, parameters)

    ways: dict[str, Callable[[], Any]] = {
        "merge": lambda: merge(maps, parameters),
        "merge, 1 thread": lambda: merge(maps, parameters, threads=1),
        "merge without the library": without_library,
        "skimage, no table": lambda: labels_by_skimage(maps, parameters),
    }
    labels = labels_by_skimage(maps, parameters)
    found = merge(maps, parameters)
    seconds: dict[str, list[float]] = {name: [] for name in (*ways, "skimage")}
    for round_ in range(repeats + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            middle = time.perf_counter()
            if name == "skimage, no table":
                table_by_skimage(labels, maps)
                seconds["skimage"].append(time.perf_counter() - begun)
            seconds[name].append(middle - begun)
        if round_ == 0:  # imports and caches
            seconds = {name: [] for name in seconds}
    ours = np.array(seconds["merge"])
    same, share = agreement(found.labels, labels)
    return {
        "nuclei": len(found),
        "ms": {name: spread([1e3 * s for s in values]) for name, values in seconds.items()},
        "merge / it": {
            name: spread(list(ours / np.array(values)))
            for name, values in seconds.items()
            if name != "merge"
        },
        "same foreground": same,
        "pixels in the same object": share,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=DATA)
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    from napari_nucprune.checkpoint.shipped import open_checkpoint

    # scikit-image has no saddles: both do without.
    parameters = replace(open_checkpoint().merge, saddle=1.0)
    rows = []
    for name, size, maps in list(fields(options.folder, options.sizes, options.images)):
        row = {"image": name, "size": size, **measure_one(maps, parameters, options.repeats)}
        rows.append(row)
        print(
            f"{name} {size}x{size}, {row['nuclei']} nuclei; pixels in the same object "
            f"{row['pixels in the same object']:.6f}, same foreground {row['same foreground']}"
        )
        for way, times in row["ms"].items():
            ratio = row["merge / it"].get(way)
            text = "" if ratio is None else "   merge / it {median:.3f} ({p10:.3f}-{p90:.3f})"
            print(
                f"  {way:26} {times['median']:8.2f} ms ({times['p10']:.2f}-{times['p90']:.2f})"
                + text.format(**(ratio or {}))
            )
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
