"""How results of `ovseg eval` look on the terminal."""

from typing import TYPE_CHECKING

from ovseg_cli.console import stdout

if TYPE_CHECKING:
    from ovseg.evaluation.result import EvaluationResult


def print_result(result: "EvaluationResult", as_json: bool, as_markdown: bool) -> None:
    """The result as JSON, as Markdown or as tables."""
    if as_json:
        print(result.to_json())
    elif as_markdown:
        from ovseg.evaluation.report.summary import markdown

        print(markdown(result), end="")
    else:
        _print_tables(result)


def _print_tables(result: "EvaluationResult") -> None:
    from rich.table import Table

    from ovseg.evaluation.report.summary import percent, provenance, summary_rows

    console = stdout()
    classes = Table("class", title=f"{result.model['name']} on {result.set_name}")
    for column in ("IoU", "accuracy", "boundary IoU"):
        classes.add_column(column, justify="right")
    rows = zip(
        result.classes,
        result.scores.iou,
        result.scores.accuracy,
        result.boundary_iou,
        strict=True,
    )
    for name, *values in rows:
        classes.add_row(name, *(percent(value) for value in values))
    summary = Table("score", title="summary")
    summary.add_column("%", justify="right")
    for row in summary_rows(result):
        summary.add_row(*row)
    console.print(classes, summary)
    for confused in result.confusions[:5]:
        target, prediction = result.classes[confused.target], result.classes[confused.prediction]
        console.print(f"{percent(confused.share)} % of {target} is called {prediction}")
    _print_sweep(result)
    for key, value in provenance(result):
        console.print(f"[bold]{key}[/bold]: {value}", soft_wrap=True)


def _print_sweep(result: "EvaluationResult") -> None:
    """One bar per threshold, scaled to the best."""
    if not result.sweep:
        return
    from ovseg.evaluation.report.summary import percent

    console = stdout()
    best = max(point.mean_iou for point in result.sweep) or 1.0
    console.print("mIoU by background threshold")
    for point in result.sweep:
        length = 0 if point.mean_iou != point.mean_iou else round(40 * point.mean_iou / best)
        mark = " (best)" if point.mean_iou == best else ""
        console.print(
            f"  {point.threshold:<7.3g} {'█' * length} {percent(point.mean_iou, 2)}{mark}"
        )
