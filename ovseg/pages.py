"""Pages of HTML that ask for nothing from elsewhere, and charts in them as inline SVG.

Charts take the page's text colour, and every mark has a tooltip. Lengths are SVG units, pixels at
normal size.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

# Okabe and Ito's colours, told apart with every common kind of colour vision.
ACCENT = "#0072b2"
ACCENT_2 = "#d55e00"
_CURVES = (ACCENT, ACCENT_2, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 220, 62, 30, 10
_MOST_POINTS = 400  # of a curve: more than there are pixels for

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --faint: #8884; --soft: #6b6b6b; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181c; --ink: #e8e8e8; --soft: #a0a0a0; }
}
body { font: 15px/1.5 system-ui, sans-serif; background: var(--paper); color: var(--ink);
  max-width: 1120px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p.note { color: var(--soft); margin-top: 0; max-width: 46rem; }
.columns { display: flex; flex-wrap: wrap; gap: 2.5rem; align-items: flex-start; }
table { border-collapse: collapse; } td, th { padding: .2rem .7rem; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr + tr td { border-top: 1px solid var(--faint); }
.big { font-size: 3rem; font-weight: 600; line-height: 1.1; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 12px; }
svg .grid { stroke: var(--faint); } svg .cell { stroke: var(--faint); }
figure { margin: 0 0 1.5rem; } figure img { width: 100%; border-radius: 3px; display: block; }
.triple { display: grid; grid-template-columns: repeat(3, 1fr); gap: .5rem; }
figcaption { margin-top: .3rem; } .swatch { display: inline-block; width: .8em; height: .8em;
  margin: 0 .3em 0 .9em; border: 1px solid var(--soft); }
.scroll { overflow-x: auto; }
"""

Curve = Sequence[tuple[float, float]]


def page(title: str, parts: Sequence[str]) -> str:
    """A page; its parts are HTML, its title is text."""
    head = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
    ]
    return "\n".join([*head, *parts, "</body></html>"]) + "\n"


def rows(entries: Sequence[tuple[str, str]], *, number: bool = True) -> str:
    """A table of names and values, both text."""
    kind = ' class="number"' if number else ""
    cells = (f"<tr><td>{escape(a)}</td><td{kind}>{escape(b)}</td></tr>" for a, b in entries)
    return "<table>" + "".join(cells) + "</table>"


def svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """A drawing of some parts, with a label for those who cannot see it."""
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{escape(label)}">' + "".join(parts) + "</svg>"
    )


def line_chart(curves: Mapping[str, Curve], label: str, along: str = "step") -> str:
    """Curves over one axis, each with its name and its last value in the legend.

    Args:
        curves: points (x, y) by x, by the names of the curves; those without points are left out.
        label: what is shown.
        along: what x is.
    """
    shown = {name: _thinned(curve) for name, curve in curves.items() if curve}
    if not shown:
        return ""
    xs = [x for curve in shown.values() for x, _ in curve]
    ys = [y for curve in shown.values() for _, y in curve]
    ticks = _ticks(min(ys), max(ys))
    low, high = ticks[0], ticks[-1]
    first, last = min(xs), max(xs)

    def place(x: float, y: float) -> tuple[float, float]:
        share = (x - first) / (last - first) if last > first else 0.5
        up = (y - low) / (high - low)
        return _LEFT + share * (_WIDTH - _LEFT - 12), _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - up)

    parts = [_line_across(tick, place(first, tick)[1]) for tick in ticks]
    for x, anchor in ((first, "start"), (last, "end")):
        at = place(x, low)[0]
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 10}" text-anchor="{anchor}">{x:g}</text>')
    middle = (_LEFT + _WIDTH) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(along)}</text>'
    )
    legend = []
    for number, (name, curve) in enumerate(shown.items()):
        colour = _CURVES[number % len(_CURVES)]
        parts.append(_curve(name, [place(*point) for point in curve], colour))
        legend.append(
            f'<span class="swatch" style="background:{colour}"></span>'
            f"{escape(name)} {curve[-1][1]:.4g}"
        )
    drawing = svg(_WIDTH, _HEIGHT, parts, label)
    return f"<figure>{drawing}<figcaption>{''.join(legend)}</figcaption></figure>"


def _line_across(tick: float, y: float) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 12}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
    )


def _curve(name: str, places: Curve, colour: str) -> str:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    mark = ""
    if len(places) == 1:
        mark = f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="4" fill="{colour}"/>'
    return (
        f'<g><title>{escape(name)}</title><polyline points="{line}" fill="none" '
        f'stroke="{colour}" stroke-width="1.5"/>{mark}</g>'
    )


def _thinned(curve: Curve) -> Curve:
    """Means of neighbours where there are more points than can be seen."""
    group = -(-len(curve) // _MOST_POINTS)
    if group == 1:
        return curve
    parts = [curve[at : at + group] for at in range(0, len(curve), group)]
    return [
        (sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts
    ]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from below the lowest value to above the highest."""
    span = high - low or abs(high) or 1.0
    rough = span / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * number for number in range(first, max(last, first + 1) + 1)]
