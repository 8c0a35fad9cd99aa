"""Heads and hidden units of the models of Transformers are really removed."""

import copy

import pytest
import torch

from tailor.stages.shrink import load_shrunk, save_shrunk, shrink
from tests.stages.shrink.networks import assert_close, parameters

transformers = pytest.importorskip("transformers")


def _llama():
    config = transformers.LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=20,
    )
    return transformers.LlamaForCausalLM(config).eval()


def _gpt2():
    config = transformers.GPT2Config(
        n_embd=16,
        n_layer=2,
        n_head=4,
        vocab_size=20,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("build", [_llama, _gpt2])
def test_models_of_transformers(build, tmp_path):
    torch.manual_seed(0)
    model, ids = build(), torch.arange(10).reshape(2, 5)
    found = shrink(model, 0.5, {"input_ids": ids}, data=[{"input_ids": ids}])
    assert len(found.removed) == 4
    assert all(one.after * 2 == one.before for one in found.removed)
    masked = copy.deepcopy(model)
    for one in found.removed:
        gone = [unit for unit in range(one.before) if unit not in one.kept]
        with torch.no_grad():
            _columns(masked, one).index_fill_(1, torch.tensor(gone), 0)
    assert_close(found.model(ids).logits, masked(ids).logits)
    again = load_shrunk(save_shrunk(found.model, tmp_path / "lm.safetensors"), build)
    assert torch.equal(again(ids).logits, found.model(ids).logits)
    assert parameters(again) == found.parameters_after
    tokens = {"do_sample": False, "max_new_tokens": 3, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    grown = found.model.generate(ids, attention_mask=mask, **tokens)  # with a cache of keys
    assert torch.equal(grown, masked.generate(ids, attention_mask=mask, **tokens))


def _columns(model, one):
    """The weight that reads the units of a chain, as outputs by units by features."""
    block = model.get_submodule(one.name.rpartition(".")[0])
    if hasattr(block, "mlp"):
        part = model.get_submodule(one.name)
        weight = part.o_proj.weight if hasattr(part, "o_proj") else part.c_proj.weight.T
    else:
        weight = block.down_proj.weight if hasattr(block, "down_proj") else block.c_proj.weight.T
    return weight.detach().unflatten(1, (one.before, -1))
