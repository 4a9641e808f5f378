"""`ovseg eval`: a model on a benchmark, and what to make of the score."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ovseg.errors import UsageError
from ovseg_cli.console import print_warning, progress, stderr, stdout
from ovseg_cli.defaults import DefaultCommandGroup
from ovseg_cli.eval_ranking import AsJson, Device, Model, classify, load, retrieve

if TYPE_CHECKING:
    from ovseg.evaluation.result import EvaluationResult
    from ovseg.evaluation.run import Run
    from ovseg.evaluation.sets.base import EvaluationSet
    from ovseg.models.interface import SegmentationModel

HELP = """
Evaluate a model on a benchmark.

\b
  ovseg eval SET --data FOLDER          evaluate; ovseg eval SET --help shows all options
  ovseg eval compare A.json B.json      is the difference of two results real?
  ovseg eval classify FOLDER            zero-shot classification of an ImageNet folder
  ovseg eval retrieve FOLDER            image and caption retrieval
  ovseg eval sets                       all sets: folders expected, sources, sizes

\b
Examples:
  ovseg eval voc --data VOCdevkit/VOC2012 --model FILE --protocol groupvit
  ovseg eval coco-object --data coco --report out --sweep threshold
"""

EXAMPLES = """
Evaluate a model on SET, read from the folder as it was downloaded.

\b
Sets: voc, voc20, context, context59, coco-object, coco-stuff, ade20k, cityscapes, coco-panoptic,
cutouts, folder. `ovseg eval sets` shows the folders each expects.

\b
Examples:
  ovseg eval voc --data VOCdevkit/VOC2012 --model FILE --protocol groupvit
  ovseg eval coco-object --data coco --labels panoptic --limit 100 --json > result.json
  ovseg eval folder --data CamVid --split test --report out
  ovseg eval ade20k --data ADEChallengeData2016 --num-processes 8

A run that was interrupted goes on when the same command is given again. --num-processes 8 shares
the images among eight GPUs and gives the same scores; on a processor, all cores compute anyway.
"""


class _SetFirst(DefaultCommandGroup):
    """A group whose first word is a command or else the name of a set."""

    default = "evaluate"


app = typer.Typer(cls=_SetFirst, help=HELP, no_args_is_help=True, rich_markup_mode=None)

app.command("classify")(classify)
app.command("retrieve")(retrieve)


@app.command("evaluate", help=EXAMPLES, hidden=True)
def evaluate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", help="The set.")],
    data: Annotated[Path, typer.Option(help="The set's folder.", show_default=False)],
    model: Model = "starter",
    protocol: Annotated[
        str | None,
        typer.Option(
            help="groupvit, tcl, sclip, own, or a TOML file. By default the one that models of "
            "this kind are published under."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Part of the set; by default that of the papers.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="For coco-object: stuffthingmaps, panoptic or instances."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Background threshold; the protocol's by default.")
    ] = None,
    refine: Annotated[
        str | None, typer.Option(help="pamr or none; the protocol's by default.")
    ] = None,
    tta: Annotated[
        str, typer.Option(help="Average over views: flip, scales, or flip,scales.")
    ] = "",
    sweep: Annotated[
        str | None, typer.Option(help="threshold: the score at others, from the same pass.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first N images, for a trial.", min=1)
    ] = None,
    device: Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Most windows a batch.", min=1)] = 16,
    num_processes: Annotated[
        int, typer.Option(min=1, help="Processes on this machine, one for each GPU.")
    ] = 1,
    report: Annotated[
        Path | None, typer.Option(help="Folder for a page of tables, charts and pictures.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the result as JSON to this file.")
    ] = None,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what an interrupted run has left.")
    ] = False,
) -> None:
    from ovseg.distributed import leave_processes, processes
    from ovseg.evaluation.protocol import load_protocol, protocol_for_model, swept_thresholds
    from ovseg.evaluation.run import Run
    from ovseg.evaluation.sets.catalogue import open_set
    from ovseg_cli.eval_tables import print_result
    from ovseg_cli.launching import launch

    if as_json and markdown:
        raise UsageError("give --json or --markdown, not both")
    changes = _changes(threshold, refine, tta)
    if sweep not in (None, "threshold"):
        raise UsageError(f"--sweep {sweep}: only threshold can be swept")
    evaluated = open_set(name, data, split, labels).first(limit)
    if num_processes > 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        raise typer.Exit(launch(num_processes, ["eval", *_arguments(context)]))
    loaded = load(model, device)
    chosen = protocol or protocol_for_model(loaded.card.kind)
    settings = load_protocol(chosen, evaluated, changes)
    settings = settings.for_model(loaded, background=evaluated.background)
    first = processes().rank == 0
    if first:
        _warn_of_unknown(loaded, evaluated, settings.class_list.phrases)
    thresholds = swept_thresholds(settings.threshold) if sweep else ()
    run = Run(loaded, evaluated, settings, thresholds, batch_size)
    result = _evaluate(run, fresh, shown=first)
    leave_processes()
    if not first:
        return
    if save:
        result.write(save)
    if report:
        _write_report(run, result, report)
    print_result(result, as_json, markdown)


def _arguments(context: typer.Context) -> list[str]:
    """The command's words again, without the number of processes."""
    words: list[str] = []
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name == "num_processes" or value in (None, False, ""):
            continue
        name = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
        words += name if value is True else [*name, str(value)]
    return words


def _changes(threshold: float | None, refine: str | None, tta: str) -> dict[str, object]:
    """What the options change in the protocol."""
    views = {view.strip() for view in tta.split(",") if view.strip()}
    if unknown := views - {"flip", "scales"}:
        raise UsageError(f"--tta {', '.join(sorted(unknown))}: choose flip, scales or both")
    changes: dict[str, object] = {}
    if threshold is not None:
        changes["threshold"] = threshold
    if refine is not None:
        changes["refine"] = refine
    if "flip" in views:
        changes["flip"] = True
    if "scales" in views:
        changes["scales"] = (0.75, 1.0, 1.25)
    return changes


def _warn_of_unknown(
    model: "SegmentationModel", evaluated: "EvaluationSet", phrases: tuple[str, ...]
) -> None:
    unknown = [entry.phrase for entry in model.unknown(phrases)]
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        print_warning(
            f"{model.card.name} does not know {len(unknown)} of the {len(phrases)} words of "
            f"{evaluated.name}: {shown}; their score is 0"
        )


def _evaluate(run: "Run", fresh: bool, shown: bool) -> "EvaluationResult":
    from ovseg.evaluation.result import summarise
    from ovseg.evaluation.run import evaluate

    with progress(f"{run.evaluated.name}, images", len(run.evaluated.samples), shown) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.update(bar.task_ids[0], completed=done, total=total)

        records = evaluate(run, on_progress, fresh=fresh)
    return summarise(run, records)


def _write_report(run: "Run", result: "EvaluationResult", folder: Path) -> None:
    from ovseg.evaluation.report.page import write_report

    with progress("report", None):
        page = write_report(run, result, folder)
    stderr().print(f"report: {page}")


@app.command("compare")
def compare(
    first: Annotated[
        Path,
        typer.Argument(help="Result of the first run, as --save writes it.", metavar="A.json"),
    ],
    second: Annotated[Path, typer.Argument(help="Result of the second run.", metavar="B.json")],
    as_json: AsJson = False,
) -> None:
    """Compare two results on the same images by a paired bootstrap.

    Example: ovseg eval compare a.json b.json
    """
    import json
    from dataclasses import asdict

    from ovseg.evaluation.report.summary import percent, provenance
    from ovseg.evaluation.result import EvaluationResult
    from ovseg.evaluation.result import compare as difference_of

    results = [EvaluationResult.read(first), EvaluationResult.read(second)]
    difference = difference_of(*results)
    if as_json:
        scores = [result.scores.mean_iou for result in results]
        print(json.dumps({"mean_iou": scores, "difference": asdict(difference)}))
        return
    console = stdout()
    for label, path, result in zip("AB", (first, second), results, strict=True):
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


@app.command("sets")
def sets(as_json: AsJson = False) -> None:
    """List all sets: classes, folders expected, sources and sizes."""
    import json

    from ovseg.evaluation.sets.catalogue import SETS

    if as_json:
        rows = [
            {"set": n, "classes": e.classes, "layout": e.layout.tree, "source": e.layout.source,
             "size": e.layout.size}
            for n, e in SETS.items()
        ]  # fmt: skip
        print(json.dumps(rows))
        return
    console = stdout()
    for name, entry in SETS.items():
        console.print(f"[bold]{name}[/bold]  {entry.layout.title}, classes: {entry.classes}")
        console.print(f"    {entry.layout.tree}", soft_wrap=True)
        console.print(f"    from {entry.layout.source} ({entry.layout.size})", soft_wrap=True)
