from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import (
    PUBLISHED,
    QUICK,
    TINY,
    equal_weights,
    few,
    is_one_line,
    make_checkpoint,
    shapes_by_hand,
)
from napari_nucprune.checkpoint import architecture, shipped
from napari_nucprune.checkpoint import format as files
from napari_nucprune.checkpoint.unet import WIDTHS, UNet, build
from napari_nucprune.doors import BRANCHES, Merge, Pruning
from napari_nucprune.errors import EnvironmentStopped, InputError
from napari_nucprune.pruning.strategy import Ranking, apply

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the architecture ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("licence", "expected"),
    [("CC BY-NC-SA 4.0", True), ("CC BY-NC 4.0", True), ("CC BY 4.0", False), ("CC0", False),
     ("NCSA", False), ("not stated", False)],
)  # fmt: skip
def test_data_for_research_make_weights_for_research(licence, expected):
    data = [{"layout": "tnbc", "licence": "CC BY 4.0"}, {"layout": "x", "licence": licence}]
    checkpoint = make_checkpoint(TINY)
    assert replace(checkpoint, provenance={"data": data}).for_research_only == expected


def test_parameter_counts_are_the_published_ones():
    net = UNet()
    weights = sum(p.numel() for n, p in net.named_parameters() if n.endswith("weight"))
    biases = sum(p.numel() for n, p in net.named_parameters() if n.endswith("bias"))
    assert (weights, biases, weights + biases) == (1_939_392, 1_713, 1_941_105)
    layers = architecture.layers(PUBLISHED)
    assert tuple(WIDTHS) == PUBLISHED
    assert sum(layer.size for layer in layers) == 1_939_392
    assert sum(layer.outputs for layer in layers) == 1_713


def macs_by_hooks(net, side):
    """Multiply-adds of a forward pass, counted where they happen."""
    total = 0

    def count(module, inputs, output):
        nonlocal total
        if isinstance(module, torch.nn.ConvTranspose2d):
            # Every input position meets every weight once.
            total += inputs[0].shape[-1] * inputs[0].shape[-2] * module.weight.numel()
        else:
            total += output.shape[-1] * output.shape[-2] * module.weight.numel()

    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        net(torch.zeros(1, 3, side, side))
    return total


@pytest.mark.parametrize("widths", [PUBLISHED, QUICK, TINY, (3, 5, 7)])
def test_macs_from_the_plain_layers_are_those_of_the_module(widths):
    side = 64
    per_pixel = sum(x.size * x.positions for x in architecture.layers(widths))
    assert per_pixel * side**2 == macs_by_hooks(UNet(widths), side)
    if widths == PUBLISHED:
        assert round(per_pixel * 512**2 / 1e9, 1) == 12.1


@settings(few, max_examples=15)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=6))
def test_shapes_are_those_of_the_module_in_order(widths):
    state = UNet(widths).state_dict()
    expected = architecture.expected_shapes(widths)
    assert {n: tuple(t.shape) for n, t in state.items()} == expected == shapes_by_hand(widths)
    assert architecture.widths_of(state) == tuple(widths)
    # The forward order: encoder, then up and decoder by turns, then the head.
    assert list(expected) == list(shapes_by_hand(widths))
    calls = []
    net = UNet(widths)
    for name, module in net.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    side = 2 ** (len(widths) - 1)
    with torch.inference_mode():
        net(torch.zeros(1, 3, side, side))
    assert calls == [layer.name for layer in architecture.layers(widths)]


def test_the_forward_pass_is_the_published_one():
    """Against a second implementation with plain numpy-style torch calls."""
    checkpoint = make_checkpoint((3, 4, 5), seed=5)
    w = {k: torch.from_numpy(v).double() for k, v in checkpoint.weights["distance"].items()}
    x = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (1, 3, 12, 20)))

    def conv(name, x):
        kernel = w[f"{name}.weight"]
        out = torch.zeros(1, kernel.shape[0], *x.shape[2:], dtype=torch.float64)
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        for i in range(3):
            for j in range(3):
                part = padded[:, :, i : i + x.shape[2], j : j + x.shape[3]]
                out += torch.einsum("oc,nchw->nohw", kernel[:, :, i, j], part)
        return (out + w[f"{name}.bias"][None, :, None, None]).clamp(min=0)

    def up(name, x):
        kernel = w[f"{name}.weight"]
        out = torch.zeros(1, kernel.shape[1], 2 * x.shape[2], 2 * x.shape[3], dtype=torch.float64)
        for i in range(2):
            for j in range(2):
                out[:, :, i::2, j::2] = torch.einsum("co,nchw->nohw", kernel[:, :, i, j], x)
        return out + w[f"{name}.bias"][None, :, None, None]

    def pool(x):
        n, c, h, v = x.shape
        return x.reshape(n, c, h // 2, 2, v // 2, 2).amax(dim=(3, 5))

    def block(name, x):
        return conv(f"{name}.conv2", conv(f"{name}.conv1", x))

    e0 = block("encoder.0", x / 255)
    e1 = block("encoder.1", pool(e0))
    e2 = block("encoder.2", pool(e1))
    d0 = block("decoder.0", torch.cat([up("up.0", e2), e1], 1))
    d1 = block("decoder.1", torch.cat([up("up.1", d0), e0], 1))
    wanted = torch.einsum("oc,nchw->nohw", w["head.weight"][:, :, 0, 0], d1) + w["head.bias"]
    found = build(checkpoint.weights["distance"])(x.float())
    assert wanted.std() > 0.1, "the test's network is too tame to tell anything"
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=1e-5 * float(wanted.abs().max()))


# --- our own files ------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [TINY, QUICK])
def test_round_trip_is_bit_exact_with_metadata(widths, tmp_path):
    checkpoint = make_checkpoint(widths, seed=1, parent_sha256="ab" * 32)
    checkpoint.weights["semantic"]["head.bias"][0] = np.float32(-0.0)
    checkpoint.weights["distance"]["head.bias"][0] = np.float32(1e-42)  # subnormal
    path = tmp_path / "a.safetensors"
    files.save(checkpoint, path)
    loaded = files.load(path)
    assert equal_weights(loaded, checkpoint)
    assert loaded.sha256 == checkpoint.sha256
    for key in ("name", "mpp", "merge", "distance_unit_um", "provenance", "pruning"):
        assert getattr(loaded, key) == getattr(checkpoint, key), key
    assert loaded.parent_sha256 == "ab" * 32
    assert loaded.merge == Merge(0.8125, 0.4375, 1.125, 2.3)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert files.load(path, mpp=0.5).mpp == 0.5


def test_pruning_state_survives(tiny, tmp_path):
    pruning = Pruning("network-wide", 2, 3, ("head", "semantic.up.0"))
    ranking = Ranking(tiny, pruning.keep)
    pruned = apply(tiny, pruning, ranking.masks(pruning))
    path = tmp_path / "p.safetensors"
    files.save(pruned, path)
    loaded = files.load(path)
    assert equal_weights(loaded, pruned)
    assert loaded.parent_sha256 == tiny.sha256
    assert loaded.pruning["strategy"] == "network-wide"
    assert list(loaded.pruning["keep"]) == ["head", "semantic.up.0"]
    assert loaded.own_cr == pruned.own_cr
    again = tmp_path / "again.safetensors"
    files.save(loaded, again)
    assert again.stat().st_size == path.stat().st_size
    assert files.load(again).pruning == loaded.pruning


def test_sha256_depends_on_every_tensor(tiny):
    seen = {tiny.sha256}
    for branch in BRANCHES:
        for name in tiny.weights[branch]:
            weights = {b: dict(w) for b, w in tiny.weights.items()}
            changed = weights[branch][name].copy()
            changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
            weights[branch][name] = changed
            seen.add(replace(tiny, weights=weights).sha256)
    assert len(seen) == 1 + 2 * len(tiny.weights["semantic"])
    swapped = {"semantic": tiny.weights["distance"], "distance": tiny.weights["semantic"]}
    assert replace(tiny, weights=swapped).sha256 not in seen
    assert replace(tiny, name="other", mpp=0.5).sha256 == tiny.sha256


def test_a_checkpoint_may_be_read_by_whom_any_new_file_may(saved, tmp_path):
    (tmp_path / "other").touch()
    assert saved.stat().st_mode == (tmp_path / "other").stat().st_mode


@few
@given(
    name=st.text(max_size=30),
    note=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
    mpp=st.floats(0.01, 99),
    widths=st.lists(st.integers(1, 12), min_size=2, max_size=4),
)
def test_saved_bytes_is_the_file_size(name, note, mpp, widths, tmp_path):
    checkpoint = make_checkpoint(tuple(widths), name=name, provenance=note, mpp=mpp)
    path = tmp_path / "x.safetensors"
    files.save(checkpoint, path)
    assert files.saved_bytes(checkpoint) == path.stat().st_size
    assert files.load(path).name == name


@pytest.mark.parametrize("strategy", ["layer-wise", "network-wide"])
def test_saved_bytes_of_a_pruned_one(strategy, tmp_path):
    checkpoint = make_checkpoint(QUICK)
    pruning = Pruning(strategy, 16, 5)
    pruned = apply(checkpoint, pruning, Ranking(checkpoint).masks(pruning))
    path = tmp_path / "x.safetensors"
    files.save(pruned, path)
    assert files.saved_bytes(pruned) == path.stat().st_size


def test_anybody_can_load_it_in_six_lines(tmp_path):
    checkpoint = make_checkpoint(PUBLISHED, seed=2)
    path = tmp_path / "he.safetensors"
    files.save(checkpoint, path)
    x = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (1, 3, 48, 32)).astype("f4"))

    from safetensors.torch import load_file as load_tensors

    tensors = load_tensors(path)
    for branch in BRANCHES:
        net = UNet()
        prefix = f"{branch}."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        net.load_state_dict(own)
        with torch.inference_mode():
            found = net.eval()(x)
            wanted = build(checkpoint.weights[branch])(x)
        assert found.std() > 0.01
        assert torch.equal(found, wanted)


def test_the_bundled_names(monkeypatch, tmp_path, tiny):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    for name in ("aa", shipped.DEFAULT, "zz"):
        files.save(tiny, tmp_path / f"{name}.safetensors")
    assert shipped.names() == [shipped.DEFAULT, "aa", "zz"]
    assert equal_weights(shipped.open_checkpoint("aa"), tiny)
    with pytest.raises(InputError, match="neither a bundled checkpoint") as caught:
        shipped.open_checkpoint("nope")
    assert is_one_line(caught.value)


# --- saving where it cannot be done -------------------------------------------------------------


def stopped(checkpoint, path):
    with pytest.raises(EnvironmentStopped) as caught:
        files.save(checkpoint, path)
    assert is_one_line(caught.value)
    assert caught.value.exit_code == 3


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_saving_into_no_folder(tiny, tmp_path):
    stopped(tiny, tmp_path / "missing" / "x.safetensors")
    assert everything(tmp_path) == []


def test_saving_below_a_file(tiny, tmp_path):
    (tmp_path / "file").write_text("mine")
    stopped(tiny, tmp_path / "file" / "x.safetensors")
    assert everything(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_saving_onto_a_folder(tiny, tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    stopped(tiny, tmp_path / "x.safetensors")
    assert everything(tmp_path) == ["x.safetensors"]


def test_a_full_disk_keeps_the_old_file(tiny, saved, monkeypatch):
    before = saved.read_bytes()

    def full(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    stopped(make_checkpoint(TINY, seed=8), saved)
    assert saved.read_bytes() == before
    assert everything(saved.parent) == [saved.name]


def test_a_move_that_fails_keeps_the_old_file(tiny, saved, monkeypatch):
    before = saved.read_bytes()

    def no(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("napari_nucprune.files.os.replace", no)
    stopped(make_checkpoint(TINY, seed=8), saved)
    assert saved.read_bytes() == before
    assert everything(saved.parent) == [saved.name]


def test_saving_over_an_old_file_replaces_it(tiny, saved):
    other = make_checkpoint(TINY, seed=8)
    files.save(other, saved)
    assert equal_weights(files.load(saved), other)


def test_only_safetensors_are_written(tiny, tmp_path):
    with pytest.raises(InputError, match=r"\.safetensors"):
        files.save(tiny, tmp_path / "x.pt")
    assert everything(tmp_path) == []
