"""Precision of the forward pass: float32, or half as wide by autocast."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Precise:
    """Autocast around the forward pass; for float16 the loss is scaled, too.

    Small gradients round to zero in float16, so the loss is multiplied by a number that halves
    when a gradient overflows and doubles after a while without (Micikevicius et al. 2018,
    section 3.2).

    Args:
        precision: Of the forward pass; weights and gradients stay as they are.
        device: Type of the device, such as ``"cuda"``.
    """

    def __init__(self, precision: str, device: str) -> None:
        self._dtype, self._device = DTYPES[precision], device
        half = self._dtype is torch.float16
        self.scaler = torch.amp.GradScaler(device) if half else None

    def forward(self) -> AbstractContextManager[Any]:
        """Around the forward pass and the loss."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._device, dtype=self._dtype)

    def scale(self, total: Tensor) -> Tensor:
        """What to take the gradient of."""
        return total if self.scaler is None else self.scaler.scale(total)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def update(self) -> None:
        """Choose the next scale."""
        if self.scaler is not None:
            self.scaler.update()

    def scale_now(self) -> float:
        """The scale; 1 where there is none."""
        return 1.0 if self.scaler is None else self.scaler.get_scale()
