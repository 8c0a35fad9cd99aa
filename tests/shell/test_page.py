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

from tailor import records
from tailor.errors import RecordError
from tailor.shell.page import render
from tailor.stages.analyze import Analyses
from tests.shell.test_figures import analyses, certificate, compression, history

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
    found = [analyses(), compression(), certificate(), *history()]
    wanted = {repr(number) for record in found for number in numbers(records.to_json(record))}
    assert len(wanted) > 80
    assert wanted <= shown


def test_every_text_of_the_certificate_is_shown(report: Path) -> None:
    text, proof = markup(report), certificate()
    said = [proof.claim, *proof.assumptions, proof.task, *proof.code.parts]
    said += [proof.model_sha256, proof.data_sha256, proof.sha256]
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
    (one, *_) = analyses().analyses
    layers = tuple(replace(la, name=f"{EVIL}{i}") for i, la in enumerate(one.layers))
    return Analyses(analyses=(replace(one, source=EVIL, layers=layers),))


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
    assert text.count('class="plot"') == 6
    assert "5 values, needs 20" in text
    for name in ("0.bias", "2.bias"):
        assert text.count(f'<th scope="row">{name}</th>') == 2


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
    messages = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


@pytest.mark.browser
@pytest.mark.parametrize("size", [DESK, PHONE])
def test_every_figure_is_drawn_without_complaint(
    browser: Any, report: Path, size: tuple[int, int]
) -> None:
    visit(browser, report, size)
    assert draw_all(browser) == 13
    width, window = browser.execute_script(
        "return [document.scrollingElement.scrollWidth, innerWidth]"
    )
    assert width <= window == size[0]
    cells = browser.execute_script(
        "return [...document.querySelectorAll('details[data-numbers] td')].length"
    )
    assert cells > 100
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
    assert draw_all(browser) == 6
    assert browser.execute_script("return document.images.length") == 0
    said = browser.execute_script("return document.querySelector('.layer b').textContent")
    assert said == f"{EVIL}0"
    legend = browser.execute_script("return document.querySelector('.legendtext').textContent")
    assert legend.startswith(EVIL)
    assert complaints(browser) == []
    assert requests(browser) == [report.as_uri()]
