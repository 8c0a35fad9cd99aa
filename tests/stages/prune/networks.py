"""Networks that several tests prune."""

import torch
from torch import nn

LINEAR = ("0.weight", "2.weight")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build()


def mlp():
    return seeded(lambda: nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)))


def convolutional():
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 3, 2),
            nn.Flatten(),
            nn.Linear(75, 4),
        )
    )


class Tied(nn.Module):
    """An embedding that is the last matrix, too."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(8, 4)
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 8, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.layer(self.embedding(tokens)))


class Conv1D(nn.Module):
    """As in transformers: a linear layer that keeps its weight as inputs by outputs."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight = nn.Parameter(normal(nx, nf))

    def forward(self, x):
        return x @ self.weight
