"""The networks of a report: their order, and how they are named in the text."""

from dataclasses import dataclass

from tailor.shell import figures
from tailor.shell.page.results import Results
from tailor.shell.page.text import escape


@dataclass(frozen=True, slots=True)
class Networks:
    """All networks of a report; their order decides their colours."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, found: Results) -> "Networks":
        """The networks in the order in which a reader meets them."""
        names = [epoch.network for epoch in found.history]
        if found.analyses is not None:
            names += [one.source for one in found.analyses.analyses]
        if found.compression is not None:
            names += [point.network for point in found.compression.frontier]
            names += [stage.network for stage in found.compression.stages]
        return cls(tuple(dict.fromkeys(names)))

    @property
    def colours(self) -> figures.Colours:
        """Their colours in figures."""
        return figures.colours(self.names)

    def name(self, network: str) -> str:
        """The name of a network behind a dot in its colour."""
        place = self.names.index(network) % len(figures.NETWORKS)
        return f'<span class="net net-{place}">{escape(network)}</span>'


def dots() -> str:
    """Style of the dots: in both themes the colours that the figures have."""
    return "\n".join(
        f".net-{place} {{ --net: light-dark({colour}, {figures.DARK.get(colour, colour)}); }}"
        for place, colour in enumerate(figures.NETWORKS)
    )
