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
from ovseg.pages import page, rows


def write_report(run: Run, result: EvaluationResult, folder: Path) -> Path:
    """Write `index.html`, `result.json` and `result.md`; returns the page's path."""
    best, worst = best_and_worst(run, result)
    result.write(folder / "result.json")
    write_text(folder / "result.md", markdown(result))
    path = folder / "index.html"
    write_text(path, html_page(result, best, worst))
    return path


def html_page(result: EvaluationResult, best: Sequence[Example], worst: Sequence[Example]) -> str:
    """The page's text."""
    low, high = result.interval.low, result.interval.high
    parts = [
        f'<p class="note">{escape(result.model["description"])}</p>',
        '<div class="columns"><div>',
        f'<div class="big">{percent(result.scores.mean_iou)}</div>',
        f"mIoU in percent, {percent(low)} to {percent(high)} (95 %)</div>",
        rows([(name, value) for name, value in summary_rows(result)[1:]]),
        rows(provenance(result), number=False),
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
    ]
    return page(f"{result.model['name']} on {result.set_name}", parts)


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


def _confusions(result: EvaluationResult) -> str:
    listed = [
        (
            f"{result.classes[c.target]} is called {result.classes[c.prediction]}",
            f"{percent(c.share)} % of it",
        )
        for c in result.confusions
    ]
    return rows(listed)


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
    lines = [f"<tr><th>{head[0]}</th>{cells}</tr>"]
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
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    return '<div class="scroll"><table>' + "".join(lines) + "</table></div>"
