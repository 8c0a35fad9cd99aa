"""The whole page: a template filled with a header, sections, style, library and script."""

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from string import Template

from tailor import records
from tailor.shell import figures
from tailor.shell.page import analysis, certificate, comparison, compression, packed, run, training
from tailor.shell.page.header import header
from tailor.shell.page.networks import Networks, dots
from tailor.shell.page.results import Results, read
from tailor.shell.page.text import safe_json


def render(folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` from the records of a folder.

    Args:
        folder: Where ``tailor demo`` or ``train``, or ``analyze`` or ``compare`` with ``--out``,
            wrote.

    Returns:
        Path of the page. The same records give the same bytes.

    Raises:
        RecordError: The folder holds no record, or one that is damaged.
        OutputError: The page cannot be written.
    """
    folder = Path(folder)
    return records.write(folder / "report.html", _page(read(folder)).encode())


def _page(found: Results) -> str:
    import plotly.offline  # a large package that only this page needs

    here = Path(__file__)
    script = here.with_name("page.js").read_text("utf-8")
    library: str = plotly.offline.get_plotlyjs()
    sections = list(_sections(found))
    return Template(here.with_name("page.html").read_text("utf-8")).substitute(
        policy=_policy(library, script),
        style=here.with_name("page.css").read_text("utf-8"),
        dots=dots(),
        header=header(found, [(anchor, title) for anchor, title, _ in sections]),
        stages="\n".join(
            f'<section id="{anchor}" aria-labelledby="{anchor}-title">\n'
            f'<h2 id="{anchor}-title">{title}</h2>\n{body}\n</section>'
            for anchor, title, body in sections
        ),
        dark=safe_json(figures.DARK),
        template=safe_json(figures.TEMPLATE),
        plotly=library,
        script=script,
    )


def _sections(found: Results) -> Iterator[tuple[str, str, str]]:
    """Anchor, title and body of every stage for which there is a record."""
    networks = Networks.of(found)
    if found.history:
        yield "train", "Train", training.section(found.history, networks)
    if found.training is not None:
        yield "run", "Train", run.section(found.training)
    if found.comparison is not None:
        yield "compare", "Compare", comparison.section(found.comparison, networks)
    if found.analyses is not None:
        yield "analyze", "Analyze", analysis.section(found.analyses, networks)
    if found.compression is not None:
        body = compression.section(found.compression, found.certificate, networks)
        yield "compress", "Compress", body
    if found.packed is not None:
        yield "pack", "Compress", packed.section(found.packed)
    if found.certificate is not None:
        yield "certify", "Certify", certificate.section(found.certificate)


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
