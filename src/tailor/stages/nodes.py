"""Scales of hidden nodes that are trained, and the silencing of nodes whose scale is small."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.numerics.nodes import NodeLaw
from tailor.stages.initialize import MATRICES, weight_name


class NodeScale(nn.Module):
    """Multiplies the activation of node j by sqrt(lambda_j), and learns log(lambda_j).

    Placed before a matrix V it makes the weights sqrt(lambda_j) V[:, j] (Lee et al. 2022, arXiv
    2205.08187). With ``map_penalty`` as a term of the loss training finds scales and weights
    together. The matrix should start standard normal, as the scales start at 1/p.

    Args:
        p: Number of nodes.
        prior: Law of their scales. With ``Equal`` they stay at 1/p.
        axis: Axis of the activations that counts the nodes: -1, or 1 after a convolution.
        generator: If given, the scales start as a sample of the prior; otherwise all at 1/p, as
            Lee et al. start.

    Attributes:
        log_scales: The parameter, log(lambda_j).
        alive: Which nodes are not pruned; saved with the parameters.

    Raises:
        UsageError: p is below 1.
    """

    alive: Tensor

    def __init__(
        self,
        p: int,
        prior: NodeLaw,
        *,
        axis: int = -1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if p < 1:
            raise UsageError(f"NodeScale needs at least one node, but p is {p}")
        self.p, self.prior, self.axis = p, prior, axis
        start = torch.full((p,), -math.log(p))
        if generator is not None:
            start = prior.sample(p, generator).log().to(device="cpu", dtype=start.dtype)
        self.log_scales = nn.Parameter(start, requires_grad=not prior.fixed)
        self.register_buffer("alive", torch.ones(p, dtype=torch.bool))

    @property
    def factors(self) -> Float[Tensor, "p"]:
        """What the activations are multiplied by: sqrt(lambda_j), and 0 for a pruned node."""
        return (self.log_scales / 2).exp() * self.alive

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Scale the activations along the axis of the nodes."""
        if not -x.ndim <= self.axis < x.ndim or x.shape[self.axis] != self.p:
            raise UsageError(
                f"NodeScale has {self.p} nodes on axis {self.axis}, but the activations have "
                f"shape {tuple(x.shape)}"
            )
        after = x.ndim - 1 - self.axis % x.ndim
        return x * self.factors.view(self.p, *[1] * after)

    def log_prior(self) -> Float[Tensor, ""]:
        """Sum of log p(lambda_j), without the Jacobian of lambda = exp(t).

        Lee et al. maximise the density of lambda while they move t = log lambda. With the
        Jacobian it would be the density of t, whose logarithm is larger by the sum of t; then
        a scale that the data do not need would settle where p(t) is largest. Without it nothing
        stops such a scale on its way to 0, where the heavy-tailed densities are infinite. So the
        objective has no minimum: how far these scales get depends on learning rate and steps.
        """
        if self.prior.fixed:
            return self.log_scales.new_zeros(())
        scales = self.log_scales.to(torch.float64).exp()
        return self.prior.log_density(scales, self.p).sum().to(self.log_scales.dtype)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"{self.p}, {self.prior}"


def map_penalty(model: nn.Module, n: float) -> Float[Tensor, ""]:
    """Minus the log prior of scales, weights and biases, over n: a term to add to a mean loss.

    The prior of every weight and bias of a linear layer or convolution is standard normal, that
    of the scales is the law of their ``NodeScale`` (without a Jacobian, see
    ``NodeScale.log_prior``). Normalisation layers and embeddings have none. Lee et al. (2022)
    divide by five times the number of training examples, that is, they weaken the prior.

    Args:
        model: Any module.
        n: Number of training examples, or a multiple of it.

    Raises:
        UsageError: n is not positive, or the model has nothing with a prior.
    """
    if not (n > 0 and math.isfinite(n)):
        raise UsageError(f"map_penalty needs a positive n, but got {n}")
    parts = list(model.modules())
    matrices = [part for part in parts if isinstance(part, MATRICES)]
    normal = {id(w): w for part in matrices for w in part.parameters(recurse=False)}
    terms = [torch.linalg.vector_norm(w).square() / 2 for w in normal.values()]
    terms += [-part.log_prior() for part in parts if isinstance(part, NodeScale)]
    if not terms:
        raise UsageError(
            f"{type(model).__name__} holds no linear layer, no convolution and no NodeScale, so "
            "there is nothing that map_penalty could act on"
        )
    return torch.stack(terms).sum() / n


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedNodes:
    """What ``prune_nodes`` left of a layer.

    Attributes:
        name: The ``NodeScale``, or the weight whose columns are the nodes.
        nodes: Number of nodes.
        kept: How many still count.
    """

    name: str
    nodes: int
    kept: int


def prune_nodes(
    model: nn.Module, *, fraction: float | None = None, threshold: float | None = None
) -> tuple[PrunedNodes, ...]:
    """Silence the nodes of small scale, in place, layer by layer.

    The size of a node is sqrt(lambda_j). Where a ``NodeScale`` has a fixed law it is
    sqrt(lambda_j) ||V[:, j]||, V being the next matrix; in a model without ``NodeScale`` it is
    ||W[:, j]||, in each matrix but the first, whose columns are inputs. A ``NodeScale`` before
    the first matrix scales inputs too, and is left alone. A node of a ``NodeScale`` is masked, so
    that it stays silent in further training; else its column becomes zero.

    Args:
        model: A network whose layers are registered in the order in which they act.
        fraction: Nodes below this quantile of the sizes in their layer go, in [0, 1).
        threshold: Nodes below this size go.

    Raises:
        UsageError: Not exactly one of the two is given, it is out of range, the model has no
            hidden nodes, or a layer would lose all its nodes.
    """
    if (fraction is None) == (threshold is None):
        raise UsageError("prune_nodes needs either fraction or threshold")
    if fraction is not None and not 0 <= fraction < 1:
        raise UsageError(f"fraction must lie in [0, 1), but is {fraction}")
    if threshold is not None and not 0 <= threshold < math.inf:
        raise UsageError(f"threshold must be finite and not negative, but is {threshold}")
    plans = []
    for layer in _hidden_layers(model):
        gone = layer.sizes < (threshold or 0.0)
        if fraction is not None:
            gone = layer.sizes < layer.sizes.quantile(fraction)
        if bool(gone.all()):
            raise UsageError(
                f"all {len(gone)} nodes of {layer.name} are below {threshold}; the largest is "
                f"{layer.sizes.max().item():.3g}, take a lower threshold"
            )
        plans.append((layer, gone | (layer.sizes == 0)))
    for layer, gone in plans:  # nothing is changed before every layer has passed
        layer.silence(gone)
    return tuple(
        PrunedNodes(name=layer.name, nodes=len(gone), kept=int((~gone).sum()))
        for layer, gone in plans
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Hidden:
    """A layer of hidden nodes: how large they are, and how to silence some of them."""

    name: str
    sizes: Float[Tensor, "p"]
    silence: Callable[[Bool[Tensor, "p"]], None]


def _hidden_layers(model: nn.Module) -> list[_Hidden]:
    parts = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, (*MATRICES, NodeScale))
    ]
    matrices = [at for at, (_, part) in enumerate(parts) if isinstance(part, MATRICES)]
    hidden = parts[matrices[0] + 1 :] if matrices else []
    found = [
        _of_scale(name, part, [other for _, other in hidden[at + 1 :]])
        for at, (name, part) in enumerate(hidden)
        if isinstance(part, NodeScale)
    ]
    if not found:
        found = [_of_columns(name, part) for name, part in hidden]
    if not found:
        raise UsageError(
            f"{type(model).__name__} has no hidden nodes: that takes two linear layers or "
            "convolutions, or a NodeScale behind one"
        )
    return found


def _of_scale(name: str, scale: NodeScale, later: list[nn.Module]) -> _Hidden:
    sizes = scale.factors.detach().to(torch.float64)
    if scale.prior.fixed:
        following = [part for part in later if isinstance(part, MATRICES)]
        if not following or _columns(name, following[0]).shape[1] != scale.p:
            raise UsageError(
                f"the {scale.p} nodes of {name} have a fixed scale, so their outgoing weights "
                f"have to tell their size; put it before a matrix with {scale.p} columns"
            )
        sizes = sizes * _norms(_columns(name, following[0]))
    else:  # exp in double precision: small scales differ still where single ones are all zero
        sizes = (scale.log_scales.detach().to(torch.float64) / 2).exp() * scale.alive

    def silence(gone: Bool[Tensor, "p"]) -> None:
        scale.alive &= ~gone

    return _Hidden(name=name, sizes=sizes, silence=silence)


def _of_columns(name: str, part: nn.Module) -> _Hidden:
    columns = _columns(name, part)

    def silence(gone: Bool[Tensor, "p"]) -> None:
        columns[:, gone] = 0

    return _Hidden(name=weight_name(name), sizes=_norms(columns), silence=silence)


def _columns(name: str, part: nn.Module) -> Float[Tensor, "out p *taps"]:
    """The weight with its input axis second, sharing memory."""
    groups = getattr(part, "groups", 1)
    if groups != 1:
        raise UsageError(
            f"{name} has {groups} groups, so no column holds all outgoing weights of a node; put "
            "a NodeScale before it"
        )
    weight = part.get_parameter("weight").detach()
    transposed = getattr(part, "transposed", False)
    return weight.transpose(0, 1) if transposed else weight


def _norms(columns: Float[Tensor, "out p *taps"]) -> Float[Tensor, "p"]:
    by_node = columns.to(torch.float64).transpose(0, 1).flatten(1)
    return by_node.square().sum(dim=1).sqrt()
