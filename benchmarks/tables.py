"""Tables that WeightWatcher wrote, beside the same columns of tailor's compat mode.

    python benchmarks/tables.py CHECKPOINT=TABLE ...

Each TABLE is ``WeightWatcher(model=...).analyze().to_csv(...)`` of WeightWatcher 0.7.7 for the
model in CHECKPOINT. Prints the largest relative difference of every column over the matrices
with at least 20 eigenvalues,
writes benchmarks/results/tables.json, and fails if any exceeds 1e-6, but for sv_min: there
WeightWatcher reports the largest of the kernel positions' minima.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas

import tailor as tl

RESULT = Path(__file__).parent / "results" / "tables.json"
LEAST, ALLOWED, DIFFERENT = 20, 1e-6, ("sv_min",)
SETTINGS = {"spectrum": tl.WeightWatcherCompat(), "view": tl.Taps(scale=0.5**0.5)}


def differences(checkpoint: str, table: str) -> tuple[int, dict[str, float]]:
    """Number of matrices, and for each column the largest difference relative to its number."""
    theirs = pandas.read_csv(table).set_index("longname")
    ours = tl.analyze(checkpoint, **SETTINGS).to_frame()
    ours = ours.set_index(ours["layer"].str.removesuffix(".weight"))
    names = theirs.index[theirs["num_evals"] >= LEAST]
    found = {}
    for column in ours.columns.intersection(theirs.columns):
        if theirs[column].dtype.kind not in "if":
            continue
        a, b = (frame.loc[names, column].to_numpy(np.float64) for frame in (ours, theirs))
        size = np.maximum(np.abs(b), np.finfo(np.float64).tiny)
        gap = np.where(a == b, 0.0, np.abs(a - b) / size)
        found[column] = float(np.where(np.isnan(gap), np.inf, gap).max())
    return len(names), found


def main() -> int:
    """Compare every pair; 1 if a column differs."""
    parser = argparse.ArgumentParser(description="WeightWatcher's tables beside tailor's")
    parser.add_argument("pairs", nargs="+", metavar="CHECKPOINT=TABLE")
    rows, failed = [], False
    for pair in parser.parse_args().pairs:
        checkpoint, table = pair.split("=")
        count, found = differences(checkpoint, table)
        rows.append({"table": Path(table).name, "matrices": count, "differences": found})
        wrong = [one for one, gap in found.items() if gap > ALLOWED and one not in DIFFERENT]
        failed = failed or bool(wrong)
        worst = max(gap for one, gap in found.items() if one not in DIFFERENT)
        print(f"{Path(table).name}: {count} matrices, {len(found)} columns, {worst:.1e}", *wrong)
    about = asdict(tl.Provenance.now(None, **SETTINGS))
    RESULT.write_text(json.dumps({"about": about, "tables": rows}, indent=1) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
