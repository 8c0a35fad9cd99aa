"""What ``prune`` is called with, before anything is touched."""

import math
from collections.abc import Mapping, Sequence

from tailor.errors import UsageError
from tailor.stages.allocate import Allocated, Allocation
from tailor.stages.inputs import Inputs
from tailor.stages.scores import NofM, Score
from tailor.weights.layer import Layer


def check_arguments(
    sparsity: object, score: object, allocation: object, pattern: NofM | None
) -> None:
    """Refuse what is out of range, or does not go together.

    Raises:
        UsageError: It is so.
    """
    if not isinstance(score, Score):
        raise UsageError(
            f"score has to be a score such as Magnitude(), but is {score!r}; a function goes into "
            "Scored"
        )
    if not isinstance(allocation, Allocation | Allocated):
        raise UsageError(
            f"allocation has to be one such as UniformAllocation(), but is {allocation!r}"
        )
    _check_sparsity(sparsity, allocation, pattern)


def _check_sparsity(
    sparsity: object, allocation: Allocation | Allocated, pattern: NofM | None
) -> None:
    number = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
    if sparsity is not None and not (number and 0 <= sparsity < 1):  # type: ignore[operator]
        raise UsageError(f"sparsity has to be a number in [0, 1), but is {sparsity!r}")
    if pattern is not None:
        if sparsity is not None and not math.isclose(float(str(sparsity)), pattern.sparsity):
            raise UsageError(
                f"the pattern {pattern} has sparsity {pattern.sparsity:g}, but {sparsity} came; "
                "leave the sparsity out"
            )
        return
    own = isinstance(allocation, Allocated)
    if own and sparsity is not None:
        raise UsageError("what is allocated already has its own sparsity; leave sparsity out")
    if sparsity is None and isinstance(allocation, Allocation) and allocation.takes_sparsity:
        raise UsageError("prune needs a sparsity, such as 0.5; none came")


def check_inputs(
    layers: Sequence[Layer],
    asking: Sequence[Score | Allocation | Allocated],
    inputs: Mapping[str, Inputs],
) -> None:
    """Refuse to go on without inputs that a score or an allocation needs.

    Raises:
        UsageError: Those of a layer are missing, or its Gram matrix is.
    """
    for one in asking:
        needs = "nothing" if isinstance(one, Allocated) else one.needs
        for layer in layers if needs != "nothing" else ():
            known = inputs.get(layer.name)
            if known is None or (needs == "gram" and known.gram is None):
                what = "the Gram matrix of the inputs" if needs == "gram" else "the inputs"
                raise UsageError(
                    f"{type(one).__name__} needs {what} of {layer.name} ({layer.kind}); give data "
                    "that reaches it, or, where its inputs cannot be seen (an embedding, a grouped "
                    f"convolution, attention), leave it out with skip=({layer.name!r},)"
                )
