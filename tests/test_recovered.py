"""Recovered weights in memory: packing, what is remembered, and the session that runs them."""

import time
from dataclasses import replace

import numpy as np
import pytest

from helpers import QUICK, TINY, equal_weights, make_checkpoint, noise
from napari_nucprune import recovered
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.errors import Cancelled, InputError
from napari_nucprune.job import Job
from napari_nucprune.preview import Session
from napari_nucprune.pruning.compact import pack, unpack
from napari_nucprune.pruning.recovery import Calibration
from napari_nucprune.pruning.strategy import Ranking, apply
from napari_nucprune.recovered import Recoveries
from napari_nucprune.runtime import torch_runtime
from napari_nucprune.runtime.auto import AutoRuntime
from napari_nucprune.samples import calibration_crops
from napari_nucprune.slides import crops
from napari_nucprune.slides.source import Source

TISSUE = Source([noise(0, 64, 64)], name="tissue")
GLASS = Source([np.full((64, 64, 3), 245, np.uint8)], name="slip")


@pytest.fixture
def checkpoint():
    return make_checkpoint(QUICK, seed=5)


@pytest.fixture
def calls(monkeypatch):
    """The prunings that were really computed."""
    calls = []
    real = Calibration.recover

    def recover(self, pruning, *rest):
        calls.append(pruning)
        return real(self, pruning, *rest)

    monkeypatch.setattr(Calibration, "recover", recover)
    return calls


def job(cr, distance=None, strategy="network-wide", source=TISSUE, key="image", recovery="slide"):
    pruning = Pruning(strategy, cr, cr if distance is None else distance)
    return Job(source, None, pruning, key, recovery=recovery)


def same_maps(a, b):
    return all(np.array_equal(getattr(a.maps, n), getattr(b.maps, n)) for n in BRANCHES)


# Packing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["network-wide", "layer-wise"])
@pytest.mark.parametrize("keep", [None, (), ("encoder.0.conv1", "distance.head")])
def test_packing_loses_nothing_and_holds_kept_values_alone(checkpoint, strategy, keep):
    masks = Ranking(checkpoint, keep).masks(pruning := Pruning(strategy, 8, 3, keep))
    pruned = apply(make_checkpoint(QUICK, seed=6), pruning, masks)
    for branch in BRANCHES:
        packed = pack(pruned, branch, masks)
        found = unpack(packed)
        assert list(found) == list(pruned.weights[branch])
        for name, array in pruned.weights[branch].items():
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(found[name], array)
        kept = sum(np.count_nonzero(mask) for mask in masks[branch].values())
        rest = sum(
            array.size
            for name, array in pruned.weights[branch].items()
            if name.removesuffix(".weight") not in masks[branch]
        )
        bits = sum(-(-mask.size // 8) for mask in masks[branch].values())
        assert packed.nbytes == 4 * (kept + rest) + bits


def test_packed_arrays_do_not_keep_others_alive(checkpoint):
    pruning = Pruning("layer-wise", 4, 4)
    masks = Ranking(checkpoint).masks(pruning)
    packed = pack(apply(checkpoint, pruning, masks), "semantic", masks)
    assert all(array.base is None for array in packed.values.values())


# What is remembered -----------------------------------------------------------------------------


def recoveries(checkpoint, limit=10**9, source=TISSUE):
    masks = Session(checkpoint).masks
    return Recoveries(checkpoint, source, "slide", False, "scope", masks, limit), masks


def test_memory_is_bounded_and_forgets_what_was_used_longest_ago(checkpoint, calls):
    unbound, masks = recoveries(checkpoint)
    four, eight, ten = (Pruning("layer-wise", cr, cr) for cr in (4, 8, 10))
    sizes = {}
    for pruning in (four, eight, ten):
        before = unbound.nbytes
        unbound.make(pruning, masks(pruning))
        sizes[pruning] = unbound.nbytes - before
        assert sizes[pruning] == unbound._bytes(masks(pruning))
    kept, _ = recoveries(checkpoint, limit=sizes[four] + sizes[eight])
    for pruning in (four, eight):
        kept.make(pruning, masks(pruning))
    assert kept.find(four) is not None  # used: the other is older now
    found = kept.make(ten, masks(ten))
    assert equal_weights(found, unbound.find(ten))
    assert kept.nbytes <= kept.limit
    assert kept.find(eight) is None
    assert kept.find(four) is not None


def test_what_was_made_last_stays_whatever_it_takes(checkpoint, calls):
    """It is what is shown: saving and whole slides take it from here."""
    kept, masks = recoveries(checkpoint, limit=10)
    four, eight = (Pruning("layer-wise", cr, cr) for cr in (4, 8))
    for pruning in (four, eight):
        made = kept.make(pruning, masks(pruning))
        assert equal_weights(kept.find(pruning), made)
    assert kept.find(four) is None


def test_only_the_missing_branch_is_recovered(checkpoint, monkeypatch):
    done = []
    real = Calibration._refitted
    monkeypatch.setattr(
        Calibration, "_refitted", lambda self, b, *rest: done.append(b) or real(self, b, *rest)
    )
    kept, masks = recoveries(checkpoint)
    first, second = Pruning("layer-wise", 8, 8), Pruning("layer-wise", 8, 4)
    before = kept.make(first, masks(first))
    assert sorted(done) == sorted(BRANCHES)
    done.clear()
    after = kept.make(second, masks(second))
    assert done == ["distance"]
    for name, array in before.weights["semantic"].items():
        np.testing.assert_array_equal(after.weights["semantic"][name], array)


def test_a_network_is_recovered_for_whoever_asks_and_not_remembered(checkpoint, calls):
    session = Session(checkpoint)
    wanted = job(8)
    found = session.recovered(wanted.pruning, wanted)
    assert len(calls) == 1
    assert session.ready(wanted) == {(1, 1)}
    session.run(wanted)
    again = session.recovered(wanted.pruning, wanted)
    assert len(calls) == 2  # that of the run, from memory now
    assert equal_weights(found, again)
    off = session.recovered(wanted.pruning, job(8, recovery="off"))
    assert equal_weights(off, apply(checkpoint, wanted.pruning, session.masks(wanted.pruning)))
    assert session.recovered(Pruning(), job(1)) is checkpoint
    with pytest.raises(InputError, match=r"glass.*switch the recovery off"):
        session.recovered(wanted.pruning, job(8, source=GLASS, key="glass"))
    with pytest.raises(Cancelled):
        session.recovered(wanted.pruning, job(8, key="other"), should_stop=lambda: True)


def test_the_first_missing_one_is_made_until_memory_is_full(checkpoint, calls):
    full, masks = recoveries(checkpoint)
    prunings = [Pruning("layer-wise", cr, cr) for cr in (8, 5, 10, 4)]
    room = sum(full._bytes(masks(p)) for p in prunings[:3])
    kept, _ = recoveries(checkpoint, limit=room)
    far = Pruning("network-wide", 8, 8)
    kept.make(far, masks(far))  # of no use here: makes room
    said = []
    for wanted in prunings[:3]:
        assert kept.make_first(prunings, lambda *step: said.append(step)) == wanted
    assert kept.make_first(prunings) is None
    assert calls == [far, *prunings[:3]]
    assert kept.nbytes <= room
    assert {step[0] for step in said} == {"Preparing CR 8", "Preparing CR 5", "Preparing CR 10"}
    beyond = Pruning("layer-wise", 10**6, 10**6)
    assert kept.make_first([beyond, Pruning(), *prunings]) is None


def test_a_branch_serves_with_any_ratio_of_the_other(checkpoint, calls):
    session = Session(checkpoint)
    for cr in (4, 16):
        session.run(job(cr))
    mixed = session.run(job(4, 16))
    assert mixed.recovery_seconds == 0
    assert len(calls) == 2
    assert session.ready(job(1)) == {(1, 1), (4, 4), (4, 16), (16, 4), (16, 16)}
    fresh = Session(checkpoint).run(job(4, 16))
    assert same_maps(mixed, fresh)


# The session ------------------------------------------------------------------------------------


def test_recovered_weights_run_and_come_from_memory_again(checkpoint, calls):
    session = Session(checkpoint)
    first = session.run(job(8))
    assert first.recovered
    assert first.recovery_seconds > 0
    assert first.note == ""
    masks = Ranking(checkpoint).masks(job(8).pruning)
    cut = crops.tissue_crops(TISSUE, checkpoint.mpp)
    wanted = Calibration(checkpoint, cut, "tissue").recover(job(8).pruning, masks)
    saved, is_recovered = session.pruned(job(8).pruning, job(8))
    assert is_recovered
    for branch in BRANCHES:
        for name, array in wanted.weights[branch].items():
            np.testing.assert_array_equal(saved.weights[branch][name], array)
    assert saved.pruning == wanted.pruning
    assert saved.pruning["recovery"]["origin"] == "tissue"
    assert saved.parent_sha256 == checkpoint.sha256
    # Other weights between, then the same again.
    off = session.run(job(8, recovery="off"))
    assert not off.recovered
    assert not same_maps(off, first)
    calls.clear()
    again = session.run(job(8))
    assert same_maps(again, first)
    assert (again.recovery_seconds, calls) == (0, [])
    dense = session.run(session.dense_job(job(8)))
    assert dense.runtime in ("torch", "onnxruntime")  # the quicker one that is installed
    for name in BRANCHES:
        wanted = getattr(Session(checkpoint).run(job(1)).maps, name)
        np.testing.assert_allclose(getattr(dense.maps, name), wanted, atol=1e-5)


def test_what_is_stored_needs_no_recovery(checkpoint, calls):
    found = Session(checkpoint).run(job(1))
    assert (found.recovered, found.note, calls) == (False, "", [])


def test_ready_is_of_one_image_strategy_and_mode(checkpoint, calls):
    session = Session(checkpoint)
    assert session.ready(job(8)) == {(1, 1)}
    assert session.prepare(job(8), [(8, 8), (4, 4)]) == (8, 8)
    assert session.prepare(job(8), [(8, 8), (4, 4)]) == (4, 4)
    assert session.prepare(job(8), [(8, 8), (4, 4)]) is None
    assert {(8, 8), (4, 4)} < session.ready(job(2))
    assert session.ready(job(8, recovery="off")) == set()
    for other in (
        job(8, strategy="layer-wise"),
        job(8, key="another image"),
        job(8, recovery="bundled"),
        job(8, source=replace(TISSUE, mpp=(0.3, 0.3))),
    ):
        assert session.ready(other) == {(1, 1)}
    # Another image drops what was kept of the first.
    session.run(job(8, key="another image"))
    assert session.ready(job(8)) == {(1, 1)}
    session.forget()
    assert session.ready(job(8, key="another image")) == {(1, 1)}


def test_preparing_stops_when_told_and_leaves_nothing_half_done(checkpoint, calls):
    session = Session(checkpoint)
    for steps in (0, 7, 60):  # in the dense responses, and in the refit
        asked = iter(range(10**6))
        with pytest.raises(Cancelled):
            session.prepare(job(8), [(8, 8)], should_stop=lambda n=steps, i=asked: next(i) >= n)
        assert session.ready(job(8)) == {(1, 1)}
    assert same_maps(session.run(job(8)), Session(checkpoint).run(job(8)))


def test_glass_is_run_without_recovery_and_says_so(checkpoint, monkeypatch):
    reads = []
    real = crops.tissue_crops
    monkeypatch.setattr(crops, "tissue_crops", lambda *a, **k: reads.append(a) or real(*a, **k))
    session = Session(checkpoint)
    for _ in range(2):
        found = session.run(job(8, source=GLASS))
        assert not found.recovered
        assert "glass" in found.note
        assert found.note.endswith("not recovered.")
        assert same_maps(found, session.run(job(8, source=GLASS, recovery="off")))
    assert session.prepare(job(8, source=GLASS), [(4, 4), (16, 16)]) is None
    assert len(reads) == 1
    _, is_recovered = session.pruned(job(8).pruning, job(8, source=GLASS))
    assert not is_recovered


def test_too_few_pixels_refuse_one_ratio_and_not_the_others(checkpoint, calls):
    small = Source([noise(1, 32, 32)], name="small")
    session = Session(checkpoint)
    found = session.run(job(2, source=small))
    assert "samples" in found.note
    assert session.prepare(job(2, source=small), [(2, 2), (32, 32)]) == (32, 32)
    assert session.prepare(job(2, source=small), [(2, 2), (32, 32)]) is None
    assert [pruning.cr_semantic for pruning in calls] == [2, 32]


def test_the_bundled_tissue_serves_an_image_of_glass(checkpoint):
    wanted = job(8, source=GLASS, recovery="bundled")
    session = Session(checkpoint)
    assert session.run(wanted).recovered
    saved, _ = session.pruned(wanted.pruning, wanted)
    assert saved.pruning["recovery"]["origin"] == "the bundled tissue"
    masks = Ranking(checkpoint).masks(wanted.pruning)
    expected = Calibration(checkpoint, calibration_crops()).recover(wanted.pruning, masks)
    for branch in BRANCHES:
        for name, array in expected.weights[branch].items():
            np.testing.assert_array_equal(saved.weights[branch][name], array)


def test_another_pixel_size_is_not_compared_with_the_old_dense_result(checkpoint):
    session = Session(checkpoint)
    session.run(job(1))
    smaller = job(4, source=replace(TISSUE, mpp=(0.5, 0.5)), recovery="off")
    session.run(smaller)
    assert session.dense(smaller) is None


def test_a_network_of_the_same_build_is_taken_without_building(checkpoint, monkeypatch):
    runtime = torch_runtime.TorchRuntime("cpu")
    runtime.load(checkpoint)
    nets = dict(runtime._nets)
    other = make_checkpoint(QUICK, seed=9)
    masks = Ranking(other).masks(Pruning("layer-wise", 4, 4))
    runtime.load(other, masks)
    assert runtime._nets == nets
    for branch in BRANCHES:
        pruned = apply(other, Pruning("layer-wise", 4, 4), masks).weights[branch]
        for name, parameter in nets[branch].named_parameters():
            np.testing.assert_array_equal(parameter.numpy(), pruned[name])
    runtime.load(make_checkpoint(TINY, seed=9))
    assert runtime._nets["semantic"] is not nets["semantic"]


def test_the_limit_holds_all_stops_of_the_bundled_network():
    total = 3_878_784 * 4
    assert 2 * sum(total / cr for cr in (2, 4, 5, 8, 10, 16, 20, 32, 64)) < recovered.LIMIT


def test_a_refusal_is_an_input_error_each_time(checkpoint):
    kept, masks = recoveries(checkpoint, source=GLASS)
    eight = Pruning("layer-wise", 8, 8)
    for _ in range(2):
        with pytest.raises(InputError, match="glass"):
            kept.make(eight, masks(eight))


def test_the_dense_network_is_timed_warm(checkpoint, monkeypatch):
    """What all is compared with is not a runtime's slow first run on a size."""
    session, fields = Session(checkpoint, "cpu"), []
    real = AutoRuntime.run

    def run(self, field, *rest):
        fields.append(field.rgb.shape)
        if len(fields) == 1:
            time.sleep(0.5)
        return real(self, field, *rest)

    monkeypatch.setattr(AutoRuntime, "run", run)
    dense = session.dense_job(job(1))
    assert session.run(dense).network_seconds < 0.5
    assert len(fields) == 2
    session.run(dense)
    assert len(fields) == 3
    session.run(job(4, recovery="off"))
    assert len(fields) == 4
    # Where it is cancelled then, the first time stands, and so do the maps.
    asked = []
    wider = session.dense_job(job(1, source=Source([noise(0, 64, 96)], name="wider"), key="wider"))

    def stop():
        asked.append(len(fields))
        return asked[-1] > 5

    assert session.run(wider, should_stop=stop).maps.semantic.shape == (64, 96)
    assert len(fields) == 6
