"""Figures, tables and numbers as the HTML and the words of a page."""

import base64
import html
import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from string import Template
from typing import Any
from urllib.parse import quote

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

from lsdask import __version__
from lsdask.report.maps import INK, WIDTH

DPI = 200
"""Of the pictures in a figure: 1080 pixels across, two for each of a page's."""

DARK_INK = "#e6eaef"

LONG = 1.3
"""Figures more than so many times as high as wide keep their height; others fit a screen's."""


def embed(figure: Figure) -> str:
    """Turn a figure into a data URI: SVG whose text follows light and dark, its pictures as WebP."""
    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lsdask"}):
        figure.savefig(
            drawn,
            format="svg",
            dpi=DPI,
            transparent=True,
            bbox_inches="tight",
            pad_inches=0.03,
            metadata={"Date": None},
        )
    svg = re.sub(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", _recompress, drawn.getvalue().decode())
    svg = re.sub(r"^.*?(?=<svg )", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    ink = f"<style>:root{{--ink:{INK}}}@media(prefers-color-scheme:dark){{:root{{--ink:{DARK_INK}}}}}</style>"
    svg = re.sub(r"(<svg [^>]*>)", rf"\1{ink}", svg, count=1).replace(f": {INK}", ": var(--ink)")
    return "data:image/svg+xml," + quote(svg, safe=" /:;,=+()'!*&?@$[]{}|^~-_.")


def _recompress(match: re.Match[str]) -> str:
    """Turn an embedded PNG into WebP, without loss where it has few colours."""
    picture = Image.open(io.BytesIO(base64.b64decode(match[1])))
    packed = io.BytesIO()
    few = picture.getcolors(maxcolors=512) is not None
    picture.save(packed, "webp", lossless=few, quality=80 if few else 88, method=2)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode()


def card(title: str, figure: Figure, caption: str) -> str:
    """Make a figure of the page: title, picture and caption (plain text); a wide one takes a row."""
    width, height = figure.get_size_inches()
    kind = " ".join(["card", *(["wide"] if width > WIDTH else []), *(["long"] if height > LONG * width else [])])
    alt = html.escape(f"{title}. {caption}", quote=True)
    return (
        f'<figure class="{kind}"><h3>{html.escape(title)}</h3>'
        f'<img alt="{alt}" src="{embed(figure)}"><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


def area_text(m2: float) -> str:
    """Say an area in the unit that suits it.

    Examples
    --------
    >>> area_text(5286), area_text(3.21e7)
    ('5,286 m²', '32.1 km²')
    """
    if m2 < 1e5:
        return f"{m2:,.0f} m²"
    km2 = m2 / 1e6
    return f"{km2:,.0f} km²" if km2 >= 100 else f"{km2:.3g} km²"


def share_text(share: float) -> str:
    """Say a share so that 0 and 100 % are only said when they are true.

    Examples
    --------
    >>> share_text(0.8449), share_text(0.9972), share_text(0.99999), share_text(1.0)
    ('84%', '99.7%', '> 99.9%', '100%')
    """
    if share in (0.0, 1.0) or 0.005 <= share < 0.995:
        return f"{share:.0%}"
    return f"{share:.1%}" if 0.0005 <= share < 0.9995 else ("> 99.9%" if share > 0.5 else "< 0.1%")


def seconds_text(seconds: float) -> str:
    """Say a duration.

    Examples
    --------
    >>> seconds_text(3.21), seconds_text(75), seconds_text(7300)
    ('3.2 s', '1 min 15 s', '2 h 2 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def table(rows: Sequence[Sequence[Any]], *, head: Sequence[str] = (), kind: str = "") -> str:
    """Make an HTML table; the first column names, the others are numbers or text."""
    line = "<tr>{}</tr>".format
    cells = "".join(
        line(f"<th scope=row>{html.escape(str(row[0]))}</th>" + "".join(f"<td>{_cell(c)}</td>" for c in row[1:]))
        for row in rows
    )
    names = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in head)
    top = f"<thead>{line(names)}</thead>" if head else ""
    return f'<div class="scroll"><table class="{kind}">{top}<tbody>{cells}</tbody></table></div>'


class Markup(str):
    """Text that is HTML already."""


def _cell(value: Any) -> str:
    return value if isinstance(value, Markup) else html.escape(str(value))


def section(title: str, content: str) -> str:
    """Make a section of a page; the content is HTML."""
    return f'<h2>{html.escape(title)}</h2>\n<section class="row">{content}</section>'


def document(
    *, kicker: str, title: str, lead: str, sections: Sequence[str], top: str = "", style: str = "", script: str = ""
) -> str:
    """Put a page together, as HTML that needs no other file.

    Parameters
    ----------
    kicker, title, lead : str
        What kind of page it is, its heading, and what was found; plain text.
    sections : sequence of str
        As ``section`` makes them.
    top : str
        HTML below the lead.
    style, script : str
        Beyond the house's.
    """
    return DOCUMENT.substitute(
        kicker=html.escape(kicker),
        title=html.escape(title),
        lead=html.escape(lead),
        top=top and f"{top}\n",
        body="\n".join(sections),
        style=STYLE + style,
        end=script and f"<script>{script}</script>\n",
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=html.escape(__version__),
    )


STYLE = """
:root{--paper:#f5f6f8;--card:#fff;--ink:#1c2733;--soft:#5d6874;--line:#e1e5ea;--accent:#0b6e66;--tint:#e3f2f0}
@media(prefers-color-scheme:dark){:root{--paper:#0e1419;--card:#161e25;--ink:#e6eaef;--soft:#9ba7b3;--line:#28323c;
--accent:#5fd3c5;--tint:#12302d}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main,header,footer{max-width:1160px;margin:0 auto;padding:0 20px}
header{padding-top:44px}
.kicker{margin:0;color:var(--accent);font-weight:600;font-size:13px;letter-spacing:.06em;text-transform:uppercase}
h1{margin:6px 0 12px;font-size:clamp(27px,4.6vw,42px);line-height:1.15;letter-spacing:-.015em;text-wrap:balance}
.lead{margin:0;max-width:46em;font-size:clamp(17px,2vw,20px);color:var(--soft);text-wrap:pretty}
h2{margin:44px 0 14px;font-size:22px;letter-spacing:-.01em}
h3{margin:0 0 10px;font-size:15px;font-weight:600}
.row{display:grid;gap:18px;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));align-items:stretch}
.scores-row{display:grid;gap:12px;margin-top:28px;grid-template-columns:repeat(auto-fit,minmax(135px,1fr))}
.score,.card{background:var(--card);border:1px solid var(--line);border-radius:12px}
.score{padding:14px 16px;display:flex;flex-direction:column}
.score b{font-size:30px;line-height:1.15;font-weight:650;font-variant-numeric:tabular-nums;letter-spacing:-.02em}
.score span{font-weight:600;font-size:14px}
.score small{color:var(--soft);font-size:12.5px;line-height:1.35}
.score i{margin-top:auto;padding-top:6px;font:12px/1.4 system-ui,sans-serif;color:var(--soft);
font-variant-numeric:tabular-nums}
.next{margin-top:22px}
.note{margin:10px 0 0;color:var(--soft);font-size:13px}
.score:first-child{background:var(--tint);border-color:var(--accent)}
.score:first-child b{color:var(--accent)}
.card{margin:0;padding:16px 18px;min-width:0}
.wide{grid-column:1/-1}
.card img{display:block;width:100%;height:auto;max-height:600px;object-fit:contain}
.long img{max-width:720px;max-height:none;margin:auto}
figcaption{margin-top:10px;color:var(--soft);font-size:13.5px;line-height:1.45}
.scroll{overflow-x:auto}
table{width:100%;border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:500;padding:6px 14px 6px 0;vertical-align:top}
thead th{color:var(--soft);font-size:12.5px}
td{padding:6px 0 6px 14px;text-align:right;vertical-align:top}
thead th:not(:first-child){text-align:right;padding:6px 0 6px 14px}
tbody tr+tr>*,thead+tbody tr>*{border-top:1px solid var(--line)}
.facts td{text-align:left;color:var(--soft)}
.facts th{white-space:nowrap}
.facts td{overflow-wrap:anywhere;color:var(--ink)}
.bars td:nth-child(2){white-space:nowrap;width:1%}
.bars td:last-child{width:45%}
.bars i{display:block;height:10px;margin-top:6px;background:var(--accent);border-radius:3px;min-width:2px;opacity:.85}
footer{margin-top:44px;padding-bottom:40px;color:var(--soft);font-size:13px}
@media(max-width:900px){.scores-row{grid-template-columns:repeat(3,1fr)}}
@media(max-width:560px){main,header,footer{padding-left:14px;padding-right:14px}header{padding-top:28px}
.scores-row{grid-template-columns:1fr 1fr}.card{padding:14px}.score b{font-size:26px}}
@media print{body{background:#fff}.card,.score{break-inside:avoid}}
"""

DOCUMENT = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<p class="kicker">$kicker</p>
<h1>$title</h1>
<p class="lead">$lead</p>
$top</header>
<main>
$body
</main>
<footer>Made by lsdask $version, $date.</footer>
$end</body>
</html>
""")
