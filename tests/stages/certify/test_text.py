"""Certificates of language models: by hand, by brute force, and simulated."""

import hashlib
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tailor.errors import TaskError, UsageError
from tailor.numerics.bounds import kl_upper
from tailor.numerics.coding import Grid
from tailor.stages.certify.method import Case
from tailor.stages.certify.text import (
    STAKES,
    BitsPerCharacter,
    Documents,
    Sizes,
    betting_upper,
    betting_upper_subsampled,
    loss_range,
    mean_upper,
    predict,
)
from tailor.stages.compress import Adaptive, pack
from tailor.tasks import zero_one

V = 5


class Bigram(nn.Module):
    """Scores from the last token alone."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(V, V)

    def forward(self, tokens):
        return self.table(tokens)


class Named(nn.Module):
    """The same in the form of Hugging Face."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids):
        return type("Output", (), {"logits": self.inner(input_ids)})()


def bigram(seed=0):
    model = Bigram().double().eval()
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-2, 3, (V, V), generator=generator).double()
    model.load_state_dict({"table.weight": values})
    return model


def sample(n, seed, length=(2, 9)):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(*length, size=n)
    return Documents.of([rng.integers(0, V, size=size).tolist() for size in sizes], repeats=True)


def bound(documents, model=None, *, bits=20.0, stream=b"file", delta=0.05, **settings):
    method = BitsPerCharacter(vocabulary=V, **({"alphas": (0.1, 0.5)} | settings))
    model = bigram() if model is None else model
    return method.bound(model, documents, bits=bits, delta=delta, stream=stream)


def probabilities(document, table):
    """Of each token but the first, one at a time."""
    found = []
    for before, token in itertools.pairwise(document):
        row = np.exp(table[before])
        found.append(row[token] / row.sum())
    return found


TABLE = bigram().table.weight.detach().numpy()
DOCUMENTS = sample(60, 1)


# ---- the loss -----------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1e-4, 0.1, 1.0])
def test_losses_by_brute_force(alpha):
    found = predict(bigram(), DOCUMENTS, vocabulary=V).losses(alpha)
    for document, loss in zip(DOCUMENTS.tokens, found.tolist(), strict=True):
        mixed = [(1 - alpha) * p + alpha / V for p in probabilities(document.tolist(), TABLE)]
        assert loss == pytest.approx(-np.mean(np.log2(mixed)), rel=1e-12)


def test_a_start_token_makes_the_first_one_predicted():
    with_start = predict(bigram(), DOCUMENTS, vocabulary=V, start=3)
    longer = Documents.of([[3, *one.tolist()] for one in DOCUMENTS.tokens])
    assert with_start.counts.tolist() == [len(one) for one in DOCUMENTS.tokens]
    expected = predict(bigram(), longer, vocabulary=V).losses(0.1)
    assert with_start.losses(0.1).tolist() == expected.tolist()


def test_wrong_tokens_by_hand_and_ties_are_wrong():
    model = bigram()
    table = torch.zeros(V, V)
    table[0, 1] = 2.0  # after 0 comes 1; after the others anything
    model.load_state_dict({"table.weight": table.double()})
    found = predict(model, Documents.of([[0, 1, 0, 2], [4, 4]]), vocabulary=V)
    assert found.wrong.tolist() == [False, True, True, True]
    assert found.errors().tolist() == pytest.approx([2 / 3, 1.0])


def test_bits_per_byte_have_a_least_size():
    sizes = Sizes(counts=(0, 1, 2, 3, 4), unit="byte")
    documents = Documents.of([[0, 0, 0], [4, 4, 4], [1, 2, 3]])
    found = predict(bigram(), documents, vocabulary=V, sizes=sizes)
    bits = [-np.log2(probabilities(one.tolist(), TABLE)).sum() for one in documents.tokens]
    expected = [bits[0] / (2 * 0.5), bits[1] / 12, bits[2] / 6]
    assert found.losses(1e-12, 0.5) == pytest.approx(expected, rel=1e-9)
    evidence = bound(documents, sizes=sizes, least=0.5)
    assert (evidence.short, evidence.unit) == (1, "byte")
    assert (evidence.low, evidence.high) == pytest.approx((0, 2 * math.log2(V / evidence.alpha)))


@given(st.floats(1e-6, 1.0), st.integers(2, 1000))
def test_the_range_of_the_smoothed_loss(alpha, vocabulary):
    low, high = loss_range(alpha, vocabulary)
    assert high - low == pytest.approx(math.log2(1 + (1 - alpha) * vocabulary / alpha), abs=1e-9)
    assert low <= max(0.0, -math.log2(1 - alpha + alpha / vocabulary))
    assert high >= -math.log2(alpha / vocabulary)


def test_a_model_of_hugging_face_form_gives_the_same():
    assert bound(DOCUMENTS, Named(bigram())) == bound(DOCUMENTS)


# ---- the bounds ---------------------------------------------------------------------------


def capital(losses, mean, stakes):
    """The mixed fortune, by multiplication."""
    return np.mean([np.prod(1 + s * (mean - losses) / (1 - mean)) for s in stakes])


def test_betting_by_multiplication():
    losses = np.random.default_rng(0).uniform(0.2, 0.7, size=40)
    found = betting_upper(losses, math.log(20))
    assert capital(losses, found, STAKES) == pytest.approx(20, rel=1e-8)
    assert capital(losses, found, STAKES) >= 20
    assert capital(losses, found - 1e-6, STAKES) < 20


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(1e-3, 300))
def test_at_worst_it_is_the_relative_entropy_for_a_few_nats(losses, nats):
    losses = np.array(losses)
    found = mean_upper(losses, nats)
    paid = nats + math.log(len(STAKES))
    # The best stake, 1 - mean / bound, has a neighbour whose log-odds are 0.05 away; the ends
    # of the grid are reached when the bound is nearly the mean, or nearly all was staked.
    mean = min(1.0, float(losses.mean()))
    excess = kl_upper(mean, (paid * 1.02 + 0.2) / len(losses))
    assert losses.mean() <= found.betting <= max(excess, losses.mean() + 0.01)
    assert found.kl <= found.hoeffding + 1e-12
    assert found.betting <= betting_upper(losses, nats, coarse=True)


def test_small_variance_is_used():
    losses = np.random.default_rng(1).normal(0.4, 0.02, size=2000)
    found = mean_upper(losses, 200.0)
    assert found.betting - 0.4 < 0.3 * (found.kl - 0.4) < 0.3 * (found.hoeffding - 0.4)


def test_coverage_on_a_skewed_loss():
    rng = np.random.default_rng(2)
    missed = {"whole": 0, "part": 0}
    mean, nats = 0.2 * 0.9 + 0.05 * 0.8, math.log(5)
    for trial in range(60):
        losses = np.where(rng.random(60) < 0.2, 0.9, 0.05)
        missed["whole"] += betting_upper(losses, nats, coarse=True) < mean
        if trial < 10:
            missed["part"] += betting_upper_subsampled(losses[:30], 60, nats, nats) < mean
    assert missed["whole"] <= 0.2 * 60
    assert missed["part"] <= 0.4 * 10


def test_a_part_of_the_sample_costs_and_more_of_it_costs_less():
    losses = np.random.default_rng(3).normal(0.4, 0.02, size=2000)
    whole = betting_upper(losses, 50.0)
    parts = [betting_upper_subsampled(losses[:m], 2000, 50.0, 4.6) for m in (100, 400, 1000)]
    assert whole < parts[2] < parts[1] < parts[0] < 1
    assert betting_upper_subsampled(losses[:1000], 20_000, 50.0, 4.6) < parts[2]


# ---- the certificate ----------------------------------------------------------------------


def test_evidence_by_hand():
    evidence = bound(DOCUMENTS, alphas=(0.3, 0.6), start=0)
    losses = predict(bigram(), DOCUMENTS, vocabulary=V, start=0).losses(evidence.alpha)
    low, high = loss_range(evidence.alpha, V)
    nats = 20 * math.log(2) + math.log(2 / 0.05)
    assert (evidence.nats_wrong, evidence.nats) == pytest.approx((nats, nats + math.log(2)))
    assert evidence.bits.empirical == pytest.approx(losses.mean(), abs=2e-6)
    share = float((losses.mean() - low) / (high - low))
    kl = low + (high - low) * kl_upper(share, evidence.nats / 60)
    assert evidence.bits.kl == pytest.approx(kl, abs=1e-5)
    root = math.sqrt(evidence.nats / 120)
    assert evidence.bits.hoeffding == pytest.approx(
        min(high, losses.mean() + (high - low) * root), abs=1e-5
    )
    assert evidence.risk_bound == evidence.bits.betting < evidence.high
    assert evidence.tokens == sum(len(one) for one in DOCUMENTS.tokens)
    assert evidence.wrong.empirical == pytest.approx(
        np.mean(predict(bigram(), DOCUMENTS, vocabulary=V, start=0).errors())
    )


def test_the_marks_to_beat():
    documents = Documents.of([[0, 0, 0, 0], [0, 1]])
    evidence = bound(documents, start=2)
    shares = np.array([(1 + 0.5) / 2, 0.5 / 2])
    assert evidence.uniform == pytest.approx(math.log2(V))
    assert evidence.unigram == pytest.approx(-(shares * np.log2(shares)).sum())


def test_the_best_alpha_is_taken():
    alone = {a: bound(DOCUMENTS, alphas=(a,)).risk_bound for a in (1e-3, 0.2, 0.9)}
    evidence = bound(DOCUMENTS, alphas=tuple(alone))
    assert evidence.alpha == min(alone, key=alone.__getitem__)
    assert evidence.risk_bound > alone[evidence.alpha]  # the choice is paid for


def test_order_does_not_matter():
    shuffled = DOCUMENTS.at(range(59, -1, -1))
    assert bound(shuffled) == bound(DOCUMENTS)
    assert bound(shuffled, subsample=20) == bound(DOCUMENTS, subsample=20)


def test_a_subsample_hangs_on_the_file_alone():
    method = BitsPerCharacter(vocabulary=V, subsample=20)
    drawn = [method.draw(DOCUMENTS, stream).records() for stream in (b"a", b"a", b"b")]
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) != set(drawn[2])
    assert len(drawn[0]) == 20 <= len(set(DOCUMENTS.records()))
    evidence = bound(DOCUMENTS, subsample=20, stream=b"a", delta=0.1, share=0.75)
    assert (evidence.n, evidence.evaluated) == (60, 20)
    assert evidence.drawn_by == hashlib.sha256(b"a").hexdigest()
    assert evidence.sample_nats == pytest.approx(math.log(2 / 0.025))
    assert evidence.nats_wrong == pytest.approx(20 * math.log(2) + math.log(2 / 0.075))
    assert bound(DOCUMENTS, subsample=60).drawn_by == ""  # nothing is drawn


def test_from_a_file_and_from_data():
    grid = Grid(levels=TABLE.astype(np.int64))
    small = pack(Bigram(), {"table.weight": grid}, coder=Adaptive())
    case = Case(
        small=small,
        model=small.into(Bigram).double().eval(),
        build=Bigram,
        data=DOCUMENTS.data(),
        error=zero_one,
        delta=0.05,
        choices=8,
    )
    method = BitsPerCharacter(vocabulary=V, alphas=(0.1, 0.5))
    evidence = method.prove(case)
    assert evidence.code == pytest.approx(8 * len(small.stream) + 3)
    assert evidence == bound(DOCUMENTS, bits=evidence.code, stream=small.stream)
    assert method.guess(case) == pytest.approx(min(evidence.uniform, evidence.unigram))
    free = BitsPerCharacter(vocabulary=V, independent=True).prove(case)
    assert (free.code, free.risk_bound < evidence.risk_bound) == (3.0, True)


def test_documents_survive_as_data():
    data = DOCUMENTS.data()
    again = Documents.from_data(data)
    assert again.records() == DOCUMENTS.records()
    first, rest = data.split(0.5, "salt")
    both = Documents.from_data(first).records() + Documents.from_data(rest).records()
    assert sorted(both) == sorted(DOCUMENTS.records())


def test_texts_by_an_alphabet():
    assert Documents.of_text(["ab", "b"], "ab").tokens[0].tolist() == [0, 1]
    assert "sha256" in repr(Sizes(counts=(1, 2), unit="byte"))


def test_coverage_of_the_certificate():
    model, mixed = bigram(), 0.3
    law = torch.softmax(model.table.weight, dim=1).detach().numpy() * (1 - mixed) + mixed / V
    rows = -np.log2(law)
    truth = float((law * rows).sum(axis=1).mean())  # of one uniform token and the next
    rng, missed = np.random.default_rng(5), 0
    for _ in range(15):
        first = rng.integers(0, V, size=50)
        pairs = [[a, int(rng.choice(V, p=law[a]))] for a in first.tolist()]
        found = bound(
            Documents.of(pairs, repeats=True), model, bits=0.0, delta=0.3, alphas=(mixed,)
        )
        missed += found.risk_bound < truth
    assert missed <= 0.3 * 15


# ---- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alphas": (0.0,)}, "alpha must lie"),
        ({"alphas": ()}, "alphas must be different"),
        ({"alphas": (0.1, 0.1)}, "alphas must be different"),
        ({"least": 2.0}, "least must be a number"),
        ({"subsample": 1}, "a subsample needs 2"),
        ({"share": 1.0}, "share must lie"),
        ({"start": 5}, "the vocabulary has tokens 0 to 4"),
        ({"sizes": Sizes(counts=(1, 1), unit="byte")}, "needs the size of each of the 5"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(UsageError, match=message):
        bound(DOCUMENTS, **settings)


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([[0, 1], []], "document 1 is empty"),
        ([[0, -1]], "count from 0"),
        ([[0, 1], [0, 5]], "the vocabulary has tokens 0 to 4"),
        ([[0, 1], [2]], "nothing to predict"),
        ([[0, 1]], "2 or more documents, but got 1"),
        ([[0, 1], [1, 0], [0, 1]], "1 of the 3 documents are repetitions"),
    ],
)
def test_refused_documents(sequences, message):
    with pytest.raises(UsageError, match=message):
        bound(Documents.of(sequences))


def test_refused_data_and_texts():
    data = DOCUMENTS.data()
    with pytest.raises(UsageError, match="needs documents"):
        Documents.from_data(type(data)(x=data.x.double(), y=data.y))
    with pytest.raises(UsageError, match="must hold -1"):
        Documents.from_data(type(data)(x=data.x.clamp(min=0), y=data.y))
    with pytest.raises(UsageError, match="not in the alphabet"):
        Documents.of_text(["c"], "ab")
    with pytest.raises(UsageError, match="stands twice"):
        Documents.of_text(["a"], "aa")
    with pytest.raises(UsageError, match=r"losses must lie in \[0, 1\]"):
        betting_upper(np.array([0.5, 1.5]), 1.0)
    with pytest.raises(UsageError, match="cannot come from a sample"):
        betting_upper_subsampled(np.full(5, 0.5), 4, 1.0, 1.0)


class Backwards(Bigram):
    def forward(self, tokens):
        return self.table(tokens) + self.table(tokens.flip(1))


class Together(Bigram):
    def forward(self, tokens):
        scores = self.table(tokens)
        return scores + scores.mean(dim=0)


@pytest.mark.parametrize("kind", [Backwards, Together])
def test_a_network_that_is_not_causal_is_refused(kind):
    model = kind().double().eval()
    model.load_state_dict(bigram().state_dict())
    with pytest.raises(TaskError, match="need a causal network"):
        predict(model, sample(30, 0, length=(6, 7)), vocabulary=V)


def test_networks_that_fail():
    with pytest.raises(TaskError, match="cannot be run"):
        predict(nn.Linear(2, 2), DOCUMENTS, vocabulary=V)
    with pytest.raises(TaskError, match="needs scores of shape"):
        predict(nn.Embedding(V, V + 1), DOCUMENTS, vocabulary=V)
    model = bigram()
    model.table.weight.data[0, 0] = torch.inf
    with pytest.raises(TaskError, match="not finite"):
        predict(model, DOCUMENTS, vocabulary=V)
