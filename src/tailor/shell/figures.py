"""Figures of the report: records in, plain plotly dictionaries out.

Nothing here imports plotly. A figure is ``{"data": [...], "layout": {...}}`` in the colours of
the light theme; ``DARK`` says which colour takes the place of each in the dark one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any, TypeAlias

from tailor.numerics.powerlaw import NoFit, PowerLawFit
from tailor.shell.demo import Compression, Epoch, Point
from tailor.stages.analyze import Analyses, LayerAnalysis
from tailor.stages.certify import Certificate

Figure: TypeAlias = dict[str, Any]
Trace: TypeAlias = dict[str, Any]
Colours: TypeAlias = Mapping[str, str]
Layers: TypeAlias = Sequence[tuple[str, LayerAnalysis]]

INK, MUTED, GRID, PAPER = "#1c2128", "#6a737d", "#e3e6ea", "#fefefe"

# Okabe & Ito (2008), "Color Universal Design": told apart by colour-blind readers.
NETWORKS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
PARTS = ("#56b4e8", "#e69f01", "#009e74", "#cc79a8", "#b3a80a", "#8c96a0")

DARK = {
    INK: "#e4e8ec",
    MUTED: "#98a2ad",
    GRID: "#2c333b",
    PAPER: "#1a1f25",
    "#0072b2": "#4aa8e8",
    "#d55e00": "#ff8a3d",
    "#009e73": "#2fc79b",
    "#009e74": "#2bb98f",
}

MOST_POINTS = 160  # of one survival function; more cannot be told apart on a screen
DECADES = {"spectrum": 5, "entries": 3}  # of x; what is smaller is left of the axis
LABELS = {"pruned": "top right", "coded": "bottom center"}  # of stages, beside their marks
CLEAR = "rgba(0,0,0,0)"


def colours(networks: Sequence[str]) -> dict[str, str]:
    """One colour for each network, the same in every figure."""
    return {name: NETWORKS[i % len(NETWORKS)] for i, name in enumerate(networks)}


def percent(share: float, digits: int = 1) -> str:
    r"""A share as a percentage, rounded to the nearest.

    >>> percent(0.0694)
    '6.9\xa0%'
    """
    return f"{100 * share:.{digits}f}\u00a0%"


def percent_up(share: float, digits: int = 1) -> str:
    r"""A share as a percentage that is never below it, as a bound has to be shown.

    >>> percent_up(0.40901)
    '41.0\xa0%'
    """
    step = Decimal(1).scaleb(-digits)
    return f"{(100 * Decimal(repr(share))).quantize(step, ROUND_CEILING)}\u00a0%"


def training_loss(history: Sequence[Epoch], colour: Colours) -> Figure:
    """Loss of each network over the epochs."""
    traces = [
        _line(
            network,
            [e.epoch for e in rows],
            [_short(e.loss) for e in rows],
            colour[network],
            hover="epoch %{x}: loss %{y:.4f}",
        )
        for network, rows in _by_network(history).items()
    ]
    return _figure(
        traces, _axis("epoch"), _log_axis("mean training loss (nats)", [e.loss for e in history])
    )


def training_error(history: Sequence[Epoch], colour: Colours) -> Figure:
    """Training and held-out error of each network over the epochs."""
    traces = []
    for network, rows in _by_network(history).items():
        for data, dash in (("held-out", "solid"), ("training", "dot")):
            errors = [e.test_error if data == "held-out" else e.train_error for e in rows]
            traces.append(
                _line(
                    network,
                    [e.epoch for e in rows],
                    [_short(100 * e) for e in errors],
                    colour[network],
                    label=data,
                    dash=dash,
                    hover="epoch %{x}: %{y:.2f} % errors",
                )
            )
    errors = [100 * share for e in history for share in (e.train_error, e.test_error)]
    if errors and min(errors) > 0:
        axis = _log_axis("examples wrong (%)", errors)
    else:  # a log axis has no place for zero errors
        axis = _axis("examples wrong (%)", rangemode="tozero")
    return _figure(traces, _axis("epoch"), axis)


def spectrum(layers: Layers, colour: Colours) -> Figure:
    """Share of eigenvalues (squared singular values) at or above x, with the fitted tail."""
    traces: list[Trace] = []
    for network, layer in layers:
        x, share = eigenvalue_survival(layer)
        total = max(len(layer.singular_values), 1)
        traces += _tail(network, x, share, layer.spectrum, total, colour[network])
    return _tail_figure(traces, "eigenvalue x", "share of eigenvalues ≥ x", DECADES["spectrum"])


def entries(layers: Layers, colour: Colours) -> Figure:
    """Share of weights whose size is at or above x, with the fitted tail."""
    traces: list[Trace] = []
    for network, layer in layers:
        x, share = layer.survival.x, layer.survival.share
        total = layer.rows * layer.columns
        traces += _tail(network, x, share, layer.entries, total, colour[network])
    return _tail_figure(
        traces, "size of a weight x = |w|", "share of weights ≥ x", DECADES["entries"]
    )


def histogram(layers: Layers, colour: Colours) -> Figure:
    """Density of the weights of each network; empty bins have no bar."""
    traces: list[Trace] = []
    for network, layer in layers:
        bins = layer.histogram
        width = (bins.high - bins.low) / len(bins.counts)
        total = max(sum(bins.counts), 1)
        full = [(i, count) for i, count in enumerate(bins.counts) if count]
        hover = "near %{x:.3f}: %{customdata:,} weights<br>density %{y:.3g}"
        traces.append(
            {
                "type": "bar",
                "name": plain(network),
                "meta": network,
                "x": [_short(bins.low + (i + 0.5) * width) for i, _ in full],
                "y": [_short(count / total / width) for _, count in full],
                "customdata": [count for _, count in full],
                "width": width,
                "marker": {"color": colour[network], "line": {"width": 0}},
                "opacity": 0.55,
                "hovertemplate": f"{hover}<extra>{plain(network)}</extra>",
            }
        )
    density = [value for trace in traces for value in trace["y"]]
    figure = _figure(traces, _axis("weight w"), _log_axis("density of weights", density))
    figure["layout"] |= {"barmode": "overlay", "bargap": 0}
    return figure


def exponents(analyses: Analyses, colour: Colours, *, of: str) -> Figure:
    """Exponent and interval of every matrix; ``of`` is ``"spectrum"`` or ``"entries"``."""
    places = {name: i for i, name in enumerate(layer_names(analyses), start=1)}
    traces, top = [], 2.0
    for analysis in analyses.analyses:
        rows = [(places[a.name], a.name, getattr(a, of)) for a in analysis.layers]
        fits = [(i, name, fit) for i, name, fit in rows if isinstance(fit, PowerLawFit)]
        top = max([top, *(fit.alpha for _, _, fit in fits)])
        network, ink = analysis.source, colour[analysis.source]
        traces.append(
            _line(network, [i for i, _, _ in fits], [_short(f.alpha) for _, _, f in fits], ink)
            | {
                "mode": "markers",
                "text": [plain(name) for _, name, _ in fits],
                "hovertemplate": "%{text}: α = %{y:.2f}<extra>" + plain(network) + "</extra>",
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_short(min(f.high - f.alpha, 1e6)) for _, _, f in fits],
                    "arrayminus": [_short(f.alpha - f.low) for _, _, f in fits],
                    "thickness": 1,
                    "width": 0,
                },
            }
        )
    y = _axis("exponent α, 95 % interval", range=[1, 1.15 * top])
    return _figure(traces, _axis("number of the matrix"), y)


def layer_names(analyses: Analyses) -> list[str]:
    """Names of all matrices in the order in which they are met."""
    return list(dict.fromkeys(a.name for one in analyses.analyses for a in one.layers))


def eigenvalue_survival(layer: LayerAnalysis) -> tuple[list[float], list[float]]:
    """Eigenvalues, rising, and the share of all that are at least as large; thinned if many."""
    falling = [value * value for value in layer.singular_values if value > 0]
    total = len(layer.singular_values)
    ranks = _ranks(len(falling))
    return [falling[r - 1] for r in ranks], [r / total for r in ranks]


def frontier(compression: Compression, colour: Colours) -> Figure:
    """Errors of every file against its size; the chosen ones are marked."""
    traces: list[Trace] = []
    for network, points in _by_network(_by_size(compression)).items():
        for data, dash in (("held-out", "solid"), ("training", "dot")):
            errors = [p.test_error if data == "held-out" else p.train_error for p in points]
            traces.append(
                _line(
                    network,
                    [p.bytes for p in points],
                    [_short(100 * e) for e in errors],
                    colour[network],
                    label=data,
                    dash=dash,
                    hover="%{x:,} bytes: %{y:.2f} % errors",
                )
                | ({"mode": "lines+markers"} if data == "held-out" else {"showlegend": False})
            )
        chosen = [p for p in points if p.chosen]
        traces.append(_ring(network, chosen, [100 * p.test_error for p in chosen], colour[network]))
    return _figure(
        traces,
        _size_axis([p.bytes for p in compression.frontier]),
        _axis("examples wrong (%)", rangemode="tozero"),
    )


def path(compression: Compression, colour: Colours) -> Figure:
    """The way of the chosen file of each network from dense to its last stage."""
    traces: list[Trace] = []
    for i, (network, stages) in enumerate(_by_network(compression.stages).items()):
        beside = LABELS | {"dense": "bottom center" if i == 0 else "top center"}
        traces.append(
            _line(
                network,
                [s.bytes for s in stages],
                [_short(100 * s.test_error) for s in stages],
                colour[network],
                hover="%{text}: %{x:,} bytes, %{y:.2f} % errors on held-out examples",
            )
            | {
                "mode": "lines+markers+text",
                "text": [plain(s.stage) for s in stages],
                "textposition": [beside.get(s.stage, "top center") for s in stages],
                "textfont": {"size": 12, "color": colour[network]},
                "cliponaxis": False,
                "marker": {"size": 9, "symbol": "square", "color": colour[network]},
            }
        )
    top = max([0.0, *(s.test_error for s in compression.stages)])
    return _figure(
        traces,
        _size_axis([s.bytes for s in compression.stages], room=0.1),
        _axis("held-out examples wrong (%)", range=[0, 120 * top or 1]),
    )


def bounds(compression: Compression, certificate: Certificate | None, colour: Colours) -> Figure:
    """The bound of every file against its size, and what guessing would give."""
    traces: list[Trace] = []
    sizes = [p.bytes for p in compression.frontier]
    for network, points in _by_network(_by_size(compression)).items():
        traces.append(
            _line(
                network,
                [p.bytes for p in points],
                [_short(100 * p.risk_bound) for p in points],
                colour[network],
                hover="%{x:,} bytes: bound %{customdata}",
            )
            | {
                "mode": "lines+markers",
                "customdata": [percent_up(p.risk_bound, 2) for p in points],
            }
        )
        chosen = [p for p in points if p.chosen]
        traces.append(_ring(network, chosen, [100 * p.risk_bound for p in chosen], colour[network]))
    if certificate is not None:
        size = certificate.code.stream // 8
        sizes.append(size)
        traces += _certified(certificate, size, min(sizes), max(sizes))
    return _figure(
        traces,
        _size_axis(sizes),
        _axis("bound on the true error (%)", range=[0, 105]),
    )


def bits(certificate: Certificate) -> Figure:
    """Where the bits of the description go, tensor by tensor."""
    split = [(*key.rpartition(": ")[::2], value) for key, value in certificate.code.parts.items()]
    kinds = list(dict.fromkeys(kind for _, kind, _ in split))
    traces = []
    for i, kind in enumerate(kinds):
        mine = [(tensor, value) for tensor, other, value in split if other == kind]
        traces.append(_bar(kind, mine, PARTS[i % len(PARTS)], certificate.code.total))
    rest = [("rounding", certificate.code.rounding), ("choices", certificate.code.choices)]
    traces.append(_bar("outside the tensors", rest, MUTED, certificate.code.total))
    names = [*dict.fromkeys(tensor for tensor, _, _ in split), "rounding", "choices"]
    figure = _figure(
        traces,
        _axis("bits"),
        _axis("", type="category", categoryorder="array", showgrid=False)
        | {"categoryarray": [plain(name) for name in reversed(names)]},
    )
    figure["layout"] |= {"barmode": "stack", "bargap": 0.3}
    return figure


def certified(certificate: Certificate) -> Figure:
    """Bounds, errors and guessing on one scale of shares of wrong examples."""
    forms, found = certificate.bounds, certificate.held_out
    rows = [("majority guess", certificate.majority_error, percent, MUTED, "line-ns")]
    for name, value in (("Hoeffding", forms.hoeffding), ("kl", forms.kl)):
        rows.append((f"{name} bound", value, percent_up, MUTED, "line-ns"))
    rows.append(("certified bound", certificate.risk_bound, percent_up, INK, "line-ns"))
    traces = [
        _band(name, 0.0, value, ink) for name, value, _, ink, _ in rows if name.endswith("bound")
    ]
    if found is not None:
        rows.append(("held-out error", found.error, percent, NETWORKS[2], "circle"))
        traces.append(_band("held-out error", found.low, found.high, NETWORKS[2]))
    rows.append(("training error", forms.empirical, percent, NETWORKS[2], "circle"))
    traces += [
        _mark(*row, right=found.high if found and "held" in row[0] else None) for row in rows
    ]
    names = [name for name, *_ in rows]
    figure = _figure(
        traces,
        _axis("examples wrong (%)", range=[-1, 108]) | {"tickvals": [0, 20, 40, 60, 80, 100]},
        _axis("", type="category", categoryorder="array", showgrid=False)
        | {"categoryarray": names, "range": [-0.6, len(names) - 0.4]},
    )
    figure["layout"] |= {"showlegend": False, "barmode": "overlay", "bargap": 0.35}
    figure["layout"]["shapes"] = [_guess(certificate.majority_error)]
    return figure


# ---- what the figures share ---------------------------------------------------------------


def plain(text: str) -> str:
    """Text that plotly shows as it is: its markup and its templates are made harmless."""
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%{", "%&#123;")):
        text = text.replace(sign, entity)
    return text


def _figure(traces: Sequence[Trace], x: dict[str, Any], y: dict[str, Any]) -> Figure:
    layout = {
        "xaxis": x,
        "yaxis": y,
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "margin": {"l": 56, "r": 14, "t": 8, "b": 46},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.03}
        | {"yanchor": "bottom", "tracegroupgap": 0, "traceorder": "normal"},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": MUTED, "font": {"color": INK}},
        "showlegend": True,
    }
    return {"data": list(traces), "layout": layout}


def _axis(title: str, type: str = "-", **more: Any) -> dict[str, Any]:
    axis: dict[str, Any] = {
        "title": {"text": title, "standoff": 8, "font": {"size": 13}},
        "tickfont": {"size": 12},
        "type": type,
        "gridcolor": GRID,
        "linecolor": MUTED,
        "showline": True,
        "ticks": "outside",
        "tickcolor": MUTED,
        "zeroline": False,
        "automargin": True,
    }
    return axis | more


def _log_axis(
    title: str,
    values: Sequence[float],
    show: Callable[[Decimal], str] | None = None,
    room: float = 0.04,
) -> dict[str, Any]:
    """A log axis around positive values.

    Ticks stand at powers of ten, or also at 2 and 5 times these where there are few. ``room`` is
    left on both sides, as a share of the length.
    """
    found = [value for value in values if value > 0] or [1.0]
    low, high = math.log10(min(found)), math.log10(max(found))
    margin = room * (high - low) + 0.02
    low, high = low - margin, high + margin
    steps = (1, 2, 5) if show or high - low < 2.5 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    ticks = [Decimal(step).scaleb(power) for power in powers for step in steps]
    ticks = [tick for tick in ticks if low <= float(tick.log10()) <= high]
    return _axis(title, "log") | {
        "range": [_short(low), _short(high)],
        "tickmode": "array",
        "tickvals": [float(tick) for tick in ticks],
        "ticktext": [(show or _tick)(tick) for tick in ticks],
    }


def _tick(value: Decimal) -> str:
    """A plain number, or a power of ten where that would be long.

    >>> _tick(Decimal("0.02")), _tick(Decimal("1e-7"))
    ('0.02', '10⁻⁷')
    """
    power = value.adjusted()
    if -3 <= power <= 3:
        return f"{value:f}"
    digit = "" if value == Decimal(1).scaleb(power) else f"{value.scaleb(-power):f}·"
    return f"{digit}10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def _size_axis(sizes: Sequence[int], room: float = 0.04) -> dict[str, Any]:
    return _log_axis("size in bytes", sizes, _kilo, room)


def _kilo(size: Decimal) -> str:
    return f"{size / 1000:f}k" if size >= 1000 else f"{size:f}"


def _line(
    network: str,
    x: Sequence[float],
    y: Sequence[float],
    ink: str,
    *,
    label: str = "",
    dash: str = "solid",
    hover: str = "%{x}: %{y}",
) -> Trace:
    name = plain(f"{network}, {label}" if label else network)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "meta": f"{network}, {label}" if label else network,
        "x": list(x),
        "y": list(y),
        "line": {"color": ink, "width": 2, "dash": dash},
        "marker": {"color": ink, "size": 6},
        "hovertemplate": f"{hover}<extra>{name}</extra>",
    }


def _ring(network: str, points: Sequence[Point], y: Sequence[float], ink: str) -> Trace:
    """A ring around the chosen files."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": plain(f"{network}, chosen"),
        "meta": f"{network}, chosen",
        "x": [p.bytes for p in points],
        "y": [_short(value) for value in y],
        "marker": {"symbol": "circle-open", "size": 16, "color": ink, "line": {"width": 2.5}},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _tail_figure(traces: Sequence[Trace], x: str, y: str, decades: int) -> Figure:
    """Log-log axes over the upper ``decades`` of what is drawn."""
    drawn = [value for trace in traces for value in trace["x"]] or [1.0]
    kept = [value for value in drawn if value >= max(drawn) / 10**decades]
    shares = [v for trace in traces if trace["mode"] == "markers" for v in trace["y"]] or [1.0]
    return _figure(traces, _log_axis(x, kept), _log_axis(y, [*shares, 1.0]))


def _tail(
    network: str,
    x: Sequence[float],
    share: Sequence[float],
    fit: PowerLawFit | NoFit,
    total: int,
    ink: str,
) -> list[Trace]:
    """Points of a survival function; if there is a fit, its line and a mark at xmin."""
    found = isinstance(fit, PowerLawFit)
    label = f"α = {fit.alpha:.2f}" if isinstance(fit, PowerLawFit) else "no fit"
    points = _line(
        network,
        [_short(value) for value in x],
        [_short(value) for value in share],
        ink,
        label=label,
        hover="x = %{x:.4g}: share %{y:.3%}",
    ) | {"mode": "markers", "legendgroup": network}
    points["marker"] = {"color": ink, "size": 5, "opacity": 0.65 if found else 1}
    if not isinstance(fit, PowerLawFit):
        return [points]
    at = fit.n_tail / total  # the share of all values that lie in the tail
    end = at * (fit.xmax / fit.xmin) ** (1 - fit.alpha)
    low = min(end, *share)
    shared = {"legendgroup": network, "showlegend": False}
    ends = [_short(fit.xmin), _short(fit.xmax)]
    line = _line(network, ends, [_short(at), _short(end)], ink, label="fitted tail", hover=label)
    mark = _line(network, [ends[0]] * 2, [_short(low), 1.0], ink, label="xmin", dash="dot")
    mark["line"]["width"] = 1.5
    mark["hovertemplate"] = f"xmin = {fit.xmin:.4g}<extra>{plain(network)}</extra>"
    return [points, line | shared, mark | shared]


def _certified(certificate: Certificate, size: int, low: int, high: int) -> list[Trace]:
    """The certified file, and the error of a constant guess as a dashed line."""
    bound, guess = certificate.risk_bound, certificate.majority_error
    star = _line("certified", [size], [_short(100 * bound)], INK) | {
        "mode": "markers",
        "marker": {"symbol": "star", "size": 14, "color": INK},
        "hovertemplate": f"certified file: {size:,} bytes, bound {percent_up(bound, 2)}"
        "<extra></extra>",
    }
    ends = [low * 0.9, high * 1.1]
    line = _line("majority guess", ends, [_short(100 * guess)] * 2, MUTED, dash="dash")
    line["hovertemplate"] = f"always the commonest class: {percent(guess, 2)}<extra></extra>"
    return [star, line]


def _bar(name: str, rows: Sequence[tuple[str, float]], ink: str, total: float) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "name": plain(name),
        "meta": name,
        "y": [plain(tensor) for tensor, _ in rows],
        "x": [_short(value) for _, value in rows],
        "customdata": [percent(value / total) for _, value in rows],
        "marker": {"color": ink, "line": {"color": PAPER, "width": 1}},
        "hovertemplate": "%{x:.1f} bits, %{customdata} of all<extra>" + plain(name) + "</extra>",
        "showlegend": name != "outside the tensors",
    }


def _band(row: str, low: float, high: float, ink: str) -> Trace:
    """Where the true error may lie."""
    return {
        "type": "bar",
        "orientation": "h",
        "meta": row,
        "y": [row],
        "x": [_short(100 * (high - low))],
        "base": [_short(100 * low)],
        "marker": {"color": ink},
        "opacity": 0.22,
        "hoverinfo": "skip",
    }


def _mark(
    row: str,
    value: float,
    show: Callable[[float, int], str],
    ink: str,
    symbol: str,
    right: float | None,
) -> Trace:
    """A mark at the value and, right of its band, the value in words."""
    line = {"width": 4 if symbol == "line-ns" else 1, "color": ink}
    return {
        "type": "scatter",
        "mode": "markers+text",
        "meta": row,
        "y": [row, row],
        "x": [_short(100 * value), _short(100 * (value if right is None else right))],
        "text": ["", f"\u00a0\u00a0\u00a0{show(value, 1)}\u00a0\u00a0"],
        "textposition": "middle left" if value > 0.8 else "middle right",
        "cliponaxis": False,
        "marker": {
            "symbol": symbol,
            "size": [11, 0],
            "color": ink,
            "line": line,
            "opacity": 1,
        },
        "hovertemplate": f"{row}: {show(value, 2)}<extra></extra>",
    }


def _guess(value: float) -> dict[str, Any]:
    """A dashed line through all rows at the error of a constant guess."""
    return {
        "type": "line",
        "x0": 100 * value,
        "x1": 100 * value,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": MUTED, "width": 1.5, "dash": "dash"},
    }


def _by_size(compression: Compression) -> list[Point]:
    return sorted(compression.frontier, key=lambda point: point.bytes)


def _by_network(rows: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.network, []).append(row)
    return found


def _ranks(count: int) -> list[int]:
    """Falling ranks from ``count`` to 1; evenly spread on a log scale if there are many."""
    if count <= MOST_POINTS:
        return list(range(count, 0, -1))
    spread = (round(count ** (i / (MOST_POINTS - 1))) for i in range(MOST_POINTS))
    return sorted(set(spread), reverse=True)


def _short(value: float) -> float:
    """Six digits: finer than any screen, and the page stays small."""
    return float(f"{value:.6g}")
