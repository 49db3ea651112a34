"""The site: its pages' code runs and prints what they say; it builds without a warning and leads nowhere else."""

import functools
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import lsdask as ls

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = {"from-a-catalogue-to-a-mosaic.md"}
"""Pages whose code ``test_docs.py`` runs, which makes what they need."""

SLOW = {"clusters.md", "predict-over-a-continent.md"}
"""Pages that start processes."""


def pages_with_code() -> list[Any]:
    pages = [page.relative_to(DOCS) for page in DOCS.rglob("*.md") if "```python\n" in page.read_text()]
    names = sorted(str(page) for page in pages if page.parts[0] != "_build")
    slow = [pytest.mark.slow, pytest.mark.cluster]
    return [pytest.param(name, marks=slow if name in SLOW else []) for name in names if name not in ELSEWHERE]


@pytest.mark.parametrize("page", pages_with_code())
def test_a_pages_code_runs_and_prints_what_the_page_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run((DOCS / page).read_text(), page)


def run(text: str, page: str) -> None:
    """Run the ``python`` blocks of a page in order; a ``text`` block after one is what it prints, bars apart."""
    printed = io.StringIO()
    space: dict[str, Any] = {"__name__": "__main__", "print": functools.partial(print, file=printed)}
    for kind, body in FENCE.findall(text):
        if kind == "text":
            assert printed.getvalue() == body, page
            continue
        printed.seek(0)
        printed.truncate()
        exec(compile(body, page, "exec"), space)


def test_a_page_that_prints_something_else_is_found() -> None:
    run("```python\nprint(1)\n```\n\n```text\n1\n```\n", "right")
    with pytest.raises(AssertionError, match="wrong"):
        run("```python\nprint(2)\n```\n\n```text\n1\n```\n", "wrong")


class Page(HTMLParser):
    """What a built page names: the targets of its links, what it loads, the places in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.places: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        self.loaded |= {given[name] for name in ("src", "srcset", "data", "poster") if name in given}
        if tag == "link" and "href" in given and given.get("rel") not in ("canonical",):
            self.loaded.add(given["href"])
        elif "href" in given:
            self.links.add(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it; a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-d", str(out / "trees")]
    done = subprocess.run(
        [*command, "-b", "html", str(DOCS), str(out / "html")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}  # the theme's templates


@pytest.mark.slow
def test_every_link_inside_the_site_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    dead = [
        f"{path.relative_to(site)} -> {link}"
        for path, page in pages.items()
        for link in page.links
        if not urlsplit(link).scheme and not _leads(path, link, pages)
    ]
    assert dead == []


def _leads(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    there = target.is_file() and (target in pages or not parts.fragment)
    return there and (not parts.fragment or unquote(parts.fragment) in {*pages[target].places, ""})


@pytest.mark.slow
def test_links_to_other_sites_are_well_formed(pages: dict[Path, Page]) -> None:
    outside = {link for page in pages.values() for link in page.links if urlsplit(link).scheme}
    assert outside
    assert [link for link in outside if not re.fullmatch(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(/[^\s]*)?", link)] == []


@pytest.mark.slow
def test_a_reader_without_a_network_sees_all_of_it(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {
        (path, part) for path, page in pages.items() for part in page.loaded if not part.startswith(("data:", "#"))
    }
    assert [part for _, part in loaded if urlsplit(part).netloc] == []
    assert [part for path, part in loaded if not (path.parent / unquote(urlsplit(part).path)).is_file()] == []
    styles = "\n".join(path.read_text() for path in site.rglob("*.css"))
    fetched = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")]+)", styles)
    assert fetched == []


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(site: Path, pages: dict[Path, Page]) -> None:
    missing = [
        f"lsdask.{room}.{name}"
        for room, name in _public()
        if f"lsdask.{room}.{name}" not in pages[site / "reference" / f"{room}.html"].places
    ]
    assert missing == []
    assert "lsdask.recipes.demo.run" in pages[site / "reference" / "recipes.html"].places


def _public() -> Iterator[tuple[str, str]]:
    for room in set(ls.ROOMS) - {"cli"}:
        module = getattr(ls, room)
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        yield from ((room, name) for name in getattr(module, "__all__", own) if not name.startswith("_"))


@pytest.mark.slow
def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    text = (site / "reference" / "command.html").read_text()
    for name, command in _commands().items():
        assert f"lsdask {name}" in text
        for flags in command:
            assert f">{flags}<" in text, f"{name} {flags}"


def _commands() -> dict[str, list[str]]:
    """Each command's options, as a process without this one's imports tells them."""
    code = (
        "import json, typer; from lsdask import cli; g = typer.main.get_command(cli.app);"
        "print(json.dumps({n: [o for p in c.params if p.param_type_name == 'option' for o in p.opts]"
        " for n, c in g.commands.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_measured_tables_are_those_of_the_benchmarks(site: Path) -> None:
    rows = [line for line in (ROOT / "benchmarks" / "README.md").read_text().splitlines() if line.startswith("| B")]
    built = (site / "performance.html").read_text()
    assert len(rows) > 5
    for row in rows:
        assert f"<p>{row.split('|')[1].strip()}</p>" in built
