"""One dock for all rows of bad input, and what is said and left of a folder."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from helpers import TINY, is_one_line, make_checkpoint
from napari_nucprune.checkpoint import shipped
from napari_nucprune.checkpoint.format import save


def folder_state(folder):
    """Every file below with its content's hash."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else ""
        for p in sorted(folder.rglob("*"))
    }


def picture(shape, dtype="uint8", value=99):
    return np.full(shape, value, dtype)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A quick network in the place of the bundled one, for all rows."""
    folder = tmp_path_factory.mktemp("weights")
    checkpoint = make_checkpoint(TINY, seed=3, name=shipped.DEFAULT)
    save(checkpoint, folder / f"{shipped.DEFAULT}.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "FOLDER", folder)
        yield replace(checkpoint)


@pytest.fixture(scope="module")
def dock(small, qapp):
    """One dock for all rows: what a row breaks, the next one sees."""
    napari = pytest.importorskip("napari")
    from napari_nucprune.widgets.dock import NucpruneDock

    dock = NucpruneDock(napari.components.ViewerModel())
    yield dock
    dock.close()
    dock.runner.close()
    dock.deleteLater()


def said(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("nucprune: ")
    assert "a fault of ours" not in lines[0]
    assert is_one_line(lines[0])
    assert lines[0].endswith((".", "]")), lines[0]
    return lines[0]
