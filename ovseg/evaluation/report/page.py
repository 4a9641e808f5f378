"""One HTML page with everything about a result; it asks for nothing from elsewhere."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ovseg.evaluation.report.charts import (
    MATRIX_CLASSES,
    class_bars,
    confusion_map,
    histogram,
    lost_classes,
    sweep_line,
)
from ovseg.evaluation.report.examples import Example, best_and_worst
from ovseg.evaluation.report.summary import markdown, percent, provenance, summary_rows
from ovseg.evaluation.result import EvaluationResult
from ovseg.evaluation.run import Run
from ovseg.files import write_text

_STYLE = """
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


def write_report(run: Run, result: EvaluationResult, folder: Path) -> Path:
    """Write `index.html`, `result.json` and `result.md`; returns the page's path."""
    best, worst = best_and_worst(run, result)
    result.write(folder / "result.json")
    write_text(folder / "result.md", markdown(result))
    page = folder / "index.html"
    write_text(page, html_page(result, best, worst))
    return page


def html_page(result: EvaluationResult, best: Sequence[Example], worst: Sequence[Example]) -> str:
    """The page's text."""
    title = escape(f"{result.model['name']} on {result.set_name}")
    low, high = result.interval.low, result.interval.high
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
        f'<p class="note">{escape(result.model["description"])}</p>',
        '<div class="columns"><div>',
        f'<div class="big">{percent(result.scores.mean_iou)}</div>',
        f"mIoU in percent, {percent(low)} to {percent(high)} (95 %)</div>",
        _rows([(name, value) for name, value in summary_rows(result)[1:]]),
        _rows(provenance(result), number=False),
        "</div>",
        "<h2>Where it loses</h2>",
        f'<p class="note">{_diagnosis(result)}</p>',
        _confusions(result),
        "<h2>Classes</h2>",
        '<p class="note">Bars are IoU in percent, orange ticks boundary IoU.</p>',
        class_bars(result),
        _lost(result),
        "<h2>Confusion</h2>",
        f'<p class="note">{_matrix_note(result)}</p>',
        f'<div class="scroll">{confusion_map(result)}</div>',
    ]
    if result.sweep:
        parts += [
            "<h2>Background threshold</h2>",
            f'<p class="note">{_sweep_note(result)}</p>',
            *_sweep_lines(result),
        ]
    parts += [
        "<h2>Images</h2>",
        '<p class="note">Number of images by their own mIoU in percent, over the classes that '
        "occur in them.</p>",
        histogram(result.image_mean_iou),
        "<h2>Best images</h2>",
        _pictures(best),
        "<h2>Worst images</h2>",
        _pictures(worst),
        "<h2>All classes</h2>",
        _class_table(result),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _diagnosis(result: EvaluationResult) -> str:
    grouping = result.grouping
    return (
        f"With every region named right, the mIoU would be "
        f"{percent(grouping.oracle_mean_iou)}; it is {percent(result.scores.mean_iou)}. What lies "
        "between is lost in naming, what lies above in grouping. The best single region of a true "
        f"segment covers it with an IoU of {percent(grouping.best_match_mean_iou)}, and there are "
        f"{grouping.over_segmentation:.2f} regions per true segment."
    )


def _lost(result: EvaluationResult) -> str:
    lost = lost_classes(result)
    if not lost:
        return ""
    return f'<p class="note">At 0.0: {escape(", ".join(lost))} ({len(lost)} classes).</p>'


def _matrix_note(result: EvaluationResult) -> str:
    note = (
        "Rows are true classes, columns predictions, blue right and orange wrong; strength is the "
        "square root of the share of the true class."
    )
    if len(result.classes) > MATRIX_CLASSES:
        note += f" The {MATRIX_CLASSES} classes with the most true pixels are shown."
    return note


def _sweep_lines(result: EvaluationResult) -> list[str]:
    """A chart for each rule, with a title where there are several."""
    charts = []
    for rule, points in result.sweep_by_rule.items():
        if rule:
            charts.append(f"<h3>Rule {escape(rule)}</h3>")
        charts.append(sweep_line(points, None if rule else result.threshold))
    return charts


def _sweep_note(result: EvaluationResult) -> str:
    measured = [point for point in result.sweep if point.mean_iou == point.mean_iou]
    if not measured:
        return "Nothing to measure."
    best = max(measured, key=lambda point: point.mean_iou)
    under = f" under the rule {escape(best.rule)}" if best.rule else ""
    return (
        f"mIoU in percent by threshold, from one pass; best at {best.threshold:g}{under} with "
        f"{percent(best.mean_iou)}. A threshold chosen on the images it is scored on flatters."
    )


def _rows(rows: Sequence[tuple[str, ...]], *, number: bool = True) -> str:
    kind = ' class="number"' if number else ""
    cells = (f"<tr><td>{escape(row[0])}</td><td{kind}>{escape(row[1])}</td></tr>" for row in rows)
    return "<table>" + "".join(cells) + "</table>"


def _confusions(result: EvaluationResult) -> str:
    rows = [
        (
            f"{result.classes[c.target]} is called {result.classes[c.prediction]}",
            f"{percent(c.share)} % of it",
        )
        for c in result.confusions
    ]
    return _rows(rows)


def _pictures(shown: Sequence[Example]) -> str:
    figures = []
    for image in shown:
        swatches = "".join(
            f'<span class="swatch" style="background:{colour}"></span>{escape(name)}'
            for colour, name in image.legend
        )
        name = escape(image.name)
        figures.append(
            f'<figure><div class="triple"><img src="{image.photo}" alt="{name}">'
            f'<img src="{image.truth}" alt="truth of {name}">'
            f'<img src="{image.prediction}" alt="prediction for {name}"></div>'
            f"<figcaption>{name}: mIoU {percent(image.mean_iou)} · photo, truth, prediction "
            f"{swatches}"
            "</figcaption></figure>"
        )
    return "".join(figures) or '<p class="note">none</p>'


def _class_table(result: EvaluationResult) -> str:
    head = ("class", "IoU", "accuracy", "precision", "boundary IoU", "true pixels")
    cells = "".join(f'<th class="number">{name}</th>' for name in head[1:])
    rows = [f"<tr><th>{head[0]}</th>{cells}</tr>"]
    true = result.confusion.sum(1)
    for index, name in enumerate(result.classes):
        values = (
            percent(result.scores.iou[index]),
            percent(result.scores.accuracy[index]),
            percent(result.scores.precision[index]),
            percent(result.boundary_iou[index]),
            f"{int(true[index]):,}",
        )
        cells = "".join(f'<td class="number">{value}</td>' for value in values)
        rows.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    return '<div class="scroll"><table>' + "".join(rows) + "</table></div>"
