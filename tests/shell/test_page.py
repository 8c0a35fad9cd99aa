"""The report: complete, safe, the same every time, and drawn by a real browser."""

import csv
import html
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tailor import records
from tailor.errors import RecordError
from tailor.shell.page import analysis, render
from tailor.shell.page.matrix import matrix
from tailor.shell.page.networks import Networks, without_common
from tailor.stages.analyze import Analyses, Analysis, Failed, LayerAnalysis, analyze
from tests.shell.test_figures import (
    analyses,
    certificate,
    comparison,
    compression,
    history,
    steps,
)

EVIL = "</script><img src=x onerror=alert(1)>${policy}%{x}&amp;"
DRAWN_ONLY = {"singular_values", "histogram", "survival", "aliases"}


def fill(folder: Path) -> Path:
    """What ``tailor demo`` leaves."""
    records.save(analyses(), folder / "analysis.json")
    records.save(compression(), folder / "compression.json")
    records.save(certificate(), folder / "certificate.json")
    with (folder / "history.csv").open("w", newline="") as file:
        rows = [asdict(epoch) | {"seed": 1, "tailor": "0", "torch": "0"} for epoch in history()]
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(fill(tmp_path_factory.mktemp("report")))


def markup(report: Path) -> str:
    """The page without style, library and scripts."""
    text = report.read_text("utf-8")
    return re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)


def numbers(value: records.Json) -> Iterator[float | int]:
    """Every number of a record that is meant for a table."""
    match value:
        case bool():
            return
        case int() | float():
            yield value
        case list():
            for item in value:
                yield from numbers(item)
        case dict():
            for name, item in value.items():
                if name not in DRAWN_ONLY | {"provenance", "shape", "rows", "columns"}:
                    yield from numbers(item)


def test_every_number_stands_in_a_table(report: Path) -> None:
    shown = set(re.findall(r'<data value="([^"]+)">', markup(report)))
    for block in re.findall(r'id="matrix-\d+-all">(.*?)</script>', report.read_text("utf-8")):
        shown |= {repr(value) for row in json.loads(block) for value in row}
    found = [analyses(), compression(), certificate(), *history()]
    wanted = {repr(number) for record in found for number in numbers(records.to_json(record))}
    assert len(wanted) > 80
    assert wanted <= shown


def test_every_text_of_the_certificate_is_shown(report: Path) -> None:
    text, proof = markup(report), certificate()
    said = [
        proof.claim,
        *proof.assumptions,
        proof.task,
        *proof.evidence.code.parts,
        *proof.warnings,
    ]
    said += [proof.model_sha256, proof.data_sha256, proof.sha256, proof.records_sha256]
    said += [proof.network.sha256, proof.network.parts[0].statement, proof.method]
    for one in said:
        assert html.escape(one) in text
    assert "tailor verify certificate.json model.tailor --task digits" in text


def test_the_result_is_one_line_with_the_bound_rounded_up(report: Path) -> None:
    lead = re.search(r'<p class="lead">(.*?)</p>', markup(report))
    assert lead is not None
    said = re.sub(r"<.*?>", "", lead[1]).replace("\xa0", " ")
    assert said == (
        "3,480 bytes → 61 bytes; certified: at most 41.0 % errors (95 % confidence), "
        "majority guess 89.6 %, held-out 6.9 %"
    )


def test_a_bound_that_does_not_beat_guessing_is_called_vacuous(tmp_path: Path) -> None:
    proof = replace(certificate(), risk_bound=0.95, non_vacuous=False, held_out=None)
    records.save(proof, tmp_path / "certificate.json")
    text = markup(render(tmp_path))
    assert "The bound is vacuous" in text
    assert "does not beat guessing" in text
    assert "The bound is not vacuous" not in text


def test_a_bound_of_polishing_says_which_file_it_is_of(report: Path) -> None:
    (body,) = re.findall(
        r"<summary>Polishing</summary>.*?<tbody>(.*?)</tbody>", markup(report), flags=re.DOTALL
    )
    rows = re.findall(r'<th scope="row">(.*?)</th><td><data value="(.*?)"', body)
    names = ["before", "after sweep 1", "after sweep 2", "the finished file"]
    assert rows == list(zip(names, map(repr, compression().polish), strict=True))


def hostile() -> Analyses:
    return Analyses(
        analyses=tuple(
            replace(
                one,
                source=EVIL if n == 0 else one.source,
                layers=tuple(
                    replace(la, name=f"{EVIL}{i}", measures={EVIL: EVIL})
                    for i, la in enumerate(one.layers)
                ),
                failed=(Failed(name=EVIL, shape=(), dtype=EVIL, reason=EVIL),),
            )
            for n, one in enumerate(analyses().analyses)
        )
    )


def test_hostile_names_are_text(tmp_path: Path) -> None:
    records.save(hostile(), tmp_path / "analysis.json")
    text = render(tmp_path).read_text("utf-8")
    assert "<img" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert text.count(html.escape(EVIL)) > 5
    for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text):
        assert not set("<>&") & set(block)
        json.loads(block)


def test_an_analysis_alone_gives_its_stage_alone(tmp_path: Path) -> None:
    records.save(analyses(), tmp_path / "analysis.json")
    text = markup(render(tmp_path))
    assert re.findall(r'<section id="(\w+)"', text) == ["analyze"]
    assert text.count('class="plot"') == 8
    assert "5 values, needs 20" in text
    for name in ("0.bias", "2.bias"):
        assert text.count(f'<th scope="row">{name}</th>') == 2


def alone(**changed: Any) -> Analysis:
    """One network with one matrix, as ``tailor analyze`` leaves it."""
    one = analyses().analyses[0]
    return replace(one, layers=(replace(one.layers[0], **changed),))


def written(folder: Path, *found: Analysis) -> str:
    records.save(Analyses(analyses=found), folder / "analysis.json")
    return markup(render(folder))


def plots(text: str) -> list[str]:
    return re.findall(r'class="plot" id="(?:matrix-0-)?([\w-]+)"', text)


def test_what_was_not_measured_has_no_figure(tmp_path: Path) -> None:
    bare = {"entries": None, "histogram": None, "survival": None, "measures": {}}
    assert plots(written(tmp_path, alone(**bare))) == ["spectrum", "scan"]
    bare |= {"histogram": alone().layers[0].histogram}
    assert plots(written(tmp_path, alone(**bare))) == ["spectrum", "scan", "histogram"]
    text = written(tmp_path, alone())
    assert plots(text) == ["spectrum", "scan", "entries", "histogram"]
    flat = {"w": torch.zeros(30, 30), "x": torch.eye(30)}
    text = written(tmp_path, analyze(flat, label="flat"))
    assert plots(text) == ["matrix-1-spectrum"]


def test_a_network_is_named_in_tables_only_where_there_are_two(tmp_path: Path) -> None:
    column = '<th scope="col" class="text">network</th>'
    assert written(tmp_path, alone()).count(column) == 0
    assert written(tmp_path, *analyses().analyses).count(column) == 2


def test_failed_matrices_stand_first(tmp_path: Path) -> None:
    broken = Failed(name="b.weight", shape=(3, 4), dtype="float32", reason="all is <NaN>")
    text = written(tmp_path, replace(alone(), failed=(broken,)))
    alert = re.search(r'role="alert">(.*?)</div>', text)
    assert alert is not None
    assert "1 matrix could not be analyzed" in alert[1]
    assert "<b>b.weight</b> (3 × 4, float32): all is &lt;NaN&gt;" in alert[1]
    assert "1 matrix failed" in text[: text.index("<main")]
    assert alert.start() < text.index('class="reading"')


def spoken(verdict: str, **measures: float) -> LayerAnalysis:
    layer = alone().layers[0]
    fit = replace(layer.spectrum, alpha=3.0, low=2.5, high=3.5)
    return replace(layer, spectrum=fit, verdict=verdict, measures=measures)


@pytest.mark.parametrize(
    ("given", "low", "said"),
    [
        (spoken("well-trained"), 2.5, "Well-trained: the whole 95 % interval lies between 2 and 6"),
        (spoken("undecided"), 1.5, "Undecided: the 95 % interval includes 2."),
        (spoken("undecided", p_value=0.03), 2.5, "the power law is rejected (p = 0.03)"),
        (spoken("undecided", null_z=-1.2), 2.5, "random order give a similar α (null_z = -1.2)"),
        (spoken("undecided"), 2.5, "this estimator's α is no exponent of the tail"),
        (spoken("well-trained", p_value=0.6), 2.5, "(p = 0.60), which is no proof of it"),
        (spoken("well-trained", null_z=-5.0), 2.5, "α lies 5.0 standard deviations below that"),
    ],
)
def test_a_verdict_says_what_it_rests_on(given: LayerAnalysis, low: float, said: str) -> None:
    layer = replace(given, spectrum=replace(given.spectrum, low=low))
    network = Networks(("net",), ("net",))
    assert said in matrix("m", "w", [("net", layer)], network, is_open=True)


def test_a_verdict_without_a_random_reference_says_so(tmp_path: Path) -> None:
    said = "matrices of independent random weights, too, often get an α"
    claimed = replace(alone(), layers=(spoken("well-trained"),))
    assert said in written(tmp_path, claimed)
    compared = replace(alone(), layers=(spoken("well-trained", null_z=4.0),))
    assert said not in written(tmp_path, compared)
    unclaimed = replace(alone(), layers=(spoken("undecided"),))
    assert said not in written(tmp_path, unclaimed)


def test_many_models_are_thinned_and_counted(tmp_path: Path) -> None:
    many = [replace(alone(), source=f"step-{i}.pt") for i in range(15)]
    text = written(tmp_path, *many)
    assert "Of 15 models this section shows 6, evenly spread from the first to the last" in text
    counted = re.search(r"<caption>How many matrices</caption>.*?</table>", text, re.DOTALL)
    assert counted is not None
    assert re.findall(r'net-\d">(\d+)<', counted[0]) == ["0", "3", "6", "8", "11", "14"]


def crowd(count: int) -> Analysis:
    one = alone()
    layers = tuple(replace(one.layers[0], name=f"l{i}", verdict=V[i % 2]) for i in range(count))
    return replace(one, layers=layers)


V = ("undecided", "well-trained")


def test_a_list_of_many_matrices_is_closed_at_first(tmp_path: Path, sixty: Path) -> None:
    assert '<div class="layers">' in written(tmp_path, crowd(3))
    text = markup(sixty)
    assert "<summary>60 matrices, one by one" in text
    for i in (0, 59):
        assert f'<a href="#matrix-{i}">l{i}</a>' in text
    assert "Largest α" in text


def test_of_very_many_matrices_only_some_have_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "MOST_DRAWN", 20)
    text = written(tmp_path, crowd(60))
    assert "<summary>20 of 60 matrices, one by one" in text
    assert re.findall(r'id="matrix-(\d+)-scan"', text) == [str(i) for i in range(0, 60, 3)]
    assert '<a href="#matrix-3">l3</a>' in text
    assert '<th scope="row">l4</th>' in text


def test_a_comparison_says_what_its_record_says(tmp_path: Path) -> None:
    beside = comparison()
    records.save(beside, tmp_path / "comparison.json")
    records.save(steps(), tmp_path / "analysis.json")
    text = markup(render(tmp_path))
    assert re.findall(r'<section id="(\w+)"', text) == ["compare", "analyze"]
    assert len(beside.predictions) > 3
    for one in beside.predictions:
        said = html.escape(one.meaning)
        assert f"<strong>{one.metric}:</strong> {said}." in text
        assert text.count(said) >= 2
    for caveat in beside.caveats:
        assert html.escape(caveat) in text
    shown = set(re.findall(r'<data value="([^"]+)">', text))
    for model in beside.models:
        values = (model.quality, *model.mean.values(), *model.median.values())
        assert {repr(value) for value in values} <= shown
    assert '<span class="net net-0">0</span>' in text


def test_a_comparison_without_quality_predicts_nothing(tmp_path: Path) -> None:
    beside = replace(comparison(), quality="", predictions=(), caveats=())
    records.save(beside, tmp_path / "comparison.json")
    text = markup(render(tmp_path))
    assert "Does a number order" not in text
    assert "rank correlation" not in text.lower()
    records.save(replace(beside, quality="loss"), tmp_path / "comparison.json")
    assert "A rank correlation needs at least three models" in markup(render(tmp_path))


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["net-1.pt", "net-2.pt"], ("1", "2")),
        (["resnet20-ab.th", "resnet32-cb.th"], ("resnet20-ab", "resnet32-cb")),
        (["a", "ab"], ("a", "ab")),
        (["x-1", "x-1-2"], ("1", "1-2")),
        (["x-", "x-1"], ("x-", "x-1")),
        (["only.pt"], ("only.pt",)),
        ([], ()),
    ],
)
def test_names_lose_what_all_of_them_share(names: list[str], short: tuple[str, ...]) -> None:
    assert without_common(names) == short


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"holds no results: a report needs at least one of"):
        render(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["network,epoch\nplain,x\n", "a\n1\n", "\xff"])
def test_a_damaged_history_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.csv").write_bytes(text.encode("latin-1") + b"\nplain,nan")
    with pytest.raises(RecordError, match="is not a history of tailor"):
        render(tmp_path)


def test_the_same_records_give_the_same_bytes(report: Path, tmp_path: Path) -> None:
    assert render(fill(tmp_path)).read_bytes() == report.read_bytes()


def test_nothing_is_loaded_from_elsewhere(report: Path) -> None:
    text = report.read_text("utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r'(?:src|href)="(?!#)', markup(report))
    assert not re.search(r"url\(|@import", text.split("</style>")[0])


# ---- in a browser -------------------------------------------------------------------------

PHONE, DESK = (390, 844), (1280, 900)


def _need(*names: str) -> str:
    for name in names:
        if path := shutil.which(name):
            return path
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {names[0]}")
    return pytest.skip(f"{names[0]} is not installed")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium = _need("chromium", "chromium-browser", "google-chrome")
    chromedriver = _need("chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=chromedriver)
    )
    driver.get("about:blank")  # not the browser's own first tab
    yield driver
    driver.quit()


def visit(browser: Any, report: Path, size: tuple[int, int], scheme: str = "light") -> None:
    """Open the page afresh, with empty logs."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE},
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.get(report.as_uri())


def draw_all(browser: Any) -> int:
    """Open every matrix and draw every figure."""
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    plots = browser.find_elements("css selector", ".plot")
    for plot in plots:
        draw(browser, plot)
    return len(plots)


def draw(browser: Any, plot: Any) -> None:
    """Scroll to a figure and wait for its traces."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plot
    )
    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda _: drawn(browser, plot))


def drawn(browser: Any, plot: Any) -> bool:
    made: bool = browser.execute_script(
        "return arguments[0].querySelector('.main-svg') !== null &&"
        "arguments[0].querySelector('.trace path, .trace .point, .trace .js-line') !== null",
        plot,
    )
    return made


@pytest.mark.browser
def test_complaints_come_into_the_log(browser: Any, tmp_path: Path) -> None:
    """The check below can see a refused script and a request."""
    page = tmp_path / "bad.html"
    page.write_text(
        "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\">"
        "<script>1</script><img src='other.png'>"
    )
    visit(browser, page, DESK)
    assert complaints(browser)
    assert len(requests(browser)) > 1


def complaints(browser: Any) -> list[dict[str, Any]]:
    return [e for e in browser.get_log("browser") if e["level"] in ("WARNING", "SEVERE")]


def requests(browser: Any) -> list[str]:
    """What was asked for, but for the browser's own first tab, which may still be loading."""
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and not message["params"]["documentURL"].startswith("chrome://")
    ]


@pytest.mark.browser
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_every_figure_is_drawn_without_complaint(
    browser: Any, report: Path, size: tuple[int, int]
) -> None:
    visit(browser, report, size)
    assert draw_all(browser) == 15
    width, window = browser.execute_script(
        "return [document.scrollingElement.scrollWidth, innerWidth]"
    )
    assert width <= window == size[0]
    cells = browser.execute_script(
        "return ['numbers', 'all'].map("
        "(kind) => document.querySelectorAll(`details[data-${kind}] td`).length)"
    )
    assert min(cells) > 100
    assert complaints(browser) == []
    assert requests(browser) == [report.as_uri()]


@pytest.mark.browser
def test_colours_follow_the_system_and_the_button(browser: Any, report: Path) -> None:
    def paper() -> str:
        colour: str = browser.execute_script(
            "return getComputedStyle(document.body).backgroundColor"
        )
        return colour

    def line() -> str:
        stroke: str = browser.execute_script(
            "return document.querySelector('#loss .js-line').style.stroke"
        )
        return stroke

    def seen(scheme: str) -> tuple[str, str]:
        visit(browser, report, DESK, scheme)
        draw(browser, browser.find_element("id", "loss"))
        return paper(), line()

    dark, light = seen("dark"), seen("light")
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    browser.execute_script("document.getElementById('theme').click()")
    assert (paper(), line()) == dark
    browser.execute_script("document.getElementById('theme').click()")
    assert (paper(), line()) == light


@pytest.mark.browser
def test_hostile_names_do_not_run(browser: Any, tmp_path: Path) -> None:
    records.save(hostile(), tmp_path / "analysis.json")
    report = render(tmp_path)
    visit(browser, report, DESK)
    assert draw_all(browser) == 8
    assert browser.execute_script("return document.images.length") == 0
    said = browser.execute_script("return document.querySelector('.layer b').textContent")
    assert said == f"{EVIL}0"
    legend = browser.execute_script("return document.querySelector('.legendtext').textContent")
    assert legend.startswith(EVIL[:10])
    assert complaints(browser) == []
    assert requests(browser) == [report.as_uri()]


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sixty")
    records.save(Analyses(analyses=(crowd(60),)), folder / "analysis.json")
    return render(folder)


@pytest.fixture
def many(browser: Any, sixty: Path) -> Any:
    """The page of sixty matrices, opened."""
    visit(browser, sixty, DESK)
    return browser


def column(browser: Any, place: int) -> list[str]:
    cells: list[str] = browser.execute_script(
        "return [...document.querySelectorAll('#listing tbody tr:not([hidden])')]"
        ".map((row) => row.cells[arguments[0]].textContent)",
        place,
    )
    return cells


@pytest.mark.browser
def test_a_table_is_sorted_by_number_and_by_name(many: Any) -> None:
    def click(head: str) -> None:
        many.execute_script(
            "[...document.querySelectorAll('#listing thead button')]"
            ".find((one) => one.textContent === arguments[0]).click()",
            head,
        )

    names = [f"l{i}" for i in range(60)]
    click("no.")
    assert column(many, 1) == names
    click("no.")
    assert column(many, 1) == names[::-1]
    click("matrix")
    assert column(many, 1) == names  # l9 before l10
    click("verdict")
    assert column(many, 5) == ["undecided"] * 30 + ["well-trained"] * 30
    assert complaints(many) == []


@pytest.mark.browser
def test_a_table_is_filtered_by_name_and_verdict(many: Any) -> None:
    many.find_element("css selector", "form.filter input").send_keys("L5")
    assert column(many, 1) == ["l5", *(f"l5{i}" for i in range(10))]
    many.find_element("css selector", "form.filter select").send_keys("well-trained")
    assert column(many, 1) == ["l5", "l51", "l53", "l55", "l57", "l59"]
    assert many.find_element("css selector", "form.filter output").text == "6 of 60 rows"


@pytest.mark.browser
def test_a_click_on_a_row_opens_its_matrix_and_draws_it(many: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    assert many.execute_script("return document.querySelectorAll('.layer .main-svg').length") == 0
    many.execute_script("document.querySelectorAll('#listing tbody tr')[41].cells[3].click()")
    plot = many.find_element("id", "matrix-41-scan")
    WebDriverWait(many, 20, poll_frequency=0.05).until(lambda _: drawn(many, plot))
    opened = many.execute_script(
        "return [...document.querySelectorAll('.layer[open]')].map((one) => one.id)"
    )
    assert opened == ["matrix-0", "matrix-41"]
    top = many.execute_script(
        "return arguments[0].closest('.layer').getBoundingClientRect().top", plot
    )
    assert 0 <= top < DESK[1]
    assert complaints(many) == []
