"""The sentences of certificates: what is claimed, and what it rests on."""

import math
from collections.abc import Mapping
from typing import Any

SCHEMA = 2
OF_ALL = "errs on at most {bound} of all further examples drawn alike."
CLAIMS = {
    "occam": "the network in this file " + OF_ALL,
    "held-out": "the network in this file " + OF_ALL,
    "pick-to-learn": "the network in this file " + OF_ALL,
    "pac-bayes": "a predictor that draws a fresh network from the law in this file for every "
    "example " + OF_ALL + " It is no bound for any single network.",
    "bits-per-character": "the network in this file, mixed with {alpha:g} of the uniform "
    "prediction, needs at most {bound} bits per {unit} of further documents drawn alike, averaged "
    "over documents, and at most {wrong} of their tokens are not the ones it holds most probable.",
}
ASSUMPTIONS: dict[str, tuple[str, ...]] = {
    "all": (
        "The examples are independent draws from the distribution that the claim is about.",
        "The task (architecture, input scaling, way of counting errors) was fixed before the "
        "data were seen, up to the number of choices that is paid for.",
        "The predictor is the decoded file and the declared parts, and nothing else.",
    ),
    "occam": (
        "The code of the file was fixed before the data were seen, up to the number of choices "
        "that is paid for.",
    ),
    "held-out": (
        "The network was made without these examples: they were used neither for training nor "
        "for any choice, but for the comparison of the stated number of networks.",
    ),
    "pick-to-learn": (
        "The learner, its settings, the numbers of picks at which it may stop and the size that "
        "it expects were fixed before the data were seen, and it reads no example but those that "
        "it picked.",
    ),
    "pac-bayes": (
        "The prior was fixed before the examples that the bound counts were seen.",
        "The bits of a hash serve as independent random numbers for the draws.",
    ),
    "bits-per-character": (
        "The code of the file was fixed before the data were seen, up to the number of choices "
        "that is paid for.",
        "Documents are independent draws from one distribution; tokens within one need not be. "
        "Consecutive pieces of one text are no such draws.",
        "The vocabulary, the way of cutting into documents and tokens, the sizes of the tokens "
        "and the list of alphas were fixed before the data were seen.",
        "If the network is called independent, it was made without these documents and without "
        "copies of them.",
        "If only a part was evaluated, no file was made again because of the documents it drew.",
    ),
}


def claim(kind: str, evidence: Mapping[str, Any], delta: float, registered: bool) -> str:
    """The statement of a certificate, rounded up; ``evidence`` as JSON values."""
    text = kind == "bits-per-character"
    of = "documents" if text else "examples"
    numbers = {"bound": shown(evidence["risk_bound"])}
    if text:
        numbers["wrong"] = shown(evidence["wrong"]["betting"])
        numbers |= {"alpha": evidence["alpha"], "unit": evidence["unit"]}
    words = (
        f"With probability at least {1 - delta:g} over the draw of the {evidence['n']:,} {of}, "
        + CLAIMS[kind].format(**numbers)
    )
    return words if registered else f"Exploratory, since nothing was registered before: {words}"


def shown(bound: float) -> str:
    """Four decimals, never below the number."""
    return f"{math.ceil(bound * 10_000) / 10_000:.4f}"


UNCHECKED = (
    "whether the examples are independent draws from the distribution that you care about",
    "whether the task, and the registration if there is one, were written before the data were "
    "seen, and whether the number of choices is honest",
    "whether the declared parts of the network are independent of the data, as they state",
    "whether the code of the task does what it seems to do: read it",
)
