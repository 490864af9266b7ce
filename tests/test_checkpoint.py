import json
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from helpers import (
    PUBLISHED,
    QUICK,
    TINY,
    equal_weights,
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

quick = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def flat(checkpoint):
    return {
        f"{branch}.{name}": array.copy()
        for branch in BRANCHES
        for name, array in checkpoint.weights[branch].items()
    }


def refused(path, **options):
    with pytest.raises(InputError) as caught:
        files.load(path, **options)
    assert is_one_line(caught.value), str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.fixture
def tiny():
    return make_checkpoint(TINY, seed=3)


@pytest.fixture
def saved(tiny, tmp_path):
    path = tmp_path / "tiny.safetensors"
    files.save(tiny, path)
    return path


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


@settings(quick, max_examples=15)
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


@quick
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


# --- damaged and hostile safetensors ------------------------------------------------------------


def test_cut_off_anywhere(saved, tmp_path):
    data = saved.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    cuts = {0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(data) - 1}
    cuts |= set(np.linspace(0, len(data) - 1, 40).astype(int).tolist())
    path = tmp_path / "cut.safetensors"
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        assert "cut.safetensors" in refused(path), cut


def test_bytes_too_many(saved):
    saved.write_bytes(saved.read_bytes() + b"\0" * 64)
    refused(saved)


@quick
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".safetensors", ".pt", ".pth"]))
def test_random_bytes(content, suffix, tmp_path):
    path = tmp_path / f"random{suffix}"
    path.write_bytes(content)
    refused(path)


@settings(quick, max_examples=60)
@given(data=st.data())
def test_flipped_header_bytes_load_equal_or_are_refused(data, tiny, tmp_path):
    path = tmp_path / "flip.safetensors"
    files.save(tiny, path)
    content = bytearray(path.read_bytes())
    header = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        loaded = files.load(path)
    except InputError as error:
        assert is_one_line(error)
    else:
        assert loaded.weights["semantic"].keys() == tiny.weights["semantic"].keys()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".PT"])
def test_a_photograph_with_our_ending(suffix, tmp_path):
    from PIL import Image

    path = tmp_path / f"photo{suffix}"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path, format="JPEG")
    refused(path)
    path.write_bytes(b"")
    refused(path)


def test_what_is_no_checkpoint_file(tmp_path):
    assert "not a file" in refused(tmp_path / "missing.safetensors")
    assert "not a file" in refused(tmp_path)
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"x")
    assert ".safetensors" in refused(path)


def broken(change):
    tensors = flat(make_checkpoint(TINY))
    change(tensors)
    return tensors


def _set(name, value):
    return lambda tensors: tensors.__setitem__(name, value)


def _fill(name, value):
    def change(tensors):
        tensors[name].flat[tensors[name].size // 2] = value

    return change


BREAKS = {
    "transposed": (_set("semantic.up.0.weight", np.zeros((2, 3, 2, 2), np.float32)), "up.0"),
    "flat": (_set("semantic.encoder.0.conv1.weight", np.zeros(54, np.float32)), "semantic"),
    "short-bias": (_set("distance.head.bias", np.zeros(0, np.float32)), "distance.head.bias"),
    "scalar-bias": (_set("distance.head.bias", np.zeros((), np.float32)), "distance.head.bias"),
    "nan": (_fill("semantic.decoder.0.conv2.weight", np.nan), "decoder.0.conv2.weight"),
    "inf": (_fill("distance.head.weight", -np.inf), "distance.head.weight"),
    "integers": (_set("semantic.head.bias", np.zeros(1, np.int64)), "head.bias"),
    "bool": (_set("semantic.head.bias", np.zeros(1, bool)), "head.bias"),
    "overflow": (_set("semantic.head.bias", np.full(1, 1e300)), "head.bias"),
    "missing": (lambda t: t.pop("semantic.head.bias"), "semantic.head.bias"),
    "extra": (_set("momentum", np.zeros(1, np.float32)), "1 tensors of no branch"),
    "extra-inside": (_set("semantic.bn.weight", np.zeros(1, np.float32)), "semantic.bn.weight"),
    "extra-newline": (_set("semantic.b\nn", np.zeros(1, np.float32)), "semantic"),
    "third-level": (
        _set("semantic.encoder.2.conv1.weight", np.zeros((2, 3, 3, 3), np.float32)),
        "semantic",
    ),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
@pytest.mark.parametrize("case", list(BREAKS))
def test_wrong_tensors(case, tmp_path):
    change, names = BREAKS[case]
    path = tmp_path / "wrong.safetensors"
    save_file(broken(change), path)
    assert names in refused(path)


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_branch_is_missing(branch, tmp_path):
    path = tmp_path / "one.safetensors"
    save_file({k: v for k, v in flat(make_checkpoint(TINY)).items() if branch not in k}, path)
    assert f"no {branch} branch" in refused(path)
    save_file({}, path)
    refused(path)


def test_a_network_without_channels(tmp_path):
    tensors = {
        f"{branch}.{name}": np.zeros(shape, np.float32)
        for branch in BRANCHES
        for name, shape in shapes_by_hand((0, 0)).items()
    }
    path = tmp_path / "empty.safetensors"
    save_file(tensors, path)
    refused(path)


def with_metadata(saved, **changes):
    from safetensors import safe_open

    with safe_open(saved, "numpy") as file:
        header = file.metadata()
    header |= changes
    save_file(load_file(saved), saved, {k: v for k, v in header.items() if v is not None})
    return saved


def test_a_future_version(saved):
    text = refused(with_metadata(saved, version="2"))
    assert "version 2" in text
    assert "update" in text


def changed(saved, **changes):
    from safetensors import safe_open

    with safe_open(saved, "numpy") as file:
        about = json.loads(file.metadata()["nucprune"])
    return json.dumps({**about, **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[1, 2]",
        "null",
        '"text"',
        '{"name": "x"',
        "{}",
        "[" * 100_000,
        '{"mpp": 1' + "0" * 400 + "}",
        '{"mpp": 1' + "0" * 5000 + "}",
    ],
    ids=lambda text: text[:12] + f"~{len(text)}",
)
def test_metadata_that_is_damaged(text, saved):
    refused(with_metadata(saved, nucprune=text))


@pytest.mark.parametrize(
    "change",
    [
        {"mpp": None},
        {"mpp": 0},
        {"mpp": -1},
        {"mpp": "wide"},
        {"mpp": float("nan")},
        {"mpp": [0.25]},
        {"merge": {"sigma": 1}},
        {"merge": {"sigma_um": "a"}},
        {"merge": {"sigma_um": -1}},
        {"merge": 3},
        {"merge": None},
        {"distance_unit_um": "x"},
        {"distance_unit_um": float("nan")},
        {"distance_unit_um": -4},
        {"provenance": "words"},
        {"provenance": 5},
        {"pruning": "layer-wise"},
        {"pruning": 5},
        {"parent_sha256": 5},
    ],
    ids=str,
)
def test_metadata_of_the_wrong_kind(change, saved):
    refused(with_metadata(saved, nucprune=changed(saved, **change)))


def test_files_without_our_metadata_say_that_the_pixel_size_is_assumed(tmp_path):
    checkpoint = make_checkpoint(TINY)
    path = tmp_path / "plain.safetensors"
    save_file(flat(checkpoint), path)
    loaded = files.load(path)
    assert equal_weights(loaded, checkpoint)
    assert (loaded.name, loaded.mpp) == ("plain", 0.25)
    assert loaded.provenance["mpp_assumed"] is True
    given_mpp = files.load(path, mpp=0.5)
    assert (given_mpp.mpp, given_mpp.provenance["mpp_assumed"]) == (0.5, False)
    refused(path, mpp=-1)


def test_half_and_double_precision_become_float32(tmp_path):
    tensors = flat(make_checkpoint(TINY))
    path = tmp_path / "half.safetensors"
    for kind in (np.float16, np.float64):
        save_file({k: v.astype(kind) for k, v in tensors.items()}, path)
        loaded = files.load(path)
        for branch in BRANCHES:
            for name, array in loaded.weights[branch].items():
                assert array.dtype == np.float32
                wanted = tensors[f"{branch}.{name}"].astype(kind).astype(np.float32)
                np.testing.assert_array_equal(array, wanted)


# --- torch files --------------------------------------------------------------------------------


class Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".PT"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("how", ["pickle", "torch", "torch-legacy", "inside"])
def test_code_in_a_file_never_runs(suffix, protocol, how, tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / f"evil{suffix}"
    bomb = Bomb(marker)
    if how == "pickle":
        path.write_bytes(pickle.dumps(bomb, protocol))
    elif how == "inside":
        tensors = {k: torch.from_numpy(v) for k, v in flat(make_checkpoint(TINY)).items()}
        torch.save({**tensors, "extra": bomb}, path, pickle_protocol=protocol)
    else:
        torch.save(
            bomb,
            path,
            pickle_protocol=protocol,
            _use_new_zipfile_serialization=how == "torch",
        )
    assert "could run code" in refused(path)
    assert not marker.exists()
    if how == "pickle":  # the bomb is live: whoever unpickles it sets it off
        pickle.loads(path.read_bytes()).close()
        assert marker.exists()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_plain_state_dicts_load_equal(nested, kind, tmp_path):
    checkpoint = make_checkpoint(TINY, seed=9)
    nets = {branch: build(checkpoint.weights[branch]).to(kind) for branch in BRANCHES}
    state = {b: n.state_dict() for b, n in nets.items()}
    if not nested:
        state = {f"{b}.{k}": v for b, own in state.items() for k, v in own.items()}
    path = tmp_path / "both.pt"
    torch.save(state, path)
    loaded = files.load(path)
    assert (loaded.name, loaded.mpp, loaded.provenance["mpp_assumed"]) == ("both", 0.25, True)
    for branch in BRANCHES:
        for name, array in checkpoint.weights[branch].items():
            wanted = torch.from_numpy(array).to(kind).float().numpy()
            np.testing.assert_array_equal(loaded.weights[branch][name], wanted)
    if kind == torch.float32:
        assert equal_weights(loaded, checkpoint)
        assert loaded.sha256 == checkpoint.sha256


def test_a_file_with_parameters_and_gradients(tmp_path):
    checkpoint = make_checkpoint(TINY)
    state = {k: torch.nn.Parameter(torch.from_numpy(v)) for k, v in flat(checkpoint).items()}
    path = tmp_path / "p.pt"
    torch.save(state, path)
    assert equal_weights(files.load(path), checkpoint)


TORCH_BREAKS = {
    "a-tensor": lambda t: torch.zeros(3),
    "a-list": lambda t: list(t.values()),
    "a-number-inside": lambda t: {**t, "epoch": 3},
    "integers": lambda t: {**t, "semantic.head.bias": torch.zeros(1, dtype=torch.int64)},
    "complex": lambda t: {**t, "semantic.head.bias": torch.zeros(1, dtype=torch.complex64)},
    "sparse": lambda t: {
        **t,
        "semantic.head.weight": t["semantic.head.weight"].to_sparse(),
    },
    "one-branch": lambda t: {k: v for k, v in t.items() if k.startswith("semantic")},
    "nan": lambda t: {**t, "semantic.head.bias": torch.tensor([float("nan")])},
    "empty": lambda t: {},
    "deep": lambda t: {"semantic": {"a": {"b": torch.zeros(1)}}},
    "no-prefix": lambda t: {k.removeprefix("semantic."): v for k, v in t.items()},
    "number-keys": lambda t: dict(enumerate(t.values())),
}


@pytest.mark.parametrize("case", list(TORCH_BREAKS))
def test_other_torch_files(case, tmp_path):
    tensors = {k: torch.from_numpy(v) for k, v in flat(make_checkpoint(TINY)).items()}
    path = tmp_path / "other.pt"
    torch.save(TORCH_BREAKS[case](tensors), path)
    assert "other.pt" in refused(path)


def test_a_torch_file_that_is_cut_off(tmp_path):
    tensors = {k: torch.from_numpy(v) for k, v in flat(make_checkpoint(TINY)).items()}
    path = tmp_path / "cut.pt"
    torch.save(tensors, path)
    data = path.read_bytes()
    for cut in np.linspace(0, len(data) - 1, 25).astype(int):
        path.write_bytes(data[:cut])
        refused(path)


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
