"""The training generator: what it changes, what it leaves alone, what it refuses."""

import collections
import functools
import itertools
import math

import pytest
import torch
from torch import nn

from tailor.errors import UsageError
from tailor.stages.regularize import L2, StudentPrior
from tailor.stages.train import batches, train
from tailor.stages.train.batches import after
from tailor.tasks import Data

CROSS_ENTROPY = nn.functional.cross_entropy


def toy(n=60):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=generator)
    return Data(x=x, y=(x[:, 0] > 0).long())


def network(seed=0, dropout=0.5):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2))


def run(model, *, epochs=4, size=16, lr=0.05, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    data = batches(toy(), size=size, epochs=epochs, seed=1)
    return list(train(model, data, loss=CROSS_ENTROPY, optimizer=optimizer, **options))


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def assert_near(one, two):
    torch.testing.assert_close(flat(one), flat(two), rtol=1e-5, atol=1e-6)


# Batches


def test_batches_visit_every_example_once_an_epoch():
    data = Data(x=torch.arange(10.0)[:, None], y=torch.zeros(10, dtype=torch.long))
    seen = [x for x, _ in batches(data, size=4, epochs=2, seed=3)]
    assert [len(x) for x in seen] == [4, 4, 2, 4, 4, 2]
    for epoch in (seen[:3], seen[3:]):
        assert torch.cat(epoch).flatten().sort().values.tolist() == list(range(10))
    again = [x for x, _ in batches(data, size=4, epochs=2, seed=3)]
    assert all(torch.equal(a, b) for a, b in zip(seen, again, strict=True))


@pytest.mark.parametrize("used", [0, 1, 3, 5, 12])
def test_batches_go_on_where_they_were_left(used):
    every = list(batches(toy(), size=16, epochs=3))
    for source in (batches(toy(), size=16, epochs=3), iter(every)):
        rest, last = after(source, used)
        assert last is None if used == 0 else torch.equal(last[0], every[used - 1][0])
        left = [x for x, _ in rest]
        expected = [x for x, _ in every[used:]]
        assert len(left) == len(expected)
        assert all(torch.equal(a, b) for a, b in zip(left, expected, strict=True))


def test_skipping_batches_leaves_the_data_alone():
    class Untouched:
        def __getitem__(self, chosen):
            raise AssertionError("the data were read")

    source = batches(toy(), size=16, epochs=3)
    source._data = Untouched()
    assert source.skip(5) == 5
    assert source.skip(100) == 7


@pytest.mark.parametrize(("size", "epochs"), [(0, 1), (1, 0)])
def test_batches_refuse(size, epochs):
    with pytest.raises(UsageError, match="must be at least 1"):
        next(batches(toy(), size=size, epochs=epochs))


# Steps


def test_equals_a_loop_written_by_hand():
    ours, theirs = network(dropout=0), network(dropout=0)
    run(ours, penalties=[L2(0.01)])
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    for x, y in batches(toy(), size=16, epochs=4, seed=1):
        penalty = 0.01 * sum((theirs[i].weight ** 2).sum() for i in (0, 3)) / 2
        loss = CROSS_ENTROPY(theirs(x), y) + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_near(ours, theirs)


def test_without_penalties_it_is_the_bare_loop_to_the_last_bit():
    ours, theirs = network(dropout=0), network(dropout=0)
    run(ours)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    for x, y in batches(toy(), size=16, epochs=4, seed=1):
        optimizer.zero_grad()
        CROSS_ENTROPY(theirs(x), y).backward()
        optimizer.step()
    assert torch.equal(flat(ours), flat(theirs))


def test_a_step_reports_loss_penalty_gradient_and_rate():
    model, copy = network(dropout=0), network(dropout=0)
    prior = StudentPrior(1.0)
    first, *others = run(model, epochs=1, lr=0.25, penalties=[prior])
    assert [first.number, *(step.number for step in others)] == [1, 2, 3, 4]
    x, y = next(batches(toy(), size=16, epochs=1, seed=1))
    loss, penalty = CROSS_ENTROPY(copy(x), y), prior(copy)
    (loss + penalty).backward()
    norm = torch.cat([p.grad.flatten() for p in copy.parameters()]).norm()
    assert first.loss == pytest.approx(loss.item(), rel=1e-5)
    assert first.penalty == pytest.approx(penalty.item(), rel=1e-5)
    assert first.gradient_norm == pytest.approx(float(norm), rel=1e-4)
    assert first.lr == 0.25
    assert (first.skipped, first.stopped, first.layers) == (False, None, ())


def test_a_penalty_of_weight_zero_changes_nothing():
    with_it, without = network(), network()
    run(with_it, penalties=[StudentPrior(0.0)])
    run(without)
    assert torch.equal(flat(with_it), flat(without))


def test_decoupled_penalties_act_in_the_optimizer_only_while_training():
    ours, theirs = network(dropout=0), network(dropout=0)
    optimizer = torch.optim.Adam(ours.parameters(), lr=0.05)
    data = batches(toy(), size=16, epochs=4, seed=1)
    steps = train(
        ours, data, loss=CROSS_ENTROPY, optimizer=optimizer, penalties=[L2(0.1)], decoupled=True
    )
    assert all(step.penalty == 0 for step in steps)
    groups = [
        {"params": [theirs[0].weight, theirs[3].weight], "weight_decay": 0.1},
        {"params": [theirs[0].bias, theirs[3].bias], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.05)
    for x, y in batches(toy(), size=16, epochs=4, seed=1):
        reference.zero_grad()
        CROSS_ENTROPY(theirs(x), y).backward()
        reference.step()
    assert_near(ours, theirs)
    assert not optimizer._optimizer_step_pre_hooks


@pytest.mark.parametrize("leave", ["break", "raise", "end"])
def test_hooks_are_gone_however_the_loop_ends(leave):
    model, noise = network(), Shaking()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    steps = train(
        model,
        batches(toy(), size=16, epochs=1),
        loss=CROSS_ENTROPY,
        optimizer=optimizer,
        penalties=[L2(0.1)],
        decoupled=True,
        noise=noise,
    )
    assert not optimizer._optimizer_step_post_hooks  # nothing happens before the first step
    with pytest.raises(KeyError, match="mine") if leave == "raise" else _nothing():
        for step in steps:
            assert optimizer._optimizer_step_post_hooks
            if leave == "break" and step.number == 2:
                break
            if leave == "raise":
                raise KeyError("mine")
    del steps
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


class _nothing:  # noqa: N801
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


class Shaking:
    """The least that ``noise`` has to be."""

    def attach(self, model, optimizer):
        def shake(optimizer, args, kwargs):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape), alpha=1e-3)

        return Shaken(optimizer.register_step_post_hook(shake))


class Shaken:
    def __init__(self, handle):
        self.remove = handle.remove

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_schedulers_step_once_a_step():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    halving = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    data = batches(toy(), size=16, epochs=1)
    steps = train(
        model, data, loss=CROSS_ENTROPY, optimizer=optimizer, schedulers=[halving], accumulate=2
    )
    assert [step.lr for step in steps] == [1.0, 0.5]


def test_training_mode_comes_back_after_an_evaluation_in_the_body():
    ours, theirs = network(), network()
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.05)
    data = batches(toy(), size=16, epochs=4, seed=1)
    for _ in train(ours, data, loss=CROSS_ENTROPY, optimizer=optimizer):
        ours.eval()
    run(theirs)
    assert torch.equal(flat(ours), flat(theirs))


# Accumulation and clipping


def test_accumulated_batches_of_unequal_size_equal_one_large_batch():
    ours, theirs = network(dropout=0), network(dropout=0)
    data, prior = toy(), StudentPrior(0.01)
    cuts = [0, 7, 8, 20, 36, 60]  # three batches for the first step, two for the second
    parts = [(data.x[a:b], data.y[a:b]) for a, b in itertools.pairwise(cuts)]
    whole = [(data.x[:20], data.y[:20]), (data.x[20:], data.y[20:])]
    for model, given, accumulate in ((ours, parts, 3), (theirs, whole, 1)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        options = {"loss": CROSS_ENTROPY, "optimizer": optimizer, "penalties": [prior]}
        steps = list(train(model, given, accumulate=accumulate, **options))
        assert len(steps) == 2
    assert_near(ours, theirs)


def test_the_loss_of_an_accumulated_step_is_the_mean_over_its_examples():
    data = toy()
    parts = [(data.x[:3], data.y[:3]), (data.x[3:], data.y[3:])]
    model = network(dropout=0)
    with torch.no_grad():
        expected = float(CROSS_ENTROPY(model(data.x), data.y))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    (step,) = train(model, parts, loss=CROSS_ENTROPY, optimizer=optimizer, accumulate=2)
    assert step.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("longest", [1e-2, 1e3])
def test_a_gradient_is_clipped_as_by_torch(longest):
    ours, theirs = network(dropout=0), network(dropout=0)
    run(ours, clip_norm=longest)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    for x, y in batches(toy(), size=16, epochs=4, seed=1):
        optimizer.zero_grad()
        CROSS_ENTROPY(theirs(x), y).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), longest)
        optimizer.step()
    assert_near(ours, theirs)


def test_sparse_gradients_are_clipped_too():
    def build(sparse):
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(9, 4, sparse=sparse), nn.Flatten(), nn.Linear(8, 2))

    given = [(torch.tensor([[1, 2], [2, 2], [0, 8]]), torch.tensor([0, 1, 1]))] * 5
    found = []
    for sparse in (True, False):
        with torch.random.fork_rng():
            model = build(sparse)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        steps = list(train(model, given, loss=CROSS_ENTROPY, optimizer=optimizer, clip_norm=0.1))
        found.append((steps[-1].gradient_norm, model))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert_near(found[0][1], found[1][1])


# Precision and compilation


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_comes_near_and_keeps_the_weights_wide(precision):
    ours, theirs = network(dropout=0), network(dropout=0)
    seen = []
    ours[0].register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    run(ours, precision=precision, penalties=[StudentPrior(0.01)])
    run(theirs, penalties=[StudentPrior(0.01)])
    assert set(seen) == {getattr(torch, precision)}
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    moved, apart = (flat(theirs) - flat(network())).norm(), (flat(ours) - flat(theirs)).norm()
    assert 0 < apart < 0.02 * moved  # bfloat16 keeps 8 bits, errors of many entries average


def test_a_float16_step_that_overflows_is_skipped_with_everything_that_hangs_on_it():
    model, noise = network(dropout=0), Shaking()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    halving = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    before, seen = flat(model), []
    for step in train(
        model,
        batches(toy(), size=16, epochs=1),
        loss=lambda outputs, y: CROSS_ENTROPY(outputs, y) * (1e38 if not seen else 1.0),
        optimizer=optimizer,
        schedulers=[halving],
        noise=noise,
        precision="float16",
    ):
        seen.append((step.skipped, step.lr, step.gradient_norm is None))
        if step.number == 1:
            assert torch.equal(flat(model), before)
    assert seen == [
        (True, 1.0, True),
        (False, 1.0, False),
        (False, 0.5, False),
        (False, 0.25, False),
    ]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of PyTorch's own tracing
def test_compiling_keeps_the_names_and_the_numbers(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    ours, theirs = network(dropout=0), network(dropout=0)
    names = list(ours.state_dict())
    run(ours, epochs=2, compile=True)
    run(theirs, epochs=2)
    assert list(ours.state_dict()) == names
    assert_near(ours, theirs)


# Random numbers


def test_same_seed_same_weights_other_seed_other_weights():
    one, two, three = network(), network(), network()
    run(one, seed=5)
    run(two, seed=5)
    run(three, seed=6)  # dropout draws differ
    assert torch.equal(flat(one), flat(two))
    assert not torch.equal(flat(one), flat(three))


def test_steps_draw_different_numbers():
    drawn = []

    def loss(outputs, y):
        drawn.append(torch.rand(()).item())
        return CROSS_ENTROPY(outputs, y)

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    list(train(model, batches(toy(), size=4, epochs=4), loss=loss, optimizer=optimizer))
    assert len(set(drawn)) == len(drawn) == 60


def test_the_callers_random_state_is_left_alone_at_every_step():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(11)
    expected = [torch.rand(1).item() for _ in range(4)]
    torch.manual_seed(11)
    data = batches(toy(), size=16, epochs=1)
    drawn = [
        torch.rand(1).item()
        for _ in train(model, data, loss=CROSS_ENTROPY, optimizer=optimizer, seed=9)
    ]
    assert drawn == expected


# Refusals


def test_a_loss_that_runs_away_is_refused_before_the_weights_move():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e18)
    data = batches(toy(), size=16, epochs=40)
    steps = train(model, data, loss=CROSS_ENTROPY, optimizer=optimizer)
    last = collections.deque(maxlen=1)
    with pytest.raises(UsageError, match=r"loss became (nan|inf) at step \d+; lower the learning"):
        last.extend(flat(model) for _ in steps)
    assert torch.equal(flat(model), last[0])


def test_a_gradient_that_is_not_finite_names_its_parameter():
    def loss(outputs, y):  # the root has an infinite slope at zero
        return CROSS_ENTROPY(outputs, y) + (model[3].bias * 0).sum().sqrt()

    model = network()
    before = flat(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match=r"gradient of 3\.bias is not finite at step 1, though"):
        list(train(model, batches(toy(), size=16, epochs=1), loss=loss, optimizer=optimizer))
    assert torch.equal(flat(model), before)


def test_float16_gives_up_when_no_scale_helps():
    def loss(outputs, y):
        return CROSS_ENTROPY(outputs, y) + (model[3].bias * 0).sum().sqrt()

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = batches(toy(), size=16, epochs=40)
    steps = train(model, data, loss=loss, optimizer=optimizer, precision="float16")
    seen = collections.deque()
    with pytest.raises(UsageError, match=r"gradient of 3\.bias is not finite at step"):
        seen.extend(steps)
    assert [step.skipped for step in seen] == [True] * int(math.log2(65536))


def pairs():
    return batches(toy(), size=16, epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate must be at least 1 batch, but is 0"),
        ({"clip_norm": 0.0}, "clip_norm must be above 0, or None, but is 0.0"),
        ({"clip_norm": math.nan}, "clip_norm must be above 0, or None, but is nan"),
    ],
)
def test_settings_are_refused_at_once(options, message):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match=message):
        train(model, pairs(), loss=CROSS_ENTROPY, optimizer=optimizer, **options)


def refused(model, optimizer, message, **options):
    with pytest.raises(UsageError, match=message):
        train(model, pairs(), loss=CROSS_ENTROPY, optimizer=optimizer, **options)


def test_models_and_optimizers_that_do_not_fit_are_refused():
    model = network()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    refused(network(), sgd, "the optimizer holds no parameter of this model")
    refused(network().requires_grad_(False), sgd, "no parameter of the model requires a gradient")
    half = network().half()
    message = r"0\.weight is stored in float16, in which small updates round to nothing"
    refused(half, torch.optim.SGD(half.parameters(), lr=0.1), message)
    refused(model, torch.optim.LBFGS(model.parameters()), "LBFGS evaluates the loss several times")
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(sgd)
    refused(model, sgd, "ReduceLROnPlateau needs a value at each step", schedulers=[plateau])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "batches is empty, so there was no step"),
        ([torch.zeros(3, 5)], r"batch 1 is a Tensor, but a pair \(inputs, targets\) is needed"),
        ([(1, 2), (1, 2, 3)], "batch 2 is a tuple of 3, but a pair"),
        ([(torch.zeros(0, 5), torch.zeros(0).long())], "batch 1 has no examples"),
    ],
)
def test_batches_that_are_no_pairs_are_refused(given, message):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match=message):
        list(
            train(
                model, (one for one in given), loss=CROSS_ENTROPY, optimizer=optimizer, accumulate=2
            )
        )


def test_a_loss_for_each_example_is_refused():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    each = functools.partial(CROSS_ENTROPY, reduction="none")
    with pytest.raises(UsageError, match=r"must be a scalar, but has shape \(16,\); take the mean"):
        next(train(model, pairs(), loss=each, optimizer=optimizer))


def test_precision_has_three_names():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plain = train.__wrapped__ if hasattr(train, "__wrapped__") else train
    with pytest.raises(UsageError, match="one of float32, bfloat16, float16, but is 'half'"):
        plain(model, pairs(), loss=CROSS_ENTROPY, optimizer=optimizer, precision="half")
