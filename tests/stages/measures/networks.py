"""Small networks with random weights, and data for them."""

import itertools

import torch
from torch import nn

from tailor.tasks import Data


def seeded(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.6
    return model


def mlp(*widths, seed=0, bias=False):
    layers = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=bias), nn.ReLU()]
    return seeded(nn.Sequential(*layers[:-1]), seed)


def convolutions(seed=0, bias=False):
    return seeded(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1, bias=bias),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16, 3, bias=bias),
        ),
        seed,
    )


def images(n=6, seed=1):
    return torch.rand(n, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def vectors(n, side, seed=1):
    return torch.rand(n, side, generator=torch.Generator().manual_seed(seed))


def labelled_by(model, x):
    """Labels that the network gives itself, so that all margins are positive."""
    with torch.no_grad():
        return Data(x=x, y=model.double()(x.double()).argmax(dim=1))
