"""The sentences of certificates: what is claimed, and what it rests on."""

import math

SCHEMA = 2
CLAIMS = {
    kind: "With probability at least {confidence} over the draw of the {n} examples, "
    + subject
    + " errs on at most {bound} of all further examples drawn alike."
    for kind, subject in {
        "occam": "the network in this file",
        "held-out": "the network in this file",
    }.items()
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
}


def claim(kind: str, n: int, bound: float, delta: float, registered: bool) -> str:
    """The statement of a certificate, rounded up."""
    shown = f"{math.ceil(bound * 10_000) / 10_000:.4f}"
    words = CLAIMS[kind].format(confidence=f"{1 - delta:g}", n=f"{n:,}", bound=shown)
    return words if registered else f"Exploratory, since nothing was registered before: {words}"


UNCHECKED = (
    "whether the examples are independent draws from the distribution that you care about",
    "whether the task, and the registration if there is one, were written before the data were "
    "seen, and whether the number of choices is honest",
    "whether the declared parts of the network are independent of the data, as they state",
    "whether the code of the task does what it seems to do: read it",
)
