"""What the matrices of one block see on the calibration data."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tailor.errors import NonFinite, UsageError
from tailor.integrations.causal_lm.blocks import Batch, run
from tailor.stages.inputs import Inputs
from tailor.stages.scores import Needs


def collect(
    block: nn.Module,
    index: int,
    batches: Sequence[Batch],
    watched: Mapping[str, nn.Module],
    needs: Needs,
) -> dict[str, Inputs]:
    """Sums over the inputs of some parts of a block; matrices with one input share them.

    Args:
        block: The block.
        index: Its place.
        batches: The calibration data before it.
        watched: The parts to watch, by the name that they get in the answer.
        needs: ``"norms"``, or ``"gram"`` for the outer products as well.

    Raises:
        UsageError: A part is never called.
        NonFinite: It sees NaN or infinite numbers.
    """
    if needs == "nothing":
        return {}
    sums = {name: _Sums(gram=needs == "gram") for name in watched}
    with _watching(watched, sums) as begin:
        for batch in batches:
            begin()
            run(block, index, batch)
    return {name: _finished(name, sums) for name in watched}


@dataclass(slots=True, kw_only=True, eq=False)
class _Sums:
    gram: bool
    leader: str = ""  # another part that gets the very same tensor, and sums for both
    count: int = 0
    squares: Any = None
    products: Any = None

    def add(self, x: Float[Tensor, "... inputs"]) -> None:
        rows = x.detach().flatten(0, -2).double()
        if self.squares is None:
            self.squares = torch.zeros_like(rows[0])
            self.products = rows.new_zeros(rows.shape[1], rows.shape[1]) if self.gram else None
        self.count += len(rows)
        self.squares += rows.square().sum(0)
        if self.gram:
            self.products.addmm_(rows.T, rows)


@dataclass(slots=True, kw_only=True, eq=False)
class _Seen:
    """Tensors of the present call, held so that two of them can be told apart."""

    tensors: list[tuple[str, Tensor]] = field(default_factory=list)

    def first(self, name: str, x: Tensor) -> str:
        """Who got this tensor first, if it was another part."""
        leader = next((other for other, y in self.tensors if y is x), "")
        self.tensors.append((name, x))
        return leader if leader != name else ""


@contextmanager
def _watching(watched: Mapping[str, nn.Module], sums: dict[str, _Sums]) -> Iterator[Any]:
    seen = _Seen()

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            own, leader = sums[name], seen.first(name, args[0])
            if own.count == 0:
                own.leader = leader
            if leader != own.leader:
                raise UsageError(
                    f"{name} shares its input with another matrix in one batch and not in the "
                    "next; give all calibration data in one batch"
                )
            if leader:
                own.count += 1
            else:
                own.add(args[0])

        return hook

    handles = [part.register_forward_pre_hook(watch(name)) for name, part in watched.items()]
    try:
        yield seen.tensors.clear
    finally:
        for handle in handles:
            handle.remove()


def _finished(name: str, sums: Mapping[str, _Sums]) -> Inputs:
    if sums[name].count == 0:
        raise UsageError(
            f"{name} is not used on the calibration data; give more of it, or leave the matrix "
            f"out with skip=({name!r},)"
        )
    found = sums[sums[name].leader or name]
    odd = int((~torch.isfinite(found.squares)).sum())
    if odd:
        raise NonFinite(
            f"{odd} inputs of {name} are NaN or infinite on the calibration data; use "
            "dtype=torch.float32, or look at the model"
        )
    return Inputs(count=found.count, squares=found.squares, gram=found.products)
