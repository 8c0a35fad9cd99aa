"""Colours of the figures: one for each network, and the dark theme's for each of the light's."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Colours: TypeAlias = Mapping[str, str]

INK, MUTED, GRID, PAPER = "#1c2128", "#6a737d", "#e3e6ea", "#fefefe"
CLEAR = "rgba(0,0,0,0)"

# Okabe & Ito (2008), "Color Universal Design": told apart by colour-blind readers.
NETWORKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# Nearly the same, but other texts: DARK may replace a network's colour and leave a part's.
PARTS = ("#56b4e8", "#e69f01", "#009e74", "#cc79a8", "#b3a80a", "#8c96a0")

# Marks of the verdicts on an exponent: colour where there is one network, shape always.
VERDICTS = {
    "well-trained": ("#009e73", "circle"),
    "over-trained": ("#d55e00", "triangle-down"),
    "under-trained": ("#0072b2", "triangle-up"),
    "undecided": (MUTED, "circle-open"),
}

DARK = {
    INK: "#e4e8ec",
    MUTED: "#98a2ad",
    GRID: "#2c333b",
    PAPER: "#1a1f25",
    "#0072b2": "#4aa8e8",
    "#d55e00": "#ff8a3d",
    "#009e73": "#2fc79b",
    "#009e74": "#2bb98f",
}


def colours(networks: Sequence[str]) -> dict[str, str]:
    """One colour for each network, the same in every figure."""
    return {name: NETWORKS[i % len(NETWORKS)] for i, name in enumerate(networks)}
