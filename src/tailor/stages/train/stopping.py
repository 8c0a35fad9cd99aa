"""Rules that end training early: frozen values; what they have seen is kept for them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeAlias

import torch
from torch import nn

from tailor.errors import UsageError
from tailor.numerics.powerlaw import HillMid, MatrixFit, TailFit
from tailor.stages.train.processes import Processes
from tailor.stages.train.tails import tails
from tailor.weights.views import Standard, View

Seen: TypeAlias = dict[str, Any]  # plain values, so that a checkpoint can hold them


class StopRule(ABC):
    """Looks at the model now and then and may end training.

    Attributes:
        every: Steps between two looks.
    """

    every: int

    @abstractmethod
    def look(self, model: nn.Module, seen: Seen) -> tuple[Seen, str | None]:
        """What to remember, and why training should end; None to go on.

        Args:
            model: As the step left it.
            seen: What the last look gave to remember; empty at the first. Plain numbers, texts,
                lists and dicts only.
        """


@dataclass(frozen=True, slots=True)
class Patience(StopRule):
    """Early stopping: ends when a value has not fallen for a while (Prechelt 1998).

    Attributes:
        measure: Gives the value, such as the error on held-out examples; smaller is better. With
            several processes each calls it, and the first one's value counts.
        patience: Looks without a new least value after which training ends.
        every: Steps between two looks.
        least: A value is new only if it is lower than the least one by more than this.

    Raises:
        UsageError: A setting is out of its range, or the measure gives NaN.
    """

    measure: Callable[[], float] = field(repr=False)
    _: KW_ONLY
    patience: int = 10
    every: int = 1
    least: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1 or self.every < 1 or not self.least >= 0:
            raise UsageError(
                "Patience needs patience >= 1, every >= 1 and least >= 0, but got "
                f"{self.patience}, {self.every} and {self.least}"
            )

    def look(self, model: nn.Module, seen: Seen) -> tuple[Seen, str | None]:
        """See ``StopRule.look``."""
        with torch.no_grad():
            value = float(self.measure())
        if math.isnan(value):
            raise UsageError("the measure of Patience gave NaN; it has to give a number")
        best = seen.get("best", math.inf)
        if value < best - self.least or "best" not in seen:
            return {"best": value, "waited": 0}, None
        waited = seen["waited"] + 1
        reason = f"{waited} looks without a value below {best:.6g}"
        return {"best": best, "waited": waited}, reason if waited >= self.patience else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumSettles(StopRule):
    """Ends when the exponents of all layers have stopped moving; needs no data.

    At each look every layer's density exponent is fitted. Training ends when over the last
    ``window`` looks none of them covered a range of ``tolerance`` or more. Layers that cannot be
    fitted are left out. Exponents also stand still where the learning rate is small: it then ends
    too early.

    Attributes:
        every: Steps between two looks.
        window: Looks that have to agree.
        tolerance: Range of an exponent that counts as standing still. The defaults of all three
            are chosen by us on digits (``docs/train.md`` says how well they do there).
        spectrum: Fit of the eigenvalues.
        view: How tensors become matrices.

    Raises:
        UsageError: A setting is out of its range, or no layer can be fitted.
    """

    every: int = 50
    window: int = 5
    tolerance: float = 0.02
    spectrum: TailFit | MatrixFit = field(default_factory=HillMid)
    view: View = field(default_factory=Standard)

    def __post_init__(self) -> None:
        if self.every < 1 or self.window < 2 or not self.tolerance > 0:
            raise UsageError(
                "SpectrumSettles needs every >= 1, window >= 2 and tolerance > 0, but got "
                f"{self.every}, {self.window} and {self.tolerance}"
            )

    def look(self, model: nn.Module, seen: Seen) -> tuple[Seen, str | None]:
        """See ``StopRule.look``."""
        found = tails(model, self.spectrum, self.view)
        alphas = {one.name: one.alpha for one in found if one.alpha is not None}
        if not alphas:
            raise UsageError(
                f"SpectrumSettles finds no exponent in any layer ({found[0].name}: "
                f"{getattr(found[0].fit, 'reason', '')}); stop by Patience instead"
            )
        history = {
            name: [*seen.get(name, []), alpha][-self.window :] for name, alpha in alphas.items()
        }
        if any(len(past) < self.window for past in history.values()):
            return history, None
        widest = max(max(past) - min(past) for past in history.values())
        reason = f"no layer's alpha moved by more than {widest:.3g} over {self.window} looks"
        return history, reason if widest < self.tolerance else None


class Watch:
    """Stop rules with what they have seen."""

    def __init__(self, rules: Sequence[StopRule], model: nn.Module, processes: Processes) -> None:
        self._rules, self._model, self._processes = tuple(rules), model, processes
        self._seen: list[Seen] = [{} for _ in rules]

    def look(self, step: int) -> str | None:
        """Why to end after this step; all processes get the answer of the first."""
        due = [i for i, rule in enumerate(self._rules) if step % rule.every == 0]
        reasons: list[str] = []
        for i in due:
            self._seen[i], reason = self._rules[i].look(self._model, self._seen[i])
            if reason is not None:
                reasons.append(f"{type(self._rules[i]).__name__}: {reason}")
        if not due or not self._processes.of_first(len(reasons)):
            return None
        return "; ".join(reasons) or "the first process stopped"

    def state_dict(self) -> dict[str, Any]:
        """What the rules have seen."""
        return {"seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self._seen = list(state["seen"])
