"""Language models block by block: the same as with the whole model in memory, done by hand."""

import copy
import json
import weakref

import pytest
import torch
from torch import nn

from tailor.errors import NonFinite, OutputError, SourceError, UsageError
from tailor.stages.allocate import OWL, AlphaPruning, Sensitivity, UniformAllocation
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Magnitude, NofM, SparseGPT, Wanda
from tailor.weights.source import read

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.utils import logging

from tailor.integrations.causal_lm import folder, prune, prune_causal_lm
from tailor.integrations.causal_lm.home import Home

logging.disable_progress_bar()

SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
CONFIGS = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
    # the blocks of this one get different masks: every second sees six tokens only
    "gemma3": Gemma3TextConfig(
        **SIZES,
        head_dim=8,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "gpt2": GPT2Config(
        n_layer=2,
        n_embd=32,
        n_head=2,
        vocab_size=40,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
    ),
    "opt": OPTConfig(
        vocab_size=40,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    ),
}
LISTS = {"llama": "model.layers", "gemma3": "model.layers"}
LISTS |= {"gpt2": "transformer.h", "opt": "model.decoder.layers"}
TOKENS = torch.randint(2, 40, (6, 12), generator=torch.Generator().manual_seed(1)).split(4)
UNIFORM = UniformAllocation()


def network(name="llama", **changes):
    config = copy.deepcopy(CONFIGS[name])
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():  # so that the blocks differ and act on the outcome
            nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.15)
    return model.eval()


def stored(tmp_path, name="llama", **changes):
    model = network(name, **changes)
    model.save_pretrained(tmp_path / "dense", max_shard_size="30kB")
    (tmp_path / "dense" / "vocab.txt").write_text("the tokens")
    return model, tmp_path / "dense"


def parts(model, name):
    """The linear layers of each block, with their names in the model."""
    for i, block in enumerate(model.get_submodule(LISTS[name])):
        yield [
            (f"{LISTS[name]}.{i}.{n}", part)
            for n, part in block.named_modules()
            if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"
        ]


def oriented(part):
    return part.weight.T if type(part).__name__ == "Conv1D" else part.weight


@torch.no_grad()
def seen(model, few):
    """Inputs of some layers, from runs of the whole model."""
    rows = {name: [] for name, _ in few}
    handles = [
        part.register_forward_pre_hook(
            lambda _, args, name=name: rows[name].append(args[0].flatten(0, -2).double())
        )
        for name, part in few
    ]
    for batch in TOKENS:
        model(batch)
    for handle in handles:
        handle.remove()
    found = {name: torch.cat(few) for name, few in rows.items()}
    return {
        name: Inputs(count=len(x), squares=x.square().sum(0), gram=x.T @ x)
        for name, x in found.items()
    }


@torch.no_grad()
def by_hand(model, name, score):
    """Half of each matrix, block after block, with the whole model in memory."""
    model = copy.deepcopy(model)
    for few in parts(model, name):
        inputs = seen(model, few)
        for path, part in few:
            matrix = oriented(part)
            new = score.prune(matrix.clone(), matrix.numel() // 2, inputs=inputs[path]).matrix
            matrix.copy_(new)
    return model


def assert_same(a, b, **tolerance):
    for (name, x), (other, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other
        torch.testing.assert_close(x, y, msg=name, **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("name", CONFIGS)
def test_block_by_block_is_the_same_as_with_the_whole_model(name):
    model = network(name)
    before = copy.deepcopy(model)
    found = prune_causal_lm(model, TOKENS, 0.5, score=Wanda(), allocation=UNIFORM)
    assert_same(found.model, by_hand(model, name, Wanda()))
    assert_same(model, before)
    assert found.sparsity == 0.5
    assert [one.name for one in found.matrices] == [
        f"{path}.weight" for few in parts(model, name) for path, _ in few
    ]
    assert found.tokens == 72


def test_sparsegpt_mends_on_the_pruned_prefix():
    model = network(num_hidden_layers=2)
    found = prune_causal_lm(model, TOKENS, 0.5, score=SparseGPT(), allocation=UNIFORM)
    assert_same(found.model, by_hand(model, "llama", SparseGPT()), rtol=1e-4, atol=1e-6)
    masked = prune_causal_lm(model, TOKENS, 0.5, score=Magnitude(), allocation=UNIFORM)
    errors = [sum(one.error for one in each.matrices) for each in (masked, found)]
    assert errors[1] > errors[0]  # of the weights, to have less in what comes out


def test_the_second_block_sees_what_the_first_one_pruned_gives():
    model, wanda = network(), Wanda()
    found = prune_causal_lm(model, TOKENS, 0.5, score=wanda, allocation=UNIFORM)
    dense = {path: one for few in parts(model, "llama") for path, one in seen(model, few).items()}
    path = "model.layers.1.mlp.down_proj"
    matrix = model.get_submodule(path).weight
    other = wanda.prune(matrix, matrix.numel() // 2, inputs=dense[path]).matrix
    assert not torch.equal(found.model.get_submodule(path).weight, other)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("llama", torch.float32), ("gpt2", torch.bfloat16), ("gemma3", torch.float32)],
)
def test_a_folder_gives_what_the_model_in_memory_gives(name, dtype, tmp_path):
    _, source = stored(tmp_path, name, dtype=dtype)
    before = {one.name: one.read_bytes() for one in source.iterdir()}
    asked = {"score": Wanda(), "allocation": UNIFORM}
    found = prune_causal_lm(source, TOKENS, 0.5, out=tmp_path / "pruned", **asked)
    assert found.model is None
    loaded = AutoModelForCausalLM.from_pretrained(found.folder, dtype=dtype)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    assert_same(loaded, prune_causal_lm(model, TOKENS, 0.5, **asked).model)
    assert before == {one.name: one.read_bytes() for one in source.iterdir()}
    names = {one.name for one in found.folder.iterdir()}
    assert names == {*before, "tailor.json"}
    assert len([one for one in before if one.endswith(".safetensors")]) > 1
    assert {one.name for one in tmp_path.iterdir()} == {"dense", "pruned"}


def test_one_block_at_a_time_is_in_memory(tmp_path, monkeypatch):
    _, source = stored(tmp_path)
    alive, block = [], folder.Folder.block

    def watched(self, index, **asked):
        assert all(one() is None for one in alive)
        assert all(
            p.device.type == "meta" for part in self.blocks.members for p in part.parameters()
        )
        found = block(self, index, **asked)
        alive.append(weakref.ref(found.self_attn.q_proj.weight))
        return found

    monkeypatch.setattr(folder.Folder, "block", watched)
    prune_causal_lm(source, TOKENS, 0.5, allocation=OWL(), out=tmp_path / "pruned")
    assert len(alive) == 6  # OWL sees the dense model first


class Killed(BaseException):
    """Stands for the end of the process."""


def test_a_run_that_was_broken_off_goes_on(tmp_path, monkeypatch):
    _, source = stored(tmp_path)
    asked = {"score": SparseGPT(), "allocation": OWL()}
    whole = prune_causal_lm(source, TOKENS, 0.6, out=tmp_path / "whole", **asked)
    overwrite, count = folder._overwrite, []

    def dies(*args):
        count.append(args)
        if len(count) == 10:  # in the middle of the second of three blocks
            raise Killed("killed")
        overwrite(*args)

    monkeypatch.setattr(folder, "_overwrite", dies)
    with pytest.raises(Killed, match="killed"):
        prune_causal_lm(source, TOKENS, 0.6, out=tmp_path / "again", **asked)
    monkeypatch.setattr(folder, "_overwrite", overwrite)
    assert not (tmp_path / "again").exists()
    monkeypatch.setattr(OWL, "allocate", None)  # is not asked again
    steps = []
    again = prune_causal_lm(
        source, TOKENS, 0.6, out=tmp_path / "again", progress=lambda *at: steps.append(at), **asked
    )
    assert steps == [(2, 3), (3, 3)]
    assert again.matrices == whole.matrices
    assert again.allocated == whole.allocated
    for file in whole.folder.glob("*.safetensors"):
        assert file.read_bytes() == (again.folder / file.name).read_bytes()


def test_an_unfinished_run_with_other_arguments_is_left_alone(tmp_path):
    _, source = stored(tmp_path, num_hidden_layers=2)
    asked = {"out": tmp_path / "pruned", "score": Wanda(), "allocation": UNIFORM}

    def dies(done, count):
        raise Killed("killed")

    with pytest.raises(Killed, match="killed"):
        prune_causal_lm(source, TOKENS, 0.5, **asked, progress=dies)
    with pytest.raises(OutputError, match="unfinished run with other arguments"):
        prune_causal_lm(source, TOKENS, 0.6, **asked)
    with pytest.raises(OutputError, match="unfinished run with other arguments"):
        prune_causal_lm(source, TOKENS[:1], 0.5, **asked)
    assert prune_causal_lm(source, TOKENS, 0.5, **asked).folder.is_dir()
    with pytest.raises(OutputError, match="exists already"):
        prune_causal_lm(source, TOKENS, 0.5, **asked)


def test_a_copy_that_was_broken_off_is_made_anew(tmp_path):
    _, source = stored(tmp_path, num_hidden_layers=2)
    half = tmp_path / ".pruned.unfinished"
    half.mkdir()
    (half / "model-00001-of-00003.safetensors").write_bytes(b"half")
    asked = {"score": Magnitude(), "allocation": UNIFORM}
    found = prune_causal_lm(source, (), 0.5, out=tmp_path / "pruned", **asked)
    assert {one.name for one in found.folder.iterdir()} == {
        *(one.name for one in source.iterdir()),
        "tailor.json",
    }


def test_owl_looks_at_the_dense_model():
    model = network()
    found = prune_causal_lm(model, TOKENS, 0.6, allocation=OWL(threshold=3))
    named = {one.name: one for one in read(model).layers}
    chosen = [named[f"{path}.weight"] for few in parts(model, "llama") for path, _ in few]
    inputs = {
        f"{path}.weight": one
        for few in parts(model, "llama")
        for path, one in seen(model, few).items()
    }
    wanted = OWL(threshold=3).allocate(chosen, 0.6, score=Wanda(), inputs=inputs)
    assert found.allocated.drop == wanted.drop
    assert len(set(found.allocated.drop.values())) > 3


def test_exactly_so_many_go_and_the_rest_stays():
    model = network()
    alpha = AlphaPruning(gate=False)
    found = prune_causal_lm(model, TOKENS, 0.7, allocation=alpha, layers="*.mlp.*")
    total = sum(one.size for one in found.matrices)
    assert sum(one.zeros for one in found.matrices) == round(0.7 * total)
    assert {one.name.split(".")[3] for one in found.matrices} == {"mlp"}
    for (name, old), new in zip(model.named_parameters(), found.model.parameters(), strict=True):
        assert torch.equal(new, old) == (".mlp." not in name)
        assert torch.equal(new[new != 0], old[new != 0])


def test_wanda_and_uniform_shares_are_the_defaults():
    model, few = network(), "*.o_proj.*"
    plain = prune_causal_lm(model, TOKENS, 0.6, layers=few)
    told = {"score": Wanda(), "allocation": UniformAllocation(), "layers": few}
    told = prune_causal_lm(model, TOKENS, 0.6, **told)
    assert_same(plain.model, told.model)
    assert plain.allocated.method == repr(UniformAllocation())


def test_a_pattern_holds_in_each_row(tmp_path):
    _, source = stored(tmp_path, "gpt2")
    found = prune_causal_lm(source, TOKENS, None, pattern=NofM(n=2, m=4), out=tmp_path / "pruned")
    assert found.sparsity == 0.5
    model = AutoModelForCausalLM.from_pretrained(found.folder)
    for few in parts(model, "gpt2"):
        for _, part in few:
            groups = oriented(part).reshape(-1, 4)
            assert bool(((groups == 0).sum(1) == 2).all())
    with pytest.raises(UsageError, match="fixes how many"):
        prune_causal_lm(network(), TOKENS, 0.6, pattern=NofM(n=2, m=4))


def test_a_measured_allocation_is_measured_with_the_score():
    model = network()

    @torch.no_grad()
    def loss(one):
        return float(one(TOKENS[0], labels=TOKENS[0]).loss)

    found = prune_causal_lm(model, TOKENS, 0.6, allocation=Sensitivity(evaluate=loss))
    assert abs(found.sparsity - 0.6) < 1e-3
    assert len(found.allocated.metric) == len(found.matrices)


def test_the_model_keeps_its_mode_and_nothing_random_is_drawn():
    model = network()
    model.train()
    model.model.layers[1].eval()
    state = torch.random.get_rng_state()
    found = prune_causal_lm(model, TOKENS, 0.5, allocation=UNIFORM)
    modes = [[part.training for part in one.modules()] for one in (model, found.model)]
    assert modes[0] == modes[1]
    assert len(set(modes[0])) == 2
    assert torch.equal(state, torch.random.get_rng_state())


def test_another_type_is_for_the_work_only():
    model = network().to(torch.bfloat16)
    found = prune_causal_lm(model, TOKENS, 0.5, allocation=UNIFORM, dtype=torch.float32)
    assert {one.dtype for one in found.model.parameters()} == {torch.bfloat16}
    plain = prune_causal_lm(network(), TOKENS, 0.5, allocation=UNIFORM, dtype=torch.bfloat16)
    kept = plain.model.model.layers[0].mlp.up_proj.weight
    old = network().model.layers[0].mlp.up_proj.weight
    assert torch.equal(kept[kept != 0], old[kept != 0])


def test_magnitude_needs_no_data():
    model = network()
    few = prune_causal_lm(model, (), 0.5, score=Magnitude(), allocation=UNIFORM)
    assert_same(few.model, by_hand(model, "llama", Magnitude()))
    with pytest.raises(UsageError, match="no calibration data"):
        prune_causal_lm(model, (), 0.5, score=Magnitude(), allocation=OWL())


def test_experts_in_one_tensor_are_listed():
    config = MixtralConfig(**SIZES, num_local_experts=2, num_experts_per_tok=1)
    found = prune_causal_lm(
        AutoModelForCausalLM.from_config(config), TOKENS, 0.5, allocation=UNIFORM
    )
    assert any("experts" in one.name for one in found.left)
    assert all("experts" not in one.name for one in found.matrices)


# What is refused


class Toy(nn.Module):
    """Blocks in a list, and what a model may do between them."""

    def __init__(self, between=lambda h: h, way=lambda given: given, share=False):
        super().__init__()
        self.embed = nn.Embedding(40, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(8, 40)
        self.between, self.way = between, way
        if share:
            self.blocks[1][0].weight = self.blocks[0][0].weight

    def forward(self, input_ids, use_cache=True):
        assert not use_cache
        hidden = self.embed(input_ids)
        for block in self.blocks:
            hidden = self.way(block(hidden))
            hidden = self.between(hidden)
        return self.head(hidden)


def test_any_model_that_calls_one_block_after_the_other_will_do():
    found = prune_causal_lm(Toy(), TOKENS, 0.5, allocation=UNIFORM)
    assert found.sparsity == 0.5
    assert [one.name for one in found.matrices] == [f"blocks.{i}.0.weight" for i in range(3)]


def test_a_model_that_does_more_between_its_blocks_is_refused():
    with pytest.raises(UsageError, match="does more between its blocks"):
        prune_causal_lm(Toy(between=lambda h: h + 1), TOKENS, 0.5)
    with pytest.raises(UsageError, match=r"blocks\.1\.0\.weight is one tensor with"):
        prune_causal_lm(Toy(share=True), TOKENS, 0.5)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "no calibration data"),
        ([torch.zeros(2, 3)], "one is torch.float32 of shape"),
        ([torch.zeros(3, dtype=torch.long)], "one is torch.int64 of shape"),
        ([torch.zeros(0, 3, dtype=torch.long)], "no calibration data"),
    ],
)
def test_data_that_are_no_tokens_are_refused(tokens, message):
    with pytest.raises(UsageError, match=message):
        prune_causal_lm(network(), tokens, 0.5)


def test_models_of_another_kind_are_refused():
    with pytest.raises(UsageError, match="has no ModuleList"):
        prune_causal_lm(nn.Linear(3, 3), TOKENS, 0.5)
    t5 = T5Config(vocab_size=40, d_model=8, d_ff=8, num_layers=1, num_heads=2, d_kv=4)
    with pytest.raises(UsageError, match="has an encoder and a decoder"):
        prune_causal_lm(T5ForConditionalGeneration(t5), TOKENS, 0.5)
    with pytest.raises(UsageError, match=r"fits \*\.conv\*; there are: model\.layers\.0\.self"):
        prune_causal_lm(network(), TOKENS, 0.5, layers="*.conv*")


def test_what_is_not_finite_is_named():
    model = network()
    model.model.layers[1].mlp.up_proj.weight.data[0, :2] = torch.nan
    with pytest.raises(NonFinite, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds 2 NaN"):
        prune_causal_lm(model, TOKENS, 0.5, score=Magnitude(), allocation=UNIFORM)
    model = network()
    model.model.layers[0].input_layernorm.weight.data[3] = torch.inf
    with pytest.raises(NonFinite, match=r"inputs of model\.layers\.0\.self_attn\.q_proj"):
        prune_causal_lm(model, TOKENS, 0.5, allocation=UNIFORM)


def test_folders_that_will_not_do(tmp_path):
    model, source = stored(tmp_path)
    with pytest.raises(UsageError, match="say which with out="):
        prune_causal_lm(source, TOKENS, 0.5)
    with pytest.raises(UsageError, match="leave out `out`"):
        prune_causal_lm(model, TOKENS, 0.5, out=tmp_path / "x")
    with pytest.raises(UsageError, match="is no folder"):
        prune_causal_lm("meta-llama/Llama-2-7b", TOKENS, 0.5, out=tmp_path / "x")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"intermediate_size": 44}))
    with pytest.raises(SourceError, match=r"config\.json says \[44, 32\]"):
        prune_causal_lm(source, TOKENS, 0.5, out=tmp_path / "x")
    told = config | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (source / "config.json").write_text(json.dumps(told))
    with pytest.raises(SourceError, match="are quantised"):
        prune_causal_lm(source, TOKENS, 0.5, out=tmp_path / "x")
    (source / "config.json").unlink()
    with pytest.raises(SourceError, match="no causal language model"):
        prune_causal_lm(source, TOKENS, 0.5, out=tmp_path / "x")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(SourceError, match="holds no safetensors"):
        prune_causal_lm(tmp_path, TOKENS, 0.5, out=tmp_path / "x")
    assert not list(tmp_path.glob("*x*"))


def test_a_failed_allocation_leaves_nothing(tmp_path):
    _, source = stored(tmp_path)
    with pytest.raises(UsageError, match="sparsity"):
        prune_causal_lm(source, TOKENS, 1.5, out=tmp_path / "pruned")
    assert {one.name for one in tmp_path.iterdir()} == {"dense"}


def test_every_home_is_final():
    assert {one.__name__ for one in Home.__subclasses__()} == {"Folder", "InMemory"}
    assert prune.Folder is folder.Folder
