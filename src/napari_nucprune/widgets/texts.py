"""The dock's sentences."""

from __future__ import annotations

from ..checkpoint.format import Checkpoint
from ..errors import NucpruneError, of_environment
from ..job import Preview
from ..pruning.cost import Cost

#: Data sets as their authors write them, by layout.
DATA_SETS = {
    "monuseg": "MoNuSeg",
    "tnbc": "TNBC",
    "nuinsseg": "NuInsSeg",
    "cryonuseg": "CryoNuSeg",
    "consep": "CoNSeP",
    "dsb2018": "DSB2018",
    "pairs": "pairs of files",
}
#: A number and its unit stay on one line.
TIED = "\N{NO-BREAK SPACE}"

NO_IMAGE = "Drag an image in, or choose File > Open Sample > NucPrune."


def about(checkpoint: Checkpoint, spent: Cost) -> str:
    """One line about a checkpoint: weights, MB, um/px, trained on."""
    trained = " + ".join(
        d.get("name") or DATA_SETS.get(d.get("layout"), str(d.get("layout")))
        for d in checkpoint.provenance.get("data", [])
    )
    assumed = " (assumed)" if checkpoint.provenance.get("mpp_assumed") else ""
    text = (
        f"{spent.total / 1e6:.2f} M weights · {spent.file_bytes / 1e6:.1f} MB · "
        f"{checkpoint.mpp:g} µm/px{assumed}"
    )
    if checkpoint.pruning:
        text += f" · stored pruned, CR {spent.cr:.3g}"
    if trained:
        text += f" · trained on {trained}"
    return f"{text} · for research only" if checkpoint.for_research_only else text


def kept(spent: Cost) -> str:
    """Weights kept."""
    return f"kept {spent.kept:,} of {spent.total:,} ({spent.sparsity:.2%} zero)"


def compute(spent: Cost, file_bytes: int | None, packed: int | None = None) -> str:
    """Multiply-adds, and bytes of the file that Save would write; None where not known yet.

    ``packed``: bytes of the packed file, where it is the plain one that would be written.
    """
    size = "…" if file_bytes is None else megabytes(file_bytes)
    saves = f"saves as {size}" if packed is None else f"{size}, packed {megabytes(packed)}"
    return f"compute / {spent.compute_ratio:.1f} · {saves}"


def megabytes(size: int) -> str:
    """``15.5 MB`` in one piece, below one ``0.97 MB``."""
    return f"{size / 1e6:.{1 if size >= 1e6 else 2}f}{TIED}MB"


def time(preview: Preview, dense: Preview | None) -> str:
    """Measured time of the network, of the dense one and of a recovery where there was one."""
    text = f"network {milliseconds(preview.network_seconds)} ({preview.runtime})"
    if dense is not None and dense is not preview:
        ratio = dense.network_seconds / max(preview.network_seconds, 1e-6)
        text += f", {ratio:.1f}x dense ({milliseconds(dense.network_seconds)}, {dense.runtime})"
    if preview.recovery_seconds:
        text += f" · recovered in {preview.recovery_seconds:.1f}{TIED}s"
    if preview.slow_because:
        text += f" · without the fast runtime: {preview.slow_because}"
    return text


def milliseconds(seconds: float) -> str:
    """``31 ms``, from ten seconds on ``12 s``."""
    value, unit = (seconds * 1e3, "ms") if seconds < 10 else (seconds, "s")
    return f"{value:.0f}{TIED}{unit}"


def error(problem: BaseException) -> str:
    """Return one sentence, never a traceback."""
    if isinstance(problem, NucpruneError):
        return str(problem)
    if stopped := of_environment(problem):
        return str(stopped)
    first = str(problem).strip().splitlines()[:1]
    return (
        f"A fault of ours ({type(problem).__name__}: {first[0][:200] if first else '-'}); "
        "please report it."
    )


def damaged(squares: int) -> str:
    """Say how much of a slide could not be read; nothing where all could."""
    return f"; {_places(squares)} taken as glass" if squares else ""


def damaged_here(squares: int) -> str:
    """Say how much of a field could not be read; nothing where all could."""
    again = "copy or download the slide again."
    return f"Of this field {_places(squares)} taken as glass; {again}" if squares else ""


def _places(squares: int) -> str:
    return f"{squares:,} damaged place{'s were' if squares > 1 else ' was'}"
