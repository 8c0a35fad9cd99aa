"""Parts of a network that were fixed before the data were seen, and say so."""

import hashlib

import torch
from torch import Tensor, nn

from tailor.errors import UsageError


class Frozen(nn.Module):
    """A part whose tensors do not depend on the data, so that no file holds them.

    A certificate pays for every tensor of a network, except for those of parts that are declared
    in this way. The declaration is yours: a seed that was chosen by looking at the data, or a
    backbone that has seen them, makes the certificate false.

    Args:
        part: Any module; its parameters become constants.
        statement: Why it does not depend on the data, such as "random, seed 0". Certificates
            print it.
        domain: Whether it holds knowledge about this kind of data, such as what edges in images
            are; certificates print that too.

    Raises:
        UsageError: The statement is empty.
    """

    def __init__(self, part: nn.Module, *, statement: str, domain: bool = False) -> None:
        super().__init__()
        if not statement.strip():
            raise UsageError(
                "a frozen part needs a statement of why it does not depend on the data, such as "
                "'random, seed 0'; got an empty one"
            )
        self.statement, self.domain = statement, domain
        self.part = part
        for module in part.modules():
            for name, tensor in [*_own(module)]:
                module._parameters.pop(name, None)
                module._buffers.pop(name, None)
                module.register_buffer(name, tensor.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """What the part makes of ``x``."""
        out: Tensor = self.part(x)
        return out

    def digest(self) -> str:
        """SHA-256 of the part's text and of all its tensors."""
        hashed = hashlib.sha256(f"{self.part} {self.statement} {self.domain};".encode())
        for name, tensor in self.part.named_buffers():
            array = tensor.cpu().to(torch.float64) if tensor.is_floating_point() else tensor.cpu()
            hashed.update(f"{name} {tuple(array.shape)};".encode())
            hashed.update(array.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return hashed.hexdigest()


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers of one module, without its children's."""
    named = [*module._parameters.items(), *module._buffers.items()]
    return [(name, tensor) for name, tensor in named if tensor is not None]
