"""Words and numbers as text that is safe in HTML."""

import html
import json
from collections.abc import Sequence


def escape(text: str) -> str:
    """Text that stays text in HTML and in its attributes."""
    return html.escape(text, quote=True)


def safe_json(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def matrices(count: int) -> str:
    """A number of matrices in words."""
    return f"{count:,} {'matrix' if count == 1 else 'matrices'}"


def points(difference: float) -> str:
    """A difference of two shares in percentage points."""
    return f"{100 * difference:.1f} points"


def dimensions(shape: Sequence[int]) -> str:
    """The shape of a tensor."""
    return " × ".join(map(str, shape)) or "scalar"
