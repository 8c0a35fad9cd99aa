"""Zeros that stay zero while an optimizer trains the rest."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tailor.errors import UsageError
from tailor.stages.acting import groups_of
from tailor.stages.prune.masks import Masks, zero


def hold(model: nn.Module, optimizer: Optimizer, masks: Mapping[str, Tensor]) -> "Hold":
    """Keep masked entries at zero, from now on and after every step of the optimizer.

    Whatever moves weights in a step is undone where nothing stays: momentum, weight decay, and
    penalties and noise that were attached before or after. Neither the state of the model nor
    that of the optimizer has anything more in it. With several optimizers, hold for each.

    Args:
        model: The network that is trained.
        optimizer: Has at least one of the masked weights.
        masks: Which entries stay, by name of the weight.

    Returns:
        A handle with ``remove``, and a context manager that removes it at the end.

    Raises:
        UsageError: A mask does not fit the model, or the optimizer has none of its weights.

    Examples:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> with hold(model, optimizer, {"weight": torch.tensor([[True, False]])}):
        ...     model(torch.ones(2)).backward()
        ...     optimizer.step()
        >>> model.weight.detach()[0, 1]
        tensor(0.)
    """
    bound = Masks(masks).bound(model)
    groups = groups_of(optimizer)
    if not any(id(weight) in groups for weight, _ in bound):
        raise UsageError(
            "the optimizer has none of the masked weights; make it from the parameters of the "
            "pruned model"
        )
    return Hold(optimizer, bound)


class Hold:
    """Zeros that are kept; made by ``hold``."""

    def __init__(self, optimizer: Optimizer, bound: list[tuple[nn.Parameter, Tensor]]) -> None:
        self._bound = bound
        self._after = optimizer.register_step_post_hook(self._zero)
        # What was attached later acts later, so this moves to the end before each step.
        self._before = optimizer.register_step_pre_hook(self._move)
        self._zero()

    def remove(self) -> None:
        """Zeros may change from now on."""
        self._before.remove()
        self._after.remove()

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _move(self, optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        self._after.remove()
        self._after = optimizer.register_step_post_hook(self._zero)

    @torch.no_grad()
    def _zero(self, *_: object) -> None:
        for weight, gone in self._bound:
            zero(weight, gone)
