"""Tables, and the numbers in their cells: rounded for the eye, all digits for a machine."""

import math
from collections.abc import Iterable, Sequence

from tailor.shell.figures.labels import percent, percent_up
from tailor.shell.page.text import escape


def number(value: float) -> str:
    """A number in four digits."""
    return f'<data value="{value!r}">{value:.4g}</data>'


def count(value: int) -> str:
    """A whole number."""
    return f'<data value="{value}">{value:,}</data>'


def share(value: float, *, down: bool = False) -> str:
    """A percentage, rounded to the nearest or down."""
    shown = math.floor(value * 10_000) / 10_000 if down else value
    return f'<data value="{value!r}">{percent(shown, 2)}</data>'


def bound(value: float) -> str:
    """A percentage that is shown rounded up, never down."""
    return f'<data value="{value!r}">{percent_up(value, 2)}</data>'


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    text: Iterable[int] = (0,),
    wrap: int | None = None,
    chosen: Sequence[int] = (),
) -> str:
    """A table of finished HTML cells that scrolls inside its box.

    Args:
        caption: What the table shows.
        head: Names of the columns.
        rows: Cells; the first of each names its row.
        text: Columns of words.
        wrap: Column of long text.
        chosen: Rows to stress.
    """
    words = set(text)
    kinds = [
        f' class="{"text wrap" if i == wrap else "text"}"' if i in words else ""
        for i in range(len(head))
    ]
    top = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True)
    )
    body, size = [], " tall" if len(kinds) > 2 else " narrow"
    for place, row in enumerate(rows):
        mark = ' class="chosen"' if place in chosen else ""
        cells = "".join(f"<td{k}>{cell}</td>" for cell, k in zip(row[1:], kinds[1:], strict=True))
        body.append(f'<tr{mark}><th scope="row">{row[0]}</th>{cells}</tr>')
    return (
        f'<div class="scroll{size}" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>\n"
        f"<tbody>{chr(10).join(body)}</tbody></table></div>"
    )


def sortable(
    anchor: str,
    caption: str,
    head: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[str]],
    *,
    text: Iterable[int] = (),
) -> str:
    """A table of finished HTML cells that the page's script can sort and filter.

    Args:
        anchor: Id of the table.
        caption: What it shows.
        head: Names of the columns, and what each means.
        rows: Cells; the second of each names its row.
        text: Columns of words; the others are sorted by their number.
    """
    words = set(text)
    kinds = [' class="text"' if i in words else "" for i in range(len(head))]
    top = "".join(
        f'<th scope="col"{kind}{f" title={chr(34)}{escape(about)}{chr(34)}" if about else ""}>'
        f"{escape(name)}</th>"
        for (name, about), kind in zip(head, kinds, strict=True)
    )
    body = []
    for row in rows:
        cells = [f"<td{k}>{cell}</td>" for cell, k in zip(row, kinds, strict=True)]
        cells[1] = f'<th scope="row">{row[1]}</th>'
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll tall" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table id="{anchor}" class="sortable"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead>\n<tbody>{chr(10).join(body)}</tbody></table></div>"
    )
