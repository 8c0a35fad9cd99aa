"""Small networks whose units can be told, for the tests of ``shrink``."""

import torch
from torch import nn
from torch.nn import functional


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def randomized(model, seed=0):
    """All parameters and running statistics random, so that nothing is one or zero by chance."""
    source = generator(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=source) / max(1, p[0].numel()) ** 0.5)
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(torch.randn(b.shape, generator=source))
            if name.endswith("running_var"):
                b.copy_(torch.rand(b.shape, generator=source) + 0.5)
    return model.eval()


def mlp(bias=True, activation=nn.ReLU):
    return nn.Sequential(
        nn.Linear(7, 12, bias=bias),
        activation(),
        nn.Dropout(0.3),
        nn.Linear(12, 10, bias=bias),
        activation(),
        nn.Linear(10, 3, bias=bias),
    )


def conv(bias=True, padding=1):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=padding, bias=bias),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3, bias=bias),
        nn.BatchNorm2d(6),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 10, bias=bias),
        nn.BatchNorm1d(10),
        nn.Sigmoid(),
        nn.Linear(10, 4, bias=bias),
    )


class Gated(nn.Module):
    def __init__(self, bias=False):
        super().__init__()
        self.gate = nn.Linear(6, 11, bias=bias)
        self.up = nn.Linear(6, 11, bias=bias)
        self.down = nn.Linear(11, 6, bias=bias)

    def forward(self, x, mask=None):
        hidden = functional.silu(self.gate(x)) * self.up(x)
        if mask is not None:
            hidden = hidden * mask
        return self.down(hidden)


class Residual(nn.Module):
    """Two blocks of a residual network; only channels inside the blocks can go."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv1 = nn.ModuleList(nn.Conv2d(6, 9, 3, padding=1, bias=False) for _ in range(2))
        self.norm1 = nn.ModuleList(nn.BatchNorm2d(9) for _ in range(2))
        self.conv2 = nn.ModuleList(nn.Conv2d(9, 6, 3, padding=1, bias=False) for _ in range(2))
        self.norm2 = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(2))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        parts = (self.conv1, self.norm1, self.conv2, self.norm2)
        for conv1, norm1, conv2, norm2 in zip(*parts, strict=True):
            inner = norm2(conv2(functional.relu(norm1(conv1(x)))))
            x = functional.relu(x + inner)
        return self.head(x.mean((2, 3)))


class Separable(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection."""

    def __init__(self):
        super().__init__()
        self.expand = nn.Conv2d(3, 10, 1)
        self.depth = nn.Conv2d(10, 10, 3, padding=1, groups=10)
        self.act = nn.PReLU(10)
        self.squeeze = nn.Conv2d(10, 4, 1)
        self.excite = nn.Conv2d(4, 10, 1)
        self.project = nn.Conv2d(10, 5, 1)

    def forward(self, x):
        x = self.act(self.depth(self.expand(x)))
        weight = torch.relu(self.squeeze(x.mean([2, 3], keepdim=True)))
        return self.project(x * torch.sigmoid(self.excite(weight)))


class Plain(nn.Module):
    """Flattened by ``view``, as many write it, with a one-dimensional convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 7, 3)
        self.fc1 = nn.Linear(28, 9)
        self.fc2 = nn.Linear(9, 2)

    def forward(self, x):
        x = functional.max_pool1d(torch.tanh(self.conv(x)) * 2 + 1, 2)
        x = x.view(x.size(0), -1)
        return self.fc2(functional.leaky_relu(self.fc1(x), 0.2))


GATE_READERS = {"project": "expand", "squeeze": "expand", "excite": "squeeze"}

# Each network: how to build it, an input, and for each chain what reads it: path -> chain.
NETWORKS = {
    "mlp": (mlp, (5, 7), {"3": "0", "5": "3"}),
    "mlp without bias": (lambda: mlp(False), (5, 7), {"3": "0", "5": "3"}),
    "mlp on sequences": (lambda: mlp(True, nn.GELU), (2, 4, 7), {"3": "0", "5": "3"}),
    "conv": (conv, (2, 3, 12, 12), {"4": "0", "9": "4", "12": "9"}),
    "conv without bias": (lambda: conv(False), (2, 3, 12, 12), {"4": "0", "9": "4", "12": "9"}),
    "gated": (Gated, (3, 4, 6), {"down": "gate"}),
    "gated with bias": (lambda: Gated(True), (3, 6), {"down": "gate"}),
    "residual": (Residual, (2, 3, 6, 6), {"conv2.0": "conv1.0", "conv2.1": "conv1.1"}),
    "separable": (Separable, (2, 3, 5, 5), GATE_READERS),
    "plain": (Plain, (3, 2, 10), {"fc1": "conv", "fc2": "fc1"}),
}


def network(name, seed=0):
    """A network, inputs, and who reads which chain."""
    build, shape, readers = NETWORKS[name]
    return randomized(build(), seed), draw(*shape, seed=seed + 1), readers


def silence(model, readers, removed):
    """Zero the columns that read what was removed."""
    kept = {one.name: one.kept for one in removed}
    width = {one.name: one.before for one in removed}
    with torch.no_grad():
        for path, chain in readers.items():
            weight = model.get_submodule(path).weight
            columns = weight.view(len(weight), width[chain], -1)
            gone = [unit for unit in range(width[chain]) if unit not in kept[chain]]
            columns[:, gone] = 0


def assert_close(found, expected):
    """Equal to 1e-5 of the norm."""
    assert found.shape == expected.shape
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def parameters(model):
    return sum(p.numel() for p in model.parameters())
