"""What a module is called with: the user's example, and what its parts get from it."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tailor.errors import UsageError
from tailor.stages.inputs.collect import evaluation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """The arguments of one call.

    Attributes:
        args: By position.
        kwargs: By name.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, given: Any) -> "Call":
        """A tensor, a tuple of arguments by position, or a mapping of arguments by name."""
        if isinstance(given, Mapping):
            return cls(args=(), kwargs=dict(given))
        return cls(args=tuple(given) if isinstance(given, tuple | list) else (given,), kwargs={})

    def fresh(self) -> "Call":
        """A copy, for a module that writes into what it gets, such as a cache."""
        return Call(args=_copied(self.args), kwargs=_copied(self.kwargs))

    def tensors(self) -> list[Tensor]:
        """Every tensor among the arguments, in the order of ``filled``."""
        return outputs((self.args, self.kwargs))

    def filled(self, values: Any) -> "Call":
        """The same call with the n-th tensor replaced by ``values[n]``."""
        places = iter(range(len(self.tensors())))
        args, kwargs = _mapped((self.args, self.kwargs), lambda _: values[next(places)])
        return Call(args=args, kwargs=kwargs)

    def on(self, module: nn.Module) -> Any:
        """What the module gives."""
        one = self.fresh()
        return module(*one.args, **one.kwargs)


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, without gradients, and with the same random numbers each time."""
    with evaluation(model):
        torch.default_generator.manual_seed(0)
        yield


def example(model: nn.Module, given: Any) -> Call:
    """The user's example, once the model was seen to accept it.

    Raises:
        UsageError: It holds no tensor, or the model cannot be run on it.
    """
    call = Call.of(given)
    if not call.tensors():
        raise UsageError(
            f"shrink needs an example input to follow, but got a {type(given).__name__}; give a "
            "tensor, a tuple of arguments or a dict of arguments by name"
        )
    try:
        with at_rest(model):
            call.on(model)
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UsageError(
            f"{type(model).__name__} cannot be run on example_input: {said}; give it as the model "
            "takes it"
        ) from error
    return call


def calls(model: nn.Module, call: Call, wanted: Callable[[str], bool]) -> dict[str, Call]:
    """What some modules get first while the model runs on an example."""
    found: dict[str, Call] = {}
    handles = []
    for path, part in model.named_modules():
        if wanted(path):

            def note(_: nn.Module, args: Any, kwargs: Any, path: str = path) -> None:
                if path not in found:
                    found[path] = Call(args=args, kwargs=kwargs).fresh()

            handles.append(part.register_forward_pre_hook(note, with_kwargs=True))
    try:
        with at_rest(model):
            call.on(model)
    finally:
        for handle in handles:
            handle.remove()
    return found


def outputs(given: Any) -> list[Tensor]:
    """The tensors in what a module gave; other objects, such as a cache, are passed over."""
    found: list[Tensor] = []
    _mapped(given, found.append)
    return found


def same(expected: list[Tensor], found: list[Tensor]) -> bool:
    """Whether two models give the same numbers up to rounding, and give any."""
    if not expected or [one.shape for one in expected] != [one.shape for one in found]:
        return False
    return all(difference(a, b) <= _rounding(a) for a, b in zip(expected, found, strict=True))


def difference(expected: Tensor, found: Tensor) -> float:
    """Norm of the difference over the norm; equal infinities and NaN are no difference."""
    a, b = expected.double(), found.double()
    alike = (a == b) | (a.isnan() & b.isnan())
    off = torch.where(alike, 0.0, a - b).norm()
    return float(off / a.nan_to_num(0, 0, 0).norm()) if float(off) else 0.0


def _rounding(tensor: Tensor) -> float:
    """The largest difference that is put down to another order of summation."""
    if not tensor.is_floating_point():
        return 0.0
    return 10_000 * torch.finfo(tensor.dtype).eps if tensor.dtype.itemsize > 2 else 0.1


def _mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _mapped(one, change) for name, one in value.items()}
    if isinstance(value, tuple | list):
        inner = [_mapped(one, change) for one in value]
        return inner if isinstance(value, list) else tuple(inner)
    return value


def _copied(value: Any) -> Any:
    """Tensors cloned; other objects copied where they can be."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping) and type(value) is dict:
        return {name: _copied(one) for name, one in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_copied(one) for one in value)
    try:
        return copy.deepcopy(value)
    except Exception:  # what cannot be copied is shared, as it was
        return value
