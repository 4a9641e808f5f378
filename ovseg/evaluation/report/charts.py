"""Charts as inline SVG: they take the page's text colour, and every mark has a tooltip.

Lengths are SVG units, pixels at normal size.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np

from ovseg.evaluation.report.summary import percent
from ovseg.evaluation.result import EvaluationResult, Swept
from ovseg.pages import ACCENT, ACCENT_2, svg

_LABEL_WIDTH = 150
_ROW = 20
_LEAST = 0.0005  # IoU that reads as 0.0
MATRIX_CLASSES = 40
"""Most classes that a heat map shows: beyond, cells are smaller than a pixel is worth."""


def lost_classes(result: EvaluationResult) -> list[str]:
    """Classes that occur and are hardly ever right: no bar would show."""
    pairs = zip(result.classes, result.scores.iou, strict=True)
    return [name for name, iou in pairs if iou < _LEAST]


def class_bars(result: EvaluationResult) -> str:
    """One bar per class that is not lost, IoU, best first, with a tick at the boundary IoU."""
    order = sorted(
        (index for index, iou in enumerate(result.scores.iou) if iou >= _LEAST),
        key=lambda index: -result.scores.iou[index],
    )
    width, scale = 640, 640 - _LABEL_WIDTH - 60
    parts = []
    for row, index in enumerate(order):
        plain, iou = result.classes[index], result.scores.iou[index]
        name = escape(plain)
        edge = result.boundary_iou[index]
        top = row * _ROW
        parts.append(
            f"<g><title>{name}: IoU {percent(iou)}, boundary IoU {percent(edge)}</title>"
            f'<text x="{_LABEL_WIDTH - 6}" y="{top + 14}" text-anchor="end">{_short(plain)}</text>'
            f'<rect x="{_LABEL_WIDTH}" y="{top + 3}" width="{max(iou * scale, 1):.1f}" height="14" '
            f'fill="{ACCENT}"/>'
            + _tick(edge, top, scale)
            + f'<text x="{_LABEL_WIDTH + np.fmax(iou, edge) * scale + 6:.1f}" y="{top + 14}">'
            f"{percent(iou)}</text>"
            "</g>"
        )
    return svg(width, max(len(order), 1) * _ROW + 4, parts, "IoU by class")


def _tick(edge: float, top: float, scale: float) -> str:
    if math.isnan(edge):
        return ""
    x = _LABEL_WIDTH + edge * scale
    return f'<rect x="{x - 1:.1f}" y="{top + 1}" width="3" height="18" fill="{ACCENT_2}"/>'


def confusion_map(result: EvaluationResult) -> str:
    """Rows are true classes, columns predictions; colour is the share of the true class.

    With many classes, those with the most true pixels are shown.
    """
    true = result.confusion.sum(1)
    shown = np.sort(np.argsort(-true, kind="stable")[:MATRIX_CLASSES])
    shown = shown[(true[shown] > 0) | (result.confusion.sum(0)[shown] > 0)]
    cell = 18 if len(shown) > 12 else 28
    parts = []
    for row, target in enumerate(shown):
        name = result.classes[target]
        middle = _LABEL_WIDTH + row * cell + cell / 2 + 4
        parts.append(
            f'<text x="{_LABEL_WIDTH - 6}" y="{middle}" text-anchor="end">{_short(name)}</text>'
            f'<text transform="translate({middle},{_LABEL_WIDTH - 6}) rotate(-90)">'
            f"{_short(name)}</text>"
        )
        for column, prediction in enumerate(shown):
            parts.append(_cell(result, int(target), int(prediction), row, column, cell))
    side = _LABEL_WIDTH + len(shown) * cell + 4
    return svg(side, side, parts, "Confusion matrix")


def _cell(
    result: EvaluationResult, target: int, prediction: int, row: int, column: int, cell: int
) -> str:
    true = int(result.confusion[target].sum())
    share = result.confusion[target, prediction] / true if true else 0.0
    colour = ACCENT if target == prediction else ACCENT_2
    title = (
        f"{percent(share)} % of {escape(result.classes[target])} is called "
        f"{escape(result.classes[prediction])}"
    )
    x, y = _LABEL_WIDTH + column * cell, _LABEL_WIDTH + row * cell
    # The square root lets small shares be seen.
    return (
        f'<rect class="cell" x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" '
        f'fill="{colour}" fill-opacity="{math.sqrt(share):.3f}"><title>{title}</title></rect>'
    )


def sweep_line(points: Sequence[Swept], chosen: float | None) -> str:
    """mIoU against the background threshold, with a line where the protocol has it."""
    width, height, left, bottom = 640, 240, 48, 30
    top = max([point.mean_iou for point in points if not math.isnan(point.mean_iou)] or [1.0])
    ceiling = max(math.ceil(top * 20) / 20, 0.05)

    along, named = _threshold_axis([point.threshold for point in points])

    def place(threshold: float, value: float) -> tuple[float, float]:
        x = left + along(threshold) * (width - left - 12)
        return x, (height - bottom) * (1 - value / ceiling) + 8

    ticks = {f"{threshold:.2g}": place(threshold, 0.0)[0] for threshold in named}
    parts = _grid(width, height, left, bottom, ceiling, ticks)
    dots = [(p, *place(p.threshold, p.mean_iou)) for p in points if not math.isnan(p.mean_iou)]
    line = " ".join(f"{x:.1f},{y:.1f}" for _, x, y in dots)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{ACCENT}" stroke-width="2"/>')
    parts += [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{ACCENT}">'
        f"<title>threshold {p.threshold:g}: mIoU {percent(p.mean_iou, 2)}</title></circle>"
        for p, x, y in dots
    ]
    if chosen is not None:
        x, _ = place(chosen, 0.0)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="8" y2="{height - bottom + 8}" '
            f'stroke="{ACCENT_2}" stroke-dasharray="5 4"/>'
            f'<text x="{x + 5:.1f}" y="{height - bottom}">in use: {chosen:g}</text>'
        )
    return svg(width, height + 20, parts, "mIoU by background threshold")


def _threshold_axis(
    thresholds: Sequence[float],
) -> tuple[Callable[[float], float], Sequence[float]]:
    """Where a threshold lies, 0 to 1, and which are named; small ones lie by their logarithms."""
    if max(thresholds) > 0.5:
        return lambda threshold: threshold, [step / 5 for step in range(6)]
    low, high = math.log(min(thresholds)), math.log(max(thresholds))
    return lambda threshold: (math.log(threshold) - low) / (high - low), thresholds[::6]


def _grid(
    width: int, height: int, left: int, bottom: int, ceiling: float, ticks: Mapping[str, float]
) -> list[str]:
    """Axes with a few lines, and names at the given places of the lower one."""
    parts = []
    for step in range(5):
        y = (height - bottom) * (1 - step / 4) + 8
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - 12}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{percent(ceiling * step / 4)}</text>"
        )
    parts += [
        f'<text x="{x:.1f}" y="{height - bottom + 26}" text-anchor="middle">{name}</text>'
        for name, x in ticks.items()
    ]
    middle = (left + width) / 2
    parts.append(f'<text x="{middle}" y="{height + 14}" text-anchor="middle">threshold</text>')
    return parts


def histogram(values: Sequence[float], bins: int = 20) -> str:
    """How many images have which mIoU of their own."""
    counts, _ = np.histogram([v for v in values if not math.isnan(v)], bins, (0.0, 1.0))
    width, height, bottom = 640, 150, 24
    step = width / bins
    tallest = max(int(counts.max()), 1)
    parts = []
    for index, count in enumerate(counts):
        tall = (height - bottom - 16) * int(count) / tallest
        parts.append(
            f'<rect x="{index * step + 1:.1f}" y="{height - bottom - tall:.1f}" '
            f'width="{step - 2:.1f}" height="{tall:.1f}" fill="{ACCENT}">'
            f"<title>{count} images between {100 * index / bins:.0f} and "
            f"{100 * (index + 1) / bins:.0f}</title></rect>"
        )
        if count:
            x, y = (index + 0.5) * step, height - bottom - tall - 4
            parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{count}</text>')
    for tick in (0, 25, 50, 75, 100):
        x = min(max(tick * width / 100, 2), width - 24)
        parts.append(f'<text x="{x:.0f}" y="{height - 6}">{tick}</text>')
    return svg(width, height, parts, "Images by their own mIoU")


def _short(name: str) -> str:
    return escape(name if len(name) <= 20 else name[:19] + "…")
