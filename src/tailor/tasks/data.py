"""Labelled examples, and which of them a classifier gets wrong."""

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from tailor.errors import TaskError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """Labelled examples.

    Attributes:
        x: Inputs, one example along the first axis.
        y: Class of each example, counted from 0.
        repeats: Declares that equal examples are independent draws, not copies.
    """

    x: Shaped[Tensor, "n *features"]
    y: Int[Tensor, "n"]
    repeats: bool = False

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or self.y.ndim != 1:
            raise UsageError(
                f"needs one label for each input, but got inputs of shape {tuple(self.x.shape)} "
                f"and labels of shape {tuple(self.y.shape)}"
            )
        if self.y.is_floating_point() or (len(self.y) and int(self.y.min()) < 0):
            raise UsageError("labels must be whole numbers from 0 up")

    def __len__(self) -> int:
        return len(self.y)

    def digest(self) -> str:
        """SHA-256 of types, shapes and values."""
        return digest_of(self.x, self.y)

    def records(self) -> list[str]:
        """SHA-256 of each example, label included."""
        x = self.x.detach().cpu().contiguous().flatten(1) if self.x.ndim > 1 else self.x[:, None]
        rows = x.contiguous().view(torch.uint8).numpy() if x.numel() else None
        head = f"{self.x.dtype} {tuple(self.x.shape[1:])};".encode()
        return [
            hashlib.sha256(
                head + (b"" if rows is None else rows[i].tobytes()) + b"%d" % label
            ).hexdigest()
            for i, label in enumerate(self.y.tolist())
        ]

    def at(self, indices: Int[Tensor, "k"] | Bool[Tensor, "n"]) -> "Data":
        """Some of the examples."""
        return replace(self, x=self.x[indices], y=self.y[indices])

    def split(self, share: float, salt: str) -> tuple["Data", "Data"]:
        """Cut in two by a hash of each example: the same on every machine, in any order.

        Equal examples fall on the same side.

        Args:
            share: Of the examples that are expected in the first part, strictly in (0, 1).
            salt: Makes another cut; fix it before the data are seen.

        Raises:
            UsageError: The share is not between 0 and 1, or a part is empty.
        """
        if not 0 < share < 1:
            raise UsageError(f"share must lie strictly between 0 and 1, but is {share}")
        hashes = (hashlib.sha256(f"{salt} {record}".encode()) for record in self.records())
        first = torch.tensor([int(h.hexdigest()[:13], 16) < share * 16**13 for h in hashes])
        if bool(first.all()) or not bool(first.any()):
            raise UsageError(f"{len(self)} examples cannot be cut at {share}: a part is empty")
        return self.at(first), self.at(~first)

    def majority_error(self) -> float:
        """Share of errors of the best constant guess."""
        return 1.0 - int(torch.bincount(self.y).max()) / len(self)


BLOCK = 2**15  # numbers that a network is given at a time; what it makes of them fits caches
TIE = 1e-9  # share of the largest score up to which two scores count as equal

ErrorCount = Callable[[nn.Module, Data], Bool[Tensor, "n"]]


def digest_of(*tensors: Tensor) -> str:
    """SHA-256 of types, shapes and values."""
    hashed = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        hashed.update(f"{array.dtype} {tuple(array.shape)};".encode())
        hashed.update(array.flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def zero_one(model: nn.Module, data: Data) -> Bool[Tensor, "n"]:
    """Which examples a classifier gets wrong; a tie for the first place counts as wrong.

    The model is evaluated in float64 on the CPU, in evaluation mode, without gradients, and is
    left as it was. Scores that differ by less than ``TIE`` of the largest count as tied, so that
    the last digits of another machine change nothing; a NaN among them counts as wrong.

    Raises:
        UsageError: There are no examples.
        TaskError: The model cannot be run on the inputs, or gives no scores by class.
    """
    if len(data) == 0:
        raise UsageError("there are no examples to count errors on")
    if not _is_ready(model):
        model = copy.deepcopy(model).to(device="cpu", dtype=torch.float64).eval()
    try:
        scores = torch.cat([_scores(model, x) for x in blocks(data.x)])
    except TaskError:
        raise
    except Exception as error:  # a user's network can fail in any way
        said = f"{type(error).__name__}: {error}"
        raise TaskError(f"the network cannot be run on the data: {said}") from error
    if not scores.is_floating_point():
        raise TaskError(f"class scores must be floating point, but are {scores.dtype}")
    if int(data.y.max()) >= scores.shape[1]:
        raise TaskError(
            f"the data hold class {int(data.y.max())}, but the network scores {scores.shape[1]}"
        )
    return wrong_scores(scores, data.y)


def blocks(x: Shaped[Tensor, "n *features"]) -> Iterator[Shaped[Tensor, "b *features"]]:
    """Some of the inputs at a time, on the CPU; real numbers in float64."""
    for part in torch.split(x.detach().cpu(), max(1, BLOCK * len(x) // max(1, x.numel()))):
        yield part.to(torch.float64) if part.is_floating_point() else part


def wrong_scores(scores: Float[Tensor, "n classes"], y: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
    """Which rows do not put the right class first by more than ``TIE`` of their largest score."""
    size = scores.abs().nan_to_num(nan=0.0, posinf=0.0).amax(dim=1)
    return ~(lead(scores, y) > TIE * size)


def lead(scores: Float[Tensor, "n classes"], y: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Score of the right class minus the best other one."""
    at = y.long()[:, None]
    return scores.gather(1, at).squeeze(1) - scores.scatter(1, at, -torch.inf).amax(dim=1)


def _scores(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        scores = model(x)
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(x):
        raise TaskError("the network must return one row of class scores for each example")
    return scores


def _is_ready(model: nn.Module) -> bool:
    """Whether the model is already in float64 on the CPU and in evaluation mode."""
    wide = all(
        t.device.type == "cpu" and (t.dtype == torch.float64 or not t.is_floating_point())
        for t in (*model.parameters(), *model.buffers())
    )
    return wide and not any(part.training for part in model.modules())
