"""A page as a browser shows it, without a network: whether its figures are drawn and its tables sort."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

LOOK = """
<script>
addEventListener("load", () => {
  const column = table => [...table.tBodies[0].rows].map(row => row.cells[row.cells.length - 1].textContent);
  const tables = [...document.querySelectorAll("table.sortable")].map(table => {
    const before = column(table), head = [...table.tHead.rows[0].cells].at(-1);
    head.click();
    const up = column(table);
    head.click();
    return {before, up, down: column(table), sorted: head.getAttribute("aria-sort")};
  });
  const images = [...document.images];
  const drawn = images.filter(image => image.complete && image.naturalWidth > 0).length;
  const found = document.createElement("script");
  found.id = "found";
  found.type = "application/json";
  found.textContent = JSON.stringify({images: images.length, drawn, tables});
  document.body.append(found);
});
</script>
"""


def look(page: Path, scratch: Path) -> dict:
    """Open a page in headless Chromium, offline, and click on the last column of each table, twice."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium")
    copy = scratch / "page.html"
    copy.write_text(page.read_text().replace("</body>", LOOK + "</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    flags += [f"--user-data-dir={scratch / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"]
    dom = subprocess.run([browser, *flags, copy.as_uri()], capture_output=True, text=True, timeout=120).stdout
    return json.loads(re.search(r'<script id="found"[^>]*>(.*?)</script>', dom, re.DOTALL)[1])


def check(page: Path, scratch: Path, *, tables: int, figures: int) -> None:
    """Hold a report to its number of tables and figures: all drawn, all sorting, nothing fetched."""
    assert not re.search(r"(src|href)=.(https?:)?//", page.read_text())
    found = look(page, scratch)
    assert (found["images"], found["drawn"]) == (figures, figures)
    assert len(found["tables"]) == tables
    for table in found["tables"]:
        assert [key(text) for text in table["up"]] == sorted(map(key, table["before"]))
        assert [key(text) for text in table["down"]] == sorted(map(key, table["before"]), reverse=True)
        assert table["sorted"] == "descending"


def key(text: str) -> tuple[float, str]:
    """Order numbers as numbers, what is missing first, words as words."""
    plain = text.replace(",", "")
    if text == "-":
        return float("-inf"), ""
    return (float(plain), "") if re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", plain) else (0.0, text)
