from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import QUICK, equal_weights, is_one_line, make_checkpoint, noise
from napari_nucprune.checkpoint.unet import UNet
from napari_nucprune.doors import BRANCHES, Field, Pruning
from napari_nucprune.errors import Cancelled, EnvironmentStopped, InputError
from napari_nucprune.pruning.strategy import Ranking, apply
from napari_nucprune.runtime import base
from napari_nucprune.runtime.tiling import Window, halo_of, pad_to_grid, windows
from napari_nucprune.runtime.torch_runtime import TorchRuntime, pick_device

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint():
    """Outputs of a standard deviation of about 1, so that 1e-5 is a real bound."""
    found = make_checkpoint(QUICK, seed=11)
    field = Field(noise(0, 64, 64), 0.25)
    for branch in BRANCHES:
        out = plain(found, branch, field.rgb)
        weights = dict(found.weights[branch])
        for name in ("head.weight", "head.bias"):
            weights[name] = (weights[name] / out.std()).astype(np.float32)
        found.weights[branch] = weights
    return found


def plain(checkpoint, branch, rgb):
    """The network as anybody would run it, on sizes that are multiples of 16."""
    net = UNet(QUICK)
    net.load_state_dict({k: torch.from_numpy(v) for k, v in checkpoint.weights[branch].items()})
    with torch.inference_mode():
        return net.eval()(torch.from_numpy(rgb).permute(2, 0, 1)[None].float())[0, 0].numpy()


def runtime_of(checkpoint, masks=None, tile=1024):
    runtime = TorchRuntime("cpu", tile)
    runtime.load(checkpoint, masks)
    return runtime


def difference(a, b):
    return max(np.abs(a.semantic - b.semantic).max(), np.abs(a.distance - b.distance).max())


# --- the maps are the network's -----------------------------------------------------------------


@pytest.mark.parametrize("crs", [None, (1, 1), (2, 3)])
def test_maps_are_those_of_a_plain_forward_pass(checkpoint, crs):
    masks, wanted_of = None, checkpoint
    if crs:
        pruning = Pruning("network-wide", *crs)
        masks = Ranking(checkpoint).masks(pruning)
        wanted_of = apply(checkpoint, pruning, masks)
    field = Field(noise(1, 48, 112), 0.25)
    maps = runtime_of(checkpoint, masks).run(field)
    logits = plain(wanted_of, "semantic", field.rgb).astype(np.float64)
    distance = plain(wanted_of, "distance", field.rgb)
    assert logits.std() > 0.1
    assert distance.std() > 0.1
    for found, wanted in ((maps.semantic, 1 / (1 + np.exp(-logits))), (maps.distance, distance)):
        assert found.dtype == np.float32
        assert found.shape == (48, 112)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert maps.mpp == 0.25
    assert maps.semantic.min() >= 0
    assert maps.semantic.max() <= 1


def test_any_size_is_reflected_at_the_bottom_and_right(checkpoint):
    runtime = runtime_of(checkpoint)
    for height, width in ((1, 1), (1, 40), (33, 2), (15, 17), (16, 31)):
        rgb = noise(2, height, width)
        maps = runtime.run(Field(rgb, 0.25))
        assert maps.semantic.shape == maps.distance.shape == (height, width)
        rows = [reflected(i, height) for i in range(-(-height // 16) * 16)]
        columns = [reflected(i, width) for i in range(-(-width // 16) * 16)]
        padded = rgb[rows][:, columns]
        np.testing.assert_array_equal(pad_to_grid(rgb, 16), padded)
        wanted = plain(checkpoint, "distance", padded)[:height, :width]
        np.testing.assert_allclose(maps.distance, wanted, atol=1e-6)


def reflected(index, length):
    """Walk back and forth between the first and the last pixel."""
    if length == 1:
        return 0
    index %= 2 * (length - 1)
    return min(index, 2 * (length - 1) - index)


# --- tiled equals untiled -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiled_and_whole(checkpoint):
    whole = runtime_of(checkpoint)
    tiled = runtime_of(checkpoint)

    def both(height, width, tile, seed=0):
        field = Field(noise(seed, height, width), 0.25)
        tiled.tile = tile
        return tiled.run(field), whole.run(field)

    return both


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    tile=st.integers(3, 12).map(lambda i: 16 * i),
    seed=st.integers(0, 9),
)
@example(height=200, width=33, tile=16, seed=0)
@example(height=1, width=193, tile=16, seed=1)
@example(height=129, width=129, tile=64, seed=2)
@example(height=240, width=272, tile=80, seed=3)
def test_tiled_equals_untiled(tiled_and_whole, height, width, tile, seed):
    tiled, whole = tiled_and_whole(height, width, tile, seed)
    assert difference(tiled, whole) <= 1e-5


@pytest.mark.parametrize("halo", [64, 80])
def test_a_smaller_halo_would_be_seen(tiled_and_whole, monkeypatch, halo):
    """Otherwise the test above could not fail."""
    monkeypatch.setattr(base, "halo_of", lambda depth: (halo, 16))
    assert difference(*tiled_and_whole(272, 272, 32)) > 1e-3


@pytest.mark.parametrize("shift", [0, 1, 2, 8])
def test_windows_off_the_grid_would_be_seen(tiled_and_whole, monkeypatch, shift):
    def shifted(shape, tile, halo, grid):
        for window in windows(shape, tile, halo, grid):
            rows, columns = window.outer
            if rows.start > 0 and rows.stop < shape[0]:
                rows = slice(rows.start - shift, rows.stop - shift)
                inside = slice(
                    *(i - rows.start for i in (window.core[0].start, window.core[0].stop))
                )
                window = Window((rows, columns), window.core, (inside, window.inner[1]))
            yield window

    # A longer halo, so that nothing but the grid is wrong.
    monkeypatch.setattr(base, "halo_of", lambda depth: (112, 16))
    monkeypatch.setattr(base, "windows", shifted)
    found = difference(*tiled_and_whole(320, 16, 16))
    assert found > 0.05 if shift else found <= 1e-5


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    tile=st.integers(1, 30).map(lambda i: 16 * i),
)
def test_windows_cover_once_and_lie_on_the_grid(height, width, tile):
    covered = np.zeros((height, width), np.uint8)
    padded = (-(-height // 16) * 16, -(-width // 16) * 16)
    for window in windows((height, width), tile, 96, 16):
        covered[window.core] += 1
        for axis, full in enumerate((height, width)):
            outer, core, inner = (w[axis] for w in (window.outer, window.core, window.inner))
            assert outer.start % 16 == outer.stop % 16 == 0
            assert 0 <= outer.start <= core.start < core.stop <= full
            assert core.stop <= outer.stop <= padded[axis]
            assert (inner.start + outer.start, inner.stop + outer.start) == (core.start, core.stop)
            # Real neighbours on both sides, counted from the core's last cell of the grid.
            assert outer.start == 0 or core.start - outer.start >= 96
            assert outer.stop == padded[axis] or outer.stop - -(-core.stop // 16) * 16 >= 96
    assert (covered == 1).all()


def test_windows_of_a_bad_tile(checkpoint):
    for tile in (0, -16, 8, 17, 1000):
        runtime = runtime_of(checkpoint, tile=tile)
        with pytest.raises(InputError, match="multiple of 16") as caught:
            runtime.run(Field(noise(0, 20, 20), 0.25))
        assert is_one_line(caught.value)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_halo_is_the_networks_own_reach(depth):
    """Weights above zero and no biases: an output changes wherever an input can reach it."""
    grid = 2 ** (depth - 1)
    net = UNet((1,) * depth)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    cells = 17
    length, start = cells * grid, cells // 2 * grid
    # One image for each column that is lit.
    lit = torch.zeros(length, 3, grid, length, dtype=torch.float64)
    lit[torch.arange(length), :, :, torch.arange(length)] = 1.0
    with torch.inference_mode():
        out = net.double()(lit)[:, 0]
    reached = (out != 0).any(dim=1).numpy()  # (lit column, output column)
    inputs = np.flatnonzero(reached[:, start : start + grid].any(axis=1))
    radius = max(start - inputs.min(), inputs.max() - (start + grid - 1))
    assert inputs.min() > 0
    assert inputs.max() < length - 1
    assert halo_of(depth) == (-(-radius // grid) * grid, grid)
    if depth == 5:
        assert radius == 94
        assert halo_of(5) == (96, 16)


def test_branches_of_different_depth_share_the_larger_grid(checkpoint):
    shallow = make_checkpoint((4, 6), seed=1)
    mixed = replace(
        checkpoint,
        weights={
            "semantic": checkpoint.weights["semantic"],
            "distance": shallow.weights["distance"],
        },
    )
    field = Field(noise(0, 130, 50), 0.25)
    whole = runtime_of(mixed).run(field)
    assert difference(runtime_of(mixed, tile=32).run(field), whole) <= 1e-5


# --- loading ------------------------------------------------------------------------------------


def test_masks_come_and_go_without_a_trace(checkpoint):
    field = Field(noise(3, 64, 48), 0.25)
    before = {b: {n: a.copy() for n, a in checkpoint.weights[b].items()} for b in BRANCHES}
    runtime = runtime_of(checkpoint)
    dense = runtime.run(field)
    for keep in (None, (), ("encoder.0.conv1", "head")):
        ranking = Ranking(checkpoint, keep)
        for strategy in ("network-wide", "layer-wise"):
            pruning = Pruning(strategy, 20, 4, keep)
            masks = ranking.masks(pruning)
            runtime.load(checkpoint, masks)
            found = runtime.run(field)
            assert difference(found, dense) > 1e-2
            fresh = runtime_of(apply(checkpoint, pruning, masks)).run(field)
            np.testing.assert_array_equal(found.semantic, fresh.semantic)
            np.testing.assert_array_equal(found.distance, fresh.distance)
    runtime.load(checkpoint, None)
    again = runtime.run(field)
    np.testing.assert_array_equal(again.semantic, dense.semantic)
    np.testing.assert_array_equal(again.distance, dense.distance)
    assert equal_weights(checkpoint, replace(checkpoint, weights=before))


def test_another_checkpoint_takes_over(checkpoint):
    field = Field(noise(3, 32, 32), 0.25)
    other = make_checkpoint(QUICK, seed=12)
    runtime = runtime_of(checkpoint, Ranking(checkpoint).masks(Pruning("layer-wise", 5, 5)))
    runtime.load(other)
    found, wanted = runtime.run(field), runtime_of(other).run(field)
    np.testing.assert_array_equal(found.semantic, wanted.semantic)
    np.testing.assert_array_equal(found.distance, wanted.distance)
    # The same weights under another pixel size.
    runtime.load(replace(other, mpp=0.5))
    with pytest.raises(InputError, match="um/px"):
        runtime.run(field)


def test_the_maps_are_the_callers_own(checkpoint):
    runtime = runtime_of(checkpoint)
    first = runtime.run(Field(noise(3, 32, 32), 0.25))
    kept = first.semantic.copy()
    runtime.run(Field(noise(4, 32, 32), 0.25))
    np.testing.assert_array_equal(first.semantic, kept)
    first.semantic[...] = 0  # writable, and no tensor of inference mode


# --- progress and cancelling --------------------------------------------------------------------


def test_progress_grows_to_its_total(checkpoint):
    calls = []
    runtime = runtime_of(checkpoint, tile=32)
    runtime.run(Field(noise(0, 70, 40), 0.25), lambda *call: calls.append(call))
    done = [call[1] for call in calls]
    assert {call[2] for call in calls} == {6}
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 6)
    assert len(set(done)) == 7
    assert all(isinstance(call[0], str) and call[0] for call in calls)


@pytest.mark.parametrize("after", [0, 1, 2, 5])
def test_cancel_is_heard_within_a_tile(checkpoint, after):
    runtime = runtime_of(checkpoint, tile=16)
    ran = []
    for branch in BRANCHES:
        runtime._nets[branch].register_forward_hook(lambda *_, b=branch: ran.append(b))
    with pytest.raises(Cancelled) as caught:
        runtime.run(Field(noise(0, 48, 48), 0.25), should_stop=lambda: len(ran) >= after)
    assert len(ran) == after
    assert caught.value.exit_code == 130
    # The runtime can go on.
    runtime.run(Field(noise(0, 16, 16), 0.25))


def test_memory_that_runs_out_is_said(checkpoint, monkeypatch):
    runtime = runtime_of(checkpoint)

    def out_of_memory(*_):
        raise torch.OutOfMemoryError("Tried to allocate\n\n17 GiB")

    runtime._nets["distance"].register_forward_hook(out_of_memory)
    with pytest.raises(EnvironmentStopped, match="memory") as caught:
        runtime.run(Field(noise(0, 16, 16), 0.25))
    assert is_one_line(caught.value)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("mpp", [0.5, 0.23, 0.27, 0.125])
def test_a_field_of_another_pixel_size(checkpoint, mpp):
    with pytest.raises(InputError, match="um/px") as caught:
        runtime_of(checkpoint).run(Field(noise(0, 16, 16), mpp))
    assert is_one_line(caught.value)


@pytest.mark.parametrize("mpp", [0.2425, 0.25, 0.2575])
def test_what_field_takes_as_equal_runs(checkpoint, mpp):
    assert runtime_of(checkpoint).run(Field(noise(0, 16, 16), mpp)).mpp == mpp


@pytest.mark.parametrize("shape", [(8192 + 2 * 112 + 1, 1), (1, 8192 + 2 * 112 + 1)])
def test_too_large(checkpoint, shape):
    with pytest.raises(InputError, match="8192") as caught:
        runtime_of(checkpoint).run(Field(np.zeros((*shape, 3), np.uint8), 0.25))
    assert is_one_line(caught.value)


def test_the_largest_runs(checkpoint):
    assert runtime_of(checkpoint).run(Field(noise(0, 8192, 1), 0.25)).semantic.shape == (8192, 1)


@pytest.mark.parametrize("device", ["gpu", "", "CPU", "cuda:0", "tpu"])
def test_an_unknown_device(device):
    with pytest.raises(InputError, match="not known") as caught:
        TorchRuntime(device)
    assert is_one_line(caught.value)


def test_devices_that_are_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == "cpu"
    for device in ("cuda", "mps"):
        with pytest.raises(InputError, match=device) as caught:
            pick_device(device)
        assert is_one_line(caught.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == "cuda"


def test_run_before_load_is_a_fault_of_ours():
    with pytest.raises(RuntimeError, match="load"):
        TorchRuntime("cpu").run(Field(noise(0, 16, 16), 0.25))


@pytest.mark.parametrize(
    ("rgb", "mpp"),
    [
        (np.zeros((4, 4), np.uint8), 0.25),
        (np.zeros((4, 4, 4), np.uint8), 0.25),
        (np.zeros((4, 4, 3), np.float32), 0.25),
        (np.zeros((0, 4, 3), np.uint8), 0.25),
        (np.zeros((4, 4, 3), np.uint8), 0.0),
        (np.zeros((4, 4, 3), np.uint8), -1.0),
        (np.zeros((4, 4, 3), np.uint8), float("nan")),
        (np.zeros((4, 4, 3), np.uint8), float("inf")),
    ],
)
def test_what_is_no_field(rgb, mpp):
    with pytest.raises(InputError) as caught:
        Field(rgb, mpp)
    assert is_one_line(caught.value)
