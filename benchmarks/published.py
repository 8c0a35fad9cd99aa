"""The exponents of Clauset, Shalizi & Newman (2009), Table 6.1, from their data.

    python benchmarks/published.py FOLDER

FOLDER is ``powerlaw/reference_data`` of https://github.com/jeffalstott/powerlaw. Writes
benchmarks/results/published.json, and fails if an exponent differs from the published one in the
digits that were published.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

import tailor as tl

RESULT = Path(__file__).parent / "results" / "published.json"
CONTINUOUS, DISCRETE = tl.Clauset(min_tail=2, min_fraction=0), tl.DiscreteClauset()
PUBLISHED = {  # exponent, and its digits after the point
    "words": (DISCRETE, 1.95, 2),
    "terrorism": (DISCRETE, 2.4, 1),
    "blackouts": (CONTINUOUS, 2.3, 1),
    "flares": (CONTINUOUS, 1.79, 2),
    "cities": (CONTINUOUS, 2.37, 2),
}


def main() -> int:
    """Fit every data set; 1 if any exponent is another."""
    parser = argparse.ArgumentParser(description="the exponents of Clauset et al. (2009)")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rows = []
    for name, (method, alpha, digits) in PUBLISHED.items():
        fit = method.fit(np.loadtxt(folder / f"{name}.txt").ravel())
        assert isinstance(fit, tl.PowerLawFit)
        equal = round(fit.alpha, digits) == alpha
        rows.append({"name": name, "published": alpha, "equal": equal, **asdict(fit)})
        print(f"{name:10} {alpha:5} {fit.alpha:8.4f} xmin {fit.xmin:8g} {fit.n_tail:5} {equal}")
    versions = asdict(tl.Provenance.now(None))
    RESULT.write_text(json.dumps({"about": versions, "fits": rows}, indent=1) + "\n")
    return 0 if all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
