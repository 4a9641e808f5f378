"""How results of `ovseg eval` look on the terminal."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ovseg_cli.console import headed, say, say_json, stdout

if TYPE_CHECKING:
    from ovseg.evaluation.bootstrap import PairedDifference
    from ovseg.evaluation.ranking import Classification, HitShare, Retrieval
    from ovseg.evaluation.result import EvaluationResult


def print_result(result: "EvaluationResult", as_json: bool, as_markdown: bool) -> None:
    """The result as JSON, as Markdown or as tables."""
    if as_json:
        say_json(json.loads(result.to_json()))
    elif as_markdown:
        from ovseg.evaluation.report.summary import markdown

        for line in markdown(result).splitlines():
            say(line)
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
        console.print(headed(key, f": {value}"), soft_wrap=True)


def _print_sweep(result: "EvaluationResult") -> None:
    """One bar per threshold, scaled to the best of all rules."""
    if not result.sweep:
        return
    from ovseg.evaluation.report.summary import percent

    console = stdout()
    block = "█" if console.encoding.startswith("utf") else "#"
    best = max(point.mean_iou for point in result.sweep) or 1.0
    for rule, points in result.sweep_by_rule.items():
        under = f", rule {rule}" if rule else ""
        console.print(f"mIoU by background threshold{under}")
        for point in points:
            length = 0 if point.mean_iou != point.mean_iou else round(40 * point.mean_iou / best)
            mark = " (best)" if point.mean_iou == best else ""
            console.print(
                f"  {point.threshold:<7.3g} {block * length} {percent(point.mean_iou, 2)}{mark}"
            )


def print_ranking(result: "Classification | Retrieval", rows: Sequence[str], as_json: bool) -> None:
    """A classification or retrieval as JSON, or as rows of which the first is the title."""
    if as_json:
        values = asdict(result)
        del values["model"]
        say_json(values)
        return
    title, *lines = rows
    stdout().print(f"{result.model}: {title}")
    for line in lines:
        stdout().print(f"  {line}")


def classification_rows(result: "Classification") -> list[str]:
    """A title and a row for each accuracy."""
    shares = (("top-1", result.top1), ("top-5", result.top5))
    return [
        f"{result.images} images of {result.classes} classes",
        *(f"{name}  {_share(share)}" for name, share in shares),
    ]


def retrieval_rows(result: "Retrieval") -> list[str]:
    """A title and a row for each recall."""
    ways = (("image to text", result.image_to_text), ("text to image", result.text_to_image))
    return [
        f"{result.images} images, {result.texts} captions",
        *(
            f"{name}, recall at {k}: {_share(share)}"
            for name, recall in ways
            for k, share in recall.items()
        ),
    ]


def _share(share: "HitShare") -> str:
    """A share in percent with its interval."""
    low, high = share.interval.low, share.interval.high
    return f"{100 * share.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def print_comparison(
    paths: Sequence[Path],
    results: "Sequence[EvaluationResult]",
    difference: "PairedDifference",
    as_json: bool,
) -> None:
    """Two results, the difference of their mIoU, and what that means."""
    if as_json:
        scores = [result.scores.mean_iou for result in results]
        say_json({"mean_iou": scores, "difference": asdict(difference)})
        return
    from ovseg.evaluation.report.summary import percent, provenance

    console = stdout()
    for label, path, result in zip("AB", paths, results, strict=True):
        console.print(f"{label}  {percent(result.scores.mean_iou, 2)} mIoU  {path}")
        details = dict(provenance(result))
        console.print(f"   {details['model']}; {details['protocol']}", soft_wrap=True)
    low, high = difference.interval.low, difference.interval.high
    console.print(
        f"B - A  {100 * difference.value:+.2f} points, 95 % interval {100 * low:+.2f} to "
        f"{100 * high:+.2f}, p = {difference.p_value:.3f} over {len(results[0].names)} images"
    )
    verdict = "no difference that these images can show" if low <= 0 <= high else "a difference"
    console.print(f"That is {verdict}.")


def print_sets(as_json: bool) -> None:
    """All sets with the folders they are read from."""
    from ovseg.evaluation.sets.catalogue import SETS

    if as_json:
        rows = [
            {"set": n, "classes": e.classes, "layout": e.layout.tree, "source": e.layout.source,
             "size": e.layout.size}
            for n, e in SETS.items()
        ]  # fmt: skip
        say_json(rows)
        return
    console = stdout()
    for name, entry in SETS.items():
        console.print(headed(name, f"  {entry.layout.title}, classes: {entry.classes}"))
        console.print(f"    {entry.layout.tree}", soft_wrap=True)
        console.print(f"    from {entry.layout.source} ({entry.layout.size})", soft_wrap=True)
