"""The recount, step by step."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tailor.verifier.bounds import binomial_upper
from tailor.verifier.closed import without_files
from tailor.verifier.file import CERTIFIED, File
from tailor.verifier.kinds import KINDS
from tailor.verifier.network import (
    cut,
    hash_data,
    hash_records,
    network,
    take,
    ties_of,
    wrong_classes,
)
from tailor.verifier.said import Mismatch, digest, near, same, sha256
from tailor.verifier.words import ASSUMPTIONS, SCHEMA, UNCHECKED, claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that a verifier recomputed.

    Attributes:
        name: What it is.
        ok: Whether it agrees.
        detail: What the certificate says and what was found, when they differ.
    """

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The outcome of a check.

    Attributes:
        holds: Whether every check agrees.
        checks: Each of them.
        unchecked: What no recount can tell.
    """

    holds: bool
    checks: tuple[Check, ...]
    unchecked: tuple[str, ...]


def recount(
    certificate: Mapping[str, Any],
    payload: bytes,
    *,
    build: Callable[[], nn.Module],
    data: Any,
    held_out: Any = None,
    error: Callable[[nn.Module, Any], Tensor] | None = None,
    method: Any = None,
    decode: Callable[[bytes], Mapping[str, Tensor]] | None = None,
) -> Verification:
    """Recompute everything that a certificate says.

    Args:
        certificate: The certificate as JSON values.
        payload: The file as found; damaged bytes do not hold.
        build: Makes the network of the task.
        data: The examples of the task, all of them (``x`` and ``y``).
        held_out: The held-out examples, if the certificate speaks of any.
        error: Which examples are wrong; errors of classification by default.
        method: The method value, where its text does not say everything: a learner, a prior that
            was learned, sizes of tokens.
        decode: Reads files that are no codewords of certificates, which the bounds of other
            kinds than Occam's do not pay for.
    """
    work = _Recount(certificate, payload, build, data, held_out, error or wrong_classes, method)
    work.decode = decode
    for name, step in work.steps():
        try:
            step()
        except Mismatch as found:
            work.checks.append(Check(name=name, ok=False, detail=str(found)[:400]))
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as found:
            said = f"the certificate is incomplete or malformed ({type(found).__name__}: {found})"
            work.checks.append(Check(name=name, ok=False, detail=said[:400]))
        else:
            work.checks.append(Check(name=name, ok=True, detail=""))
            continue
        if name in ("decoding of the model", "network", "data"):
            break  # nothing else can be recounted
    checks = tuple(work.checks)
    return Verification(holds=all(c.ok for c in checks), checks=checks, unchecked=work.unchecked)


class _Recount:
    """The steps of a recount, and what they find on the way."""

    def __init__(
        self,
        said: Mapping[str, Any],
        payload: bytes,
        build: Callable[[], nn.Module],
        data: Any,
        held_out: Any,
        error: Callable[[nn.Module, Any], Tensor],
        method: Any,
    ) -> None:
        self.said, self.payload, self.build, self.data = said, payload, build, data
        self.held_out, self.error, self.method = held_out, error, method
        self.decode: Callable[[bytes], Mapping[str, Tensor]] | None = None
        self.unchecked: tuple[str, ...] = UNCHECKED
        self.checks: list[Check] = []

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """What is recomputed, in order."""
        return [
            ("seal of the certificate", self._seal),
            ("format of the certificate", self._format),
            ("decoding of the model", self._decode),
            ("network", self._network),
            ("data", self._data),
            ("errors and bound", self._bound),
            ("claim", self._claim),
            ("held out", self._held_out),
            ("registration", self._registration),
        ]

    def _seal(self) -> None:
        if self.said["sha256"] != digest({**self.said, "sha256": ""}):
            raise Mismatch("the certificate was changed after it was made")

    def _format(self) -> None:
        same("schema", self.said["schema"], SCHEMA)
        if self.said["kind"] not in KINDS:
            raise Mismatch(f"there is no kind {self.said['kind']!r} of certificate")

    def _decode(self) -> None:
        same("hash of the file", self.said["model_sha256"], sha256(self.payload))
        self.file = File(self.payload)
        if self.file.version in CERTIFIED or self.decode is None:
            self.state = self.file.state()
        else:
            self.state = dict(self.decode(self.payload))
            self.unchecked += ("whether the file decodes to this: it was read by tailor itself",)

    def _network(self) -> None:
        with without_files():
            model = self.build()
        own = model.state_dict()
        ties = ties_of(own)
        rows = [
            [n, list(t.shape), str(t.dtype).removeprefix("torch.")]
            for n, t in own.items()
            if n not in ties
        ]
        if self.file.version in CERTIFIED:
            same("tensors", self.file.head["tensors"], rows)
            same("ties", self.file.head.get("ties", {}), ties)
        said = self.said["network"]
        same("network", said, network(self.build, self.said["task"]))
        for alias, name in ties.items():
            self.state[alias] = self.state[name]
        model.load_state_dict(self.state, strict=True)
        self.model = model.double().eval()

    def _data(self) -> None:
        said = self.said["prior"]
        self.whole = hash_data(self.data)
        if said is not None:
            before, self.data = cut(self.data, said["split"])
            same("examples before the split", said["n"], len(before.y))
            same("hash of the examples before the split", said["data_sha256"], hash_data(before))
        records = hash_records(self.data)
        same("hash of the data", self.said["data_sha256"], hash_data(self.data))
        same("hash of the examples", self.said["records_sha256"], digest(sorted(records)))
        same("repeated examples", self.said["repeated"], len(records) - len(set(records)))

    def count(self) -> int:
        """Number of errors among the examples."""
        return int(self.wrong().sum())

    def wrong(self) -> Tensor:
        """Which examples are errors, found twice: as they stand, and in halves turned round."""
        back = torch.arange(len(self.data.y)).flip(0).roll(-1)
        with without_files():
            wrong = self.error(self.model, self.data)
            again = [self.error(self.model, take(self.data, half)) for half in back.chunk(2)]
        if not torch.equal(wrong[back], torch.cat(again)):
            raise Mismatch("two evaluations of the network differ")
        return wrong

    def _bound(self) -> None:
        evidence, bound = self.said["evidence"], self.said["risk_bound"]
        registered = self.said["registration"]
        delta = self.said["delta"] / (registered["certificates"] if registered else 1)
        if not 0 < delta < 1 or self.said["choices"] < 1:
            raise Mismatch(f"delta = {delta} or choices = {self.said['choices']} is out of range")
        if self.method is not None:
            same("method", self.said["method"], repr(self.method))
        KINDS[self.said["kind"]](self, evidence, delta)
        for name in ("n", "errors"):
            same(name, self.said[name], evidence[name])
        same("bound", bound, evidence["risk_bound"])
        below = bound < self.said["majority_error"]
        same("comparison with guessing", self.said["non_vacuous"], below)

    def _claim(self) -> None:
        said, kind = self.said, self.said["kind"]
        words = claim(kind, said["evidence"], said["delta"], said["registered"])
        same("claim", said["claim"], words)
        same("assumptions", said["assumptions"], [*ASSUMPTIONS["all"], *ASSUMPTIONS[kind]])

    def _held_out(self) -> None:
        said = self.said["held_out"]
        if said is None:
            return
        if self.held_out is None:
            raise Mismatch("the certificate speaks of held-out examples, but there are none")
        same("hash", said["data_sha256"], hash_data(self.held_out))
        n, k = len(self.held_out.y), int(self.error(self.model, self.held_out).sum())
        same("numbers of examples and errors", [said["n"], said["errors"]], [n, k])
        half = math.log(self.said["delta"] / 2)
        near("error", said["error"], k / n)
        near("upper end", said["high"], binomial_upper(k, n, half))
        near("lower end", said["low"], 1 - binomial_upper(n - k, n, half) if k else 0.0)
        near("bound", said["upper"], binomial_upper(k, n, math.log(self.said["delta"])))

    def _registration(self) -> None:
        said = self.said["registration"]
        same("registered", self.said["registered"], said is not None)
        if said is None:
            return
        if said["sha256"] != digest({**said, "sha256": ""}):
            raise Mismatch("the registration was changed after it was made")
        for name in ("method", "delta"):
            same(name, self.said[name], said[name])
        same("choices", self.said["choices"], len(said["networks"]) * said["earlier"])
        prior = self.said["prior"]
        same("split", None if prior is None else prior["split"], said["split"])
        if self.said["network"] not in said["networks"]:
            raise Mismatch("the network is none of those that were registered")
        if said["data_sha256"] != self.whole:
            raise Mismatch("the data are not those that were registered")
