"""Tasks: how to build a network, which data it is for, and how its errors are counted.

A certificate speaks of a task, so everything here must be fixed before the data are looked at:
the architecture, the way inputs are scaled, and the split.
"""

import copy
import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor, nn

from tailor.errors import TaskError, UsageError

Builder = Callable[[], nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """Labelled examples.

    Attributes:
        x: Inputs, one example along the first axis.
        y: Class of each example, counted from 0.
    """

    x: Shaped[Tensor, "n *features"]
    y: Int[Tensor, "n"]

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
        hashed = hashlib.sha256()
        for tensor in (self.x, self.y):
            array = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
            hashed.update(f"{array.dtype} {tuple(array.shape)};".encode())
            hashed.update(array.flatten().view(torch.uint8).numpy().tobytes())
        return hashed.hexdigest()

    def majority_error(self) -> float:
        """Share of errors of the best constant guess."""
        return 1.0 - int(torch.bincount(self.y).max()) / len(self)


ErrorCount = Callable[[nn.Module, Data], Bool[Tensor, "n"]]


def zero_one(model: nn.Module, data: Data) -> Bool[Tensor, "n"]:
    """Which examples a classifier gets wrong; a tie for the first place counts as wrong.

    The model is evaluated in float64 on the CPU, in evaluation mode, without gradients, and is
    left as it was. An example with a NaN among its scores counts as wrong.

    Raises:
        UsageError: There are no examples.
        TaskError: The model cannot be run on the inputs, or gives no scores by class.
    """
    if len(data) == 0:
        raise UsageError("there are no examples to count errors on")
    if not _is_ready(model):
        model = copy.deepcopy(model).to(device="cpu", dtype=torch.float64).eval()
    x = data.x.to(torch.float64) if data.x.is_floating_point() else data.x
    try:
        with torch.no_grad():
            scores = model(x)
    except Exception as error:  # a user's network can fail in any way
        raise TaskError(f"the network cannot be run on the data: {_said(error)}") from error
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(data):
        raise TaskError("the network must return one row of class scores for each example")
    if not scores.is_floating_point():
        raise TaskError(f"class scores must be floating point, but are {scores.dtype}")
    if int(data.y.max()) >= scores.shape[1]:
        raise TaskError(
            f"the data hold class {int(data.y.max())}, but the network scores {scores.shape[1]}"
        )
    y = data.y.long()[:, None]
    own = scores.gather(1, y)
    rivals = scores.scatter(1, y, -torch.inf).amax(dim=1, keepdim=True)
    return ~(own > rivals).squeeze(1)


def _is_ready(model: nn.Module) -> bool:
    """Whether the model is already in float64 on the CPU and in evaluation mode."""
    wide = all(
        t.device.type == "cpu" and (t.dtype == torch.float64 or not t.is_floating_point())
        for t in (*model.parameters(), *model.buffers())
    )
    return wide and not any(part.training for part in model.modules())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """What a certificate is about.

    Attributes:
        name: For people; a task of your own is named ``module:name``.
        build: Makes the network with fresh weights; only names, types and shapes matter.
        train: The sample that the certificate counts errors on.
        test: Held-out examples, shown for information; None if there are none.
        error: Which examples count as errors.
    """

    name: str
    build: Builder = field(repr=False)
    train: Callable[[], Data] = field(repr=False)
    test: Callable[[], Data | None] = field(repr=False, default=lambda: None)
    error: ErrorCount = field(repr=False, default=zero_one)


def find(name: str) -> Task:
    """The embedded task of that name, or the task at ``module:name``.

    Modules in the current folder are found, as with ``python -m``.

    Raises:
        TaskError: There is no such task, or its module does not import.
    """
    if name in EMBEDDED:
        return EMBEDDED[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(EMBEDDED)
        raise TaskError(f"there is no task {name!r}; use {known}, or module:name for your own")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module can fail in any way
        raise TaskError(
            f"the module {module_name} of the task does not import: {_said(error)}"
        ) from error
    task = getattr(module, attribute, None)
    if not isinstance(task, Task):
        raise TaskError(
            f"{module_name} has no tailor.Task named {attribute!r}; "
            f"write {attribute} = tailor.Task(name=..., build=..., train=...) there"
        )
    return task


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


# scikit-learn's digits: 1,797 images of 8 x 8 pixels, 10 classes

DIGITS_TRAIN = 1437  # four fifths, chosen by a hash of the index: the same on every machine


def _digits() -> tuple[Data, Data]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise TaskError(
            "the digits task needs scikit-learn; install it: pip install scikit-learn"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    x = torch.as_tensor(pixels, dtype=torch.float32) / 16  # pixels are 0, ..., 16
    y = torch.as_tensor(labels, dtype=torch.int64)
    shuffled = sorted(range(len(y)), key=lambda i: hashlib.sha256(b"digits %d" % i).digest())
    train, test = shuffled[:DIGITS_TRAIN], shuffled[DIGITS_TRAIN:]
    return Data(x=x[train], y=y[train]), Data(x=x[test], y=y[test])


def _digits_network() -> nn.Module:
    """A ReLU network without biases: its decisions do not change when a layer is scaled."""
    return nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 10, bias=False))


DIGITS = Task(
    name="digits",
    build=_digits_network,
    train=lambda: _digits()[0],
    test=lambda: _digits()[1],
)
EMBEDDED = {"digits": DIGITS}
