"""Analyses as files: JSON, CSV, Markdown and, with pyarrow, Parquet."""

import io
import math
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from tailor import records
from tailor.stages.analyze import Analyses, Analysis

if TYPE_CHECKING:
    import pandas

MARKDOWN = (
    "layer",
    "shape",
    "alpha",
    "alpha_ci_low",
    "alpha_ci_high",
    "verdict",
    "D",
    "num_pl_spikes",
    "alpha_weighted",
    "log_norm",
    "log_spectral_norm",
    "stable_rank",
    "reason",
)


def save_analyses(analyses: Analyses, out: Path) -> None:
    """Write ``analysis.json``, ``.csv``, ``.md`` and, where pyarrow is there, ``.parquet``."""
    records.save(analyses, out / "analysis.json")
    records.write(out / "analysis.csv", to_csv(analyses.analyses).encode())
    records.write(out / "analysis.md", to_markdown(analyses.analyses).encode())
    if find_spec("pyarrow") is not None:
        buffer = io.BytesIO()
        _frame(analyses.analyses).to_parquet(buffer, index=False, engine="pyarrow")
        records.write(out / "analysis.parquet", buffer.getvalue())


def to_csv(analyses: Sequence[Analysis]) -> str:
    """All columns, one row for each matrix."""
    return str(_frame(analyses).to_csv(index=False))


def to_markdown(analyses: Sequence[Analysis]) -> str:
    """The columns that people read, as a table for a README or a pull request."""
    frame = _frame(analyses)
    names = [name for name in MARKDOWN if name in frame]
    if len(analyses) > 1:
        names.insert(0, "source")
    lines = [_line(names), _line(["---"] * len(names))]
    lines += [
        _line([_cell(value) for value in row]) for row in frame[names].itertuples(index=False)
    ]
    return "\n".join(lines) + "\n"


def _frame(analyses: Sequence[Analysis]) -> "pandas.DataFrame":
    """One below the other. ``pandas.concat`` would warn of columns that are empty in one."""
    import pandas

    frames = [analysis.to_frame() for analysis in analyses]
    names = dict.fromkeys(str(name) for frame in frames for name in frame)
    columns = {name: list(chain(*(_cells(frame, name) for frame in frames))) for name in names}
    return pandas.DataFrame(columns)


def _cells(frame: "pandas.DataFrame", name: str) -> list[object]:
    return frame[name].tolist() if name in frame else [None] * len(frame)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
