"""A pass over the user's data that adds up what each layer sees."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.inputs.seen import Inputs
from tailor.stages.inputs.watch import Patterns, Watch, watch

Run = Callable[[nn.Module, Any], object]


def collect(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Patterns = "*",
    skip: Patterns = (),
    gram: Patterns = (),
    run: Run | None = None,
) -> dict[str, Inputs]:
    """What each layer is multiplied with on some batches, in sums.

    The model runs in evaluation mode and without gradients; modes, hooks and torch's random
    state are as before afterwards, also where something fails. Sums are in float64. Tokens that
    only pad are seen like all others, so batches without padding are better.

    Args:
        model: Any module.
        batches: Each one a tensor, a mapping (``model(**batch)``), or a tuple or list of which
            the first is one of these, such as (inputs, targets). They go to the device of the
            model's first parameter.
        layers: Patterns of the names of weights. Those of layers whose inputs cannot be seen
            (``tailor.stages.inputs.vectors``) are left out.
        skip: Patterns of names to leave out all the same.
        gram: Patterns of names for which the Gram matrix is added up, too: inputs^2 numbers of
            float64 for each set of layers with the same inputs.
        run: Calls the model on a batch, where the above does not fit.

    Returns:
        The sums by name of the weight. Layers that always get the same tensors share theirs.

    Raises:
        UsageError: There is no batch, one is of another form, a layer is never called, or its
            inputs are NaN or infinite.

    Warns:
        UserWarning: A Gram matrix is singular since there are fewer vectors than inputs.
    """
    _check(batches)
    whole = getattr(model, "_orig_mod", model)  # compiled code would be compiled anew with hooks
    number = 0
    with watch(whole, layers=layers, skip=skip, gram=gram) as seen, evaluation(whole):
        for number, batch in enumerate(batches, start=1):
            _run(whole, batch, number, run)
    if number == 0:
        raise UsageError("data is empty (a generator can be gone through once); give a batch")
    return _complete(seen)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; modes and random state come back at the end."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[d.index for d in devices]):
            model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _check(batches: object) -> None:
    if isinstance(batches, Tensor | Mapping | str) or not isinstance(batches, Iterable):
        raise UsageError(
            f"data has to be batches, but is a {type(batches).__name__}; put a single batch in a "
            "list"
        )


def _run(model: nn.Module, batch: Any, number: int, run: Run | None) -> None:
    first = next(model.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    if run is not None:
        run(model, moved(batch, device))
        return
    given = batch[0] if isinstance(batch, tuple | list) and len(batch) else batch
    if isinstance(given, Mapping):
        model(**moved(given, device))
    elif isinstance(given, Tensor):
        model(given.to(device))
    else:
        raise UsageError(
            f"batch {number} is a {type(given).__name__}, but a tensor, a mapping or a tuple that "
            "begins with one is needed; say with run how the model is called"
        )


def moved(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        make = getattr(type(batch), "_make", type(batch))  # a named tuple takes no sequence
        return make(moved(one, device) for one in batch)
    return batch


def _complete(seen: Watch) -> dict[str, Inputs]:
    found = seen.inputs()
    never = [name for name in seen.names if name not in found]
    if never:
        raise UsageError(
            f"no data reached {', '.join(never[:8])}; give data that does, or leave "
            f"{'it' if len(never) == 1 else 'them'} out with skip=({never[0]!r},)"
        )
    few = [
        name for name, one in found.items() if one.gram is not None and one.count < len(one.gram)
    ]
    if few:
        one = found[few[0]]
        warnings.warn(
            f"{', '.join(few[:8])}: fewer vectors than inputs ({one.count} and "
            f"{len(one.squares)} for the first), so the Gram matrix is singular; collect "
            "on more data, or it is damped more",
            UserWarning,
            stacklevel=3,
        )
    return found
