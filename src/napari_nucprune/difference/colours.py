"""The fates' fixed colours, that colour-blind readers tell apart too."""

from __future__ import annotations

#: After Okabe & Ito; what was kept is pale, what was lost is loud on H&E.
FATE_COLOURS = {
    "matched": "#BBBBBB",
    "changed": "#56B4E9",
    "split": "#F0E442",
    "merged": "#009E73",
    "added": "#0033A0",
    "lost": "#D55E00",
}
#: Plain words for each, of the reference's nuclei but for the added ones.
FATE_WORDS = {
    "matched": "Found again: the outlines overlap by more than half (IoU > 0.5).",
    "changed": "Found again, but its outline or place is another: IoU < 0.75 or moved over 1 µm.",
    "split": "Now in several pieces: at least two nuclei lie mostly inside it.",
    "merged": "Now one nucleus with a neighbour.",
    "added": "A nucleus where the reference has none.",
    "lost": "A nucleus of the reference that is gone.",
}


def rgb(colour: str) -> tuple[int, int, int]:
    """Return ``#RRGGBB`` as three numbers of 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
