"""Samples, matrices and models; all from seeds, or pretrained where a folder is given."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SEED = 0
GPT2 = ((2304, 768), (768, 768), (3072, 768), (768, 3072))  # matrices of one block
GPT2_NAMES = ("attn.qkv", "attn.proj", "mlp.up", "mlp.down")
CIFAR_CHANNELS = (16, 32, 64)


def samples(n: int) -> dict[str, np.ndarray]:
    """Like eigenvalues: with a power-law tail, or without one, which makes the search harder."""
    rng = np.random.default_rng([SEED, n])
    found = {}
    for alpha in (2.5, 4.0):
        found[f"Pareto {alpha}"] = _pareto(rng, alpha, n)
        body, tail = rng.uniform(0.05, 1, n - n // 5), _pareto(rng, alpha, n // 5)
        found[f"tail {alpha}"] = np.concatenate([body, tail])
    found["lognormal"] = rng.lognormal(size=n)
    found["bulk"] = np.square(1 + 0.3 * rng.standard_normal(n))
    return found


def _pareto(rng: np.random.Generator, alpha: float, n: int) -> np.ndarray:
    return rng.uniform(size=n) ** (-1 / (alpha - 1))


def heavy_tailed(rows: int, columns: int, seed: int, alpha: float = 3.5) -> Tensor:
    """Gaussian columns of unequal length: the largest eigenvalues follow a power law.

    The squared lengths are Pareto with density exponent ``alpha``, shared by the smaller side;
    float32, with entries of about 0.02 as language models have.
    """
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator)
    uniform = torch.rand(min(rows, columns), generator=generator).clamp(min=1e-7)
    length = 0.02 * uniform ** (-0.5 / (alpha - 1))
    matrix *= length if rows >= columns else length[:, None]
    return matrix


def gpt2_like(blocks: int = 12, shrink: int = 1) -> dict[str, Tensor]:
    """The weight matrices of a model with the shape of GPT-2 small, without embeddings."""
    shapes = [(rows // shrink, columns // shrink) for rows, columns in GPT2]
    return {
        f"h.{block}.{name}.weight": heavy_tailed(*shape, seed=SEED + 10 * block + place)
        for block in range(blocks)
        for place, (name, shape) in enumerate(zip(GPT2_NAMES, shapes, strict=True))
    }


def resnet_like(depth: int) -> dict[str, Tensor]:
    """The weights of a CIFAR-10 ResNet, with heavy-tailed numbers (He et al. 2016, sec. 4.2)."""
    shapes: dict[str, tuple[int, ...]] = {"conv1": (16, 3, 3, 3)}
    inputs = 16
    for stage, channels in enumerate(CIFAR_CHANNELS, start=1):
        for block in range((depth - 2) // 6):
            name = f"layer{stage}.{block}"
            shapes |= {f"{name}.conv1": (channels, inputs, 3, 3)}
            shapes |= {f"{name}.conv2": (channels, channels, 3, 3)}
            inputs = channels
    shapes["linear"] = (10, inputs)
    return {
        f"{name}.weight": heavy_tailed(shape[0], math.prod(shape[1:]), seed).reshape(shape)
        for seed, (name, shape) in enumerate(shapes.items(), start=SEED)
    }


def resnet(depth: int, folder: Path | None) -> dict[str, Tensor]:
    """The pretrained weights if there is a folder with them, else some of the same shapes."""
    if folder is None:
        return resnet_like(depth)
    (path,) = folder.glob(f"resnet{depth}-*.th")
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {
        name.removeprefix("module."): tensor
        for name, tensor in state.items()
        if tensor.ndim in (2, 4)
    }


def module(state: dict[str, Tensor]) -> nn.Module:
    """Bare layers with these weights, nested as their names say.

    WeightWatcher takes half the time for a module that it takes for a state dict.
    """
    root = nn.Module()
    for name, tensor in state.items():
        *path, last = name.removesuffix(".weight").split(".")
        at = root
        for part in path:
            if part not in at._modules:
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        at.add_module(last, _layer(tensor))
    return root


def _layer(tensor: Tensor) -> nn.Module:
    outputs, inputs, *kernel = tensor.shape
    with torch.device("meta"):
        if kernel:
            layer: nn.Module = nn.Conv2d(inputs, outputs, tuple(kernel), bias=False)
        else:
            layer = nn.Linear(inputs, outputs, bias=False)
    layer.weight = nn.Parameter(tensor, requires_grad=False)
    return layer
