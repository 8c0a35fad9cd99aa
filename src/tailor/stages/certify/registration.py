"""What is written down before the fit, so that nothing can be chosen afterwards."""

import hashlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from torch import Tensor, nn

from tailor import records
from tailor.errors import UsageError
from tailor.stages.certify.method import Method
from tailor.stages.certify.refusals import must_not_change
from tailor.tasks import Data, Frozen, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A declared part of a network that no file holds.

    Attributes:
        name: Where it stands in the network.
        statement: Why it does not depend on the data.
        domain: Whether it holds knowledge about this kind of data.
        sha256: Hash of its text and tensors.
    """

    name: str
    statement: str
    domain: bool
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What a file is decoded into.

    Attributes:
        task: Name of the task that builds it.
        tensors: Number of tensors that a file has to hold.
        values: Number of their values.
        parts: Declared parts, which no file holds.
        sha256: Hash of its text, of names, shapes and types of its tensors, of its declared
            parts and of the source of its own classes.
    """

    task: str
    tensors: int
    values: int
    parts: tuple[Part, ...]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A cut of the data by a hash of each example, before anything is fitted.

    Attributes:
        share: Expected share of the examples that the prior may be made with.
        salt: Text that makes another cut.
    """

    share: float
    salt: str

    def parts(self, data: Data) -> tuple[Data, Data]:
        """The examples for the prior, and those that the bound counts."""
        return data.split(self.share, self.salt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What is fixed before the fit: the bound, its confidence, the data and the alternatives.

    Attributes:
        networks: The alternatives among which the fit may choose; each is paid for.
        method: The bound with its settings, as text.
        delta: Probability with which the claim may be false.
        certificates: Number of certificates that will be shown for these data; delta is
            divided among them.
        earlier: Number of alternatives per network that were looked at with these data before
            this registration, such as scalings or codes; 1 if the data are new.
        split: How the data are cut, if a prior is made with a part of them.
        n: Number of examples.
        data_sha256: Hash of the data.
        seed: Of the fit.
        created: When, in universal time; for people, and no proof.
        sha256: Hash of all other fields.
    """

    networks: tuple[Network, ...]
    method: str
    delta: float
    certificates: int
    earlier: int
    split: Split | None
    n: int
    data_sha256: str
    seed: int | None
    created: str
    sha256: str

    @property
    def choices(self) -> int:
        """Number of alternatives that a certificate pays for."""
        return len(self.networks) * self.earlier

    def seal(self) -> str:
        """SHA-256 of all fields but the seal itself."""
        return records.digest(records.to_json(replace(self, sha256="")))


def register(
    tasks: Task | Iterable[Task],
    method: Method,
    *,
    delta: float = 0.05,
    certificates: int = 1,
    earlier: int = 1,
    split: Split | None = None,
    seed: int | None = None,
) -> Registration:
    """Write down what a certificate will be about, before anything is fitted.

    Args:
        tasks: The task, or alternatives that share their data; choosing among m of them costs
            log2 m bits.
        method: The bound, with its settings.
        delta: Probability with which the claim may be false.
        certificates: Number of certificates that will be shown for these data.
        earlier: Number of alternatives per task that were looked at with these data before.
        split: How the data are cut, if a prior is made with a part of them.
        seed: Of the fit.

    Raises:
        UsageError: No task, tasks with different data, or a number out of range.
        TaskError: The data change between two readings.
    """
    tasks = (tasks,) if isinstance(tasks, Task) else tuple(tasks)
    if not tasks:
        raise UsageError("a registration needs at least one task, but got none")
    if not 0 < delta < 1:
        raise UsageError(f"delta must lie strictly between 0 and 1, but is {delta}")
    if certificates < 1 or earlier < 1:
        raise UsageError(
            f"certificates and earlier must be at least 1, but are {certificates} and {earlier}"
        )
    samples = {task.name: must_not_change(task.train) for task in tasks}
    hashes = {name: data.digest() for name, data in samples.items()}
    if len(set(hashes.values())) > 1:
        raise UsageError(
            f"the tasks {', '.join(hashes)} have different data; register those of one sample"
        )
    draft = Registration(
        networks=tuple(network_of(task.build, task.name) for task in tasks),
        method=repr(method),
        delta=delta,
        certificates=certificates,
        earlier=earlier,
        split=split,
        n=len(samples[tasks[0].name]),
        data_sha256=hashes[tasks[0].name],
        seed=seed,
        created=now(),
        sha256="",
    )
    return replace(draft, sha256=draft.seal())


def now() -> str:
    """The time, in universal time."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def network_of(build: Callable[[], nn.Module], task: str) -> Network:
    """Describe what a task builds.

    Raises:
        UsageError: It holds tensors that are neither in its state dict nor declared, or builds
            other constants each time.
    """
    model, again = build(), build()
    hidden = undeclared(model)
    if hidden:
        raise UsageError(
            f"the network holds tensors that no file pays for: {', '.join(hidden[:4])}; make "
            "them parameters or persistent buffers, or declare their part with tailor.Frozen"
        )
    parts = declared(model)
    if parts != declared(again):
        raise UsageError(
            "the task builds other constants each time; seed the random numbers of its frozen parts"
        )
    state = model.state_dict()
    rows = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in state.items()]
    text = {
        "text": repr(model),
        "tensors": rows,
        "parts": [part.sha256 for part in parts],
        "sources": sources(model),
    }
    return Network(
        task=task,
        tensors=len(state),
        values=sum(tensor.numel() for tensor in state.values()),
        parts=parts,
        sha256=records.digest(text),
    )


def declared(model: nn.Module) -> tuple[Part, ...]:
    """The declared parts of a network."""
    return tuple(
        Part(
            name=name or "network",
            statement=part.statement,
            domain=part.domain,
            sha256=part.digest(),
        )
        for name, part in model.named_modules()
        if isinstance(part, Frozen)
    )


def undeclared(model: nn.Module) -> list[str]:
    """Names of tensors that are neither in the state dict nor in a declared part."""
    stored = {id(t) for t in model.state_dict(keep_vars=True).values()}
    frozen = {
        id(inner)
        for module in model.modules()
        if isinstance(module, Frozen)
        for inner in module.modules()
    }
    found = []
    for prefix, module in model.named_modules():
        if id(module) in frozen:
            continue
        for name, value in _held(module):
            if id(value) not in stored:
                found.append(f"{prefix}.{name}" if prefix else name)
    return found


def _held(module: nn.Module) -> list[tuple[str, object]]:
    """Every tensor or array that a module itself refers to, also within lists and tuples."""
    values = {**module._parameters, **module._buffers, **vars(module)}
    held: list[tuple[str, object]] = []
    for name, value in values.items():
        if name.startswith("_") and name in vars(nn.Module()):
            continue  # where modules keep parameters, buffers and hooks
        inside = value.values() if isinstance(value, dict) else value
        many = inside if isinstance(value, dict | list | tuple) else [value]
        held += [(name, one) for one in many if isinstance(one, Tensor) or _is_array(one)]
    return held


def _is_array(value: object) -> bool:
    return type(value).__module__ == "numpy" and getattr(value, "ndim", 0) > 0


def sources(model: nn.Module) -> list[str]:
    """SHA-256 of the source of each class in a network that is neither PyTorch's nor tailor's.

    Where there is no source, as in an interactive session, the name of the class stands for it.
    """
    classes = {type(module) for module in model.modules()}
    return sorted(
        _source(one) for one in classes if one.__module__.split(".")[0] not in ("torch", "tailor")
    )


def _source(kind: type[nn.Module]) -> str:
    try:
        text = inspect.getsource(kind)
    except (OSError, TypeError):
        text = kind.__qualname__
    return hashlib.sha256(text.encode()).hexdigest()
