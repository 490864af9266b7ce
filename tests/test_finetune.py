"""Training of a pruned network: schedules, masks that hold, what teaches it, and its files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers import TINY, is_one_line, make_checkpoint, smooth, write_pairs
from napari_nucprune.checkpoint.format import load, save
from napari_nucprune.cli import main
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.errors import InputError
from napari_nucprune.pruning.strategy import Ranking, apply
from napari_nucprune.training.augment import Prepared
from napari_nucprune.training.config import Config, Data, Prune, load_config
from napari_nucprune.training.fit import Fit
from napari_nucprune.training.prune_finetune import FineTune, compression

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def training():
    images = []
    for seed in range(3):
        rgb = smooth(seed, 140, 150)
        red = rgb[..., 0].astype(np.float32)
        targets = np.stack([(red > 127).astype(np.float32), red / 255], axis=2)
        images.append(Prepared("x", "p", rgb, targets, 1.0))
    return images


def config_of(prune, **changes):
    values = {"widths": TINY, "steps": 4, "batch": 2, "crop": 32, "precision": "float32"}
    return Config("tuned", (Data("pairs", "nowhere"),), prune=prune, **(values | changes))


def kept(weights, branch="semantic"):
    return sum(int(np.count_nonzero(a)) for n, a in weights[branch].items() if n.endswith("weight"))


def begun(prune, training, folder, dense=None, **changes):
    folder.mkdir(exist_ok=True)
    fit = FineTune(config_of(prune, **changes), folder, dense or make_checkpoint(TINY, seed=5))
    fit.begin(training)
    return fit


def test_the_schedule_is_zhu_and_guptas():
    prune = Prune(cr=10, ramp=80)
    sparsity = [1 - 1 / compression(prune, step) for step in range(101)]
    # Their equation 1, written the other way round: s_t = s_f + (s_i - s_f) (1 - t / (n dt))^3.
    wanted = [0.9 - 0.9 * (1 - min(t, 80) / 80) ** 3 for t in range(101)]
    np.testing.assert_allclose(sparsity, wanted, atol=1e-12)
    assert compression(Prune(cr=7, ramp=0), 0) == 7


@pytest.mark.parametrize("start", ["one-shot", "recovered"])
@pytest.mark.parametrize("strategy", ["layer-wise", "network-wide"])
def test_masks_are_fixed_from_the_beginning(start, strategy, training, tmp_path):
    dense = make_checkpoint(TINY, seed=5)
    pruning = Pruning(strategy, 4, 4)
    masks = Ranking(dense).masks(pruning)
    plain = apply(dense, pruning, masks)
    fit = begun(Prune(strategy, 4, start=start), training, tmp_path, dense)
    before = fit.weights()
    for branch in BRANCHES:
        assert kept(before, branch) == kept(plain.weights, branch)
        for name, mask in masks[branch].items():
            if start == "one-shot":
                np.testing.assert_array_equal(before[branch][f"{name}.weight"] != 0, mask)
    for _ in range(3):
        fit.train_step(training)
    after = fit.weights()
    for branch in BRANCHES:
        for name, array in after[branch].items():
            if name.removesuffix(".weight") in masks[branch]:
                assert not array[before[branch][name] == 0].any()
                assert (array[before[branch][name] != 0] != 0).any()
            assert (array != before[branch][name]).any()


def test_a_ramp_prunes_as_it_says(training, tmp_path):
    prune = Prune("network-wide", 8, ramp=6, every=2)
    fit = begun(prune, training, tmp_path, steps=9)
    total = sum(layer.size for layer in fit.dense.layers("semantic"))
    assert kept(fit.weights()) == total
    found = []
    for _ in range(9):
        fit.train_step(training)
        found.append(kept(fit.weights()))
    wanted = [compression(prune, step) for step in (0, 2, 2, 4, 4, 6, 6, 6, 6)]
    assert found == [total, *(round(total / cr) for cr in wanted[1:])]


@pytest.mark.parametrize("prune", [Prune(cr=4), Prune(cr=4, ramp=3, every=2)], ids=str)
def test_a_run_that_was_stopped_goes_on_bit_exactly(prune, training, tmp_path):
    through = begun(prune, training, tmp_path / "through", ema=0.5)
    for _ in range(4):
        through.train_step(training)
    for stop in (1, 2, 3):
        folder = tmp_path / str(stop)
        half = begun(prune, training, folder, ema=0.5)
        for _ in range(stop):
            half.train_step(training)
        half.save()
        resumed = FineTune(half.config, folder, half.dense)
        resumed.resume()
        for _ in range(4 - stop):
            resumed.train_step(training)
        one, two = through.finished(), resumed.finished()
        assert one.sha256 == two.sha256
        assert one.own_cr == two.own_cr


def test_another_dense_network_is_refused(training, tmp_path):
    """Its file may have the same name: it would go on teaching what the run did not begin with."""
    fit = begun(Prune(cr=4), training, tmp_path)
    fit.train_step(training)
    fit.save()
    other = FineTune(fit.config, tmp_path, make_checkpoint(TINY, seed=6))
    with pytest.raises(InputError, match="other checkpoints") as caught:
        other.resume()
    assert is_one_line(caught.value)
    # States from before parents were kept go on.
    state = torch.load(fit.state_file, weights_only=True)
    del state["parents"]
    torch.save(state, fit.state_file)
    other.resume()
    assert other.step == 1


def test_a_dense_pupil_of_the_dense_network_has_nothing_to_learn(training, tmp_path):
    """At CR 1, taught alone, the distance branch's loss is zero and nothing moves."""
    fit = begun(Prune(cr=1, start="one-shot", distil=1), training, tmp_path)
    before = fit.weights()["distance"]
    for _ in range(2):
        fit.train_step(training)
        assert fit.losses["distance"] == 0
    for name, array in fit.weights()["distance"].items():
        np.testing.assert_array_equal(array, before[name])


def test_at_ratio_1_the_result_is_a_dense_network(training, tmp_path):
    fit = begun(Prune(cr=1, start="one-shot"), training, tmp_path)
    fit.train_step(training)
    found = fit.finished()
    assert found.pruning is None
    assert found.parent_sha256 is None
    assert found.sha256 != fit.dense.sha256


def test_without_distillation_only_the_labels_count(training, tmp_path):
    dense = make_checkpoint(TINY, seed=5)
    fit = begun(Prune(cr=1, start="one-shot", distil=0), training, tmp_path, dense)
    plain = Fit(replace(fit.config, prune=None), tmp_path)
    plain.start_from(dense)
    for _ in range(2):
        fit.train_step(training)
        plain.train_step(training)
        assert fit.losses == plain.losses


def test_the_running_mean_of_the_weights(training, tmp_path):
    """Each step, from the first: 0.9 of the mean so far and 0.1 of the new weights."""
    fit = Fit(config_of(None, ema=0.9), tmp_path)
    name = "out.conv.weight" if "out.conv.weight" in fit.nets["semantic"].state_dict() else None
    name = name or next(iter(fit.nets["semantic"].state_dict()))
    seen = []
    for _ in range(3):
        fit.train_step(training)
        seen.append(fit.nets["semantic"].state_dict()[name].double().numpy().copy())
    wanted = seen[0]
    for new in seen[1:]:
        wanted = 0.9 * wanted + 0.1 * new
    np.testing.assert_allclose(fit.weights()["semantic"][name], wanted, rtol=1e-5, atol=1e-8)
    assert (seen[0] != seen[-1]).any()


def test_a_pruned_network_cannot_be_the_dense_one(tmp_path):
    dense = make_checkpoint(TINY, seed=5)
    pruning = Pruning("layer-wise", 4, 4)
    pruned = apply(dense, pruning, Ranking(dense).masks(pruning))
    with pytest.raises(InputError, match="pruned already") as caught:
        FineTune(config_of(Prune()), tmp_path, pruned)
    assert is_one_line(caught.value)


# --- the command --------------------------------------------------------------------------------

RECIPE = """
widths = [2, 4]
steps = 3
batch = 2
crop = 32
save_every = 1
[prune]
strategy = "layer-wise"
cr = 3
[[data]]
layout = "pairs"
path = "set"
validation = ["a"]
mpp = 0.25
"""


@pytest.fixture
def recipe(tmp_path):
    write_pairs(tmp_path / "set", 140, 150)
    path = tmp_path / "tuned.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def test_the_command_writes_a_pruned_checkpoint(recipe, tmp_path, dense_file, capsys):
    dense = load(dense_file)
    out = tmp_path / "out"
    assert main(["train", str(recipe), "-o", str(out), "--from", str(dense_file)]) == 0
    tuned = load(out / "tuned.safetensors")
    assert tuned.parent_sha256 == dense.sha256
    assert tuned.merge == dense.merge
    assert tuned.pruning["training"]["method"] == "fine-tuned"
    plain = Ranking(dense).masks(Pruning("layer-wise", 3, 3))
    for branch in BRANCHES:
        for name, mask in plain[branch].items():
            weight = tuned.weights[branch][f"{name}.weight"]
            assert np.count_nonzero(weight) == mask.sum()
    assert "fine-tuned" in (out / "tuned.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["info", str(out / "tuned.safetensors")]) == 0
    assert "layer-wise" in capsys.readouterr().out
    # The same command again has nothing left to do, and gives the same network.
    assert main(["train", str(recipe), "-o", str(out), "--from", str(dense_file)]) == 0
    assert load(out / "tuned.safetensors").sha256 == tuned.sha256


@pytest.fixture
def dense_file(tmp_path):
    path = tmp_path / "dense.safetensors"
    save(make_checkpoint((2, 4), seed=3), path)
    return path


def test_the_command_wants_a_dense_network(recipe, tmp_path, capsys):
    assert main(["train", str(recipe), "-o", str(tmp_path / "out")]) == 2
    assert "--from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('strategy = "best"', "strategy"),
        ("cr = 0.5", "cr"),
        ('start = "warm"', "start"),
        ("ramp = -1", "ramp"),
        ("every = 0", "every"),
        ("distil = 2", "distil"),
        ("sparsity = 0.9", "sparsity"),
    ],
)
def test_a_wrong_prune_table(line, word, recipe):
    text = RECIPE.replace('strategy = "layer-wise"\n', "").replace("cr = 3", line)
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=word) as caught:
        load_config(recipe)
    assert is_one_line(caught.value)


def test_a_ramp_is_of_both_branches(recipe):
    """The other one stays dense, and the file would say that it is pruned."""
    text = 'branches = ["semantic"]\n' + RECIPE.replace("cr = 3", "cr = 3\nramp = 2")
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"ramp of .prune. is 2; expected 0 where") as caught:
        load_config(recipe)
    assert is_one_line(caught.value)


def test_the_card_says_how_it_was_taught_and_whose_watershed_it_has(recipe, tuned_file):
    card = tuned_file.with_suffix(".md").read_text(encoding="utf-8")
    assert ", distil 0.5, levels 0" in card
    assert "the watershed is the dense network's" in card
    assert "the first half" not in card


@pytest.fixture
def tuned_file(recipe, tmp_path, dense_file):
    """The recipe's network, after its three steps."""
    main(["train", str(recipe), "-o", str(tmp_path / "first"), "--from", str(dense_file)])
    return tmp_path / "first" / "tuned.safetensors"


def test_a_fine_tuned_network_is_trained_on(recipe, tmp_path, dense_file, tuned_file):
    first = load(tuned_file)
    text = RECIPE.replace("cr = 3", 'cr = 3\nstart = "first/tuned.safetensors"')
    recipe.write_text(text.replace("steps = 3", "steps = 1\nlr = 1e-9"), encoding="utf-8")
    command = ["train", str(recipe), "-o", str(tmp_path / "on"), "--from", str(dense_file)]
    assert main(command) == 0
    on = load(tmp_path / "on" / "tuned.safetensors")
    for branch in BRANCHES:
        for name, array in first.weights[branch].items():
            np.testing.assert_array_equal(on.weights[branch][name] != 0, array != 0)
            np.testing.assert_allclose(on.weights[branch][name], array, atol=1e-7)
    training = on.pruning["training"]
    assert training["start"] == "tuned.safetensors"
    assert training["before"]["steps"] == 3
    assert on.parent_sha256 == first.parent_sha256


def test_one_branch_is_trained_on_and_the_other_stays(recipe, tmp_path, dense_file, tuned_file):
    first = load(tuned_file)
    text = RECIPE.replace("cr = 3", 'cr = 3\nstart = "first/tuned.safetensors"')
    text = text.replace("[prune]", 'branches = ["semantic"]\n[prune]')
    recipe.write_text(text, encoding="utf-8")
    command = ["train", str(recipe), "-o", str(tmp_path / "on"), "--from", str(dense_file)]
    assert main(command) == 0
    on = load(tmp_path / "on" / "tuned.safetensors")
    for name, array in first.weights["distance"].items():
        np.testing.assert_array_equal(on.weights["distance"][name], array)
    moved = [
        not np.array_equal(on.weights["semantic"][n], a)
        for n, a in first.weights["semantic"].items()
    ]
    assert all(moved)
    assert on.pruning["training"]["branches"] == ["semantic"]
    card = (tmp_path / "on" / "tuned.md").read_text(encoding="utf-8")
    assert "the semantic branch alone" in card
    assert "Fine-tuned before: 3 steps, both branches" in card


def test_a_network_goes_on_with_another_teacher(recipe, tmp_path, tuned_file):
    teacher = make_checkpoint((2, 4), seed=4)
    save(teacher, tmp_path / "teacher.safetensors")
    text = RECIPE.replace("cr = 3", 'cr = 3\nstart = "first/tuned.safetensors"')
    recipe.write_text(text, encoding="utf-8")
    command = ["train", str(recipe), "-o", str(tmp_path / "on")]
    assert main([*command, "--from", str(tmp_path / "teacher.safetensors")]) == 0
    first, on = load(tuned_file), load(tmp_path / "on" / "tuned.safetensors")
    for branch in BRANCHES:
        for name, array in first.weights[branch].items():
            np.testing.assert_array_equal(on.weights[branch][name] != 0, array != 0)
    assert on.parent_sha256 == teacher.sha256
    assert on.pruning["training"]["before"]["sha256"] == first.sha256


def test_a_network_of_other_widths_is_not_trained_on(recipe, tmp_path, tuned_file, capsys):
    save(make_checkpoint((2, 6), seed=4), tmp_path / "teacher.safetensors")
    text = RECIPE.replace("cr = 3", 'cr = 3\nstart = "first/tuned.safetensors"')
    recipe.write_text(text, encoding="utf-8")
    capsys.readouterr()
    command = ["train", str(recipe), "-o", str(tmp_path / "on")]
    assert main([*command, "--from", str(tmp_path / "teacher.safetensors")]) == 2
    assert "has other widths than" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["cr = 4", 'strategy = "network-wide"\ncr = 3'])
def test_only_a_network_of_the_same_pruning_is_trained_on(
    line, recipe, tmp_path, dense_file, tuned_file, capsys
):
    text = RECIPE.replace('strategy = "layer-wise"\ncr = 3', line)
    text = text.replace("[[data]]", 'start = "first/tuned.safetensors"\n[[data]]')
    recipe.write_text(text, encoding="utf-8")
    capsys.readouterr()
    command = ["train", str(recipe), "-o", str(tmp_path / "on"), "--from", str(dense_file)]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "was not fine-tuned to" in said
    assert "Traceback" not in said


def test_the_network_to_go_on_from_is_missing(recipe, tmp_path, dense_file, capsys):
    text = RECIPE.replace("cr = 3", 'cr = 3\nstart = "nowhere.safetensors"')
    recipe.write_text(text, encoding="utf-8")
    command = ["train", str(recipe), "-o", str(tmp_path / "on"), "--from", str(dense_file)]
    assert main(command) == 2
    assert "nowhere.safetensors" in capsys.readouterr().err
