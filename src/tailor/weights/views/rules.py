"""Which tensor is seen how: rules by name, and the rules that hold without being told."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from jaxtyping import Shaped
from torch import Tensor

from tailor.weights.views.blocks import Experts, Fused
from tailor.weights.views.view import Flattened, Part, View

# Ends of names under which all queries come first, then all keys, then all values. Each line
# is a convention of public code, so a model of one's own may break it; ``ByName`` overrides.
#
# Left out on purpose, because the heads are interleaved and a state dict does not say how many
# there are: ``query_key_value.weight`` (GPT-NeoX, BLOOM, Falcon: q, k, v of one head after the
# other) and ``attn.qkv_proj.weight`` (CodeGen: q, v, k in four blocks). Also left out:
# ``in_proj.weight``, which in Mamba holds something else.
QUERY_KEY_VALUE = (
    "in_proj_weight",  # torch.nn.MultiheadAttention, OpenCLIP
    "c_attn.weight",  # GPT-2 (inputs first), nanoGPT, Qwen 1
    "qkv.weight",  # timm, DINOv2, Segment Anything
    "self_attn.qkv_proj.weight",  # Phi-3
    "Wqkv.weight",  # MPT, flash-attention, ModernBERT
    "W_pack.weight",  # Baichuan
    "to_qkv.weight",  # vit-pytorch
)

# Patterns of names under which a tensor of three axes is (experts, rows, columns).
EXPERTS = (
    "*experts*",  # Mixtral, Llama 4, Qwen 3 and gpt-oss in transformers: experts.gate_up_proj
    "*block_sparse_moe.input_linear.weight",  # Granite MoE
    "*block_sparse_moe.output_linear.weight",
)
ONE_EXPERT = "*experts.[0-9]*"  # experts.3.conv.weight is a convolution of one expert


@dataclass(frozen=True, slots=True, kw_only=True)
class ByName(View):
    """Another view for tensors of certain names.

    Attributes:
        rules: Pairs of a pattern and a view; the first pattern that matches the canonical name
            wins. Patterns are those of a shell (``*``, ``?``, ``[abc]``), cover the whole name
            and mind upper case.
        otherwise: For tensors that no pattern matches.
    """

    rules: tuple[tuple[str, View], ...]
    otherwise: View = field(default_factory=Flattened)

    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """See ``View.split``."""
        found = (view for pattern, view in self.rules if fnmatchcase(name, pattern))
        return next(found, self.otherwise).split(name, tensor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard(View):
    """What names and shapes tell by themselves; ``Flattened`` for everything else.

    - Fused attention (``QUERY_KEY_VALUE``) is split into ``[q]``, ``[k]`` and ``[v]`` if it has
      two axes and one is exactly three times the other; then no guess about heads is needed.
    - A tensor of three axes under a name of stacked experts (``EXPERTS``) is split into
      ``[0]``, ``[1]`` ...; under any other name it is a 1-D convolution.
    - Weights of an LSTM or GRU stay one matrix, as the cell multiplies them (``Gates`` splits).
    - Groups of a convolution are stored nowhere; see ``Grouped``.
    """

    def split(self, name: str, tensor: Shaped[Tensor, "out *rest"]) -> list[Part]:
        """See ``View.split``."""
        return _standard(name, tensor).split(name, tensor)


def _standard(name: str, tensor: Shaped[Tensor, "out *rest"]) -> View:
    if tensor.ndim == 2 and _ends(name, QUERY_KEY_VALUE):
        rows, columns = tensor.shape
        if rows == 3 * columns:
            return Fused(axis=0)
        if columns == 3 * rows:
            return Fused(axis=1)
    if tensor.ndim == 3 and _names_experts(name):
        return Experts()
    return Flattened()


def _ends(name: str, ends: tuple[str, ...]) -> bool:
    """Whether a name ends with one of these, at the border of one of its components."""
    return any(f".{name}".endswith(f".{end}") for end in ends)


def _names_experts(name: str) -> bool:
    stacked = any(fnmatchcase(name, pattern) for pattern in EXPERTS)
    return stacked and not fnmatchcase(name, ONE_EXPERT)
