"""Pruning a causal language model of transformers, block by block."""

from tailor.integrations.causal_lm.prune import prune_causal_lm
from tailor.integrations.causal_lm.record import PrunedCausalLM, PrunedMatrix

__all__ = ["prune_causal_lm", "PrunedCausalLM", "PrunedMatrix"]
