"""Other people's checkpoints that do not fit as they are: refused, or said by a map."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch

from foreign_helpers import WIDTHS, check, foreign_state, forward_order, refused, two, write_keras
from napari_nucprune.checkpoint.foreign import open_foreign
from napari_nucprune.doors import BRANCHES, Field
from napari_nucprune.runtime.torch_runtime import TorchRuntime

__all__ = ["two"]


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
