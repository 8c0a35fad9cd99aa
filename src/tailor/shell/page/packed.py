"""The section Compress of one compression: sizes, errors, and what they are compared with."""

from tailor.shell import figures
from tailor.shell.figures.labels import percent
from tailor.shell.page.blocks import closed, figure, grid, reading
from tailor.shell.page.tables import count, number, share, sortable
from tailor.shell.page.text import escape
from tailor.stages.compress import CompressionReport, TensorReport


def section(found: CompressionReport) -> str:
    """Body of the section."""
    return (
        f"<p>Steps: {escape(found.recipe)}</p>"
        + reading([*_sizes(found), *_qualities(found), *_uniform(found), *_others(found)])
        + _figures(found)
        + _tensors(found)
    )


def _sizes(found: CompressionReport) -> list[str]:
    said = [
        f"{found.dense_bytes:,} → <strong>{found.file_bytes:,} bytes</strong>, "
        f"{found.times_smaller:.1f} times smaller. The order-0 entropy of all symbols is "
        f"{found.limit_bytes:,.0f} bytes; a file below it knows more of them than how often each "
        "occurs, such as which rows and columns are sparse.",
        f"{percent(found.sparsity)} of the weights of the matrices are zero.",
    ]
    if found.error is not None:
        said.append(f"Relative error of all matrices together: {found.error:.4f}.")
    before, after = found.parameters
    if after != before:
        said.append(f"{before:,} → {after:,} parameters.")
    return said


def _qualities(found: CompressionReport) -> list[str]:
    said = []
    if found.quality_before is not None and found.quality_after is not None:
        said.append(
            f"{escape(found.quality_name).capitalize()}: {found.quality_before:.4f} before, "
            f"<strong>{found.quality_after:.4f}</strong> after."
        )
    if found.latency is not None:
        one = found.latency
        said.append(
            f"One pass over a batch of shape {'x'.join(map(str, one.batch))}: "
            f"{1e3 * one.before:.3g} ms before, {1e3 * one.after:.3g} ms after "
            f"({one.before / one.after:.2f} times as fast; {one.threads} threads, medians of "
            f"{one.runs})."
        )
    return said


def _uniform(found: CompressionReport) -> list[str]:
    even = found.uniform
    if even is None:
        return []
    parts = [f"{even.file_bytes:,} bytes"]
    if even.error is not None:
        parts.append(f"relative error {even.error:.4f}")
    if even.quality is not None:
        parts.append(f"{escape(found.quality_name)} {even.quality:.4f}")
    return [f"The same with a uniform allocation: {', '.join(parts)}."]


def _others(found: CompressionReport) -> list[str]:
    alone = [
        f"Left alone: {escape(name)}: {escape(reason)}." for name, reason in found.left_alone[:8]
    ]
    more = len(found.left_alone) - len(alone)
    if more > 0:
        alone.append(f"And {more} more were left alone; the record lists them.")
    return [*(f"{escape(note.rstrip('.'))}." for note in found.notes), *alone]


def _figures(found: CompressionReport) -> str:
    shown = [
        figure(
            "allocation",
            figures.allocation(found),
            "<strong>What each matrix lost.</strong> Share of zeros, and error relative to the "
            "norm of the matrix.",
            "Zeros and error of each matrix",
        ),
        figure(
            "packed-bits",
            figures.packed_bits(found),
            "<strong>Bits a weight.</strong> Measured, by the order-0 entropy, and as a law with "
            "the tail of the weights needs at this error.",
            "Measured, limiting and predicted bits of each matrix",
        ),
        figure(
            "parts",
            figures.parts(found),
            "<strong>Where the bytes are</strong>, by part of the code. Grey: what all symbols "
            "would cost by how often each occurs.",
            "Bytes of the file by part",
        ),
    ]
    if found.frontier:
        shown.append(
            figure(
                "quality",
                figures.quality(found),
                f"<strong>{escape(found.quality_name).capitalize()} against size.</strong> Each "
                "mark is a file that was written and read back. Dotted: uniform allocation.",
                "Quality of each file against its size",
            )
        )
    return grid(*shown, pairs=True)


def _tensors(found: CompressionReport) -> str:
    head = [
        ("", "place in the file"),
        ("tensor", ""),
        ("shape", ""),
        ("zeros", "share of its entries"),
        ("asked for", "share of its entries that was to go"),
        ("metric", "what the allocation looked at"),
        ("error", "relative to its norm"),
        ("bits", "measured, for each entry"),
        ("predicted", "bits that a law with its tail index needs at this error"),
        ("tail index", "of a Student t law, not a density exponent"),
        ("values", "different ones"),
        ("stored", ""),
        ("bytes", "in the file"),
        ("limit", "order-0 entropy in bytes"),
        ("dense", "bytes as it came"),
    ]
    rows = [_row(place, row) for place, row in enumerate(found.tensors, start=1)]
    caption = "Every tensor of the file"
    return closed("All tensors", sortable("tensors", caption, head, rows, text=(1, 2, 11)))


def _row(place: int, row: TensorReport) -> list[str]:
    def some(value: float | None) -> str:
        return "–" if value is None else number(value)

    return [
        count(place),
        escape(row.name),
        "x".join(map(str, row.shape)) or "1",
        share(row.zeros),
        "–" if row.target is None else share(row.target),
        some(row.metric),
        some(row.error),
        number(row.bits),
        some(row.predicted_bits),
        some(row.tail_index),
        "–" if row.levels is None else count(row.levels),
        escape(row.mode),
        count(round(row.packed_bytes)),
        count(round(row.limit_bytes)),
        count(row.dense_bytes),
    ]
