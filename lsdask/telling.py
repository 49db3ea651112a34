"""How numbers and results are told to a person: bytes and seconds as words, and tables that a notebook shows.

The HTML has no style sheet, no script and no colour of its own, so it reads on light and on dark alike.
"""

import html
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

_TABLE = "border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums"
_CELL = "text-align:left;vertical-align:top;padding:3px 14px 3px 0;border-top:1px solid rgba(128,128,128,.35)"
_NAME = f"{_CELL};font-weight:500;opacity:.7;white-space:nowrap"
_TEXT = f"{_CELL};max-width:52em;overflow-wrap:anywhere"
_HEAD = "text-align:left;font-weight:600;padding:0 0 5px;overflow-wrap:anywhere"


def table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Make the HTML of a short table: what each row is, and what there is to say of it.

    Parameters
    ----------
    title : str
        Stands above it. Like all text here it is escaped: nothing in it is taken for HTML.
    rows : iterable of (str, str)
        Names and texts.

    Returns
    -------
    str
        For a ``_repr_html_``.

    Examples
    --------
    >>> "<b>" in table("<b>", [("tiles", "<b>")])
    False
    """
    lines = "".join(
        f'<tr><th scope="row" style="{_NAME}">{html.escape(name)}</th><td style="{_TEXT}">{html.escape(text)}</td></tr>'
        for name, text in rows
    )
    head = f'<tr><th colspan="2" scope="colgroup" style="{_HEAD}">{html.escape(title)}</th></tr>'
    return f'<table style="{_TABLE}"><thead>{head}</thead><tbody>{lines}</tbody></table>'


def console(**options: Any) -> Any:
    """Give rich's console for a bar: in a notebook without ipywidgets one that writes a line at the end, as to a file.

    Parameters
    ----------
    **options
        As for ``rich.console.Console``.

    Returns
    -------
    rich.console.Console
    """
    from rich.console import Console

    console = Console(**options)
    if console.is_jupyter and not find_spec("ipywidgets"):  # of which rich would warn at every bar
        return Console(force_jupyter=False, force_terminal=False, **options)
    return console


def size(count: float) -> str:
    """Say a number of bytes.

    Examples
    --------
    >>> size(1_230_000_000)
    '1.23 GB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB"


def span(seconds: float) -> str:
    """Say how long something takes.

    Examples
    --------
    >>> span(90), span(3.2), span(7200)
    ('1.5 min', '3.2 s', '2 h')
    """
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"
