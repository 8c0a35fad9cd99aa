"""What a section is built from besides tables: lists, figures and what opens on a click."""

from collections.abc import Sequence

from tailor.shell.figures import Figure
from tailor.shell.page.text import escape, safe_json


def reading(sentences: Sequence[str]) -> str:
    """What is seen, as a list of finished HTML sentences."""
    items = "".join(f"<li>{sentence}</li>" for sentence in sentences)
    return f'<ul class="reading">{items}</ul>' if items else ""


def figure(anchor: str, drawing: Figure, caption: str, label: str, *, room: int = 0) -> str:
    """A place for a figure and its data; the page draws it when it comes into view.

    Args:
        anchor: Id of the place.
        drawing: What plotly draws there.
        caption: Finished HTML below it.
        label: What a screen reader says in its place.
        room: Further height in pixels, for a long legend.
    """
    rows = len(drawing["layout"]["yaxis"].get("categoryarray", ()))
    height = max(340, 120 + 30 * rows) + room
    return (
        f'<figure><div class="plot" id="{anchor}" role="img" aria-label="{escape(label)}" '
        f'style="height:{height}px"></div><figcaption>{caption}</figcaption>'
        f'<script type="application/json" id="{anchor}-data">{safe_json(drawing)}</script></figure>'
    )


def grid(*shown: str, pairs: bool = False) -> str:
    """Figures side by side, at most two in a row if they come in pairs."""
    return f'<div class="figures{" pairs" if pairs else ""}">{"".join(shown)}</div>'


def closed(title: str, body: str) -> str:
    """Something long that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"
