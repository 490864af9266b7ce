"""A result against a reference on one grid, and a sweep on a field: the core, without a viewer."""

import json

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import QUICK, is_one_line, make_checkpoint, noise
from napari_nucprune.compare.fate import fates
from napari_nucprune.compare.outcome import FATES
from napari_nucprune.difference.colours import FATE_COLOURS, rgb
from napari_nucprune.difference.compare import METRICS, Comparer
from napari_nucprune.difference.export import export
from napari_nucprune.difference.field_sweep import FieldSweep
from napari_nucprune.difference.placed import Placed, placed
from napari_nucprune.doors import Pruning
from napari_nucprune.errors import Cancelled, InputError
from napari_nucprune.job import Job
from napari_nucprune.preview import Session
from napari_nucprune.pruning.by_layer import by_layer, finest
from napari_nucprune.slides.source import Source


def blobs(seed, height, width, count=12):
    """(H, W) int32 of discs, later ones over earlier ones."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((height, width))
    labels = np.zeros((height, width), np.int32)
    for ident in range(1, count + 1):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(4, 9)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < r**2] = ident
    return labels


def at(labels, y=0.0, x=0.0, scale=1.0, name="truth"):
    transform = np.array([[scale, 0, y], [0, scale, x], [0, 0, 1.0]])
    return Placed(name, labels, transform, (name, id(labels)))


@pytest.fixture(scope="module")
def session():
    return Session(make_checkpoint(QUICK, seed=3), "cpu")


def job(rgb, mpp=None, box=None, cr=1.0, key=0):
    return Job(Source([rgb], mpp and (mpp, mpp), "tissue"), box, Pruning("layer-wise", cr, cr), key)


@pytest.mark.parametrize(("size", "mpp"), [((96, 112), 0.25), ((75, 61), 0.4), ((150, 131), 0.11)])
def test_scores_are_those_of_evaluate(session, tmp_path, size, mpp):
    from napari_nucprune.checkpoint.format import save
    from napari_nucprune.cli import main

    rgb, truth = noise(1, *size), blobs(2, *size)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.fromarray(rgb).save(tmp_path / "images" / "one.png")
    tifffile.imwrite(tmp_path / "labels" / "one.tif", truth)
    save(session.checkpoint, tmp_path / "net.safetensors")
    code = main([
        "evaluate", str(tmp_path), "--layout", "pairs", "--mpp", str(mpp), "--cr", "3",
        "--checkpoint", str(tmp_path / "net.safetensors"), "--json", str(tmp_path / "out.json"),
    ])  # fmt: skip
    assert not code
    (expected,) = json.loads((tmp_path / "out.json").read_text())["images"]
    preview = session.run(job(rgb, mpp, cr=3, key=size))
    found = Comparer(session.checkpoint).compare(placed(preview, "this"), at(truth), size)
    for metric in METRICS:
        assert getattr(found.scores, metric) == pytest.approx(expected[metric], abs=1e-9), metric
    assert (found.scores.truth, found.scores.found) == (expected["truth"], expected["found"])
    assert found.start is None
    assert found.fate.counts == fates(truth, found.labels, found.mpp).counts


def test_the_dense_network_against_itself_and_what_was_lost(session):
    rgb = noise(4, 128, 96)
    dense, pruned = session.run(job(rgb, key=1)), session.run(job(rgb, cr=8, key=1))
    comparer = Comparer(session.checkpoint)
    start = placed(dense, "dense")
    same = comparer.compare(start, start, (128, 96), start)
    for metric in METRICS:
        assert same.row(metric) == (1.0, 1.0, 0.0)
    assert not same.semantic.any()
    assert not same.distance.any()
    assert same.fate.counts["matched"] == len(dense.nuclei)
    found = comparer.compare(placed(pruned, "now"), start, (128, 96), start)
    np.testing.assert_array_equal(found.semantic, pruned.maps.semantic - dense.maps.semantic)
    np.testing.assert_array_equal(found.distance, pruned.maps.distance - dense.maps.distance)
    now, begin, loss = found.row("pq")
    assert begin == 1.0
    assert loss == pytest.approx(1 - now)
    # By hand: overlap of both thresholded semantic maps.
    threshold = session.checkpoint.merge.threshold
    a, b = pruned.maps.semantic >= threshold, dense.maps.semantic >= threshold
    assert found.scores.semantic_dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_losses_are_against_the_dense_score_on_the_same_truth(session):
    rgb, truth = noise(4, 128, 96), blobs(5, 128, 96)
    dense, pruned = session.run(job(rgb, key=1)), session.run(job(rgb, cr=8, key=1))
    comparer = Comparer(session.checkpoint)
    found = comparer.compare(placed(pruned, "p"), at(truth), (128, 96), placed(dense, "dense"))
    alone = comparer.compare(placed(dense, "dense"), at(truth), (128, 96))
    assert found.start == alone.scores
    _, start, loss = found.row("aji")
    assert loss == pytest.approx(1 - found.scores.aji / start)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_only_what_both_cover_is_compared(session, data):
    place = st.integers(-20, 60)
    result, truth = blobs(6, 64, 64), blobs(7, 48, 40)
    (ry, rx), (ty, tx) = (data.draw(st.tuples(place, place)) for _ in range(2))
    low = max(ry, ty), max(rx, tx)
    high = min(ry + 64, ty + 48), min(rx + 64, tx + 40)
    comparer = Comparer(session.checkpoint)
    a, b = at(result, ry, rx, name="result"), at(truth, ty, tx)
    # An image far larger than both, so that its edges play no part.
    if low[0] >= high[0] or low[1] >= high[1]:
        with pytest.raises(InputError) as caught:
            comparer.compare(a, b, (9999, 9999))
        assert is_one_line(caught.value)
        assert "do not overlap" in str(caught.value)
        return
    found = comparer.compare(a, b, (9999, 9999))
    cut = [
        labels[low[0] - y : high[0] - y, low[1] - x : high[1] - x]
        for labels, y, x in ((truth, ty, tx), (result, ry, rx))
    ]
    # A result at a negative place touches the image's edge, which counts as covered.
    if min(ry, rx) >= 1:
        np.testing.assert_array_equal(found.reference_labels, cut[0])
        np.testing.assert_array_equal(found.labels, cut[1])
        assert tuple(found.transform[:2, 2]) == low


def test_a_reference_that_is_turned_is_sampled(session):
    result = blobs(8, 60, 70)
    turned = Placed("turned", np.rot90(result).copy(), np.eye(3), "turned")
    # Turned by 90 degrees: row 69 - x, column y.
    turned = Placed("turned", turned.labels, np.array([[0, 1, 0], [-1, 0, 69], [0, 0, 1.0]]), "t")
    found = Comparer(session.checkpoint).compare(at(result), turned, (60, 70))
    np.testing.assert_array_equal(found.reference_labels, result)
    assert found.fate.counts["matched"] == found.scores.truth > 0


def test_a_stack_is_refused_by_a_sentence(session):
    stack = at(np.zeros((3, 20, 20), np.int32))
    with pytest.raises(InputError) as caught:
        Comparer(session.checkpoint).compare(at(blobs(0, 20, 20)), stack, (20, 20))
    assert is_one_line(caught.value)
    assert "(3, 20, 20)" in str(caught.value)


def test_a_sweep_gives_what_the_slider_would(session, tmp_path):
    rgb, truth = noise(9, 96, 96), blobs(10, 96, 96)
    own = job(rgb, 0.25, key="sweep")
    sweep = FieldSweep(session, own, at(truth), ("layer-wise", "network-wide", "2:4"), (1, 4, 16))
    stops = 0

    def stop():
        nonlocal stops
        stops += 1
        return stops == 2

    with pytest.raises(Cancelled):
        sweep.step(should_stop=stop)
    assert sweep.left == sweep.total == 8
    while sweep.left:
        sweep.step()
    assert not sweep.skipped
    dense = session.dense(own)
    for (strategy, cr), point in sweep.points.items():
        pruning = point_pruning(session, strategy, cr)
        preview = session.run(Job(own.source, None, pruning, "sweep")) if pruning else dense
        found = Comparer(session.checkpoint).compare(
            placed(preview, "x"), at(truth), (96, 96), placed(dense, "dense")
        )
        assert point.scores == found.scores.as_dict()
        assert point.start == found.start.as_dict()
    assert [p.cr for p in sweep.of("layer-wise")] == [1, 4, 16]
    rows = sweep.of("layer-wise") + sweep.of("network-wide")
    for suffix in ("csv", "png", "svg"):
        export(tmp_path / f"sweep.{suffix}", rows, 0.02)
    lines = (tmp_path / "sweep.csv").read_text().splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("strategy,cr,pruned,dice")
    assert Image.open(tmp_path / "sweep.png").size == (1350, 1050)
    with pytest.raises(InputError, match="neither"):
        export(tmp_path / "sweep.pdf", rows, 0.02)


def point_pruning(session, strategy, cr):
    from napari_nucprune.pruning.strategy import Ranking

    if cr == 1:
        return None
    fixed = Ranking(session.checkpoint).fixed_crs(strategy)
    pair = (cr, cr) if fixed is None else (fixed["semantic"], fixed["distance"])
    return Pruning(strategy, *pair)


def test_the_largest_ratio_is_where_a_run_at_it_passes_and_the_next_fails(session):
    own = job(noise(11, 96, 96), 0.25, key="largest")
    sweep = FieldSweep(session, own, None, ("network-wide",), (1, 4, 16))
    while sweep.left:
        sweep.step()
    loss, broke = 0.02, 0
    found = sweep.largest("network-wide", loss, bisect=True)
    for claim, metric in (("semantic", "semantic_dice"), ("distance", "distance_r2")):
        cr = found[claim]
        assert sweep.at("network-wide", cr).within([metric], loss)
        failed = [p.cr for p in sweep.of("network-wide") if not p.within([metric], loss)]
        behind = [f for f in failed if f > cr]
        assert behind or cr == 16
        assert min(behind, default=cr) <= cr * 1.25
        broke += bool(behind)
    assert broke
    # What the bisection ran does not move the answer.
    assert sweep.largest("network-wide", loss, bisect=True) == found


def test_a_ratio_out_of_reach_is_skipped_with_a_sentence(session):
    keep = tuple(layer.name for layer in session.checkpoint.layers("semantic"))[2:]
    own = job(noise(12, 64, 64), 0.25, key="keep")
    own = Job(own.source, None, Pruning(keep=keep), "keep")
    sweep = FieldSweep(session, own, None, ("layer-wise",), (1, 64))
    assert sweep.step() is not None
    assert sweep.step() is None
    assert "cannot reach CR 64" in sweep.skipped[0]
    assert sweep.left == 0


def test_bars_add_up_to_the_cost(session):
    for pruning in (
        Pruning(),
        Pruning("layer-wise", 5, 9),
        Pruning("network-wide", 7, 3, ("up.1",)),
    ):
        own = session if pruning.keep is None else Session(session.checkpoint, "cpu")
        shares, spent = own.by_layer(pruning), own.cost(pruning)
        assert sum(s.weights for s in shares) == spent.total
        assert sum(s.nonzero for s in shares) == spent.kept
        assert sum(s.macs for s in shares) == pytest.approx(spent.dense_macs)
        assert sum(s.nonzero * s.positions for s in shares) == pytest.approx(spent.macs)
        kept = [s for s in shares if s.name in (pruning.keep or ("head",))]
        assert all(s.kept == 1 for s in kept)


def test_the_published_shape_does_a_fifth_of_its_work_in_a_two_hundredth_of_its_weights():
    names, weights, macs = finest(by_layer(make_checkpoint((16, 32, 64, 128, 256)), None))
    assert names == [
        "encoder.0.conv1", "encoder.0.conv2", "decoder.3.conv1", "decoder.3.conv2", "head",
    ]  # fmt: skip
    assert round(weights, 3) == 0.005
    assert round(macs, 2) == 0.21


#: Machado, Oliveira & Fernandes 2009, severity 1: protan, deutan, tritan, on linear RGB.
BLIND = (
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
)  # fmt: skip


def test_fates_can_be_told_apart_by_colour_blind_readers():
    from skimage.color import deltaE_ciede2000, rgb2lab

    assert tuple(FATE_COLOURS) == FATES
    colours = np.array([rgb(own) for own in FATE_COLOURS.values()]) / 255
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    for matrix in (np.eye(3), *BLIND):
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        lab = rgb2lab(seen[None])[0]
        apart = [
            deltaE_ciede2000(lab[i], lab[j]) for i in range(len(lab)) for j in range(i)
        ]  # fmt: skip
        # 10 is far above what is just noticed (about 2).
        assert min(apart) > 10
