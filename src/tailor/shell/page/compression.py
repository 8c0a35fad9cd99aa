"""The section Compress: every file that was made, and the way of the chosen ones."""

from tailor.shell import figures
from tailor.shell.demo import Compression
from tailor.shell.figures.labels import percent, percent_up
from tailor.shell.figures.traces import by_network
from tailor.shell.page.blocks import closed, figure, grid, reading
from tailor.shell.page.networks import Networks
from tailor.shell.page.tables import bound, count, share, table
from tailor.shell.page.text import escape
from tailor.stages.certify import Certificate, OccamEvidence


def section(compression: Compression, certificate: Certificate | None, networks: Networks) -> str:
    """Body of the section."""
    return (
        "<p>Small weights are cut, the rest is retrained, rounded to a few levels and "
        "entropy-coded. Each mark of the first two figures is a real file: it was decoded, and "
        "its errors were counted. The chosen file has the smallest bound; held-out examples "
        "play no part in the choice.</p>"
        + reading([*_shrinking(compression, networks), *_polishing(compression)])
        + _figures(compression, certificate, networks)
        + _stages(compression, networks)
        + _files(compression, networks)
        + _sweeps(compression)
    )


def _shrinking(compression: Compression, networks: Networks) -> list[str]:
    """How much smaller each network became."""
    said = []
    for network, way in by_network(compression.stages).items():
        first, last = way[0], way[-1]
        said.append(
            f"{networks.name(network)}: {first.bytes:,} → {last.bytes:,} bytes, "
            f"{first.bytes / max(last.bytes, 1):.0f} times smaller; held-out error "
            f"{percent(first.test_error)} → {percent(last.test_error)}."
        )
    return said


def _polishing(compression: Compression) -> list[str]:
    """What the search, which sees training examples only, did to bound and held-out error."""
    stages, bounds = compression.stages, compression.polish
    if len(bounds) < 2:
        return []
    said = (
        f"Polishing the file took the bound from {percent_up(bounds[0])} to "
        f"{percent_up(bounds[-1])}"
    )
    if len(stages) < 2 or stages[-1].stage != "polished":
        return [f"{said}."]
    before, after = stages[-2].test_error, stages[-1].test_error
    return [f"{said}; the held-out error went from {percent(before)} to {percent(after)}."]


# ---- figures ------------------------------------------------------------------------------


def _figures(compression: Compression, certificate: Certificate | None, networks: Networks) -> str:
    shown = [
        figure(
            "frontier",
            figures.frontier(compression, networks.colours),
            "<strong>Error against size.</strong> Every file that was made. Solid: "
            "held-out. Dotted: training. Ring: chosen.",
            "Errors of every file against its size",
        ),
        figure(
            "bounds",
            figures.bounds(compression, certificate, networks.colours),
            "<strong>Bound against size.</strong> A smaller file has a smaller bound until "
            "its errors grow." + _beside(certificate),
            "Bound of every file against its size",
        ),
        figure(
            "path",
            figures.path(compression, networks.colours),
            "<strong>From dense to small.</strong> The chosen file of each network, stage "
            "by stage.",
            "Size and held-out error at each stage",
        ),
    ]
    if certificate is not None and isinstance(certificate.evidence, OccamEvidence):
        shown.append(
            figure(
                "bits",
                figures.bits(certificate.evidence.code),
                "<strong>Where the bits go</strong> in the certified file. Rounding fills the last "
                "byte; choices pays for what was chosen outside the file.",
                "Bits of each part of the certified file",
            )
        )
    return grid(*shown, pairs=True)


def _beside(certificate: Certificate | None) -> str:
    """What is drawn beside the bounds of the files."""
    if certificate is None:
        return ""
    return " Star: the certified file. Dashed: always naming the commonest class."


# ---- tables -------------------------------------------------------------------------------


def _stages(compression: Compression, networks: Networks) -> str:
    head = ["network", "stage", "bytes are counted as", "bytes", "non-zero weights"]
    head += ["training error", "held-out error"]
    rows = [
        [
            networks.name(s.network),
            escape(s.stage),
            escape(s.how),
            count(s.bytes),
            count(s.nonzeros),
            share(s.train_error),
            share(s.test_error),
        ]
        for s in compression.stages
    ]
    return table("The chosen files, stage by stage", head, rows, text=(0, 1, 2))


def _files(compression: Compression, networks: Networks) -> str:
    head = ["network", "bytes", "non-zero weights", "share of zeros", "training error"]
    head += ["held-out error", "bound", ""]
    rows = [
        [
            networks.name(p.network),
            count(p.bytes),
            count(p.nonzeros),
            share(p.sparsity),
            share(p.train_error),
            share(p.test_error),
            bound(p.risk_bound),
            "chosen" if p.chosen else "",
        ]
        for p in compression.frontier
    ]
    chosen = [i for i, p in enumerate(compression.frontier) if p.chosen]
    return closed("All files", table("Every file that was made", head, rows, chosen=chosen))


def _sweeps(compression: Compression) -> str:
    if len(compression.polish) < 2:
        return ""
    before, *sweeps, finished = compression.polish
    rows = [
        ["before", bound(before)],
        *([f"after sweep {i}", bound(value)] for i, value in enumerate(sweeps, start=1)),
        ["the finished file", bound(finished)],
    ]
    caption = "Bounds on the way; during the sweeps by the ideal code length"
    return closed("Polishing", table(caption, ["when", "bound"], rows))
