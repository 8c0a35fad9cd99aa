"""The documentation runs: what a reader can copy out of it has to work.

CONTRIBUTING.md ("Documentation that runs") states the convention that these tests rely on.
"""

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(
    r"^(?P<mark><!-- not run: .+ -->\n)?```(?P<language>console|bash|python)[^\n]*\n"
    r"(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """One fenced block; `runs` is false below a `<!-- not run: reason -->` line."""

    language: str
    text: str
    runs: bool

    def commands(self, program: str) -> list[list[str]]:
        """Arguments of each line that reads `$ program ...`."""
        if self.language == "python":
            return []
        lines = self.text.replace("\\\n", " ").splitlines()
        words = [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]
        return [arguments for name, *arguments in filter(None, words) if name == program]


def blocks(page: Path) -> list[Block]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["language"], match["text"], match["mark"] is None) for match in found]


def tailor(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tailor", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@functools.cache
def help_text(verb: str) -> str:
    answer = tailor(verb, "--help", folder=ROOT)
    assert answer.returncode == 0, f"`tailor {verb} --help` failed:\n{answer.stderr}"
    return answer.stdout


def assert_known(arguments: list[str]) -> None:
    """The verb exists, and its help lists every option that the command uses."""
    verb, *rest = arguments
    if verb.startswith("-"):  # `tailor --version`
        return
    for option in (word.split("=")[0] for word in rest if word.startswith("--")):
        known = re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", help_text(verb))
        assert known, f"`tailor {verb}` has no option {option}"
    help_text(verb)


def test_readme_shows_commands_and_code():
    # Guards the other tests: if the pattern stopped matching, they would pass on nothing.
    found = blocks(README)
    assert any(block.commands("tailor") for block in found)
    assert any(block.commands("make") for block in found)
    assert any(block.language == "python" and block.runs for block in found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for block in blocks(page):
        for arguments in block.commands("make"):
            named = {word for word in arguments if "=" not in word and not word.startswith("-")}
            assert named <= targets, f"make has no target {sorted(named - targets)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page):
    for block in blocks(page):
        for arguments in block.commands("tailor"):
            assert_known(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, page.name, "exec")


def test_front_page_runs(tmp_path, monkeypatch):
    run_from_top_to_bottom(README, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES[2:] if any(b.language == "python" and b.runs for b in blocks(page))],
    ids=lambda page: page.name,
)
def test_guides_run(page, tmp_path, monkeypatch):
    run_from_top_to_bottom(page, tmp_path, monkeypatch)


def run_from_top_to_bottom(page, tmp_path, monkeypatch):
    """Blocks share one folder and one namespace, so later ones may use what earlier ones made.

    A Python block that begins with a comment such as ``# mytask.py`` is that file. Commands run
    only in the README: elsewhere they are about files that the reader has.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace = {"__name__": page.stem}
    for block in filter(lambda block: block.runs, blocks(page)):
        if block.language == "python":
            if named := re.match(r"# (\w+\.py)\n", block.text):
                Path(named[1]).write_text(block.text, encoding="utf-8")
            exec(compile(block.text, page.name, "exec"), namespace)
        for arguments in block.commands("tailor") if page == README else []:
            if arguments[:1] == ["demo"]:  # minutes long; the demo has its own test
                continue
            answer = tailor(*arguments, folder=tmp_path)
            shown = f"$ tailor {shlex.join(arguments)}\n{answer.stdout}{answer.stderr}"
            assert answer.returncode == 0, shown
