"""``report.html``: the records of a folder as one page that needs nothing else."""

import base64
import csv
import hashlib
import html
import json
import math
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TypeVar

from tailor import records
from tailor.errors import RecordError
from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.shell import figures
from tailor.shell.demo import Compression, Epoch, Stage
from tailor.shell.figures import Figure, percent, percent_up
from tailor.stages.analyze import Analyses, LayerAnalysis
from tailor.stages.certify import Certificate

READ = ("analysis.json", "compression.json", "certificate.json", "history.csv")
OPEN_LAYERS = 3  # with more matrices only the first is open
CARRIED = ("seed", "tailor", "torch")  # columns of history.csv that repeat the provenance

FIT_HEAD = ["matrix", "network", "α", "95 % interval", "kind", "tail index α − 1"]
FIT_HEAD += ["std. error", "xmin", "xmax", "D", "values in tail"]

Row = Sequence[str]
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What a folder holds; each of them may be missing.

    Attributes:
        analyses: ``analysis.json``.
        compression: ``compression.json``.
        certificate: ``certificate.json``.
        history: ``history.csv``, row by row.
    """

    analyses: Analyses | None
    compression: Compression | None
    certificate: Certificate | None
    history: tuple[Epoch, ...]


def render(folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` from the records of a folder.

    Args:
        folder: Where ``tailor demo`` or ``tailor analyze --out`` wrote its records.

    Returns:
        Path of the page. The same records give the same bytes.

    Raises:
        RecordError: The folder holds no record, or one that is damaged.
        OutputError: The page cannot be written.
    """
    folder = Path(folder)
    if not any((folder / name).is_file() for name in READ):
        raise RecordError(
            f"{folder} holds no results: a report needs at least one of {', '.join(READ)}; "
            "make them with `tailor demo --out DIR` or `tailor analyze SOURCE --out DIR`"
        )
    return records.write(folder / "report.html", page(read(folder)).encode())


def read(folder: Path) -> Results:
    """Read every record that a folder holds."""
    history = folder / "history.csv"
    return Results(
        analyses=_load(Analyses, folder / "analysis.json"),
        compression=_load(Compression, folder / "compression.json"),
        certificate=_load(Certificate, folder / "certificate.json"),
        history=_history(history) if history.is_file() else (),
    )


def page(found: Results) -> str:
    """The whole page as text."""
    import plotly.offline  # a large package that only this page needs

    networks = _networks(found)
    here = Path(__file__)
    script = here.with_name("page.js").read_text("utf-8")
    library: str = plotly.offline.get_plotlyjs()
    stages = list(_stages(found, networks))
    return Template(here.with_name("page.html").read_text("utf-8")).substitute(
        policy=_policy(library, script),
        style=here.with_name("page.css").read_text("utf-8"),
        header=_header(found, [(anchor, title) for anchor, title, _ in stages]),
        stages="\n".join(
            f'<section id="{anchor}" aria-labelledby="{anchor}-title">\n'
            f'<h2 id="{anchor}-title">{title}</h2>\n{body}\n</section>'
            for anchor, title, body in stages
        ),
        dark=_json(figures.DARK),
        plotly=library,
        script=script,
    )


# ---- reading ------------------------------------------------------------------------------


def _load(kind: type[Record], path: Path) -> Record | None:
    return records.load(kind, path) if path.is_file() else None


def _history(path: Path) -> tuple[Epoch, ...]:
    """Rows of ``history.csv``, validated like any record."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(_epoch(row) for row in csv.DictReader(file))
    except (ValueError, TypeError, csv.Error, RecordError) as error:
        raise RecordError(f"{path} is not a history of tailor: {error}") from None


def _epoch(row: dict[str, str]) -> Epoch:
    """A row of text as a record."""
    kinds = {"network": str, "epoch": int}
    values: records.Json = {
        "type": "Epoch",
        **{k: kinds.get(k, float)(text) for k, text in row.items() if k not in CARRIED},
    }
    return records.from_json(Epoch, values)


def _networks(found: Results) -> list[str]:
    """Names of all networks; their order decides their colours."""
    names = [epoch.network for epoch in found.history]
    if found.analyses is not None:
        names += [one.source for one in found.analyses.analyses]
    if found.compression is not None:
        names += [point.network for point in found.compression.frontier]
        names += [stage.network for stage in found.compression.stages]
    return list(dict.fromkeys(names))


# ---- header -------------------------------------------------------------------------------


def _header(found: Results, stages: Sequence[tuple[str, str]]) -> str:
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in stages)
    nav = f'<nav aria-label="Stages"><ol>{links}</ol></nav>' if len(stages) > 1 else ""
    return f'<p class="lead">{_result(found)}</p>\n{_provenance(found)}\n{nav}'


def _result(found: Results) -> str:
    """The outcome in one line."""
    certificate = found.certificate
    if certificate is None:
        return _result_without_certificate(found)
    size = f"<b>{certificate.code.stream // 8:,} bytes</b>"
    dense = _dense(found.compression)
    start = f"{dense:,} bytes → {size}" if dense else size
    guess = percent(certificate.majority_error)
    verdict = (
        f"certified: at most <b>{percent_up(certificate.risk_bound)} errors</b> "
        f"({percent(1 - certificate.delta, 0)} confidence)"
    )
    if not certificate.non_vacuous:
        verdict += ", which does not beat guessing"
    held = certificate.held_out
    tail = f", held-out {percent(held.error)}" if held is not None else ""
    return f"{start}; {verdict}, majority guess {guess}{tail}"


def _result_without_certificate(found: Results) -> str:
    if found.analyses is not None:
        count = len(figures.layer_names(found.analyses))
        names = " and ".join(_escape(one.source) for one in found.analyses.analyses)
        return f"{_matrices(count)} of <b>{names}</b>"
    return "Results without a certificate"


def _dense(compression: Compression | None) -> int | None:
    """Bytes of the network that was compressed, before anything was done to it."""
    if compression is None or not compression.stages:
        return None
    last = compression.stages[-1].network
    return next((s.bytes for s in compression.stages if s.network == last), None)


def _provenance(found: Results) -> str:
    about: list[tuple[str, records.Provenance]] = []
    if found.analyses is not None:
        about += [(f"analysis of {one.source}", one.provenance) for one in found.analyses.analyses]
    if found.compression is not None:
        about.append(("compression", found.compression.provenance))
    if found.certificate is not None:
        about.append(("certificate", found.certificate.provenance))
    if not about:
        return ""
    rows = [
        [
            _escape(name),
            "none" if one.seed is None else str(one.seed),
            *map(_escape, (one.tailor, one.torch, one.numpy, one.python, one.machine)),
            ", ".join(f"{_escape(k)} = {_escape(v)}" for k, v in one.settings.items()) or "–",
        ]
        for name, one in about
    ]
    head = ["record", "seed", "tailor", "torch", "numpy", "python", "machine", "settings"]
    table = _table("Versions, seed and settings", head, rows, text=range(8), wrap=7)
    first = about[0][1]
    line = f"tailor {first.tailor}, torch {first.torch}, seed {rows[0][1]}"
    return (
        f'<details><summary class="sub">{_escape(line)}: versions, seed and settings</summary>'
        f"{table}</details>"
    )


# ---- stages -------------------------------------------------------------------------------


def _stages(found: Results, networks: list[str]) -> Iterable[tuple[str, str, str]]:
    """Anchor, title and body of every stage for which there is a record."""
    show = _Stage(found, networks)
    if found.history:
        yield "train", "Train", show.train(found.history)
    if found.analyses is not None:
        yield "analyze", "Analyze", show.analyze(found.analyses)
    if found.compression is not None:
        yield "compress", "Compress", show.compress(found.compression)
    if found.certificate is not None:
        yield "certify", "Certify", show.certify(found.certificate)


class _Stage:
    """Bodies of the stages, in the colours of their networks."""

    def __init__(self, found: Results, networks: list[str]) -> None:
        self.found, self.networks = found, networks
        self.colours = figures.colours(networks)

    def name(self, network: str) -> str:
        place = self.networks.index(network) % len(figures.NETWORKS)
        return f'<span class="net net-{place}">{_escape(network)}</span>'

    # Train

    def train(self, history: tuple[Epoch, ...]) -> str:
        last = {epoch.network: epoch for epoch in history}
        said = [
            f"After {epoch.epoch} epochs {self.name(network)} errs on "
            f"{percent(epoch.train_error)} of the training and {percent(epoch.test_error)} of the "
            f"held-out examples, a gap of {_points(epoch.test_error - epoch.train_error)}."
            for network, epoch in last.items()
        ]
        rows = [
            [
                self.name(e.network),
                _count(e.epoch),
                _number(e.loss),
                _number(e.penalty),
                _share(e.train_error),
                _share(e.test_error),
            ]
            for e in history
        ]
        head = ["network", "epoch", "loss", "penalty", "training error", "held-out error"]
        return (
            "<p>The networks start from the same weights and see the same batches. They differ in "
            "the penalty on their weights.</p>"
            + _reading(said)
            + _grid(
                _figure(
                    "loss",
                    figures.training_loss(history, self.colours),
                    "<strong>Loss.</strong> Mean over each epoch, without the penalty.",
                    "Training loss against epochs",
                ),
                _figure(
                    "errors",
                    figures.training_error(history, self.colours),
                    "<strong>Errors.</strong> Solid: held-out examples. Dotted: training examples.",
                    "Training and held-out errors against epochs",
                ),
            )
            + _closed("All epochs", _table("Every epoch", head, rows, text=[0]))
        )

    # Analyze

    def analyze(self, analyses: Analyses) -> str:
        by_name: dict[str, list[tuple[str, LayerAnalysis]]] = {}
        for analysis in analyses.analyses:
            for one in analysis.layers:
                by_name.setdefault(one.name, []).append((analysis.source, one))
        groups = list(by_name.items())
        parts = [
            "<p>Every weight matrix is measured without data: the eigenvalues of WᵀW (squared "
            "singular values) and the sizes of its weights. A straight line on these log-log axes "
            "is a power law, p(x) ~ x<sup>−α</sup>. A small α is a heavy tail.</p>",
            _reading(self._comparison(groups)),
            "<p>Any sample gets an exponent, also one without a power law. D says how far the "
            "fitted tail is from the data; 0 is perfect. An asymptotic interval takes xmin as "
            "given and is somewhat too short.</p>",
        ]
        if len(groups) > OPEN_LAYERS:
            parts.append(self._overview(analyses))
        parts.append(self._numbers(analyses))
        for place, (name, layers) in enumerate(groups):
            is_open = place == 0 or len(groups) <= OPEN_LAYERS
            parts.append(self._layer(f"matrix-{place}", name, layers, is_open))
        parts.append(self._skipped(analyses))
        return "\n".join(parts)

    def _comparison(self, groups: list[tuple[str, list[tuple[str, LayerAnalysis]]]]) -> list[str]:
        """How many intervals of two networks lie apart."""
        said = []
        for which, noun in (("entries", "weights"), ("spectrum", "eigenvalues")):
            pairs = []
            for _, layers in groups:
                fits = [(n, getattr(one, which)) for n, one in layers]
                fits = [(n, fit) for n, fit in fits if isinstance(fit, PowerLawFit)]
                if len(layers) == 2 and len(fits) == 2:
                    pairs.append(sorted(fits, key=lambda pair: pair[1].alpha))
            apart = [a for a, b in pairs if a[1].high < b[1].low]
            heavier = {name for name, _ in apart}
            of = f"{len(apart)} of {_matrices(len(pairs))}"
            if len(heavier) == 1:
                name = self.name(heavier.pop())
                said.append(f"Tail of the {noun}: heavier in {name}, intervals apart in {of}.")
            elif pairs:
                rest = "in no one direction" if apart else "the networks cannot be told apart"
                said.append(f"Tail of the {noun}: intervals apart in {of}, {rest}.")
            elif any(len(layers) == 2 for _, layers in groups):
                said.append(f"Tail of the {noun}: no matrix has a fit in both networks.")
        return said

    def _overview(self, analyses: Analyses) -> str:
        return _grid(
            *(
                _figure(
                    f"all-{which}",
                    figures.exponents(analyses, self.colours, of=which),
                    f"<strong>Exponents of the {noun},</strong> matrix by matrix. Matrices "
                    "without a fit have no mark; long intervals end at the axis.",
                    f"Exponents of the {noun} of all matrices",
                )
                for which, noun in (("spectrum", "eigenvalues"), ("entries", "weights"))
            )
        )

    def _layer(
        self, anchor: str, name: str, layers: list[tuple[str, LayerAnalysis]], is_open: bool
    ) -> str:
        """One matrix in all networks that have it: three figures, drawn when they are seen."""
        shapes = sorted({_shape(one.shape) for _, one in layers})
        said = [
            f"{self.name(network)}: {noun} {_in_words(fit)}."
            for network, one in layers
            for noun, fit in (("weights", one.entries), ("eigenvalues", one.spectrum))
        ]
        made = [
            ("spectrum", figures.spectrum, "Eigenvalues."),
            ("entries", figures.entries, "Sizes of the weights."),
            ("histogram", figures.histogram, "Weights."),
        ]
        more = {
            "spectrum": _lines(layers, "spectrum"),
            "entries": _lines(layers, "entries"),
            "histogram": " Counts in equal bins, scaled to a density; its axis is logarithmic.",
        }
        shown = [
            _figure(
                f"{anchor}-{kind}",
                build(layers, self.colours),
                f"<strong>{title}</strong>{more[kind]}",
                f"{title[:-1]} of {name}",
            )
            for kind, build, title in made
        ]
        ids = " ".join(f"{anchor}-{kind}" for kind, _, _ in made)
        return (
            f'<details class="layer"{" open" if is_open else ""}>'
            f'<summary><b>{_escape(name)}</b><span class="sub">{", ".join(shapes)}</span></summary>'
            f"{_reading(said)}{_grid(*shown)}"
            f'<details data-numbers="{ids}"><summary class="sub">Numbers drawn here</summary>'
            "</details></details>"
        )

    def _numbers(self, analyses: Analyses) -> str:
        """Three tables: norms, fits of the eigenvalues, fits of the weights."""
        found = [(one, a.source) for a in analyses.analyses for one in a.layers]
        places = {name: i for i, name in enumerate(figures.layer_names(analyses))}
        found.sort(key=lambda pair: places[pair[0].name])
        names = [[_escape(one.name), self.name(source)] for one, source in found]
        norms = [
            [
                *name,
                _shape(one.shape),
                f"{one.rows:,} × {one.columns:,}",
                _escape(one.dtype),
                _number(one.stable_rank),
                _number(one.spectral_norm),
                _number(one.frobenius_norm),
                _share(one.zeros),
                ", ".join(map(_escape, one.aliases)) or "–",
            ]
            for name, (one, _) in zip(names, found, strict=True)
        ]
        head = ["matrix", "network", "shape", "as a matrix", "type", "stable rank"]
        head += ["spectral norm", "Frobenius norm", "zeros", "same tensor as"]
        shown = _table("Shapes and norms", head, norms, text=(0, 1, 2, 3, 4, 9))
        for which, noun in (("spectrum", "eigenvalues"), ("entries", "sizes of the weights")):
            fits = [getattr(one, which) for one, _ in found]
            rows = [[*name, *_fit_cells(fit)] for name, fit in zip(names, fits, strict=True)]
            shown += _table(f"Power law of the {noun}", FIT_HEAD, rows, text=(0, 1))
        return shown

    def _skipped(self, analyses: Analyses) -> str:
        rows = [
            [
                _escape(one.name),
                self.name(analysis.source),
                _shape(one.shape),
                _escape(one.dtype),
                _escape(one.reason),
            ]
            for analysis in analyses.analyses
            for one in analysis.skipped
        ]
        if not rows:
            return "<p>No tensor was left out.</p>"
        head = ["tensor", "network", "shape", "type", "why it was left out"]
        table = _table("Tensors that were not analyzed", head, rows, text=range(5), wrap=4)
        return _closed(f"{len(rows):,} tensors were not analyzed", table)

    # Compress

    def compress(self, compression: Compression) -> str:
        certificate = self.found.certificate
        return (
            "<p>Small weights are cut, the rest is retrained, rounded to a few levels and "
            "entropy-coded. Each mark of the first two figures is a real file: it was decoded, and "
            "its errors were counted. The chosen file has the smallest bound; held-out examples "
            "play no part in the choice.</p>"
            + _reading(self._shrinking(compression))
            + _pairs(
                _figure(
                    "frontier",
                    figures.frontier(compression, self.colours),
                    "<strong>Error against size.</strong> Every file that was made. Solid: "
                    "held-out. Dotted: training. Ring: chosen.",
                    "Errors of every file against its size",
                ),
                _figure(
                    "bounds",
                    figures.bounds(compression, certificate, self.colours),
                    "<strong>Bound against size.</strong> A smaller file has a smaller bound until "
                    "its errors grow. " + self._unpaid(),
                    "Bound of every file against its size",
                ),
                _figure(
                    "path",
                    figures.path(compression, self.colours),
                    "<strong>From dense to small.</strong> The chosen file of each network, stage "
                    "by stage.",
                    "Size and held-out error at each stage",
                ),
                self._bits(),
            )
            + self._stage_table(compression)
            + self._frontier_table(compression)
            + self._polish_table(compression)
        )

    def _shrinking(self, compression: Compression) -> list[str]:
        said = []
        ways: dict[str, list[Stage]] = {}
        for stage in compression.stages:
            ways.setdefault(stage.network, []).append(stage)
        for network, way in ways.items():
            first, last = way[0], way[-1]
            said.append(
                f"{self.name(network)}: {first.bytes:,} → {last.bytes:,} bytes, "
                f"{first.bytes / max(last.bytes, 1):.0f} times smaller; held-out error "
                f"{percent(first.test_error)} → {percent(last.test_error)}."
            )
        if len(compression.polish) > 1:
            before, after = compression.polish[0], compression.polish[-1]
            line = (
                f"Polishing the file took the bound from {percent_up(before)} to "
                f"{percent_up(after)}, by the search's own count"
            )
            said.append(line + self._polish_cost(compression.stages))
        return said

    def _polish_cost(self, stages: tuple[Stage, ...]) -> str:
        """What the search, which sees training examples only, did to the held-out error."""
        if len(stages) < 2 or stages[-1].stage != "polished":
            return "."
        before, after = stages[-2].test_error, stages[-1].test_error
        return f"; the held-out error went from {percent(before)} to {percent(after)}."

    def _unpaid(self) -> str:
        certificate = self.found.certificate
        if certificate is None or certificate.code.choices == 0:
            return "Dashed: always naming the commonest class."
        return (
            f"Star: the certified file. Only the star also pays {certificate.code.choices:g} bits "
            "for choices made outside the file. Dashed: always naming the commonest class."
        )

    def _bits(self) -> str:
        certificate = self.found.certificate
        if certificate is None:
            return ""
        return _figure(
            "bits",
            figures.bits(certificate),
            "<strong>Where the bits go</strong> in the certified file. Rounding fills the last "
            "byte; choices pays for what was chosen outside the file.",
            "Bits of each part of the certified file",
        )

    def _stage_table(self, compression: Compression) -> str:
        head = ["network", "stage", "bytes are counted as", "bytes", "non-zero weights"]
        head += ["training error", "held-out error"]
        rows = [
            [
                self.name(s.network),
                _escape(s.stage),
                _escape(s.how),
                _count(s.bytes),
                _count(s.nonzeros),
                _share(s.train_error),
                _share(s.test_error),
            ]
            for s in compression.stages
        ]
        return _table("The chosen files, stage by stage", head, rows, text=(0, 1, 2))

    def _frontier_table(self, compression: Compression) -> str:
        head = ["network", "bytes", "non-zero weights", "share of zeros", "training error"]
        head += ["held-out error", "bound", ""]
        rows = [
            [
                self.name(p.network),
                _count(p.bytes),
                _count(p.nonzeros),
                _share(p.sparsity),
                _share(p.train_error),
                _share(p.test_error),
                _bound(p.risk_bound),
                "chosen" if p.chosen else "",
            ]
            for p in compression.frontier
        ]
        chosen = [i for i, p in enumerate(compression.frontier) if p.chosen]
        table = _table("Every file that was made", head, rows, text=(0,), chosen=chosen)
        return _closed("All files", table)

    def _polish_table(self, compression: Compression) -> str:
        if not compression.polish:
            return ""
        rows = [[_count(i), _bound(bound)] for i, bound in enumerate(compression.polish)]
        table = _table(
            "Bound as the search counts it, after each sweep; 0 is before", ["sweep", "bound"], rows
        )
        return _closed("Polishing", table)

    # Certify

    def certify(self, certificate: Certificate) -> str:
        verdict = (
            f"The bound is not vacuous: it beats always naming the commonest class "
            f"({percent(certificate.majority_error)} errors)."
            if certificate.non_vacuous
            else "The bound is vacuous: it does not beat always naming the commonest class "
            f"({percent(certificate.majority_error)} errors)."
        )
        assumptions = "".join(f"<li>{_escape(one)}</li>" for one in certificate.assumptions)
        command = (
            f"tailor verify certificate.json model.tailor --task {shlex.quote(certificate.task)}"
        )
        return (
            "<p>The certificate is computed from the bytes of the file and the errors of the "
            "network that they decode to. The held-out error is shown for comparison; the bound "
            "does not use it.</p>"
            f'<blockquote class="claim">{_escape(certificate.claim)}</blockquote>'
            + _reading([verdict, *_slack(certificate)])
            + _figure(
                "certified",
                figures.certified(certificate),
                "<strong>Where the true error can lie.</strong> Bars of bounds reach from zero to "
                "the bound, rounded up. The certified bound is the binomial form. "
                + _interval_caption(certificate),
                "Bounds and errors on one scale",
            )
            + f"<h3>Assumptions</h3><ul>{assumptions}</ul>"
            + f"<h3>Check it yourself</h3><pre><code>{_escape(command)}</code></pre>"
            "<p>This decodes the file, counts its errors again and compares every number. One "
            "flipped byte makes it fail.</p>" + _certificate_table(certificate)
        )


def _slack(certificate: Certificate) -> list[str]:
    held = certificate.held_out
    if held is None:
        return []
    ratio = certificate.risk_bound / held.error if held.error else math.inf
    loose = f", {ratio:.1f} times smaller" if math.isfinite(ratio) else ""
    return [
        f"It is loose: on {held.n:,} held-out examples the network errs on "
        f"{percent(held.error)}{loose}. A bound holds with its confidence; it is not an estimate."
    ]


def _interval_caption(certificate: Certificate) -> str:
    if certificate.held_out is None:
        return ""
    return (
        f"The bar of the held-out error is its {percent(1 - certificate.delta, 0)} "
        "Clopper-Pearson interval."
    )


def _certificate_table(certificate: Certificate) -> str:
    bounds, code, held = certificate.bounds, certificate.code, certificate.held_out
    rows = [
        ["task", _escape(certificate.task)],
        ["confidence parameter δ", _number(certificate.delta)],
        ["training examples n", _count(certificate.n)],
        ["errors among them", _count(certificate.errors)],
        ["training error", _share(bounds.empirical)],
        ["certified bound", _bound(certificate.risk_bound)],
        ["binomial bound", _bound(bounds.binomial)],
        ["kl bound", _bound(bounds.kl)],
        ["Hoeffding bound", _bound(bounds.hoeffding)],
        ["error of the majority guess", _share(certificate.majority_error)],
        ["beats the majority guess", "yes" if certificate.non_vacuous else "no"],
    ]
    if held is not None:
        rows += [
            ["held-out examples", _count(held.n)],
            ["errors among them", _count(held.errors)],
            ["held-out error", _share(held.error)],
            ["interval, lower end (rounded down)", _share(held.low, down=True)],
            ["interval, upper end (rounded up)", _bound(held.high)],
        ]
    rows += [[f"bits of {_escape(name)}", _number(b)] for name, b in code.parts.items()]
    rows += [
        ["bits of rounding to whole bytes", _number(code.rounding)],
        ["bits of the stream (8 × its bytes)", _count(code.stream)],
        ["bits for choices outside the file", _number(code.choices)],
        ["bits in all", _number(code.total)],
        ["SHA-256 of the file", f"<code>{_escape(certificate.model_sha256)}</code>"],
        ["SHA-256 of the training data", f"<code>{_escape(certificate.data_sha256)}</code>"],
    ]
    if held is not None:
        rows.append(["SHA-256 of the held-out data", f"<code>{_escape(held.data_sha256)}</code>"])
    rows += [
        ["seal (SHA-256 of all other fields)", f"<code>{_escape(certificate.sha256)}</code>"],
    ]
    return _table("The whole certificate", ["what", "value"], rows)


# ---- pieces of a page ---------------------------------------------------------------------


def _figure(anchor: str, figure: Figure, caption: str, label: str) -> str:
    """A place for a figure and its data; the page draws it when it comes into view."""
    tensors = len(figure["layout"]["yaxis"].get("categoryarray", ()))
    height = max(340, 120 + 30 * tensors)
    return (
        f'<figure><div class="plot" id="{anchor}" role="img" aria-label="{_escape(label)}" '
        f'style="height:{height}px"></div><figcaption>{caption}</figcaption>'
        f'<script type="application/json" id="{anchor}-data">{_json(figure)}</script></figure>'
    )


def _grid(*shown: str) -> str:
    return f'<div class="figures">{"".join(shown)}</div>'


def _pairs(*shown: str) -> str:
    return f'<div class="figures pairs">{"".join(shown)}</div>'


def _closed(title: str, body: str) -> str:
    return f"<details><summary>{_escape(title)}</summary>{body}</details>"


def _reading(sentences: Sequence[str]) -> str:
    """What is seen, as a list of finished HTML sentences."""
    items = "".join(f"<li>{sentence}</li>" for sentence in sentences)
    return f'<ul class="reading">{items}</ul>' if items else ""


def _table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Row],
    *,
    text: Iterable[int] = (0,),
    wrap: int | None = None,
    chosen: Sequence[int] = (),
) -> str:
    """A table of finished HTML cells that scrolls inside its box.

    Args:
        caption: What the table shows.
        head: Names of the columns.
        rows: Cells; the first of each names its row.
        text: Columns of words.
        wrap: Column of long text.
        chosen: Rows to stress.
    """
    words = set(text)
    kinds = [
        f' class="{"text wrap" if i == wrap else "text"}"' if i in words else ""
        for i in range(len(head))
    ]
    top = "".join(
        f'<th scope="col"{kind}>{_escape(name)}</th>'
        for name, kind in zip(head, kinds, strict=True)
    )
    body, size = [], " tall" if len(kinds) > 2 else " narrow"
    for number, row in enumerate(rows):
        mark = ' class="chosen"' if number in chosen else ""
        cells = "".join(f"<td{k}>{cell}</td>" for cell, k in zip(row[1:], kinds[1:], strict=True))
        body.append(f'<tr{mark}><th scope="row">{row[0]}</th>{cells}</tr>')
    return (
        f'<div class="scroll{size}" tabindex="0" role="region" aria-label="{_escape(caption)}">'
        f"<table><caption>{_escape(caption)}</caption><thead><tr>{top}</tr></thead>\n"
        f"<tbody>{chr(10).join(body)}</tbody></table></div>"
    )


def _fit_cells(fit: PowerLawFit | NoFit) -> list[str]:
    """The fit in the columns of ``FIT_HEAD``, or its refusal."""
    if isinstance(fit, NoFit):
        return ["no fit", *["–"] * 7, f"0 of {_count(fit.n)}: {_escape(fit.reason)}"]
    return [
        _number(fit.alpha),
        f"[{_number(fit.low)}, {_number(fit.high)}]",
        _escape(fit.interval),
        _number(fit.alpha - 1),
        _number(fit.sigma),
        _number(fit.xmin),
        _number(fit.xmax),
        _number(fit.D),
        f"{_count(fit.n_tail)} of {_count(fit.n)}",
    ]


def _in_words(fit: PowerLawFit | NoFit) -> str:
    if isinstance(fit, NoFit):
        return f"have no fit ({_escape(fit.reason)})"
    return (
        f"α = {fit.alpha:.2f} [{_end(fit.low)}, {_end(fit.high)}] over the largest "
        f"{fit.n_tail:,} of {fit.n:,}, D = {fit.D:.3f}"
    )


def _end(value: float) -> str:
    return "∞" if value > 1e6 else f"{value:.2f}"


def _lines(layers: Sequence[tuple[str, LayerAnalysis]], of: str) -> str:
    """What the lines of a tail's figure mean, and what its axis leaves out."""
    said = " Both axes are logarithmic."
    if any(isinstance(getattr(one, of), PowerLawFit) for _, one in layers):
        said += " Line: fitted tail. Dotted: xmin."
    drawn: list[float] = []
    for _, one in layers:
        drawn += [value**2 for value in one.singular_values] if of == "spectrum" else one.survival.x
    decades = figures.DECADES[of]
    least = max(drawn, default=0.0) / 10**decades
    if any(0 < value < least for value in drawn):
        said += f" Values below 10<sup>−{decades}</sup> of the largest are left of the axis."
    return said


def _number(value: float) -> str:
    """Four digits for the eye and all digits for a machine."""
    text = "∞" if value > 1e300 else f"{value:.4g}"
    return f'<data value="{value!r}">{text}</data>'


def _count(value: int) -> str:
    return f'<data value="{value}">{value:,}</data>'


def _share(value: float, *, down: bool = False) -> str:
    shown = math.floor(value * 10_000) / 10_000 if down else value
    return f'<data value="{value!r}">{percent(shown, 2)}</data>'


def _bound(value: float) -> str:
    """A bound is shown rounded up, never down."""
    return f'<data value="{value!r}">{percent_up(value, 2)}</data>'


def _matrices(count: int) -> str:
    return f"{count:,} {'matrix' if count == 1 else 'matrices'}"


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _json(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _policy(*scripts: str) -> str:
    """What the page may do: run exactly these scripts, and load nothing."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
