"""Figures of the report: records in, plain plotly dictionaries out.

Nothing here imports plotly. A figure is ``{"data": [...], "layout": {...}}`` in the colours of
the light theme; ``DARK`` says which colour takes the place of each in the dark one. There is one
module for each stage; they share ``palette``, ``axes``, ``traces`` and ``labels``.
"""

from tailor.shell.figures.analysis import entries, exponents, histogram, layer_names, spectrum
from tailor.shell.figures.axes import Figure
from tailor.shell.figures.certificate import bits, certified
from tailor.shell.figures.compression import bounds, frontier, path
from tailor.shell.figures.palette import DARK, NETWORKS, Colours, colours
from tailor.shell.figures.training import training_error, training_loss

__all__ = [
    # train
    "training_loss",
    "training_error",
    # analyze
    "spectrum",
    "entries",
    "histogram",
    "exponents",
    "layer_names",
    # compress
    "frontier",
    "path",
    "bounds",
    # certify
    "bits",
    "certified",
    # what they are made of
    "Figure",
    "Colours",
    "colours",
    "NETWORKS",
    "DARK",
]
