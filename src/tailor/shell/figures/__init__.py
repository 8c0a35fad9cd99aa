"""Figures of the report: records in, plain plotly dictionaries out.

Nothing here imports plotly. A figure is ``{"data": [...], "layout": {...}}`` in the colours of
the light theme; ``DARK`` says which colour takes the place of each in the dark one, and
``TEMPLATE`` is the look that all of them share. ``tail`` and ``scan`` draw one matrix, ``depth``
all of them; the other stages have one module each. They share ``palette``, ``axes``, ``traces``
and ``labels``.
"""

from tailor.shell.figures.axes import TEMPLATE, Figure
from tailor.shell.figures.certificate import bits, certified
from tailor.shell.figures.comparison import against_quality, changes, over_models
from tailor.shell.figures.compression import bounds, frontier, path
from tailor.shell.figures.depth import Depth, exponents, norms
from tailor.shell.figures.packed import allocation, parts, quality
from tailor.shell.figures.packed import bits as packed_bits
from tailor.shell.figures.palette import DARK, NETWORKS, Colours, colours
from tailor.shell.figures.run import (
    MOST_LAYERS,
    has_exponent,
    layer_exponents,
    layer_norms,
    layer_stable_ranks,
    run_errors,
    run_loss,
    run_penalty,
)
from tailor.shell.figures.scan import considered, has_choice, scan
from tailor.shell.figures.tail import Layers, entries, has_weights, histogram, spectrum
from tailor.shell.figures.training import training_error, training_loss

__all__ = [
    # train
    "training_loss",
    "training_error",
    # train: one run
    "run_loss",
    "run_penalty",
    "run_errors",
    "layer_exponents",
    "layer_stable_ranks",
    "layer_norms",
    "has_exponent",
    "MOST_LAYERS",
    # compare
    "over_models",
    "changes",
    "against_quality",
    # analyze: all matrices
    "exponents",
    "norms",
    # analyze: one matrix
    "spectrum",
    "scan",
    "considered",
    "has_choice",
    "entries",
    "histogram",
    "has_weights",
    # compress: one file
    "allocation",
    "packed_bits",
    "parts",
    "quality",
    # compress: the demo's files
    "frontier",
    "path",
    "bounds",
    # certify
    "bits",
    "certified",
    # what they are made of
    "Figure",
    "Layers",
    "Depth",
    "Colours",
    "colours",
    "NETWORKS",
    "DARK",
    "TEMPLATE",
]
