"""The training generator: what it changes, what it leaves alone, what it refuses."""

import pytest
import torch
from torch import nn

from tailor.errors import UsageError
from tailor.stages.regularize import StudentPrior
from tailor.stages.train import batches, train
from tailor.tasks import Data


def toy(n=60):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 5, generator=generator)
    return Data(x=x, y=(x[:, 0] > 0).long())


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def run(model, *, epochs=4, seed=0, penalties=(), lr=0.05):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    data = batches(toy(), size=16, epochs=epochs, seed=1)
    loss = nn.functional.cross_entropy
    return list(train(model, data, loss=loss, optimizer=optimizer, penalties=penalties, seed=seed))


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_batches_visit_every_example_once_an_epoch():
    data = Data(x=torch.arange(10.0)[:, None], y=torch.zeros(10, dtype=torch.long))
    seen = [x for x, _ in batches(data, size=4, epochs=2, seed=3)]
    assert [len(x) for x in seen] == [4, 4, 2, 4, 4, 2]
    for epoch in (seen[:3], seen[3:]):
        assert torch.cat(epoch).flatten().sort().values.tolist() == list(range(10))
    again = [x for x, _ in batches(data, size=4, epochs=2, seed=3)]
    assert all(torch.equal(a, b) for a, b in zip(seen, again, strict=True))


def test_equals_a_loop_written_by_hand():
    ours, theirs = network(), network()
    ours[2], theirs[2] = nn.Identity(), nn.Identity()
    prior = StudentPrior(coefficient=0.01)
    run(ours, penalties=[prior])
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05)
    for x, y in batches(toy(), size=16, epochs=4, seed=1):
        penalty = prior([theirs[0].weight, theirs[3].weight])
        loss = nn.functional.cross_entropy(theirs(x), y) + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-6, atol=1e-7)


def test_steps_are_numbered_and_report_loss_and_penalty():
    model = network()
    steps = run(model, epochs=1, penalties=[StudentPrior(coefficient=1.0)])
    assert [step.number for step in steps] == [1, 2, 3, 4]
    matrices = [p.detach() for p in network().parameters() if p.ndim == 2]
    expected = float(StudentPrior(coefficient=1.0)(matrices))
    assert steps[0].penalty == pytest.approx(expected, rel=1e-4)
    assert all(step.loss > 0 for step in steps)


def test_same_seed_same_weights_other_seed_other_weights():
    one, two, three = network(), network(), network()
    run(one, seed=5)
    run(two, seed=5)
    run(three, seed=6)  # dropout draws differ
    assert torch.equal(flat(one), flat(two))
    assert not torch.equal(flat(one), flat(three))


def test_the_callers_random_state_is_left_alone_at_every_step():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(11)
    expected = [torch.rand(1).item() for _ in range(4)]
    torch.manual_seed(11)
    data = batches(toy(), size=16, epochs=1)
    loss = nn.functional.cross_entropy
    drawn = [
        torch.rand(1).item() for _ in train(model, data, loss=loss, optimizer=optimizer, seed=9)
    ]
    assert drawn == expected


def test_a_penalty_of_weight_zero_changes_nothing():
    with_it, without = network(), network()
    run(with_it, penalties=[StudentPrior(coefficient=0.0)])
    run(without)
    assert torch.equal(flat(with_it), flat(without))


def test_a_loss_that_runs_away_is_refused_with_the_step():
    with pytest.raises(UsageError, match=r"became .* at step \d+; lower the learning rate"):
        run(network(), epochs=40, lr=1e18)


@pytest.mark.parametrize(("size", "epochs"), [(0, 1), (1, 0)])
def test_batches_refuse(size, epochs):
    with pytest.raises(UsageError, match="must be at least 1"):
        next(batches(toy(), size=size, epochs=epochs))
