"""Checkpoints packed as they are stored, and their cards: how a rung of the ladder is made."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import TINY, equal_weights, is_one_line, make_checkpoint
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import load, save
from napari_nucprune.checkpoint.packed import values_of
from napari_nucprune.cli import main
from napari_nucprune.doors import BRANCHES, Pruning
from napari_nucprune.training.prune_finetune import has_training
from packed_helpers import pruned

PRUNING = Pruning("layer-wise", 4, 4)


@pytest.fixture
def dense():
    return make_checkpoint(TINY, seed=3)


@pytest.fixture
def tuned(dense):
    """As training makes it: other weights, how it was trained, the dense one its parent."""
    found = pruned(make_checkpoint(TINY, seed=4), 4)
    about = {
        **dense.provenance,
        "steps": 7,
        "batch": 2,
        "crop": 64,
        "seed": 5,
        "data": [
            {"layout": "pairs", "folder": "d", "weight": 1.0, "licence": "CC0", "validation": ["p"]}
        ],
        "metrics": {"pairs, second half": {"aji": 0.25, "pq": 0.5}},
        "patients": {"pairs p": {"aji": 0.25, "pq": 0.5, "half": "second"}},
    }
    state = {**PRUNING.as_dict(), "training": {"method": "fine-tuned", "steps": 7}}
    return replace(found, name="rung", pruning=state, parent_sha256=dense.sha256, provenance=about)


def about(checkpoint):
    """All but the weights and the parent."""
    return replace(checkpoint, weights={}, parent_sha256=None)


def one_sentence(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert is_one_line(lines[0])
    return lines[0]


@pytest.mark.parametrize("option", ["--packed", "--fp16"])
def test_a_fine_tuned_network_stays_one(option, dense, tuned, tmp_path, capsys):
    plain, out = tmp_path / "plain.safetensors", tmp_path / "out.safetensors"
    save(tuned, plain)
    assert main(["prune", str(plain), "-o", str(out), option]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out}" in printed
    assert "values and positions" in printed
    found = load(out)
    assert has_training(found, PRUNING)
    assert about(found) == about(load(plain))
    assert found.parent_sha256 == dense.sha256
    assert values_of(out) == ("float16" if option == "--fp16" else "float32")
    for branch in BRANCHES:
        for name, array in tuned.weights[branch].items():
            half = option == "--fp16" and name.endswith(".weight")
            wanted = array.astype(np.float16).astype(np.float32) if half else array
            np.testing.assert_array_equal(found.weights[branch][name], wanted)
    # In its own place, and once more: nothing is rounded twice.
    assert main(["prune", str(out), "-o", str(out), option]) == 0
    assert equal_weights(load(out), found)
    assert about(load(out)) == about(found)


def test_a_dense_network_stays_one(dense, tmp_path):
    plain, out = tmp_path / "plain.safetensors", tmp_path / "out.safetensors"
    save(dense, plain)
    for option in ("--packed", "--fp16"):
        assert main(["prune", str(plain), "-o", str(out), option]) == 0
        found = load(out)
        assert found.pruning is None
        assert about(found) == about(dense)
        assert equal_weights(found, dense) == (option == "--packed")


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["--packed", "--keep", "head"],
        ["--packed", "--strategy", "LAMP"],
        ["--fp16", "--recover", "bundled"],
    ],
)
def test_what_prunes_says_how_much_goes(wrong, tuned, tmp_path, capsys):
    plain, out = tmp_path / "plain.safetensors", tmp_path / "out.safetensors"
    save(tuned, plain)
    assert main(["prune", str(plain), "-o", str(out), *wrong]) == 2
    assert "--cr X" in one_sentence(capsys)
    assert not out.exists()


def test_the_card_is_of_what_is_stored(tuned, tmp_path, capsys):
    plain, out = tmp_path / "plain.safetensors", tmp_path / "out.safetensors"
    save(tuned, plain)
    assert main(["prune", str(plain), "-o", str(out), "--fp16"]) == 0
    capsys.readouterr()
    assert main(["info", "--card", str(out)]) == 0
    card = capsys.readouterr().out
    assert card.startswith("# rung\n")
    assert f"Weights' sha256: `{load(out).sha256}`" in card
    assert "- Pruned layer-wise, semantic CR" in card
    assert "and fine-tuned; the dense" in card
    assert "| pairs p | second |" in card


def test_the_card_of_a_bundled_rung_is_of_the_weights_that_the_one_beside_it_names(capsys):
    assert main(["info", "--card", "full-cr16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (weights,) = [line for line in lines if "Weights' sha256" in line]
    beside = (shipped.FOLDER / "full-cr16.md").read_text(encoding="utf-8").splitlines()
    assert {lines[0], weights} <= set(beside)


@pytest.mark.parametrize("what", ["converted", "damaged", "pruned", "unnamed"])
def test_what_has_no_card(what, dense, tuned, tmp_path, capsys):
    path = tmp_path / "x.safetensors"
    kinds = {
        "converted": dense,
        "damaged": replace(tuned, provenance={**tuned.provenance, "data": [3]}),
        # The scores it carries are its parent's.
        "pruned": pruned(replace(dense, provenance=tuned.provenance), 4),
        "unnamed": dense,
    }
    save(kinds[what], path)
    named = [] if what == "unnamed" else [str(path)]
    assert main(["info", "--card", *named]) == 2
    assert ("FILE" if what == "unnamed" else "no model card") in one_sentence(capsys)
