"""What every form of a report says, in words, and as Markdown."""

import math
import re
from collections.abc import Sequence

from ovseg.evaluation.result import EvaluationResult


def percent(value: float, digits: int = 1) -> str:
    """A share as percent, `–` where there was nothing to measure."""
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}"


def summary_rows(result: EvaluationResult) -> list[tuple[str, ...]]:
    """Name and value of every summary score, in percent but for counts."""
    scores, grouping = result.scores, result.grouping
    low, high = result.interval.low, result.interval.high
    rows = [("mIoU", f"{percent(scores.mean_iou, 2)} ({percent(low)} to {percent(high)})")]
    if result.background:
        rows.append(("mIoU without background", percent(scores.mean_iou_foreground, 2)))
    return [
        *rows,
        ("pixel accuracy", percent(scores.pixel_accuracy)),
        ("mean accuracy", percent(scores.mean_accuracy)),
        ("frequency-weighted IoU", percent(scores.frequency_weighted_iou)),
        ("boundary IoU", percent(result.mean_boundary_iou)),
        ("oracle grouping mIoU", percent(grouping.oracle_mean_iou)),
        ("best-match mIoU", percent(grouping.best_match_mean_iou)),
        ("regions per true segment", f"{grouping.over_segmentation:.2f}"),
    ]


def provenance(result: EvaluationResult) -> list[tuple[str, str]]:
    """What the scores are of: set, model, protocol."""
    protocol = result.protocol
    window = f"{protocol['window']}/{protocol['stride']}" if protocol["window"] else "none"
    side = protocol["short_side"] or "the model's"
    threshold = "none" if result.threshold is None else f"{result.threshold:g}"
    extras = [
        f"refined by {protocol['refine']}" if protocol["refine"] != "none" else "",
        "mirrored too" if protocol["flip"] else "",
        f"at scales {protocol['scales']}" if protocol["scales"] != [1.0] else "",
    ]
    more = "".join(f", {extra}" for extra in extras if extra)
    return [
        ("set", f"{result.set_name}, {len(result.names)} images, {result.labels_from}"),
        ("model", f"{result.model['name']} ({result.model['content_hash'][:12]})"),
        ("protocol", f"{protocol['name']} ({result.protocol_hash})"),
        (
            "settings",
            f"short side {side}, windows {window}, background threshold {threshold}{more}",
        ),
        ("interval", "95 %, bootstrap over images, 1,000 resamples, seed 0"),
        ("ovseg", result.version),
    ]


def markdown(result: EvaluationResult) -> str:
    """Summary, classes and provenance as Markdown tables, scores in percent."""
    lines = [f"## {_escaped(result.model['name'])} on {result.set_name}", ""]
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
    lines += ["", *(f"- {key}: {_escaped(value)}" for key, value in provenance(result))]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text that is neither Markdown nor HTML."""
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    alignment = "|---|" + "---:|" * (len(head) - 1)
    return (
        ["| " + " | ".join(row) + " |" for row in [head]]
        + [alignment]
        + ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]
    )
