"""`ovseg eval`: a model on a benchmark, and what to make of the score."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ovseg.errors import UsageError
from ovseg_cli import video as videos
from ovseg_cli.asked import AsJson, Device
from ovseg_cli.console import print_error, stderr
from ovseg_cli.defaults import DefaultCommandGroup
from ovseg_cli.progress import counted

if TYPE_CHECKING:
    from ovseg.evaluation.ranking import Classification, Retrieval

Model = Annotated[str, typer.Option(help="A model's name or file.")]
SHOWN = 5  # absent images that the error names
R = TypeVar("R", "Classification", "Retrieval")

HELP = """
Evaluate a model on a benchmark.

\b
  ovseg eval SET --data FOLDER          evaluate; ovseg eval SET --help shows all options
  ovseg eval compare A.json B.json      is the difference of two results real?
  ovseg eval classify FOLDER            zero-shot classification of an ImageNet folder
  ovseg eval retrieve FOLDER            image and caption retrieval
  ovseg eval video --data FOLDER        videos with masks: how good, how steady
  ovseg eval sets                       all sets: folders expected, sources, sizes

\b
Examples:
  ovseg eval voc --data VOCdevkit/VOC2012 --model FILE --protocol groupvit
  ovseg eval coco-object --data coco --report out --sweep background
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


@app.command("evaluate", help=EXAMPLES, hidden=True)
def evaluate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="SET", help="The set.")],
    data: Annotated[Path, typer.Option(help="The set's folder.", show_default=False)],
    model: Model = "starter",
    protocol: Annotated[
        str | None,
        typer.Option(
            help="groupvit, tcl, sclip, naclip, clearclip, proxyclip, talk2dino, tips, dinotxt, "
            "lposs, own, or a TOML file. By default the one that "
            "models of this kind are published under."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Part of the set; by default that of the papers.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="For coco-object: stuffthingmaps, panoptic or instances."),
    ] = None,
    ignore_label: Annotated[
        str | None,
        typer.Option(
            help="For folder: the value of pixels that are not counted, or none. By default 255, "
            "and 65535 in 16 bits."
        ),
    ] = None,
    label_map: Annotated[
        str | None,
        typer.Option(
            help="For folder: classes of values, by their line in the class file from 0, such as "
            "255=1,7=ignore."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Background threshold, 0 to 1; the protocol's by default."),
    ] = None,
    background_rule: Annotated[
        str | None,
        typer.Option(help="probability, constant or words; the protocol's by default."),
    ] = None,
    background_words: Annotated[
        str | None,
        typer.Option(help="Phrases that stand for the background, as sky,road or @FILE."),
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(
            help="affinity, lposs, lposs+, lposs+half, pamr, guided, several as lposs,pamr, or "
            "none; the protocol's by default."
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Ask for these beside the set's own, as cat,dog or @FILE (one a line); where one "
            "of them wins, the pixel counts as background."
        ),
    ] = None,
    tta: Annotated[
        str, typer.Option(help="Average over views: flip, scales, or flip,scales.")
    ] = "",
    sweep: Annotated[
        str | None,
        typer.Option(
            help="threshold: the score at others, from the same pass; background: under every "
            "rule, probability, constant and words, with thresholds of each."
        ),
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
    import ovseg
    from ovseg.distributed import leave_processes, processes
    from ovseg.evaluation.evaluate import holding_outputs
    from ovseg.evaluation.sweep import check_sweep
    from ovseg_cli.eval_tables import print_result
    from ovseg_cli.launching import launch

    if as_json and markdown:
        raise UsageError("give --json or --markdown, not both")
    check_sweep(sweep)
    views = [view.strip() for view in tta.split(",") if view.strip()]
    if num_processes > 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        changes = (threshold, refine, views, classes, background_rule, background_words)
        with holding_outputs(save, report):  # by all of them later
            _check(changes, name, data, split, labels, (ignore_label, label_map))
        raise typer.Exit(launch(num_processes, ["eval", *_arguments(context)]))
    first = processes().rank == 0
    with counted(f"{name}, images", shown=first) as on_progress:
        result = ovseg.evaluate(
            name,
            data,
            model,
            device,
            protocol=protocol,
            split=split,
            labels=labels,
            ignore_label=ignore_label,
            label_map=label_map,
            threshold=threshold,
            background_rule=background_rule,
            background_words=background_words,
            refine=refine,
            tta=views,
            distractors=classes,
            sweep=sweep or "",
            limit=limit,
            batch_size=batch_size,
            save=save,
            report=report,
            fresh=fresh,
            on_progress=on_progress,
        )
    leave_processes()
    if not first:
        return
    if report:
        stderr().print(f"report: {report / 'index.html'}")
    print_result(result, as_json, markdown)
    if result.absent:
        listed = ", ".join(result.absent[:SHOWN]) + (", ..." if len(result.absent) > SHOWN else "")
        print_error(
            f"{data}: {len(result.absent)} of the images in {split}.txt are not there and not "
            f"scored: {listed}"
        )
        raise typer.Exit(1)


@app.command("video")
def video(
    data: Annotated[Path, typer.Option(help="Folder with JPEGImages and Annotations.")],
    model: Model = "starter",
    words: Annotated[
        Path | None,
        typer.Option(
            help="What to ask for in each sequence, as lines 'dog: dog;puppy'; words.txt in the "
            "folder by default."
        ),
    ] = None,
    first_mask: Annotated[
        bool,
        typer.Option("--first-mask", help="Follow the objects of each first mask: J, F and J&F."),
    ] = False,
    steadiness: videos.Steadiness = None,
    look_ahead: videos.LookAhead = 0,
    features: videos.Features = "",
    short_side: Annotated[
        int | None,
        typer.Option(help="Pixels of the shorter side at which the model looks.", min=16),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N sequences.", min=1)] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on videos with a mask for every frame, laid out as DAVIS.

    By words: mIoU, and how steady the labels are. With --first-mask: J, F and their mean.

    Example: ovseg eval video --data DAVIS --first-mask --json
    """
    videos.evaluate_videos(
        data,
        model,
        device,
        words,
        first_mask,
        videos.video_settings(steadiness, look_ahead, features),
        limit,
        as_json,
        short_side=short_side,
    )


def _check(
    changes: "tuple[float | None, str | None, list[str], str | None, str | None, str | None]",
    name: str,
    data: Path,
    split: str | None,
    labels: str | None,
    values: tuple[str | None, str | None],
) -> None:
    """Say what is wrong before there are several processes that all would say it."""
    from ovseg.evaluation.evaluate import protocol_changes
    from ovseg.evaluation.sets.catalogue import open_set
    from ovseg.evaluation.sets.stored_values import StoredValues

    protocol_changes(*changes)
    open_set(name, data, split, labels, StoredValues.of(*values))


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


@app.command("classify")
def classify(
    folder: Annotated[Path, typer.Argument(help="One folder of images per class.")],
    model: Model = "starter",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Classify images zero-shot: top-1 and top-5 accuracy.

    Names come from LOC_synset_mapping.txt or classes.txt in the folder, else from its folders.

    Example: ovseg eval classify imagenet --model FILE
    """
    from ovseg.evaluation.evaluate import classify_folder
    from ovseg_cli.eval_tables import classification_rows

    _rank(classify_folder, folder, model, device, classification_rows, as_json)


@app.command("retrieve")
def retrieve(
    folder: Annotated[Path, typer.Argument(help="COCO's folder, or one with captions.tsv.")],
    model: Model = "starter",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Retrieve captions by image and images by caption: recall at 1, 5 and 10.

    Example: ovseg eval retrieve coco --model FILE
    """
    from ovseg.evaluation.evaluate import retrieve_folder
    from ovseg_cli.eval_tables import retrieval_rows

    _rank(retrieve_folder, folder, model, device, retrieval_rows, as_json)


def _rank(
    measure: Callable[..., R],
    folder: Path,
    model: str,
    device: str,
    rows: Callable[[R], list[str]],
    as_json: bool,
) -> None:
    """Measure a folder with a model and print what came out."""
    from ovseg_cli.eval_tables import print_ranking

    with counted("images") as on_progress:
        result = measure(folder, model, device, on_progress)
    print_ranking(result, rows(result), as_json)


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
    from ovseg.evaluation.result import EvaluationResult
    from ovseg.evaluation.result import compare as difference_of
    from ovseg_cli.eval_tables import print_comparison

    results = [EvaluationResult.read(first), EvaluationResult.read(second)]
    print_comparison((first, second), results, difference_of(*results), as_json)


@app.command("sets")
def sets(as_json: AsJson = False) -> None:
    """List all sets: classes, folders expected, sources and sizes."""
    from ovseg_cli.eval_tables import print_sets

    print_sets(as_json)
