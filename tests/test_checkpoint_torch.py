import pickle

import numpy as np
import pytest
import torch

from helpers import (
    TINY,
    equal_weights,
    flat,
    make_checkpoint,
    refused,
)
from napari_nucprune.checkpoint import format as files
from napari_nucprune.checkpoint.unet import build
from napari_nucprune.doors import BRANCHES

pytestmark = pytest.mark.usefixtures("one_thread")


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
