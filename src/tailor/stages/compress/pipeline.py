"""The way from a network to a file: prune, retrain, quantise step by step, pack."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tailor.errors import NonFinite, UsageError
from tailor.numerics.coding import Grid
from tailor.stages.compress.payload import Adaptive, CompressedModel, pack
from tailor.stages.compress.quantize import Quantizer, Uniform
from tailor.stages.prune import Magnitude, Pruner
from tailor.stages.units import chains, drop_dead, live_first, rescale
from tailor.weights.source import read

Retrain = Callable[[nn.Module], None]

SHARES = (0.5, 0.75, 0.9, 1.0)  # of the weights on the grid, after each round of quantisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One point on the way from dense to small.

    Attributes:
        sparsity: Share of zeros among the matrices' weights.
        nonzeros: Number of weights that are not zero.
        pruned: State dict after pruning and retraining, before quantisation.
        compressed: The file.
    """

    sparsity: float
    nonzeros: int
    pruned: dict[str, Tensor]
    compressed: CompressedModel


def compress(
    model: nn.Module,
    *,
    pruner: Pruner | None = None,
    quantizer: Quantizer | None = None,
    retrain: Retrain | None = None,
    about: dict[str, str] | None = None,
) -> CompressedModel:
    """Compress a network to one file.

    Args:
        model: The trained network; it is not changed.
        pruner: Rule and final sparsity; ``Magnitude(sparsity=0.9)`` by default.
        quantizer: ``Uniform(top=3)`` by default.
        retrain: Trains the module that it is given, in place, with whatever loop and data;
            pruned and quantised weights stay what they are. Without it, pruning is one shot.
        about: Free text that is stored with the file.

    Returns:
        The file; ``.into(build)`` gives the network back.
    """
    pruner = Magnitude(sparsity=0.9) if pruner is None else pruner
    path = gradual(pruner.sparsity) if retrain else [pruner.sparsity]
    *_, last = frontier(
        model,
        path,
        pruner=pruner,
        quantizer=quantizer,
        retrain=retrain,
        quantize_from=pruner.sparsity,
        about=about,
    )
    return last.compressed


def gradual(sparsity: float, first: float = 0.5, keep: float = 0.85) -> list[float]:
    """Rising sparsities from ``first`` to ``sparsity``; each keeps that share of the last."""
    path = [first]
    while 1 - (1 - path[-1]) * keep < sparsity:
        path.append(1 - (1 - path[-1]) * keep)
    return [s for s in path if s < sparsity] + [sparsity]


def frontier(
    model: nn.Module,
    sparsities: Iterable[float],
    *,
    pruner: Pruner | None = None,
    quantizer: Quantizer | None = None,
    retrain: Retrain | None = None,
    quantize_from: float = 0.0,
    about: dict[str, str] | None = None,
) -> Iterator[Candidate]:
    """Prune further and further, and yield a finished file at each sparsity.

    Args:
        model: The trained network; it is not changed.
        sparsities: Rising shares of zeros.
        pruner: As for ``compress``; its own sparsity is not used.
        quantizer: As for ``compress``.
        retrain: As for ``compress``.
        quantize_from: Sparsity from which on files are made; below it nothing is yielded.
        about: As for ``compress``.
    """
    pruner = Magnitude(sparsity=0.0) if pruner is None else pruner
    quantizer = Uniform() if quantizer is None else quantizer
    work = copy.deepcopy(model)
    found = chains(work)
    for sparsity in sparsities:
        weights = _matrices(work)
        keep = pruner.at(sparsity).keep(weights)
        weights = drop_dead({n: w * keep[n] for n, w in weights.items()}, found)
        _write_back(work, weights)
        _retrain_held(work, {n: (w == 0) for n, w in weights.items()}, retrain)
        weights = _matrices(work)
        if sparsity < quantize_from:
            continue
        nonzeros = sum(int((w != 0).sum()) for w in weights.values())
        yield Candidate(
            sparsity=1 - nonzeros / sum(w.numel() for w in weights.values()),
            nonzeros=nonzeros,
            pruned={name: tensor.clone() for name, tensor in work.state_dict().items()},
            compressed=_finish(work, quantizer, retrain, about),
        )


def _finish(
    pruned: nn.Module, quantizer: Quantizer, retrain: Retrain | None, about: dict[str, str] | None
) -> CompressedModel:
    """Quantise step by step: put the best fitting share on the grid, retrain the rest, repeat.

    Incremental quantisation after Zhou et al. (2017), with shares of our own.
    """
    work = copy.deepcopy(pruned)
    found = chains(work)
    weights = rescale(_matrices(work), found)
    _write_back(work, weights)
    steps = {name: quantizer.step(w) for name, w in weights.items()}
    held = {name: w == 0 for name, w in weights.items()}
    for share in SHARES if retrain else (1.0,):
        weights = _matrices(work)
        for name, w in weights.items():
            target = (quantizer.levels(w, steps[name]) * steps[name]).to(w.dtype)
            held[name] = _closest(w, target, held[name], share)
            weights[name] = torch.where(held[name], target, w)
        _write_back(work, weights)
        _retrain_held(work, held, retrain if share < 1 else None)
    ordered = live_first(drop_dead(_matrices(work), found), found)
    _write_back(work, ordered)
    grids = {
        name: Grid(
            levels=quantizer.levels(w, steps[name]).numpy(),
            step=1.0 if quantizer.unit_step else steps[name],
        )
        for name, w in ordered.items()
    }
    return pack(work, grids, coder=Adaptive(), about=about)


def _closest(
    weights: Tensor, target: Tensor, held: Bool[Tensor, "..."], share: float
) -> Bool[Tensor, "..."]:
    """Entries already held (zeros among them), and the closest ones up to the share."""
    distance = (target - weights).abs().double()
    distance[held] = -1.0
    zeros = int((weights == 0).sum())
    count = zeros + round(share * (weights.numel() - zeros))
    chosen = torch.zeros_like(held).flatten()
    chosen[distance.flatten().argsort(stable=True)[: max(count, int(held.sum()))]] = True
    return chosen.reshape(held.shape)


class _Held(nn.Module):
    """A parametrization under which some entries keep their values whatever the optimizer does."""

    def __init__(self, held: Bool[Tensor, "..."], values: Float[Tensor, "..."]) -> None:
        super().__init__()
        self.register_buffer("held", held)
        self.register_buffer("values", values)

    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(self.held, self.values, weight)  # type: ignore[arg-type]


def _retrain_held(
    model: nn.Module, held: dict[str, Bool[Tensor, "..."]], retrain: Retrain | None
) -> None:
    """Run the caller's training with some entries held, then leave a plain module behind."""
    if retrain is None:
        return
    orders = {part: list(part._parameters) for part in model.modules()}
    for name, fixed in held.items():
        module, attribute = _owner(model, name)
        values = getattr(module, attribute).detach().clone()
        parametrize.register_parametrization(module, attribute, _Held(fixed, values))
    try:
        retrain(model)
    finally:
        for name in held:
            module, attribute = _owner(model, name)
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=True)
            for key in orders[module]:  # removal put the weight behind the bias
                module._parameters[key] = module._parameters.pop(key)
    _matrices(model, "retraining made them so; lower its learning rate")


def _matrices(model: nn.Module, why: str = "nothing was compressed") -> dict[str, Tensor]:
    """Detached copies of the matrices, by their key in the state dict."""
    if any(parametrize.is_parametrized(part) for part in model.modules()):
        raise UsageError(
            "the model has parametrized weights; make them plain first with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    named = {}
    for layer in read(model).layers:
        if layer.aliases:
            raise UsageError(
                f"{layer.name} and {layer.aliases[0]} are one tensor, which cannot be compressed "
                "yet; give each its own copy first"
            )
        tensor = layer.load().detach()
        if not bool(torch.isfinite(tensor).all()):
            raise NonFinite(f"{layer.name} holds NaN or infinite weights; {why}")
        named[layer.key] = tensor.cpu().clone()
    return named


def _write_back(model: nn.Module, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, values in weights.items():
            module, attribute = _owner(model, name)
            getattr(module, attribute).copy_(values)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return model.get_submodule(path), attribute
