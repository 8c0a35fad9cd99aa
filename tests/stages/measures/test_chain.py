"""Networks that are chains, and refusals of others."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tailor.errors import NonFinite, UsageError
from tailor.stages.measures.chain import chain_of, outputs, pieces
from tailor.tasks import Data, Frozen
from tests.stages.measures.networks import images, seeded


class Written(nn.Module):
    """A chain whose forward was written out."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3)
        self.second = nn.Linear(27, 4)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.first(x), inplace=True), 2)
        return self.second(torch.flatten(x, 1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.first(x)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        return self.first(x) if x.sum() > 0 else x


def test_a_written_forward_is_followed():
    model = seeded(Written(), 0)
    chain = chain_of(model, who="test")
    assert [link.name for link in chain] == ["first", "second"]
    assert [link.activated for link in chain] == [False, True]
    x = images(3).double()
    assert torch.allclose(outputs(chain, x)[-1], model.double()(x))


def test_dropout_is_at_rest_and_frozen_parts_are_layers_too():
    frozen = Frozen(nn.Linear(4, 5), statement="random, seed 0")
    model = nn.Sequential(frozen, nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2)).train()
    chain = chain_of(model, who="test")
    x = torch.rand(6, 4)
    assert torch.allclose(outputs(chain, x.double())[-1], model.eval().double()(x.double()))
    assert len(chain) == 2


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Residual(), "takes what the one before gave"),
        (Branching(), "torch.fx, which failed"),
        (nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)), "a GELU, is none of these"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "fuse_conv_bn_eval"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "ends with its class scores"),
        (nn.Sequential(nn.ReLU()), "no linear or convolutional layer"),
        (nn.Sequential(nn.Conv1d(1, 1, 3, padding_mode="circular", padding=1)), "none of these"),
    ],
)
def test_refuses_what_is_no_chain(model, said):
    with pytest.raises(UsageError, match=said):
        chain_of(model, who="test")


def test_refuses_bad_weights_and_data():
    model = nn.Sequential(nn.Linear(3, 2))
    chain = chain_of(model, who="test")
    y = torch.zeros(2, dtype=torch.long)
    with pytest.raises(UsageError, match="NaN or infinite"):
        next(pieces(chain, Data(x=torch.full((2, 3), torch.nan), y=y)))
    with pytest.raises(UsageError, match="cannot be run"):
        next(pieces(chain, Data(x=torch.zeros(2, 5), y=y)))
    with pytest.raises(UsageError, match="no examples"):
        next(pieces(chain, Data(x=torch.zeros(0, 3), y=y[:0])))
    with pytest.raises(UsageError, match="one vector or image"):
        next(pieces(chain, Data(x=torch.zeros(2, 5, 3), y=y)))
    model[0].weight.data[0, 0] = torch.nan
    with pytest.raises(NonFinite, match="NaN or infinite"):
        chain_of(model, who="test")
