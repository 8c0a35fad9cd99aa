"""Zeros in the matrices of a network."""

from tailor.stages.prune.old import Magnitude, Pruner

__all__ = ["Magnitude", "Pruner"]
