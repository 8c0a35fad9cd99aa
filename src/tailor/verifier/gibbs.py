"""The recount of a stochastic predictor: its draws, its divergence from the prior, the bound."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from tailor.verifier.bounds import binomial_upper, kl_upper
from tailor.verifier.network import cut, wrong_scores
from tailor.verifier.said import Mismatch, near, same

M64 = 2**64


def recount_gibbs(
    said: Mapping[str, Any],
    *,
    model: nn.Module,
    payload: bytes,
    data: Any,
    delta: float,
    choices: int,
    learn: Callable[[Any], Any] | None,
) -> None:
    """Compare the evidence of a PAC-Bayes certificate with what is found.

    Args:
        said: The evidence.
        model: The decoded law of networks, in float64.
        payload: The file's bytes, whose hash is a part of the seed of the draws.
        data: The examples.
        delta: Of this certificate.
        choices: Number of alternatives.
        learn: For a prior that was learned from a part: learns it again.
    """
    prior, before = said["prior"], 0
    if prior["kind"] == "from part":
        if learn is None:
            raise Mismatch("the prior was learned from a part of the examples; pass its learner")
        first, data = cut(data, prior)
        before, nats = len(first.y), _learned_kl(_tensors(model), learn(first), prior["grid"][0])
        near("divergence", said["divergence"], nats, 1e-6)
    else:
        nats = _kl(_tensors(model), prior, getattr(model, "levels", None))
        near("divergence", said["divergence"], nats)
    n, repeats = len(data.y), said["repeats"]
    same("examples, and those of the prior", [said["n"], prior["n"]], [n, before])
    key = f"{said['seed']}\0{hashlib.sha256(payload).hexdigest()}\0gibbs"
    errors = _draw_errors(model, data.x.double(), data.y, repeats, key)
    same("draws and errors", [said["draws"], said["draw_errors"]], [repeats * n, errors])
    same("errors on average", said["errors"], -(-errors // repeats))
    parts = said["delta_draws"], said["delta_bound"]
    if parts[0] > 0.25 or min(parts) <= 0 or sum(parts) > delta * (1 + 1e-12):
        raise Mismatch(f"the parts of delta are {parts}, which does not add up to {delta}")
    few = errors < repeats * n - 1  # at the very end draws of different chances have no bound
    upper = binomial_upper(errors, repeats * n, math.log(parts[0])) if few else 1.0
    near("bound on the empirical risk", said["empirical_upper"], upper)
    nats = said["divergence"] + math.log(choices)
    near("price of choices", said["choices"], math.log(choices))
    whole = (nats + math.log(2 * math.sqrt(n) / parts[1])) / n
    near("bound", said["risk_bound"], kl_upper(upper, whole))
    form = said["beta"] * upper + (nats - math.log(parts[1])) / n
    near("Catoni's form", said["catoni"], min(1.0, math.expm1(-form) / math.expm1(-said["beta"])))
    near("majority vote", said["derandomised"], min(1.0, 2 * said["risk_bound"]))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in model.state_dict().items()}


# ---- draws --------------------------------------------------------------------------------


def _draw_errors(model: nn.Module, x: Tensor, y: Tensor, repeats: int, key: str) -> int:
    """Errors of a fresh network for every example and repeat."""
    state, total = _tensors(model), repeats * len(y)
    if "factor" in state:
        draw, size = _head_scores(state, model, x, key), 2048
    else:
        draw, size = _network_scores(state, model, x, key), 64
    errors = 0
    with torch.no_grad():
        for row in range(0, total, size):
            place = torch.arange(row, min(row + size, total)) % len(y)
            errors += int(wrong_scores(draw(row, place), y[place]).sum())
    return errors


def _head_scores(
    state: Mapping[str, Tensor], model: Any, x: Tensor, key: str
) -> Callable[[int, Tensor], Tensor]:
    """Scores of a head with a full covariance: normal, with a law for each example."""
    mean = state["mean"]
    contrasts, width = mean.shape
    triangle = _triangle(state["factor"], mean.numel())
    means, roots = [], []
    for part in torch.split(x, 512):
        with torch.no_grad():
            f = model.features(part).double()
        blocks = [f @ triangle[k * width : (k + 1) * width] for k in range(contrasts)]
        spread = torch.stack(blocks, 1)
        root, failed = torch.linalg.cholesky_ex(spread @ spread.mT)
        means.append(f @ mean.T)
        roots.append(torch.where(failed[:, None, None] == 0, root, math.nan))
    all_means, all_roots = torch.cat(means), torch.cat(roots)
    basis = torch.zeros(contrasts + 1, contrasts, dtype=torch.float64)  # Helmert's
    for k in range(1, contrasts + 1):
        basis[:k, k - 1], basis[k, k - 1] = 1.0, -float(k)
        basis[:, k - 1] /= math.sqrt(k * (k + 1))

    def draw(row: int, place: Tensor) -> Tensor:
        z = _normals(key, row, len(place), contrasts)
        return (all_means[place] + (all_roots[place] @ z[:, :, None])[:, :, 0]) @ basis.T

    return draw


def _network_scores(
    state: Mapping[str, Tensor], model: Any, x: Tensor, key: str
) -> Callable[[int, Tensor], Tensor]:
    """Scores of networks whose weights are drawn one by one."""
    named = {k.removeprefix("network."): t for k, t in state.items() if k.startswith("network.")}
    shapes = {k: t.shape if f"deviation.{k}" in state else t.shape[:-1] for k, t in named.items()}
    sizes = [shape.numel() for shape in shapes.values()]

    def one(weights: Tensor, v: Tensor) -> Tensor:
        parts = zip(shapes.items(), torch.split(weights, sizes), strict=True)
        own = {name: part.view(shape) for (name, shape), part in parts}
        scores: Tensor = functional_call(model.network, own, (v[None],))[0]
        return scores

    def draw(row: int, place: Tensor) -> Tensor:
        weights = _weights(state, list(shapes), model, key, row, len(place))
        scores: Tensor = vmap(one)(weights, x[place])
        return scores

    return draw


def _weights(
    state: Mapping[str, Tensor], names: Sequence[str], model: Any, key: str, row: int, rows: int
) -> Tensor:
    if f"deviation.{names[0]}" in state:
        mean = torch.cat([state[f"network.{name}"].flatten() for name in names])
        spread = torch.cat([state[f"deviation.{name}"].flatten() for name in names])
        return mean + spread * _normals(key, row, rows, len(mean))
    width = len(model.levels)
    tables = torch.cat([state[f"network.{name}"].reshape(-1, width) for name in names])
    reached = tables.cumsum(1)
    words = _words(key, row * len(reached), rows * len(reached)).reshape(rows, -1)
    uniform = torch.from_numpy(((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)
    level = ((uniform * reached[:, -1])[:, :, None] >= reached[None, :, :-1]).sum(2)
    return torch.tensor(model.levels, dtype=torch.float64)[level]


def _words(key: str, first: int, count: int) -> Any:
    """SplitMix64 with a start and a step of the key's own (Steele, Lea & Flood 2014)."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    start, step = (int.from_bytes(part, "little") for part in (digest[:8], digest[8:]))
    step |= 1
    if (step ^ step >> 1).bit_count() < 24:
        step ^= 0xAAAAAAAAAAAAAAAA
    with np.errstate(over="ignore"):
        z = np.arange(count, dtype=np.uint64) * np.uint64(step)
        z += np.uint64((start + (first + 1) * step) % M64)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)


def _normals(key: str, row: int, rows: int, columns: int) -> Tensor:
    """Box and Muller: of each row's words the first half are radii, the others angles."""
    half = (columns + 1) // 2
    words = _words(key, row * 2 * half, rows * 2 * half).view(np.int64)
    w = torch.from_numpy(words).view(rows, 2, half).double()
    unit = 2.0**-63 * (1 - 2.0**-53)
    radius = (w[:, 0] * unit + unit / 2).abs().log().mul(-2).sqrt()
    angle = w[:, 1] * (math.pi * 2.0**-63) + math.pi * 2.0**-64
    return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :columns]


# ---- divergences --------------------------------------------------------------------------


def _kl(state: Mapping[str, Tensor], prior: Mapping[str, Any], levels: Any) -> float:
    """KL of the file's law from a fixed prior, with ln of the size of its grid for each group."""
    grid = prior["grid"]
    if "factor" in state:
        mean, packed = state["mean"], state["factor"]
        diagonal = packed[torch.arange(1, mean.numel() + 1).cumsum(0) - 1]
        return _best([_normal_kl(packed, mean, diagonal, scale) for scale in grid])
    total = 0.0
    for name in [name for name in state if name.startswith("network.")]:
        w, spread = state[name], state.get(name.replace("network.", "deviation.", 1))
        if spread is not None:
            total += _best([_normal_kl(spread, w, spread, scale) for scale in grid])
            continue
        q = (w / w.sum(-1, keepdim=True)).reshape(-1, len(levels))
        rest = len(levels) - 1
        laws = [[zero if v == 0 else (1 - zero) / rest for v in levels] for zero in grid]
        total += _best(
            [float(torch.special.xlogy(q, q / torch.tensor(p).double()).sum()) for p in laws]
        )
    return total


def _best(members: Sequence[float]) -> float:
    return min(members) + math.log(len(members))


def _normal_kl(spread: Tensor, mean: Tensor, diagonal: Tensor, scale: float) -> float:
    if not bool((diagonal > 0).all()):
        raise Mismatch("a deviation of the law in the file is not above 0")
    square = float((spread**2).sum() + (mean**2).sum())
    return (square / scale**2 - diagonal.numel()) / 2 - float((diagonal / scale).log().sum())


def _learned_kl(state: Mapping[str, Tensor], prior: Any, widen: float) -> float:
    """KL from the rounded law of a head that was learned from the first part."""
    size = state["mean"].numel()
    own, learned = _triangle(state["factor"], size), _triangle(prior.factor, size)
    eye = torch.eye(size, dtype=torch.float64)
    inverse = torch.linalg.solve_triangular(learned, eye, upper=False)
    root = _rounded(inverse.T / widen).triu()
    off = root.T @ (state["mean"].flatten() - _rounded(prior.mean.detach().double().flatten()))
    both = float(((root.T @ own) ** 2).sum() + (off**2).sum()) - size
    return max(0.0, both / 2 - float(own.diagonal().log().sum() + root.diagonal().log().sum()))


def _triangle(packed: Tensor, size: int) -> Tensor:
    full = torch.zeros(size, size, dtype=torch.float64)
    full[tuple(torch.tril_indices(size, size))] = packed.detach().double()
    return full


def _rounded(values: Tensor) -> Tensor:
    step = 2.0 ** math.ceil(math.log2(float(values.abs().max()))) * 2.0**-20
    return torch.round(values / step) * step
