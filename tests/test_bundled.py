"""The checkpoint that ships: what it is, and that it finds nuclei."""

import numpy as np
import pytest

from napari_nucprune.checkpoint import shipped
from napari_nucprune.compare.metrics import score
from napari_nucprune.datasets.monuseg import read
from napari_nucprune.doors import Field, Pruning
from napari_nucprune.nuclei.watershed import merge
from napari_nucprune.pruning.strategy import Ranking
from napari_nucprune.runtime.torch_runtime import TorchRuntime
from napari_nucprune.synthetic import synthetic


@pytest.fixture(scope="module")
def checkpoint():
    return shipped.open_checkpoint()


@pytest.fixture(scope="module")
def runtime(checkpoint):
    runtime = TorchRuntime("cpu")
    runtime.load(checkpoint)
    return runtime


def test_the_default_is_there_with_the_published_architecture(checkpoint):
    assert shipped.DEFAULT in shipped.names()
    for branch in ("semantic", "distance"):
        layers = checkpoint.layers(branch)
        assert sum(layer.size for layer in layers) == 1_939_392
        assert sum(layer.outputs for layer in layers) == 1_713


def test_it_says_where_it_is_from(checkpoint):
    about = checkpoint.provenance
    assert {d["layout"] for d in about["data"]} >= {"monuseg", "tnbc"}
    assert all(d["licence"] for d in about["data"])
    card = (shipped.FOLDER / f"{shipped.DEFAULT}.md").read_text(encoding="utf-8")
    assert checkpoint.sha256 in card
    for patient in about["patients"]:
        assert patient in card


@pytest.mark.parametrize("name", shipped.names())
def test_every_card_names_commit_seed_and_the_data(name):
    network = shipped.open_checkpoint(name)
    about = network.provenance
    card = (shipped.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}\n")
    assert f"commit `{about['commit'][:12]}`" in card
    assert f"seed {about['seed']}" in card
    for data in about["data"]:
        assert data["sha256"][:12] in card
    assert network.sha256 in card


def test_it_finds_the_nuclei_of_a_synthetic_field(checkpoint, runtime):
    rgb, truth = synthetic(seed=11, size=384)
    found = merge(runtime.run(Field(rgb, 0.25)), checkpoint.merge)
    scores = score(found.labels, truth)
    assert scores.dice > 0.8
    assert scores.pq > 0.5


def test_it_scores_on_a_validation_patient_as_its_card_says(checkpoint, runtime, shared_data):
    folder = read(shared_data / "MoNuSeg" / "MoNuSegTrainingData")
    (item,) = [x for x in folder.entries if x.patient == "TCGA-RD-A8N9"]
    item = item.read()
    maps = runtime.run(Field(item.rgb, 0.25))
    scores = score(merge(maps, checkpoint.merge).labels, item.labels, semantic=maps.semantic)
    stated = checkpoint.provenance["patients"]["monuseg TCGA-RD-A8N9"]
    for key in ("semantic_dice", "aji", "pq"):
        assert getattr(scores, key) == pytest.approx(stated[key], abs=0.01)


def test_pruning_far_breaks_it(checkpoint):
    """The tool's reason: without repair, CR 16 loses most nuclei of the dense network."""
    rgb, _ = synthetic(seed=11, size=256)
    runtime, found = TorchRuntime("cpu"), {}
    for cr in (1.0, 16.0):
        pruning = Pruning("layer-wise", cr, cr)
        runtime.load(checkpoint, Ranking(checkpoint).masks(pruning))
        found[cr] = merge(runtime.run(Field(rgb, 0.25)), checkpoint.merge).labels
    assert score(found[16.0], found[1.0]).pq < 0.5
    assert np.count_nonzero(found[1.0]) > 0
