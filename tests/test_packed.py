"""Packed checkpoints: nothing lost, and small enough."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import QUICK, TINY, equal_weights, is_one_line, make_checkpoint
from napari_nucprune import native
from napari_nucprune.checkpoint import coding, packed
from napari_nucprune.checkpoint.format import load, save
from napari_nucprune.checkpoint.shipped import open_checkpoint
from napari_nucprune.cli import main
from napari_nucprune.doors import BRANCHES, Field, Pruning
from napari_nucprune.errors import InputError
from napari_nucprune.pruning.cost import packed_size
from napari_nucprune.pruning.strategy import Ranking, apply
from napari_nucprune.runtime.auto import open_runtime
from packed_helpers import pruned, sparse, written, zstd

__all__ = ["sparse", "written"]


def decoded(coded, total, dtype):
    """What `coding` makes of what it wrote."""
    gaps, values, kept, entries = coded
    return coding.decode(total, (gaps, values), (entries, kept), dtype, dtype.itemsize - 1)


def decoded_by_hand(coded, total, dtype):
    """The format as it is written down, one byte after the other."""
    gaps, values, kept, entries = coded
    raw = kept * (dtype.itemsize - 1)
    planes = values[:raw].tobytes() + zstd.decompress(values[raw:].tobytes())
    numbers = [bytes(planes[p * kept + i] for p in range(dtype.itemsize)) for i in range(kept)]
    width = 8 * dtype.itemsize
    bits = [int.from_bytes(n, "little") for n in numbers]
    bits = [(n >> 1) | ((n & 1) << (width - 1)) for n in bits]
    numbers = [np.frombuffer(n.to_bytes(dtype.itemsize, "little"), dtype)[0] for n in bits]
    out, place = [0.0] * total, -1
    if entries is None:
        for place in range(total):
            if gaps[place // 8] >> place % 8 & 1:
                out[place] = numbers.pop(0)
        assert not numbers
        return np.array(out, np.float32)
    for step in zstd.decompress(gaps.tobytes()):
        if step == 0:
            place += 255
        else:
            place += step
            out[place] = numbers.pop(0)
    assert not numbers
    return np.array(out, np.float32)


@settings(max_examples=25, deadline=None)
@given(st.data())
@pytest.mark.parametrize("dtype", list(packed.DTYPES.values()))
def test_any_vector_comes_back(dtype, data):
    size = data.draw(st.integers(0, 1500))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    flat = np.zeros(size, np.float32)
    # Distances of 254 to 256, 510 and 511 are where the bytes end.
    steps = data.draw(
        st.lists(st.sampled_from([1, 2, 7, 254, 255, 256, 510, 511, 900]), max_size=9)
    )
    places = np.cumsum(steps, dtype=int) - 1
    places = places[places < size]
    flat[places] = rng.standard_normal(len(places)).astype(dtype)
    with mock.patch.object(coding, "DENSE", data.draw(st.sampled_from([0, coding.DENSE, 1]))):
        coded = coding.encode(flat, dtype)
    np.testing.assert_array_equal(decoded_by_hand(coded, size, dtype), flat)
    np.testing.assert_array_equal(decoded(coded, size, dtype), flat)
    with mock.patch.object(native, "is_available", return_value=False):
        plain = decoded(coded, size, dtype)
    np.testing.assert_array_equal(plain, flat)


@pytest.mark.parametrize("density", [0.9, 0.1, 0.002])
def test_more_than_one_chunk_comes_back(density, monkeypatch):
    monkeypatch.setattr(coding, "CHUNK", 7)
    rng = np.random.default_rng(4)
    dtype = np.dtype("<f4")
    flat = (rng.standard_normal(5000) * (rng.random(5000) < density)).astype(dtype)
    for dense in (0, 1):
        monkeypatch.setattr(coding, "DENSE", dense)
        coded = coding.encode(flat, dtype)
        assert (coded[-1] is None) == (dense == 0)
        for here in (True, False):
            monkeypatch.setattr(native, "is_available", lambda here=here: here)
            np.testing.assert_array_equal(decoded(coded, 5000, dtype), flat)


@pytest.mark.parametrize("dtype", list(packed.DTYPES.values()))
def test_every_kind_of_number_comes_back(dtype):
    """All finite ones of half precision, subnormal ones too; of single precision some of all."""
    bits = np.arange(2**16, dtype=np.uint32) * (1 if dtype.itemsize == 2 else 2**16 + 1)
    flat = bits.astype(f"<u{dtype.itemsize}").view(dtype).astype(np.float32)
    flat = flat[np.isfinite(flat) & (flat != 0)]
    np.testing.assert_array_equal(decoded(coding.encode(flat, dtype), len(flat), dtype), flat)


@pytest.mark.parametrize("dtype", [np.dtype("<f4"), np.dtype("<f2")], ids=str)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_damage(dtype, value):
    flat = np.array([0, 1.5, value, -2], np.float32)
    with pytest.raises(coding.Damaged, match="not finite"):
        decoded(coding.encode(flat, dtype), 4, dtype)


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize(
    ("size", "kept"), [(8, 3), (9, 4), (9, 2)], ids=["over the end", "too few", "too many"]
)
@pytest.mark.parametrize(("dense", "what"), [(1, "gaps"), (0, "bits")])
def test_places_that_lead_elsewhere_are_damage(dense, what, here, size, kept, monkeypatch):
    monkeypatch.setattr(native, "is_available", lambda: here)
    monkeypatch.setattr(coding, "DENSE", dense)
    flat = np.zeros(9, np.float32)
    flat[[0, 4, 8]] = 1, 2, 3
    gaps, values, _, entries = coding.encode(flat, np.dtype("<f4"))
    if kept != 3:
        _, values, *_ = coding.encode(np.ones(kept, np.float32), np.dtype("<f4"))
    with pytest.raises(coding.Damaged, match=what):
        decoded((gaps, values, kept, entries), size, np.dtype("<f4"))


@pytest.mark.parametrize("widths", [TINY, QUICK])
@pytest.mark.parametrize("strategy", ["layer-wise", "network-wide"])
def test_nothing_is_lost(widths, strategy, tmp_path):
    path = tmp_path / "p.safetensors"
    dense = make_checkpoint(widths, seed=1)
    most = min(Ranking(dense).branches[b].largest_cr for b in BRANCHES)
    for cr in (1, 1.5, min(most, 20)):
        wanted = pruned(dense, cr, strategy)
        save(wanted, path, "lossless")
        found = load(path)
        assert equal_weights(found, wanted)
        assert found == replace(wanted, weights=found.weights)
        assert found.sha256 == wanted.sha256
        assert packed_size(wanted).file == path.stat().st_size
        plain = tmp_path / "plain.safetensors"
        save(wanted, plain)
        assert packed_size(wanted).dense_file == plain.stat().st_size


def test_minus_zero_is_zero(tmp_path):
    dense = make_checkpoint(QUICK)
    weights = {b: {n: np.array(a) for n, a in w.items()} for b, w in dense.weights.items()}
    for branch in BRANCHES:
        weights[branch]["encoder.1.conv1.weight"][...] = -0.0
    with_minus = replace(dense, weights=weights)
    save(with_minus, tmp_path / "p.safetensors", "lossless")
    found = load(tmp_path / "p.safetensors")
    assert not np.signbit(found.weights["semantic"]["encoder.1.conv1.weight"]).any()
    assert found.sha256 == with_minus.sha256
    # A product with a mask would leave them.
    made = pruned(dense, 4).weights["semantic"]["encoder.1.conv1.weight"]
    assert not np.signbit(made[made == 0]).any()


def test_nothing_left_at_all(tmp_path):
    dense = make_checkpoint(TINY)
    empty = {
        b: {n: np.zeros_like(a) if n.endswith("weight") else a for n, a in w.items()}
        for b, w in dense.weights.items()
    }
    save(replace(dense, weights=empty), tmp_path / "p.safetensors", "lossless")
    assert equal_weights(load(tmp_path / "p.safetensors"), replace(dense, weights=empty))


def test_the_bundled_network_gets_smaller_than_its_compression_ratio():
    ranking = Ranking(open_checkpoint())
    for strategy in ("layer-wise", "network-wide"):
        for cr, factor in ((5, 1), (16, 1), (20, 0.97), (32, 0.97)):
            pruning = Pruning(strategy, cr, cr)
            size = packed_size(apply(ranking.checkpoint, pruning, ranking.masks(pruning)))
            assert size.ratio >= factor * cr
            assert size.weights == 4 * 3_878_784
            assert 0.9 * size.ratio < size.file_ratio < size.ratio


def test_half_precision(sparse, tmp_path):
    path = tmp_path / "half.safetensors"
    save(sparse, path, "half")
    found = load(path)
    for branch in BRANCHES:
        for name, array in sparse.weights[branch].items():
            wanted = array
            if name.endswith(".weight"):
                wanted = array.astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(found.weights[branch][name], wanted)
    assert found.parent_sha256 == sparse.parent_sha256
    assert packed.values_of(path) == "float16"
    # Rounded once, it stays as it is.
    save(found, path, "half")
    assert equal_weights(load(path), found)
    assert path.stat().st_size == packed_size(sparse, "half").file


def test_what_half_precision_cannot_hold(tmp_path):
    dense = make_checkpoint(TINY)
    dense.weights["distance"]["head.weight"][...] = 7e4
    with pytest.raises(InputError, match="65504") as caught:
        save(dense, tmp_path / "half.safetensors", "half")
    assert is_one_line(caught.value)
    assert not list(tmp_path.iterdir())


def test_it_runs_as_the_plain_one_does(sparse, written, tmp_path):
    plain = tmp_path / "plain.safetensors"
    save(sparse, plain)
    field = Field(np.random.default_rng(1).integers(0, 256, (64, 80, 3), np.uint8), 0.25)
    for name in ("torch", "sparse"):
        maps = []
        for path in (plain, written):
            runtime = open_runtime(name, "cpu", 1)
            runtime.load(load(path))
            maps.append(runtime.run(field))
        for branch in BRANCHES:
            np.testing.assert_array_equal(getattr(maps[0], branch), getattr(maps[1], branch))


# The command line -----------------------------------------------------------------------------


def test_on_the_command_line(quick, tmp_path, capsys):
    files = {}
    for option in ("", "--packed", "--fp16"):
        files[option] = tmp_path / f"out{option}.safetensors"
        arguments = ["prune", "full", "--cr", "8", "-o", str(files[option])]
        assert main([*arguments, *filter(None, [option])]) == 0
        printed = capsys.readouterr().out
        assert ("values and positions" in printed) == bool(option)
    plain, lossless, half = (load(path) for path in files.values())
    assert equal_weights(plain, lossless)
    assert plain.pruning == lossless.pruning == half.pruning
    sizes = [path.stat().st_size for path in files.values()]
    assert sizes[0] > sizes[1] > sizes[2]
    for option, kind in (("", "plain"), ("--packed", "float32"), ("--fp16", "float16")):
        assert main(["info", str(files[option])]) == 0
        printed = capsys.readouterr().out
        assert kind in next(line for line in printed.splitlines() if line.startswith("file"))
        size = packed_size(load(files[option]))
        assert f"{size.ratio:.2f} times less" in printed
        assert f"{size.file_ratio:.2f} times less" in printed
