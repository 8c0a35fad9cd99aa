"""The networks of a report: their order, and how they are named in text and figures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tailor.shell import figures
from tailor.shell.page.results import Results
from tailor.shell.page.text import escape


@dataclass(frozen=True, slots=True)
class Networks:
    """All networks of a report; their order decides their colours.

    Attributes:
        names: Their names in the records.
        labels: What they are called on the page, in the same order.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, found: Results) -> "Networks":
        """The networks in the order in which a reader meets them."""
        names = [epoch.network for epoch in found.history]
        if found.comparison is not None:
            names += [one.source for one in found.comparison.models]
        if found.analyses is not None:
            names += [one.source for one in found.analyses.analyses]
        if found.compression is not None:
            names += [point.network for point in found.compression.frontier]
            names += [stage.network for stage in found.compression.stages]
        unique = tuple(dict.fromkeys(names))
        return cls(unique, without_common(unique))

    @property
    def alone(self) -> bool:
        """Whether there is one only, so that its name need not stand everywhere."""
        return len(self.names) < 2

    @property
    def colours(self) -> figures.Colours:
        """Their colours in figures, by name and by label."""
        by_name = figures.colours(self.names)
        pairs = zip(self.names, by_name.values(), strict=True)
        return by_name | {self.label(name): colour for name, colour in pairs}

    def label(self, network: str) -> str:
        """What figures call a network: nothing if there is only one."""
        return "" if self.alone else self.labels[self.names.index(network)]

    def name(self, network: str) -> str:
        """The label of a network behind a dot in its colour."""
        index = self.names.index(network)
        place = index % len(figures.NETWORKS)
        return f'<span class="net net-{place}">{escape(self.labels[index])}</span>'


def without_common(names: Sequence[str]) -> tuple[str, ...]:
    """Names without the words that all of them begin and end with.

    >>> without_common(["run-step-10.pt", "run-step-200.pt"])
    ('10', '200')
    >>> without_common(["plain", "heavy-tailed"])
    ('plain', 'heavy-tailed')
    """
    if len(names) < 2:
        return tuple(names)
    start = re.sub(r"[^-_/. ]*$", "", _shared(names))
    ends = [name[len(start) :] for name in names]
    end = re.sub(r"^[^-_/. ]*", "", _shared([name[::-1] for name in ends])[::-1])
    short = tuple(name[: len(name) - len(end)] for name in ends)
    return short if all(short) and len(set(short)) == len(set(names)) else tuple(names)


def _shared(names: Sequence[str]) -> str:
    """What all names begin with."""
    first, last = min(names), max(names)
    pairs = enumerate(zip(first, last, strict=False))
    return first[: next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))]


def dots() -> str:
    """Style of the dots: in both themes the colours that the figures have."""
    return "\n".join(
        f".net-{place} {{ --net: light-dark({colour}, {figures.DARK.get(colour, colour)}); }}"
        for place, colour in enumerate(figures.NETWORKS)
    )
