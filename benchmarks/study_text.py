"""The words of ``benchmarks/study.py``'s page: all of them from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from study_curves import NEAR
from study_rows import SCORES, Row, chosen, loss, verdict
from study_tables import curves, dense, largest, tuned

from napari_nucprune.checkpoint.format import Checkpoint
from napari_nucprune.compare.sweep_points import CLAIMS

#: Claims in words.
WORDS = {
    "semantic": "semantic segmentation",
    "distance": "distance regression",
    "instances": "the final instances",
}
#: The paper's: what keeps its score, at which ratio, and whose branches are pruned for it.
PAPER = (("semantic", 16, "semantic"), ("distance", 20, "distance"), ("instances", 5, "both"))
#: Ratios at which instances are to lose less than that too: asked for, and hoped for.
OURS = (16, 32)
#: What the paper calls small and large ratios is not said; these are taken for them.
SMALL, LARGE = 5, 16


def page(
    checkpoint: Checkpoint,
    rows: Sequence[Row],
    before: Sequence[Row],
    config: Mapping[str, Any],
    figures: Mapping[str, str],
    missing: Mapping[str, Sequence[str]],
    helped: Sequence[str] = (),
) -> str:
    """Return the page.

    Parameters
    ----------
    checkpoint
        The dense network that is pruned.
    rows
        As of ``study.csv``.
    before
        As of `study_curves.ahead`.
    config
        As of ``study.toml``.
    figures
        What they show, by their names without the suffix.
    missing
        Why something is left out, and what.
    helped
        The section of `ablation`.
    """
    text = [
        "# The study",
        "",
        "Written by `python benchmarks/study.py` from `benchmarks/study.toml`; every number is "
        "measured by it. The networks that it scores are trained before, by "
        "`python benchmarks/study_training.py` and `python benchmarks/ablation.py` (days on two "
        "cores).",
        "",
        f"The dense network is `{checkpoint.name}` (`{checkpoint.sha256[:12]}`). Scores are means "
        "over images at their own size, against the annotations of patients who were not trained "
        "on. The first half of the patients fitted the watershed, the second half did not; on "
        "MoNuSeg's second half, though, the way to recover was chosen (docs/recovery.md). R2 is "
        "that of the distance map against the annotations' one. Losses are relative, in per cent, "
        "plus is loss, with the 95 % interval of a paired bootstrap over the images: images of one "
        "patient are alike, so that with few patients it is too narrow.",
        "",
        "- **one-shot**: the smallest weights go, the rest stays as it was;",
        "- **recovered**: the kept weights are refitted, without labels, to the dense network's "
        "responses on crops of the scored image itself, and chosen anew: as many of each layer as "
        "the strategy keeps there (random keeps its places);",
        "- **fine-tuned**: trained on after that, with labels and the dense network as teacher;",
        "- **LAMP** (Lee et al., ICLR 2021) scores magnitudes within layers and pools them; "
        "**random** is a single draw.",
        "",
    ]
    for why, left in missing.items():
        if left:
            text += [f"{why}, and so left out: {', '.join(left)}.", ""]
    text += dense(rows, config)
    text += _claims(rows, config["loss"])
    text += _which(before)
    text += _ours(rows, config["loss"])
    text += largest(rows, config)
    text += tuned(rows)
    text += helped
    text += curves(rows, config)
    if figures:
        text += [
            "## Figures",
            "",
            "All validation patients. Solid: both branches pruned; dashed and dotted: one branch "
            f"alone. The line is {100 * config['loss']:g} % under the dense network that is "
            "pruned, an upright dotted one at the largest ratio within that; of fine-tuned "
            "networks the first of a ratio is drawn, its upright against the better dense network. "
            f"Where recovered or fine-tuned ones are shown, axes begin at {100 * NEAR:g} % of the "
            "dense network's score. Each is there as SVG too.",
            "",
        ]
        for name, shown in figures.items():
            text += [f"![Scores over compression ratios: {shown}](images/{name}.png)", ""]
    return "\n".join(text).rstrip() + "\n"


def _claims(rows: Sequence[Row], least: float) -> list[str]:
    text = ["## The paper's claims", ""]
    for claim, cr, pruned in PAPER:
        side = "both branches" if pruned == "both" else f"the {pruned} branch"
        said = []
        for how in ("one-shot", "recovered", "fine-tuned"):
            found = chosen(rows, how=how, strategy="layer-wise", cr=cr, pruned=pruned, place=1)
            for row in found:
                losses = " and ".join(f"{SCORES[m]} {loss(row, m)} %" for m in CLAIMS[claim])
                where = f"{row['data']}, {row['half']}"
                said.append(
                    f"- {how}, {where}: {losses}: **{verdict(row, CLAIMS[claim], least)}**."
                )
            if not found:
                none = "none was trained" if how == "fine-tuned" else "not run"
                said.append(f"- {how}: {none} at CR {cr}.")
        text += [
            f"**{100 * (1 - 1 / cr):.4g} % of the weights of {side} go (CR {cr}) with under "
            f"{100 * least:g} % loss in {WORDS[claim]}, layer-wise.**",
            "",
            *said,
            "",
        ]
    return text


def _which(before: Sequence[Row]) -> list[str]:
    """Return the paragraph on layer-wise against network-wide."""
    said = []
    for data, how in dict.fromkeys((row["data"], row["how"]) for row in before):
        own = [r for r in chosen(before, data=data, how=how) if r["least"] is not None]
        sides = {
            "layer-wise is ahead": [r for r in own if r["least"] > 0],
            "network-wide is ahead": [r for r in own if r["most"] < 0],
            "neither for sure": [r for r in own if r["least"] <= 0 <= r["most"]],
        }
        text = "; ".join(
            f"{side} at CR {', '.join(format(r['cr'], 'g') for r in found)}"
            for side, found in sides.items()
            if found
        )
        said.append(f"- {how}, {data}: {text}: **{_order(sides)}**.")
    return [
        "**Layer-wise is slightly ahead at small ratios, network-wide at large ones.**",
        "",
        "PQ with both branches pruned, all images; ahead where the interval of the difference says "
        f"so. Small is up to CR {SMALL}, large from CR {LARGE} on.",
        "",
        *(said or ["- Not run."]),
        "",
    ]


def _order(sides: Mapping[str, Sequence[Row]]) -> str:
    """Return whether the one is ahead at small ratios and the other at large ones."""
    layer, network, _ = ([row["cr"] for row in rows] for rows in sides.values())
    small = any(cr <= SMALL for cr in layer) and not any(cr <= SMALL for cr in network)
    large = any(cr >= LARGE for cr in network) and not any(cr >= LARGE for cr in layer)
    if small and large:
        return "holds"
    if small or large:
        return f"holds at {'small' if small else 'large'} ratios only"
    return "does not hold"


def _ours(rows: Sequence[Row], least: float) -> list[str]:
    """Return what holds of the claim that goes beyond the paper, network by network."""
    text = []
    for cr in OURS:
        said = []
        for row in chosen(rows, how="fine-tuned", cr=cr, pruned="both"):
            losses = " and ".join(f"{SCORES[m]} {loss(row, m)} %" for m in CLAIMS["instances"])
            said.append(
                f"- {row['strategy']}, {row['trained']}, seed {row['seed']}, {row['data']}, "
                f"{row['half']}: {losses}: **{verdict(row, CLAIMS['instances'], least)}**."
            )
        text += [
            f"**Beyond the paper: {100 * (1 - 1 / cr):.4g} % of the weights of both branches go "
            f"(CR {cr}) with under {100 * least:g} % loss in the final instances, fine-tuned.**",
            "",
            *(said or ["- None was trained."]),
            "",
        ]
    return text
