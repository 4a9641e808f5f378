"""A result as Markdown."""

from collections.abc import Sequence

from ovseg.evaluation.report.text import percent, provenance, summary_rows
from ovseg.evaluation.result import Result


def markdown(result: Result) -> str:
    """Summary, classes and provenance as Markdown tables, scores in percent."""
    lines = [f"## {result.model['name']} on {result.set_name}", ""]
    lines += _table(("score", "%"), summary_rows(result))
    lines += [""]
    classes = [
        (name, percent(iou), percent(accuracy), percent(boundary))
        for name, iou, accuracy, boundary in zip(
            result.classes,
            result.scores.iou,
            result.scores.accuracy,
            result.boundary_iou,
            strict=True,
        )
    ]
    lines += _table(("class", "IoU", "accuracy", "boundary IoU"), classes)
    lines += ["", *(f"- {key}: {value}" for key, value in provenance(result))]
    return "\n".join(lines) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    alignment = "|---|" + "---:|" * (len(head) - 1)
    return (
        ["| " + " | ".join(row) + " |" for row in [head]]
        + [alignment]
        + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    )
