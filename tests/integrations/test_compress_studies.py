"""The studies on language models, made tiny: every rule prunes, and tokens become text again."""

import pytest
import torch

pytest.importorskip("transformers")

from benchmarks.compress import allocation, charlm, stories
from benchmarks.compress.case import METHODS, SCORES, Case
from benchmarks.compress.tok512 import Tokenizer

TEXT = charlm.Text(
    characters="abcdefgh",
    train=torch.randint(0, 8, (2000,), generator=torch.Generator().manual_seed(0)),
    held_out=torch.randint(0, 8, (500,), generator=torch.Generator().manual_seed(1)),
)


def model(blocks=2):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return charlm.network(8, width=24, blocks=blocks).eval()


def test_every_rule_prunes():
    pieces = charlm.windows(TEXT.train, 4, 16, seed=0)
    case = Case(model(), calibration=pieces, held_out=charlm.windows(TEXT.held_out, 4, 17, seed=0))
    found = {
        name: case.pruned(SCORES["Wanda"], make(case, 0.5), 0.5) for name, make in METHODS.items()
    }
    assert all(2 < bits < 4 for bits in found.values())
    assert len(set(found.values())) > len(METHODS) / 2


def test_a_study_goes_on_where_it_was(monkeypatch):
    monkeypatch.setattr(allocation, "SPARSITIES", (0.7,))
    monkeypatch.setattr(
        allocation, "METHODS", {n: METHODS[n] for n in ("uniform", "alpha, median")}
    )
    monkeypatch.setattr(allocation, "SCORES", {"magnitude": SCORES["magnitude"]})
    case = allocation.case(model(blocks=3), TEXT, seed=0)
    done, kept = {}, []
    allocation.measure(case, done, lambda: kept.append(len(done)), permuted=3)
    assert kept == [4, 5, 6, 7, 7, 7]
    again = dict(done, permutations=done["permutations"][:1])
    allocation.measure(case, again, lambda: kept.append(len(again)), permuted=3)
    assert again == done
    assert len(kept) == 8
    assert 0 <= allocation.quantile(done) <= 1
    assert 0 < allocation.combined([done, done]) <= 1


def test_permutations_differ():
    found = allocation.permutations([0.1, 0.2, 0.3, 0.4], 20, seed=0)
    assert len({tuple(one) for one in found}) == 20
    assert [0.1, 0.2, 0.3, 0.4] not in found
    assert allocation.permutations([0.1, 0.2], 20, seed=0) == [[0.2, 0.1]]


def test_training_lowers_the_loss(capsys, monkeypatch):
    monkeypatch.setattr(charlm, "network", _small)
    monkeypatch.setattr(charlm, "WINDOW", 16)
    text = charlm.Text(
        characters=TEXT.characters, train=torch.arange(999) % 8, held_out=torch.arange(99) % 8
    )
    trained = charlm.train(text, seed=0, steps=20)
    assert charlm.bits(trained, text.held_out[None, :32]) < 2.5
    assert "seed 0, step 19" in capsys.readouterr().out


def _small(count, network=charlm.network):
    return network(count, width=24, blocks=1)


def test_the_tokenizer_merges_by_score():
    pieces = [b"<unk>", b"\n<s>\n", b"\n</s>\n", *(b"<0x%02X>" % i for i in range(256))]
    pieces += [b" t", b"he", b" the", b" ", b"t", b"h", b"e", b"th"]
    scores = [0.0] * 259 + [-1.0, -2.0, -3.0, -10.0, -11.0, -12.0, -13.0, -0.5]
    tokenizer = Tokenizer(pieces=tuple(pieces), scores=tuple(scores))
    the = [1, tokenizer.pieces.index(b" "), tokenizer.pieces.index(b"th"), pieces.index(b"e")]
    assert tokenizer.encode("the") == the  # "th" before " t", though " the" would be one token
    assert tokenizer.decode(the) == "the"
    assert tokenizer.encode("té") == [1, 259, 0xC3 + 3, 0xA9 + 3]
    assert tokenizer.decode(tokenizer.encode("the té")) == "the té"


def test_stories_begin_with_the_first_token_and_repeat_with_the_seed(monkeypatch):
    monkeypatch.setattr(stories, "LENGTH", 12)
    drawn = [stories.stories(model(), 3, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0].shape == (3, 12)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert bool((drawn[0][:, 0] == 1).all())


def test_rotations_of_neighbours_become_those_of_halves():
    one = model()
    old = one.model.layers[0].self_attn.q_proj.weight.detach().clone()
    stories._reorder(one)
    new = one.model.layers[0].self_attn.q_proj.weight
    heads, width = 4, 6
    for head in range(heads):
        for i in range(width):
            row = head * width + (i // 2 if i % 2 == 0 else width // 2 + i // 2)
            assert torch.equal(new[row], old[head * width + i])
