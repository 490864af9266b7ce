"""Other people's checkpoints: mapped exactly where the order fits; numbers by hand and by Keras."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import zipfile
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from foreign_helpers import WIDTHS, check, foreign_state, keras_names, two, write_keras
from helpers import PUBLISHED, QUICK, branch_weights, make_checkpoint
from napari_nucprune.checkpoint.foreign import branch_of, open_foreign, read_tensors
from napari_nucprune.checkpoint.format import load
from napari_nucprune.checkpoint.hdf5 import natural
from napari_nucprune.doors import BRANCHES, Field
from napari_nucprune.runtime.torch_runtime import TorchRuntime

__all__ = ["two"]


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "safetensors"])
@pytest.mark.parametrize("order", ["forward", "by kind"])
def test_torch_weights_with_foreign_names(tmp_path, two, order, wrap):
    paths = []
    for branch in BRANCHES:
        state = foreign_state(two[branch], WIDTHS, order)
        path = tmp_path / f"{branch}.{'safetensors' if wrap == 'safetensors' else 'pt'}"
        if wrap == "safetensors":
            save_file({k: v.numpy() for k, v in state.items()}, path)
        else:
            torch.save(state if wrap == "plain" else {"epoch": 3, "state_dict": state}, path)
        paths.append(path)
    found = open_foreign(*paths, mpp=0.5)
    check(found, two)
    assert found.mpp == 0.5
    assert found.provenance["mpp_assumed"] is False
    assert open_foreign(*paths).provenance["mpp_assumed"] is True


def test_a_missing_bias_is_zeros(tmp_path, two):
    for branch in BRANCHES:
        torch.save(foreign_state(two[branch], WIDTHS, bias=False), tmp_path / f"{branch}.pt")
    found = open_foreign(tmp_path / "semantic.pt", tmp_path / "distance.pt")
    for name, array in found.weights["semantic"].items():
        wanted = two["semantic"][name] if name.endswith("weight") else np.zeros(array.shape)
        np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(tmp_path, two, kind, suffix):
    paths = []
    for branch in BRANCHES:
        state = {k: v.to(kind) for k, v in foreign_state(two[branch], WIDTHS).items()}
        paths.append(tmp_path / f"{branch}.{suffix}")
        (torch.save if suffix == "pt" else save_torch_file)(state, paths[-1])
    found = open_foreign(*paths)
    for branch in BRANCHES:
        for name, array in two[branch].items():
            wanted = torch.from_numpy(array).to(kind).float().numpy()
            np.testing.assert_array_equal(found.weights[branch][name], wanted)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("kind", ["h5", "keras", "model"])
def test_keras_weights(tmp_path, two, version, kind):
    paths = []
    for branch in BRANCHES:
        path = tmp_path / f"{branch}.h5"
        group = "model_weights" if kind == "model" else None
        write_keras(path, two[branch], WIDTHS, version, group)
        if kind == "keras":
            with zipfile.ZipFile(tmp_path / f"{branch}.keras", "w") as archive:
                archive.write(path, "model.weights.h5")
            path = tmp_path / f"{branch}.keras"
        paths.append(path)
    check(open_foreign(*paths), two)


def test_ten_comes_after_two():
    # All widths alike: no shape could tell a wrong order.
    names = [f"conv2d_{i}" for i in range(12)]
    assert sorted(sorted(names), key=natural) == names
    assert natural("conv2d") < natural("conv2d_1")


def test_all_widths_alike_keep_their_order(tmp_path):
    widths = (4, 4, 4, 4, 4)
    rng = np.random.default_rng(0)
    wanted = {branch: branch_weights(widths, rng) for branch in BRANCHES}
    for branch in BRANCHES:
        write_keras(tmp_path / f"{branch}.h5", wanted[branch], widths, 3)
    check(open_foreign(tmp_path / "semantic.h5", tmp_path / "distance.h5"), wanted)


def test_the_numbers_by_hand(tmp_path):
    """Two levels of one channel, in Keras' layout, computed with a pencil's means."""
    widths = (1, 1)
    rng = np.random.default_rng(3)
    weights = {branch: branch_weights(widths, rng) for branch in BRANCHES}
    for branch in BRANCHES:
        write_keras(tmp_path / f"{branch}.h5", weights[branch], widths)
    found = open_foreign(tmp_path / "semantic.h5", tmp_path / "distance.h5", mpp=0.25)
    rgb = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)

    def convolve(x, kernel, bias):  # Keras: (k, k, in, out), zero padding
        reach = kernel.shape[0] // 2
        padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
        out = np.zeros((*x.shape[:2], kernel.shape[3]))
        for y in range(x.shape[0]):
            for c in range(x.shape[1]):
                window = padded[y : y + kernel.shape[0], c : c + kernel.shape[1]]
                out[y, c] = np.tensordot(window, kernel, 3) + bias
        return out

    def branch_by_hand(file):
        with h5py.File(file) as h:
            parts = {n: (h[n][n]["kernel:0"][()].astype(float), h[n][n]["bias:0"][()].astype(float))
                     for n in keras_names(widths)}  # fmt: skip
        relu = lambda v: np.maximum(v, 0)  # noqa: E731
        x = relu(convolve(rgb / 255, *parts["conv2d"]))
        skip = relu(convolve(x, *parts["conv2d_1"]))
        low = skip.reshape(3, 2, 4, 2, 1).max(axis=(1, 3))
        low = relu(convolve(relu(convolve(low, *parts["conv2d_2"])), *parts["conv2d_3"]))
        kernel, bias = parts["conv2d_transpose"]  # (2, 2, out, in)
        up = np.zeros((6, 8, 1))
        for y in range(6):
            for c in range(8):
                up[y, c] = kernel[y % 2, c % 2] @ low[y // 2, c // 2] + bias
        x = np.concatenate([up, skip], axis=2)
        x = relu(convolve(relu(convolve(x, *parts["conv2d_4"])), *parts["conv2d_5"]))
        return convolve(x, *parts["conv2d_6"])[..., 0]

    runtime = TorchRuntime("cpu")
    runtime.load(found)
    maps = runtime.run(Field(rgb, 0.25))
    semantic = 1 / (1 + np.exp(-branch_by_hand(tmp_path / "semantic.h5")))
    np.testing.assert_allclose(maps.semantic, semantic, atol=1e-5)
    distance = branch_by_hand(tmp_path / "distance.h5")
    np.testing.assert_allclose(maps.distance, distance, atol=1e-5)


BY_KERAS = """
import os, sys, numpy as np
if os.environ.get("TF_USE_LEGACY_KERAS"):
    import tf_keras as keras
else:
    import keras
L = keras.layers
folder = sys.argv[1]
rgb = np.load(folder + "/rgb.npy")
for branch, act in (("semantic", "sigmoid"), ("distance", None)):
    widths = (4, 6, 8, 8, 8)
    x = inputs = keras.Input((None, None, 3))
    x = L.Lambda(lambda x: x / 255)(x)
    skips = []
    conv = lambda x, w: L.Conv2D(w, 3, padding="same", activation="relu")(x)
    for i, w in enumerate(widths):
        x = conv(L.Dropout(0.1)(conv(x, w)), w)
        if i < 4:
            skips.append(x)
            x = L.MaxPooling2D(2)(x)
    for w in widths[-2::-1]:
        x = L.concatenate([L.Conv2DTranspose(w, 2, strides=2, padding="same")(x), skips.pop()])
        x = conv(conv(x, w), w)
    model = keras.Model(inputs, L.Conv2D(1, 1, activation=act)(x))
    rng = np.random.default_rng(len(branch) + bool(act))
    model.set_weights([rng.normal(0, 0.2, w.shape).astype("f4") for w in model.get_weights()])
    model.save_weights(f"{folder}/{branch}.weights.h5")
    model.save(f"{folder}/{branch}.h5")
    model.save(f"{folder}/{branch}.keras")
    out = model(rgb[None])
    out = out.detach().cpu().numpy() if hasattr(out, "detach") else np.asarray(out)
    np.save(f"{folder}/{branch}.npy", out[0, ..., 0])
"""


def test_the_numbers_of_keras_itself(tmp_path):
    """NUCPRUNE_KERAS=1 takes this Python's Keras on torch, a path another Python's (TensorFlow)."""
    asked = os.environ.get("NUCPRUNE_KERAS", "")
    if not asked or (asked == "1" and find_spec("keras") is None):
        pytest.skip("asked for by NUCPRUNE_KERAS=1 (pip install keras): its import takes long")
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.float32)
    np.save(tmp_path / "rgb.npy", rgb)
    env = os.environ | ({"KERAS_BACKEND": "torch"} if asked == "1" else {})
    done = subprocess.run(
        [sys.executable if asked == "1" else asked, "-c", textwrap.dedent(BY_KERAS), str(tmp_path)],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    runtime = TorchRuntime("cpu")
    for suffix in (".weights.h5", ".h5", ".keras"):
        files = [tmp_path / f"{branch}{suffix}" for branch in BRANCHES]
        runtime.load(open_foreign(*files, mpp=0.25))
        maps = runtime.run(Field(rgb.astype(np.uint8), 0.25))
        for branch in BRANCHES:
            wanted = np.load(tmp_path / f"{branch}.npy")
            assert np.ptp(wanted) > 0.05, "a constant would prove nothing"
            np.testing.assert_allclose(getattr(maps, branch), wanted, rtol=1e-4, atol=1e-5)
            error = np.abs(getattr(maps, branch) - wanted).max()
            print(f"{suffix} {branch}: {error:.1e} of {np.ptp(wanted):.2g}")


@pytest.mark.parametrize("widths", [(2, 3), (3, 5, 4), QUICK, PUBLISHED, (2, 3, 4, 5, 6, 7)])
def test_other_widths_and_depths_load_and_tiles_change_nothing(tmp_path, widths):
    from napari_nucprune.checkpoint.format import save

    checkpoint = make_checkpoint(widths)
    save(checkpoint, tmp_path / "c.safetensors")
    found = load(tmp_path / "c.safetensors")
    grid = 2 ** (len(widths) - 1)
    rgb = np.random.default_rng(1).integers(0, 256, (3 * grid + 7, 150, 3)).astype(np.uint8)
    runs = []
    for tile in (64, 4096):
        runtime = TorchRuntime("cpu", tile=tile)
        runtime.load(found)
        runs.append(runtime.run(Field(rgb, 0.25)))
    np.testing.assert_allclose(runs[0].semantic, runs[1].semantic, atol=1e-5)
    np.testing.assert_allclose(runs[0].distance, runs[1].distance, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "branch"),
    [("Semantic.h5", "semantic"), ("binary_seg.pt", "semantic"), ("dist_model.h5", "distance"),
     ("unet.h5", None), ("distance_mask.h5", None)],
)  # fmt: skip
def test_branches_are_told_by_the_file_s_name(name, branch):
    assert branch_of(name) == branch


def test_reading_keeps_the_declared_order(tmp_path, two):
    write_keras(tmp_path / "a.h5", two["semantic"], WIDTHS)
    keys = [k.split("/")[0] for k in read_tensors(tmp_path / "a.h5") if k.endswith("kernel:0")]
    assert keys == list(keras_names(WIDTHS))
