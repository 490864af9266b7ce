"""Other people's checkpoints by `convert` and by *Open…*: what is asked and said."""

from __future__ import annotations

import pytest
import torch

from foreign_helpers import WIDTHS, check, foreign_state, forward_order, two, write_keras
from helpers import is_one_line, make_checkpoint
from napari_nucprune.checkpoint.format import load
from napari_nucprune.cli import main
from napari_nucprune.doors import BRANCHES
from napari_nucprune.errors import InputError

__all__ = ["two"]


def test_load_says_how_to_open_a_single_branch(tmp_path, two):
    torch.save(foreign_state(two["semantic"], WIDTHS), tmp_path / "s.pt")
    write_keras(tmp_path / "s.h5", two["semantic"], WIDTHS)
    for name in ("s.pt", "s.h5"):
        with pytest.raises(InputError) as caught:
            load(tmp_path / name)
        assert is_one_line(caught.value)
        assert "nucprune convert" in str(caught.value)


def test_convert_by_command(tmp_path, two, capsys):
    for branch in BRANCHES:
        write_keras(tmp_path / f"{branch}.h5", two[branch], WIDTHS)
    s, d, out = (str(tmp_path / n) for n in ("semantic.h5", "distance.h5", "out.safetensors"))
    assert main(["convert", s, d, "-o", out, "--mpp", "0.5"]) == 0
    assert "2-3-5" in capsys.readouterr().out
    found = load(out)
    check(found, two)
    assert found.mpp == 0.5
    assert main(["convert", s, "--keys"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 2 * len(forward_order(WIDTHS))
    assert "conv2d/conv2d/kernel:0" in listed[0]
    for wrong in (["convert", s, d], ["convert", s, "-o", out], ["convert", d + "x", s, "-o", out],
                  ["convert", s, d, "-o", out, "--mpp", "-1"], ["convert", s, d, "-o", out + ".pt"],
                  ["info", s], ["segment", "x.png", "-o", "o", "--checkpoint", s]):  # fmt: skip
        assert main(wrong) == 2, wrong
        said = capsys.readouterr().err.strip()
        assert said.startswith("nucprune: ")
        assert len(said.splitlines()) == 1


def test_open_asks_for_the_second_branch_and_the_pixel_size(tmp_path, two, qtbot, monkeypatch):
    from qtpy.QtWidgets import QFileDialog, QInputDialog, QWidget

    from napari_nucprune.widgets.opening import Opening

    for branch in BRANCHES:
        write_keras(tmp_path / f"my_{branch}.h5", two[branch], WIDTHS)
    answers, titles = [], []

    def answer(parent, title, *rest):
        titles.append(title)
        return answers.pop(0), ""

    monkeypatch.setattr(QFileDialog, "getOpenFileName", answer)
    monkeypatch.setattr(QInputDialog, "getDouble", lambda *_: (0.5, True))
    parent, opening = QWidget(), Opening()
    qtbot.addWidget(parent)
    # The first one says by its name that it is the distance branch.
    answers += [str(tmp_path / "my_distance.h5"), str(tmp_path / "my_semantic.h5")]
    origin = opening.ask(parent)
    assert "open the semantic branch" in titles[-1]
    found = opening.load(origin)
    check(found, two)
    assert found.mpp == 0.5
    answers += [str(tmp_path / "my_distance.h5"), ""]
    assert opening.ask(parent) is None
    answers += [str(tmp_path / "my_distance.h5"), str(tmp_path / "missing.h5")]
    with pytest.raises(InputError):
        opening.ask(parent)
    # Our own need no second one; what is damaged is `load`'s to refuse.
    from napari_nucprune.checkpoint.format import save

    save(make_checkpoint(WIDTHS), tmp_path / "ours.safetensors")
    (tmp_path / "bad.h5").write_bytes(b"no")
    for name in ("ours.safetensors", "bad.h5"):
        answers.append(str(tmp_path / name))
        assert opening.ask(parent) == str(tmp_path / name)
    with pytest.raises(InputError):
        opening.load(str(tmp_path / "bad.h5"))
