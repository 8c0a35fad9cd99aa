"""Linear algebra gets one thread; the libraries read that when they are imported."""

import os

for library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{library}_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"  # WeightWatcher draws into pyplot's current figure

if __name__ == "__main__":  # workers import this file, too
    from benchmarks.analyze.command import main

    main()
