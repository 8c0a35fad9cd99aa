"""Gates for continuous integration: ``alpha>6``, ``median(alpha)>6``, ``verdict==over-trained``."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tailor.errors import UsageError

if TYPE_CHECKING:
    import pandas

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
OVER_ALL = ("mean", "median", "min", "max")
GRAMMAR = re.compile(rf"(?:({'|'.join(OVER_ALL)})\((\w+)\)|(\w+))\s*(>=|<=|==|!=|>|<)\s*(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A condition that must not hold for any matrix.

    Attributes:
        text: As it was given.
        over_all: ``mean``, ``median``, ``min`` or ``max`` of the column; None: each matrix.
        column: Column of the analysis' table.
        comparison: Key of ``COMPARISONS``.
        value: A number, or text.
    """

    text: str
    over_all: str | None
    column: str
    comparison: str
    value: float | str

    def offenders(self, frame: "pandas.DataFrame") -> list[str]:
        """One line for each matrix (or for the model) that the condition holds for.

        An empty cell trips no gate.

        Raises:
            UsageError: No such column, or a number compared with text.
        """
        if self.column not in frame.columns:
            columns = ", ".join(map(str, frame.columns))
            raise UsageError(
                f"--fail-on {self.text!r}: no column {self.column!r}; it has {columns}"
            )
        known = frame[frame[self.column].notna()]
        values = known[self.column]
        try:
            if self.over_all is not None:
                one = getattr(values.astype(float), self.over_all)()
                tripped = len(values) > 0 and bool(self._compare(one))
                return [f"{self.over_all}({self.column}) = {one:.4g}"] if tripped else []
            mask = [bool(self._compare(value)) for value in values]
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"--fail-on {self.text!r}: column {self.column} cannot be compared so ({error})"
            ) from error
        return [
            f"{layer}: {self.column} = {_short(value)}"
            for layer, value in zip(known["layer"][mask], values[mask], strict=True)
        ]

    def _compare(self, one: Any) -> Any:
        return COMPARISONS[self.comparison](one, self.value)


def parse(text: str) -> Gate:
    """Read a gate.

    Raises:
        UsageError: It is not ``column>value`` or ``median(column)>value``.
    """
    found = GRAMMAR.fullmatch(text.strip())
    if found is None:
        raise UsageError(
            f"--fail-on {text!r} is no condition; write one like 'alpha>6', "
            f"'median(alpha)>6' or 'verdict==over-trained' (with {', '.join(COMPARISONS)})"
        )
    over_all, inner, plain, comparison, value = found.groups()
    try:
        threshold: float | str = float(value)
    except ValueError:
        threshold = value.strip("'\" ")
    if isinstance(threshold, str) and comparison not in ("==", "!="):
        raise UsageError(f"--fail-on {text!r}: {value!r} is no number; text takes == or !=")
    return Gate(
        text=text,
        over_all=over_all,
        column=inner or plain,
        comparison=comparison,
        value=threshold,
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
