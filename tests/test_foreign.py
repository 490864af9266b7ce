"""Other people's checkpoints: mapped exactly where the order fits, else refused; numbers by hand."""

from __future__ import annotations

import json
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

from helpers import PUBLISHED, QUICK, branch_weights, is_one_line, make_checkpoint
from napari_nucprune.checkpoint.foreign import branch_of, open_foreign, read_tensors
from napari_nucprune.checkpoint.format import load
from napari_nucprune.checkpoint.hdf5 import natural
from napari_nucprune.cli import main
from napari_nucprune.doors import BRANCHES, Field
from napari_nucprune.errors import InputError
from napari_nucprune.runtime.torch_runtime import TorchRuntime

WIDTHS = (2, 3, 5)


def forward_order(widths):
    """Layer names as the data flows."""
    levels = range(len(widths))
    names = [f"encoder.{i}.conv{j}" for i in levels for j in (1, 2)]
    for i in levels[:-1]:
        names += [f"up.{i}", f"decoder.{i}.conv1", f"decoder.{i}.conv2"]
    return [*names, "head"]


def foreign_state(weights, widths, order="forward", bias=True):
    """A torch state dict with names of another author."""
    names = forward_order(widths)
    if order == "by kind":  # encoders, then all up-convolutions, then decoders
        names = sorted(names, key=lambda n: n.startswith(("up", "decoder", "head")))
        names = sorted(names, key=lambda n: n.startswith(("decoder", "head")))
    elif order == "backwards":
        names = names[::-1]
    elif order == "swapped":  # same shapes' kinds, another place
        names[2], names[4] = names[4], names[2]
    state = {}
    for i, name in enumerate(names):
        state[f"net.block{i}.0.weight"] = torch.from_numpy(weights[f"{name}.weight"])
        if bias:
            state[f"net.block{i}.0.bias"] = torch.from_numpy(weights[f"{name}.bias"])
    return state


def keras_names(widths):
    """Our layer names by the names that Keras gives."""
    named, counts = {}, {}
    for name in forward_order(widths):
        kind = "conv2d_transpose" if name.startswith("up") else "conv2d"
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        named[f"{kind}_{number}" if number else kind] = name
    return named


def write_keras(path, weights, widths, version=2, group=None, extra=None):
    """What Keras writes: version 2 with layer_names, version 3 with groups by name alone."""
    with h5py.File(path, "w") as file:
        root = file.create_group(group) if group else file
        named = keras_names(widths)
        for keras, ours in named.items():
            kernel = weights[f"{ours}.weight"].transpose(2, 3, 1, 0)
            if version == 3:
                variables = root.create_group(f"layers/{keras}/vars")
                variables["0"], variables["1"] = kernel, weights[f"{ours}.bias"]
            else:
                layer = root.create_group(keras)
                layer[f"{keras}/kernel:0"] = kernel
                layer[f"{keras}/bias:0"] = weights[f"{ours}.bias"]
                keys = [f"{keras}/kernel:0", f"{keras}/bias:0"]
                layer.attrs["weight_names"] = [k.encode() for k in keys]
        if version == 2:
            root.attrs["layer_names"] = [k.encode() for k in named]
        if extra:
            extra(root)


@pytest.fixture
def two():
    rng = np.random.default_rng(5)
    return {branch: branch_weights(WIDTHS, rng) for branch in BRANCHES}


def check(found, wanted):
    for branch in BRANCHES:
        for name, array in wanted[branch].items():
            np.testing.assert_array_equal(found.weights[branch][name], array, err_msg=name)


def refused(*arguments, **options):
    with pytest.raises(InputError) as caught:
        open_foreign(*arguments, **options)
    assert is_one_line(caught.value)
    return str(caught.value)


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


@pytest.mark.parametrize("order", ["backwards", "swapped"])
def test_another_order_is_refused_and_a_map_says_which_is_which(tmp_path, two, order):
    names = forward_order(WIDTHS)
    names = names[::-1] if order == "backwards" else names
    if order == "swapped":
        names[2], names[4] = names[4], names[2]
    paths = []
    for branch in BRANCHES:
        paths.append(tmp_path / f"{branch}.pt")
        torch.save(foreign_state(two[branch], WIDTHS, order), paths[-1])
    said = refused(*paths)
    assert "--map FILE" in said
    assert "semantic.pt" in said
    keys = {name: f"net.block{i}.0.weight" for i, name in enumerate(names)}
    mapping = tmp_path / "map.json"
    mapping.write_text(json.dumps(dict.fromkeys(BRANCHES, keys)))
    check(open_foreign(*paths, mapping=mapping), two)
    # What sees 0..255 instead of 0..1 has a first kernel that is as many times smaller.
    mapping.write_text(json.dumps({**dict.fromkeys(BRANCHES, keys), "input": "0..255"}))
    found = open_foreign(*paths, mapping=mapping).weights["semantic"]["encoder.0.conv1.weight"]
    np.testing.assert_allclose(found, two["semantic"]["encoder.0.conv1.weight"] * 255, rtol=1e-6)


def test_one_file_with_both_branches_by_a_map(tmp_path, two):
    state = {}
    for branch in BRANCHES:
        own = foreign_state(two[branch], WIDTHS)
        state |= {f"{branch[:3]}{key}": value for key, value in own.items()}
    torch.save(state, tmp_path / "both.pt")
    assert "--map" in refused(tmp_path / "both.pt", tmp_path / "both.pt")
    assert "one branch a file" in refused(tmp_path / "both.pt")
    named = {
        branch: {
            n: f"{branch[:3]}net.block{i}.0.weight" for i, n in enumerate(forward_order(WIDTHS))
        }
        for branch in BRANCHES
    }
    (tmp_path / "map.json").write_text(json.dumps(named))
    check(open_foreign(tmp_path / "both.pt", mapping=tmp_path / "map.json"), two)


@pytest.mark.parametrize("seen", ["0..1", "0..255"])
@pytest.mark.parametrize("concat", ["up-first", "skip-first"])
def test_what_shapes_do_not_show_is_said_by_a_map(tmp_path, two, concat, seen):
    """Another author's forward pass, written with torch alone, on the names of that file."""
    rgb = np.random.default_rng(2).integers(0, 256, (24, 32, 3)).astype(np.uint8)

    def forward(state):
        def conv(x):
            i = next(count)
            weight, bias = (state[f"net.block{i}.0.{n}"] for n in ("weight", "bias"))
            return torch.nn.functional.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

        count = iter(range(99))
        x = torch.from_numpy(rgb).float().permute(2, 0, 1)[None]
        x = x if seen == "0..255" else x / 255
        skips = []
        for level in range(len(WIDTHS)):
            x = torch.relu(conv(torch.relu(conv(x))))
            if level < len(WIDTHS) - 1:
                skips.append(x)
                x = torch.nn.functional.max_pool2d(x, 2)
        while skips:
            i = next(count)
            weight, bias = (state[f"net.block{i}.0.{n}"] for n in ("weight", "bias"))
            up = torch.nn.functional.conv_transpose2d(x, weight, bias, stride=2)
            parts = [up, skips.pop()]
            x = torch.cat(parts if concat == "up-first" else parts[::-1], 1)
            x = torch.relu(conv(torch.relu(conv(x))))
        return conv(x)[0, 0].numpy()

    paths, wanted = [], {}
    for branch in BRANCHES:
        state = foreign_state(two[branch], WIDTHS)
        if seen == "0..255":
            state["net.block0.0.weight"] /= 255
        paths.append(tmp_path / f"{branch}.pt")
        torch.save(state, paths[-1])
        wanted[branch] = forward(state)
    mapping = tmp_path / "map.json"
    # Only what differs from the published network has to be said.
    said = {"concat": concat} if seen == "0..1" else {"input": seen, "concat": concat}
    mapping.write_text(json.dumps(said))
    runtime = TorchRuntime("cpu")
    runtime.load(open_foreign(*paths, mpp=0.25, mapping=mapping))
    maps = runtime.run(Field(rgb, 0.25))
    np.testing.assert_allclose(maps.distance, wanted["distance"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(maps.semantic, 1 / (1 + np.exp(-wanted["semantic"])), atol=1e-5)
    runtime.load(open_foreign(*paths, mpp=0.25))
    same = np.allclose(runtime.run(Field(rgb, 0.25)).distance, wanted["distance"], atol=1e-3)
    assert same == (concat == "up-first" and seen == "0..1"), "the option would change nothing"


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"semantic": 3}', '{"semantic": {"head": 3}}', '{"semantic": {"head": "x"}}',
     '{"semantic": {}}', '{"other": {}}', '{"semantic": {}, "input": "-1..1"}', "[" * 5000,
     '{"concat": "sideways"}', '{"concat": 3}', '{"input": []}', '{"input": "0..1", "mpp": 1}'],
)  # fmt: skip
def test_wrong_maps(tmp_path, two, content):
    path = tmp_path / "s.pt"
    torch.save(foreign_state(two["semantic"], WIDTHS), path)
    (tmp_path / "map.json").write_text(content)
    assert "map" in refused(path, path, mapping=tmp_path / "map.json").lower()
    assert "map" in refused(path, path, mapping=tmp_path / "missing.json").lower()


@pytest.mark.parametrize("kind", ["batch norm", "5x5", "one conv less", "two heads", "nan", "int"])
def test_what_is_another_network_is_refused(tmp_path, two, kind):
    state = foreign_state(two["semantic"], WIDTHS)
    keys = list(state)
    if kind == "batch norm":
        state["net.bn.weight"] = state["net.bn.running_mean"] = torch.ones(2)
    elif kind == "5x5":
        state[keys[2]] = torch.ones(2, 2, 5, 5)
    elif kind == "one conv less":
        del state[keys[2]], state[keys[3]]
    elif kind == "two heads":
        state["net.aux.weight"], state["net.aux.bias"] = torch.ones(1, 2, 1, 1), torch.ones(1)
    elif kind == "nan":
        state[keys[0]] = state[keys[0]] * float("nan")
    elif kind == "int":
        state["net.n"] = torch.ones(1, dtype=torch.int64)
    path = tmp_path / "s.pt"
    torch.save(state, path)
    assert "s.pt" in refused(path, path)


def test_hdf5_that_reaches_out_of_its_file_is_refused(tmp_path, two):
    write_keras(tmp_path / "secret.h5", two["semantic"], WIDTHS, 3)
    good = tmp_path / "good.h5"
    write_keras(good, two["distance"], WIDTHS, 3)

    def external(root):
        del root["layers/conv2d/vars/0"]
        root["layers/conv2d/vars/0"] = h5py.ExternalLink("secret.h5", "layers/conv2d/vars/0")

    def soft(root):
        del root["layers/conv2d/vars/0"]
        root["layers/conv2d/vars/0"] = h5py.SoftLink("/layers/conv2d_1/vars/0")

    def virtual(root):
        del root["layers/conv2d/vars/1"]
        layout = h5py.VirtualLayout((2,), "f4")
        layout[:] = h5py.VirtualSource("secret.h5", "layers/conv2d/vars/1", (2,))
        root.create_virtual_dataset("layers/conv2d/vars/1", layout)

    def outside(root):
        del root["layers/conv2d/vars/1"]
        root.create_dataset(
            "layers/conv2d/vars/1", (2,), "f4", external=[(str(tmp_path / "secret.h5"), 0, 8)]
        )

    def huge(root):
        root.create_dataset("layers/zzz/vars/0", (70_000_000,), "f4", chunks=(1000,))

    def text(root):
        root["layers/zzz/vars/0"] = "text"

    for harm in (external, soft, virtual, outside, huge, text):
        path = tmp_path / "bad.h5"
        write_keras(path, two["semantic"], WIDTHS, 3, extra=harm)
        assert "bad.h5" in refused(path, good), harm.__name__


@pytest.mark.parametrize("name", ["x.h5", "x.keras", "x.pt", "x.safetensors", "x.txt"])
def test_damaged_and_unknown_files(tmp_path, name, two):
    path = tmp_path / name
    path.write_bytes(b"\xff\xd8\xff\xe0 a renamed JPEG" * 9)
    assert name in refused(path, path)
    assert name in refused(tmp_path / "missing" / name)


def test_load_says_how_to_open_a_single_branch(tmp_path, two):
    torch.save(foreign_state(two["semantic"], WIDTHS), tmp_path / "s.pt")
    write_keras(tmp_path / "s.h5", two["semantic"], WIDTHS)
    for name in ("s.pt", "s.h5"):
        with pytest.raises(InputError) as caught:
            load(tmp_path / name)
        assert is_one_line(caught.value)
        assert "nucprune convert" in str(caught.value)


def test_convert_by_command(tmp_path, two, capsys):
    for branch in BRANCHES:
        write_keras(tmp_path / f"{branch}.h5", two[branch], WIDTHS)
    s, d, out = (str(tmp_path / n) for n in ("semantic.h5", "distance.h5", "out.safetensors"))
    assert main(["convert", s, d, "-o", out, "--mpp", "0.5"]) == 0
    assert "2-3-5" in capsys.readouterr().out
    found = load(out)
    check(found, two)
    assert found.mpp == 0.5
    assert main(["convert", s, "--keys"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 2 * len(forward_order(WIDTHS))
    assert "conv2d/conv2d/kernel:0" in listed[0]
    for wrong in (["convert", s, d], ["convert", s, "-o", out], ["convert", d + "x", s, "-o", out],
                  ["convert", s, d, "-o", out, "--mpp", "-1"], ["convert", s, d, "-o", out + ".pt"],
                  ["info", s], ["segment", "x.png", "-o", "o", "--checkpoint", s]):  # fmt: skip
        assert main(wrong) == 2, wrong
        said = capsys.readouterr().err.strip()
        assert said.startswith("nucprune: ")
        assert len(said.splitlines()) == 1


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


def test_open_asks_for_the_second_branch_and_the_pixel_size(tmp_path, two, qtbot, monkeypatch):
    from qtpy.QtWidgets import QFileDialog, QInputDialog, QWidget

    from napari_nucprune.widgets.opening import Opening

    for branch in BRANCHES:
        write_keras(tmp_path / f"my_{branch}.h5", two[branch], WIDTHS)
    answers, titles = [], []

    def answer(parent, title, *rest):
        titles.append(title)
        return answers.pop(0), ""

    monkeypatch.setattr(QFileDialog, "getOpenFileName", answer)
    monkeypatch.setattr(QInputDialog, "getDouble", lambda *_: (0.5, True))
    parent, opening = QWidget(), Opening()
    qtbot.addWidget(parent)
    # The first one says by its name that it is the distance branch.
    answers += [str(tmp_path / "my_distance.h5"), str(tmp_path / "my_semantic.h5")]
    origin = opening.ask(parent)
    assert "open the semantic branch" in titles[-1]
    found = opening.load(origin)
    check(found, two)
    assert found.mpp == 0.5
    answers += [str(tmp_path / "my_distance.h5"), ""]
    assert opening.ask(parent) is None
    answers += [str(tmp_path / "my_distance.h5"), str(tmp_path / "missing.h5")]
    with pytest.raises(InputError):
        opening.ask(parent)
    # Our own need no second one; what is damaged is `load`'s to refuse.
    from napari_nucprune.checkpoint.format import save

    save(make_checkpoint(WIDTHS), tmp_path / "ours.safetensors")
    (tmp_path / "bad.h5").write_bytes(b"no")
    for name in ("ours.safetensors", "bad.h5"):
        answers.append(str(tmp_path / name))
        assert opening.ask(parent) == str(tmp_path / name)
    with pytest.raises(InputError):
        opening.load(str(tmp_path / "bad.h5"))
