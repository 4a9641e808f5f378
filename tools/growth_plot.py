"""Draw scores over how many photos they took, as an SVG."""

import math
from collections.abc import Mapping, Sequence

Points = Sequence[tuple[int, float]]
"""How many photos, and a score, 0..1."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 560, 320, 44, 34, 10, 130
_APART = 14
"""Pixels from one name to the next at least."""


def drawn(measured: Mapping[str, Points], lines: Mapping[str, Points], title: str) -> str:
    """An SVG: photos across, in logarithms, scores in percent upwards.

    Args:
        measured: dots, by name.
        lines: through points; those with the name of dots have their colour.
        title: what is shown.
    """
    names = list(dict.fromkeys([*measured, *lines]))
    every = [point for points in (*measured.values(), *lines.values()) for point in points]
    photos = sorted({count for points in measured.values() for count, _ in points})
    ceiling = max(math.ceil(20 * max(value for _, value in every)), 1) / 20
    low, high = math.log10(photos[0]), math.log10(photos[-1])

    def place(count: int, value: float) -> tuple[float, float]:
        along = (math.log10(count) - low) / max(high - low, 1e-9)
        x = _LEFT + along * (_WIDTH - _LEFT - _RIGHT)
        return x, _TOP + (_HEIGHT - _BOTTOM - _TOP) * (1 - value / ceiling)

    under = f'y="{_HEIGHT - 12}" text-anchor="middle"'
    parts = [f'<text x="{place(n, 0)[0]:.1f}" {under}>{n:,}</text>' for n in photos]
    parts += [_level(ceiling * step / 4, place(photos[0], ceiling * step / 4)) for step in range(5)]
    colours = dict(zip(names, COLOURS, strict=False))
    for name, points in lines.items():
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*each) for each in points))
        parts.append(f'<polyline points="{line}" stroke="{colours[name]}" fill="none"/>')
    for name, points in measured.items():
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colours[name]}"/>'
            for x, y in (place(*each) for each in points)
        ]
    ends = {name: place(*(measured.get(name) or lines[name])[-1]) for name in names}
    parts += [
        f'<text x="{ends[name][0] + 10:.1f}" y="{y + 4:.1f}" fill="{colours[name]}">{name}</text>'
        for name, y in _apart({name: y for name, (_, y) in ends.items()}).items()
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12"><title>{title}</title>{"".join(parts)}</svg>\n'
    )


def _level(value: float, place: tuple[float, float]) -> str:
    """A line across, and its percentage."""
    x, y = place
    return (
        f'<line x1="{x:.1f}" x2="{_WIDTH - _RIGHT + 5}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ccc"/>'
        f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.3g}</text>'
    )


def _apart(heights: Mapping[str, float]) -> dict[str, float]:
    """Heights of names, so that none covers another: the upper ones move up."""
    found: dict[str, float] = {}
    free = math.inf
    for name, y in sorted(heights.items(), key=lambda each: -each[1]):
        found[name] = min(y, free)
        free = found[name] - _APART
    return found
