"""The kinds of certificates: what each of them is recomputed from."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from tailor.verifier.bounds import binomial_upper, kl_upper
from tailor.verifier.file import CERTIFIED, File
from tailor.verifier.gibbs import recount_gibbs
from tailor.verifier.network import scores
from tailor.verifier.picks import recount_picks
from tailor.verifier.prior import check_units, prior_bits
from tailor.verifier.said import Mismatch, near, same
from tailor.verifier.streams import written_bits
from tailor.verifier.text import recount_text


@runtime_checkable
class Work(Protocol):
    """What a recount has found so far."""

    said: Mapping[str, Any]
    payload: bytes
    file: File
    state: dict[str, Tensor]
    model: nn.Module
    data: Any
    method: Any

    def count(self) -> int:
        """Number of errors among the examples."""

    def wrong(self) -> Tensor:
        """Which examples are errors."""


def occam(work: Work, said: Mapping[str, Any], delta: float) -> None:
    """Few bits and few errors."""
    n, k = len(work.data.y), work.count()
    same("numbers of examples and errors", [said["n"], said["errors"]], [n, k])
    bits = _paid(work, said["code"])
    nats = bits * math.log(2) - math.log(delta)
    forms = said["bounds"]
    near("share of errors", forms["empirical"], k / n)
    near("Hoeffding form", forms["hoeffding"], min(1.0, k / n + math.sqrt(nats / (2 * n))))
    near("kl form", forms["kl"], kl_upper(k / n, nats / n))
    near("binomial form", forms["binomial"], binomial_upper(k, n, -nats))
    same("bound", said["risk_bound"], forms["binomial"])
    _guess(work)


def held_out(work: Work, said: Mapping[str, Any], delta: float) -> None:
    """Errors on examples that played no part."""
    n, k = len(work.data.y), work.count()
    same("numbers of examples and errors", [said["n"], said["errors"]], [n, k])
    level = math.log(delta / (said["compared"] * work.said["choices"]))
    near("bound", said["risk_bound"], binomial_upper(k, n, level))
    _guess(work)


def pac_bayes(work: Work, said: Mapping[str, Any], delta: float) -> None:
    """A law of networks near a prior."""
    same("errors of the likeliest network", said["mean_errors"], work.count())
    recount_gibbs(
        said,
        model=work.model,
        payload=work.payload,
        data=work.data,
        delta=delta,
        choices=work.said["choices"],
        learn=None if work.method is None else getattr(work.method.prior, "learn", None),
    )
    _guess(work)


def pick_to_learn(work: Work, said: Mapping[str, Any], delta: float) -> None:
    """A network that few examples determine."""
    if work.method is None:
        raise Mismatch("the examples are picked again by the learner; pass the method")
    recount_picks(
        said,
        method=work.method,
        payload=work.payload,
        data=work.data,
        wrong=work.wrong(),
        delta=delta / work.said["choices"],
    )
    _guess(work)


def bits_per_character(work: Work, said: Mapping[str, Any], delta: float) -> None:
    """Few bits, and few bits for each token of the documents."""
    bits = math.log2(work.said["choices"])
    if not said["independent"]:
        _certified(work)
        bits += 8 * len(work.file.stream)
    sizes = getattr(work.method, "sizes", None)
    recount_text(
        said,
        model=work.model,
        stream=work.file.stream,
        data=work.data,
        delta=delta,
        bits=bits,
        sizes=None if sizes is None else sizes.counts,
    )
    near("bits of guessing", work.said["majority_error"], min(said["uniform"], said["unigram"]))


KINDS: dict[str, Callable[[Any, Mapping[str, Any], float], None]] = {
    "occam": occam,
    "held-out": held_out,
    "pac-bayes": pac_bayes,
    "pick-to-learn": pick_to_learn,
    "bits-per-character": bits_per_character,
}


def _paid(work: Work, code: Mapping[str, Any]) -> float:
    """Bits of the file and of the choices."""
    _certified(work)
    same("version of the code", code["version"], work.file.version)
    stream = 8 * len(work.file.stream)
    same("bits of the stream", code["stream"], stream)
    near("bits of the parts", sum(code["parts"].values()) + code["rounding"], stream)
    near("bits for choices", code["choices"], math.log2(work.said["choices"]))
    charged = _charged(work, code, float(stream))
    near("bits that are charged", code["charged"], charged)
    bits = charged + math.log2(work.said["choices"])
    near("bits in all", code["total"], bits)
    return bits


def _charged(work: Work, code: Mapping[str, Any], stream: float) -> float:
    """Bytes of the stream, its bits before padding, or what the prior of the code gives."""
    same("what is paid", work.said["method"], f"Occam(pays={code['pays']!r})")
    if code["pays"] == "bytes":
        return stream
    file = work.file
    if code["pays"] == "bits":
        return float(written_bits(file.items, file.shapes, file.version))
    if file.version != 3:
        raise Mismatch("only files of version 3 have a prior over options")
    units = [(one["incoming"], one["bias"], one["outgoing"]) for one in code["units"]]
    if units:
        check_units(units, work.state, work.model, lambda: scores(work.model, work.data.x))
    names = [name for name, _, _ in file.head["tensors"]]
    return prior_bits(names, file.items, file.shapes, units)


def _certified(work: Work) -> None:
    if work.file.version not in CERTIFIED or work.file.head.get("sizes"):
        raise Mismatch("the stream of the file is no codeword that a certificate takes")


def _guess(work: Work) -> None:
    guess = 1 - int(np.bincount(work.data.y.numpy()).max()) / len(work.data.y)
    near("error of the majority guess", work.said["majority_error"], guess)
