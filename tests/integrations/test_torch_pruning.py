"""Units that layers share go with Torch-Pruning, and nothing else changes."""

import copy

import pytest
import torch
from torch import nn

from tailor.errors import UsageError
from tailor.integrations import torch_pruning as ours
from tailor.stages.shrink import ActivationScore, PathScore, load_shrunk, save_shrunk
from tests.stages.shrink.networks import (
    NETWORKS,
    Residual,
    assert_close,
    conv,
    draw,
    network,
    randomized,
    silence,
)

pytest.importorskip("torch_pruning")


def test_channels_of_a_residual_stream_go_together():
    model, x = randomized(Residual()), draw(2, 3, 6, 6)
    found = ours.shrink_coupled(model, 0.5, x)
    widths = {one.before: one.after for one in found.removed}
    assert widths == {6: 3, 9: 5}
    stream = next(one for one in found.removed if one.before == 6)
    small = found.model
    assert small.stem.out_channels == small.conv2[0].out_channels == small.head.in_features == 3
    masked = copy.deepcopy(model)
    gone = [unit for unit in range(6) if unit not in stream.kept]
    readers = [*masked.conv1, masked.head]
    norms = sum(
        part.weight.detach().square().flatten(1).unflatten(1, (6, -1)).sum((0, 2))
        for part in readers
    )
    assert sorted(gone) == sorted(norms.argsort()[:3].tolist())
    with torch.no_grad():
        for part in readers:
            part.weight[:, gone] = 0
        for one in found.removed:
            if one.before == 9:
                at = int(one.name[-1])
                inner = [unit for unit in range(9) if unit not in one.kept]
                masked.conv2[at].weight[:, inner] = 0
    other = draw(3, 3, 8, 8, seed=5)
    assert_close(small(other), masked(other))
    assert [one.name for one in found.left_alone] == ["head"]
    assert found.parameters_after == sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("name", ["mlp", "conv", "gated", "separable"])
def test_plain_chains_are_those_of_shrink(name):
    model, x, readers = network(name)
    next(model.parameters()).requires_grad_(False)
    found = ours.shrink_coupled(model, 0.4, x, importance=PathScore())
    assert {one.before for one in found.removed} == {
        len(model.get_submodule(chain).weight) for chain in readers.values()
    }
    if name in ("mlp", "conv"):
        silence(model, readers, found.removed)
        assert_close(found.model(x), model(x))
    for old, new in zip(model.parameters(), found.model.parameters(), strict=True):
        assert old.requires_grad == new.requires_grad


def test_it_can_be_saved(tmp_path):
    model, x = randomized(Residual()), draw(2, 3, 6, 6)
    small = ours.shrink_coupled(model, 0.5, x, align=2).model
    assert small.stem.out_channels == 4
    again = load_shrunk(save_shrunk(small, tmp_path / "small"), NETWORKS["residual"][0]).eval()
    assert torch.equal(again(x), small(x))


def test_what_cannot_be_cut_is_told():
    x = draw(3, 4)
    model = nn.Sequential(
        nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    found = ours.shrink_coupled(randomized(model), 0.5, x)
    assert [one.name for one in found.removed] == ["2"]
    said = {one.name: one.reason for one in found.left_alone}
    assert said["0"] == "1 (a LayerNorm) acts on its units together"
    assert said["4"] == "its units are the outputs"
    with pytest.raises(UsageError, match=r"no units that it can remove .*is skipped"):
        ours.shrink_coupled(model, 0.5, x, skip="*")


class Sums(nn.Module):
    """Its outputs are a sum that no layer makes alone."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return x + self.b(x)


def test_bad_input_is_refused(monkeypatch):
    model, x = randomized(conv()), draw(2, 3, 12, 12)
    with pytest.raises(UsageError, match=r"ratio must lie in \[0, 1\)"):
        ours.shrink_coupled(model, 1.0, x)
    with pytest.raises(UsageError, match="ActivationScore needs data, which only shrink takes"):
        ours.shrink_coupled(model, 0.5, x, importance=ActivationScore())
    with pytest.raises(UsageError, match="align must be a whole number"):
        ours.shrink_coupled(model, 0.5, x, align=0)
    with pytest.raises(UsageError, match="the smaller model computes something else on the ex"):
        ours.shrink_coupled(randomized(Sums()), 0.5, draw(2, 4))
    monkeypatch.setattr(ours, "torch_pruning", None)
    with pytest.raises(UsageError, match=r"pip install 'tailor\[torch-pruning\]'"):
        ours.shrink_coupled(model, 0.5, x)
