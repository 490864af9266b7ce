"""Sweeps over compression ratios: their points, the largest ratio, and the figure."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import QUICK, TINY, make_checkpoint, noise
from napari_nucprune.compare.figure import draw
from napari_nucprune.compare.sweep import STOPS, against, sweep
from napari_nucprune.compare.sweep_points import CLAIMS, SweepPoint, largest_cr_within, mean_points
from napari_nucprune.doors import BRANCHES, Field, Maps, Pruning, Scores
from napari_nucprune.errors import Cancelled, InputError
from napari_nucprune.nuclei.watershed import merge
from napari_nucprune.pruning.strategy import Ranking, apply
from napari_nucprune.runtime.torch_runtime import TorchRuntime
from napari_nucprune.widgets import cr_slider

FIELD = Field(noise(0, 8, 9), 0.25)
CHECKPOINT = make_checkpoint(QUICK)


class FakeRuntime:
    """Maps that say which part of the weights ran; counts its runs."""

    name, device = "fake", "none"

    def __init__(self):
        self.runs = 0

    def load(self, checkpoint, masks=None):
        self.kept = {}
        for branch in BRANCHES:
            total = kept = 0
            for name, array in checkpoint.weights[branch].items():
                if name.endswith(".weight"):
                    mask = (masks or {}).get(branch, {}).get(name.removesuffix(".weight"))
                    total += array.size
                    kept += np.count_nonzero(array if mask is None else array * mask)
            self.kept[branch] = kept / total

    def run(self, field, progress=None, should_stop=lambda: False):
        if should_stop():
            raise Cancelled("Cancelled.")
        self.runs += 1
        shape = field.rgb.shape[:2]
        return Maps(*(np.full(shape, self.kept[b], np.float32) for b in BRANCHES), field.mpp)


def scored(maps):
    """Scores that are the maps' own numbers."""
    s, d = float(maps.semantic[0, 0]), float(maps.distance[0, 0])
    return Scores(
        *[s, s, s * d, 0.0, 0.0, s * d, 0, 0], semantic_dice=s, distance_r2=d, distance_mse=0.0
    )


def points_of(**options):
    runtime = FakeRuntime()
    given = {"strategies": ("layer-wise", "LAMP"), "stops": (1, 4, 2), **options}
    return runtime, list(sweep(runtime, CHECKPOINT, FIELD, scored, **given))


def test_each_branch_alone_is_composed_and_never_run():
    runtime, points = points_of()
    assert runtime.runs == 1 + 2 * 2
    assert [(p.strategy, p.cr, p.pruned) for p in points] == [
        (strategy, cr, side)
        for strategy in ("layer-wise", "LAMP")
        for cr, sides in ((1, ("both",)), (2, ("both", *BRANCHES)), (4, ("both", *BRANCHES)))
        for side in sides
    ]
    for p in points:
        s = 1 if p.pruned == "distance" else 1 / p.cr
        d = 1 if p.pruned == "semantic" else 1 / p.cr
        assert p.scores["semantic_dice"] == pytest.approx(s, rel=2e-3)
        assert p.scores["distance_r2"] == pytest.approx(d, rel=2e-3)
        assert p.loss("aji") == pytest.approx(1 - s * d, rel=5e-3, abs=1e-9)
        assert p.loss("aji_plus") is None
    runtime, together = points_of(alone=False)
    assert runtime.runs == 5
    assert together == [p for p in points if p.pruned == "both"]


def test_points_come_one_by_one():
    runtime = FakeRuntime()
    points = sweep(runtime, CHECKPOINT, FIELD, scored, stops=(2, 4))
    assert runtime.runs == 0
    next(points)
    assert runtime.runs == 1
    next(points)
    assert runtime.runs == 2
    points.close()
    assert runtime.runs == 2


@pytest.mark.parametrize("after", [0, 1, 4, 6])
def test_cancelled_at_any_time(after):
    asked = 0

    def should_stop():
        nonlocal asked
        asked += 1
        return asked > after

    runtime = FakeRuntime()
    with pytest.raises(Cancelled):
        list(sweep(runtime, CHECKPOINT, FIELD, scored, should_stop=should_stop))
    assert runtime.runs <= 1 + after


def test_progress_reaches_its_end():
    told = []
    points_of(progress=lambda text, done, total: told.append((done, total)))
    assert told[0] == (0, 5)
    assert told[-1] == (5, 5)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_cannot_be_had_is_left_out_and_said():
    said = []
    keep = ("head", "encoder.4.conv2")
    runtime, points = points_of(stops=(2, 64), keep=keep, strategies=["ERK"], notice=said.append)
    assert [p.cr for p in points if p.pruned == "both"] == [1, 2]
    assert runtime.runs == 2
    assert len(said) == 1
    assert said[0].startswith("ERK CR 64 is left out: The semantic branch cannot reach")
    with pytest.raises(InputError, match="not known"):
        points_of(strategies=["magic"])
    with pytest.raises(InputError, match="at least 1"):
        points_of(stops=(0.5,))


def test_a_strategy_with_a_ratio_of_its_own_has_that_one():
    _, points = points_of(strategies=["2:4"], alone=False)
    own = Ranking(CHECKPOINT).fixed_crs("2:4")["semantic"]
    assert [p.cr for p in points] == [1, own]
    assert points[1].scores["semantic_dice"] == pytest.approx(1 / own)


def test_a_stored_pruned_network_starts_from_itself():
    pruning = Pruning("network-wide", 4, 4)
    stored = apply(CHECKPOINT, pruning, Ranking(CHECKPOINT).masks(pruning))
    points = list(
        sweep(FakeRuntime(), stored, FIELD, scored, ["network-wide"], (1, 2, 8), alone=False)
    )
    assert [round(p.cr, 2) for p in points] == [4, 8]
    assert points[0].loss("pq") == 0
    assert points[1].loss("semantic_dice") == pytest.approx(0.5, abs=1e-3)


def test_recovered_networks_take_the_place_of_masks():
    recovered = []

    def network(pruning, masks):
        if pruning.cr_semantic == 2:
            raise InputError("Too little tissue.")
        recovered.append(pruning)
        return apply(CHECKPOINT, pruning, masks)

    said = []
    _, points = points_of(network=network, notice=said.append, strategies=["layer-wise"])
    assert recovered == [Pruning("layer-wise", 4.0, 4.0)]
    assert [p.cr for p in points if p.pruned == "both"] == [1, 4]
    assert said == ["layer-wise CR 2 is left out: Too little tissue."]


def test_a_real_network_against_its_own_dense_result():
    checkpoint = make_checkpoint(TINY, seed=5)
    field = Field(noise(3, 40, 52), checkpoint.mpp)
    runtime = TorchRuntime("cpu")
    runtime.load(checkpoint)
    dense = runtime.run(field)
    reference = merge(dense, checkpoint.merge).labels
    scores = against(reference, checkpoint.merge, dense.distance)
    points = list(sweep(runtime, checkpoint, field, scores, ["network-wide"], (1, 1.5)))
    assert points[0].scores["pq"] == points[0].scores["distance_r2"] == 1
    assert [points[0].loss(m) for own in CLAIMS.values() for m in own] == [0, 0, 0, 0]
    # The same as running each pruning by itself.
    ranking = Ranking(checkpoint)
    for point in points[1:]:
        crs = [1.5 if point.pruned in ("both", branch) else 1 for branch in BRANCHES]
        runtime.load(checkpoint, ranking.masks(Pruning("network-wide", *crs)))
        assert point.scores == scores(runtime.run(field)).as_dict()


# --- the largest ratio --------------------------------------------------------------------------


def at(cr, pq, aji=1.0, pruned="both"):
    row = dict.fromkeys(Scores(*[1.0] * 8).as_dict(), 1.0)
    return SweepPoint("x", cr, pruned, {**row, "pq": pq, "aji": aji}, row)


def test_the_largest_stop_whose_lower_stops_all_pass():
    points = [at(1, 1), at(2, 0.99), at(4, 0.98), at(8, 0.9), at(16, 0.99)]
    assert largest_cr_within(points, ["pq"]) == 4
    assert largest_cr_within(points[::-1], ["pq"], 0.1) == 16
    assert largest_cr_within(points, ["pq"], 0.005) == 1
    assert largest_cr_within(points, ["pq", "aji"], 0.02) == 4
    assert largest_cr_within([at(1, 1), at(2, 0.99, 0.9)], CLAIMS["instances"]) == 1
    assert largest_cr_within([], ["pq"]) is None
    # A score that got better is no loss.
    assert largest_cr_within([at(1, 1), at(2, 1.2)], ["pq"]) == 2


def test_a_loss_that_cannot_be_said_is_none_within():
    row = {"distance_r2": 0.5, "pq": None}
    for start in ({"distance_r2": -0.1, "pq": 1.0}, {"distance_r2": 0.0, "pq": None}):
        point = SweepPoint("x", 2, "both", row, start)
        assert point.loss("distance_r2") is None
        assert point.loss("pq") is None
        assert largest_cr_within([point], ["distance_r2"]) is None


@given(st.floats(1, 60), st.integers(1, 9))
def test_bisection_finds_where_it_breaks(true, steps):
    asked = []

    def curve(cr):
        asked.append(cr)
        return at(cr, 1.0 if cr <= true else 0.5)

    stops = [curve(cr) for cr in STOPS]
    low = max(cr for cr in STOPS if cr <= true)
    asked.clear()
    found = largest_cr_within(stops, ["pq"], at=curve, steps=steps)
    high = min((cr for cr in STOPS if cr > true), default=None)
    assert len(asked) == steps
    assert low <= found <= true
    assert true / found <= (high / low) ** (0.5**steps) * (1 + 1e-9)


def test_mean_points():
    one, two = [at(1, 1), at(2, 0.8), at(4, 0.2)], [at(1, 1), at(2, 0.6)]
    mean = mean_points([one, two])
    assert [(p.cr, p.scores["pq"]) for p in mean] == [(1, 1), (2, pytest.approx(0.7))]
    lacking = SweepPoint("x", 1, "both", {**one[0].scores, "pq": None}, one[0].start)
    assert mean_points([[lacking], one[:1]])[0].scores["pq"] == 1


def test_the_stops_are_the_sliders():
    assert tuple(map(float, cr_slider.STOPS)) == STOPS


# --- the figure ---------------------------------------------------------------------------------


def test_the_figure_holds_what_was_measured():
    from matplotlib.figure import Figure

    _, points = points_of()
    figure = Figure(layout="constrained")
    for _ in range(2):  # drawn anew as points come
        draw(figure, points, 0.05, {("LAMP", "pq"): 2.0})
    assert len(figure.axes) == 4
    by_title = {axis.get_title(): axis for axis in figure.axes}
    dice = by_title["semantic: Dice"].get_lines()[0]
    np.testing.assert_allclose(dice.get_xdata(), [1, 2, 4])
    wanted = [p.scores["semantic_dice"] for p in points if p.strategy == "layer-wise"]
    np.testing.assert_allclose(dice.get_ydata(), [wanted[0], wanted[1], wanted[4]])
    # Branches alone in the instances' panels: 2 strategies x 3 sides, the line, the tick.
    assert len(by_title["instances: PQ"].get_lines()) == 6 + 1 + 1
    assert len(by_title["semantic: Dice"].get_lines()) == 2 + 1
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["layer-wise", "LAMP", "semantic branch alone", "distance branch alone"]
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    draw(figure, [])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [-3000.0, 0.0, 1.0])
def test_the_figure_of_a_lost_network(value):
    from matplotlib.figure import Figure

    row = dict.fromkeys(Scores(*[1.0] * 8).as_dict(), 0.0)
    row |= {"distance_r2": value, "aji": None}
    points = [SweepPoint("x", cr, "both", row, row) for cr in (1.0, 2.0)]
    figure = Figure(layout="constrained")
    draw(figure, points)
    figure.canvas.draw()
    for axis in figure.axes:
        low, high = axis.get_ylim()
        assert low < high


def test_it_loads_neither_torch_nor_matplotlib_nor_napari():
    code = (
        "import sys; import napari_nucprune.compare.sweep, napari_nucprune.compare.figure\n"
        "assert not {'torch', 'matplotlib', 'napari', 'qtpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
