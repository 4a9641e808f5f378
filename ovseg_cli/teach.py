"""`ovseg teach`: a model learns classes from photos with masks."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovseg_cli.asked import AsJson, Device
from ovseg_cli.console import say, say_json, stdout
from ovseg_cli.progress import progress

if TYPE_CHECKING:
    from ovseg.teaching.teach import TeachingResult

EXAMPLES = """
Teach a model your classes by a few photos with masks, on a laptop, in minutes.

\b
Examples:
  ovseg teach starter --data mydata --split train --output mine.safetensors
  ovseg teach starter --data coco --set coco-panoptic --classes dog,surfboard -o mine.safetensors
  ovseg teach starter --data mydata --stuff floor,wall -o mine.safetensors
  ovseg teach starter --data mydata --unlabelled more_photos -o mine.safetensors
  ovseg teach starter --data mydata --lora 8 -o mine.safetensors
  ovseg segment photo.jpg --model mine.safetensors --classes mug,cat

mydata is a folder with images/, labels/ (PNG, 0 is the background) and classes.txt, or any set that
`ovseg eval sets` lists. Classes that were not taught are still found by their words. A teaching
that was interrupted goes on with --resume.
"""


def teach(
    model: Annotated[str, typer.Argument(help="A model's name or file.", show_default=False)],
    data: Annotated[Path, typer.Option(help="The set's folder.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write, .safetensors.", show_default=False),
    ],
    set_: Annotated[
        str, typer.Option("--set", help="What the folder holds, as ovseg eval names it.")
    ] = "folder",
    split: Annotated[str | None, typer.Option(help="Part of the set.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Teach these of the set's classes, as mug,hat or @FILE; all by default."),
    ] = None,
    stuff: Annotated[
        str,
        typer.Option(
            help="Those of them that are background, as grass,sky or @FILE: where they are found, "
            "nothing else is, and their masks replace what the model's own words say of them."
        ),
    ] = "",
    unlabelled: Annotated[
        Path | None,
        typer.Option(
            help="Folder of photos without masks, learned from if that helps on photos that were "
            "held out.",
            show_default=False,
        ),
    ] = None,
    lora: Annotated[
        int,
        typer.Option(
            help="Rank of updates of the tower itself, such as 8, kept if they help on photos that "
            "were held out; 0 for none. Best on a GPU (--device cuda). Words that are not taught "
            "then score otherwise than before.",
            min=0,
        ),
    ] = 0,
    ignore_label: Annotated[
        str | None,
        typer.Option(help="For folder: the value of pixels that are not counted, or none."),
    ] = None,
    label_map: Annotated[
        str | None,
        typer.Option(help="For folder: classes of values, such as 255=1,7=ignore."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N photos.", min=1)] = None,
    hidden: Annotated[
        int,
        typer.Option(
            help="Units of the position head; 0 for the closed form alone, which takes seconds and "
            "no torch.",
            min=0,
        ),
    ] = 256,
    folds: Annotated[int, typer.Option(help="Parts of the photos, each held out once.", min=2)] = 3,
    seed: Annotated[int, typer.Option(help="Of the folds and the position head.")] = 0,
    licence: Annotated[
        str, typer.Option(help="SPDX expression of the photos' licence, for the record.")
    ] = "",
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an interrupted teaching has stopped.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """See EXAMPLES, which typer shows."""
    from ovseg.teach_api import teach as teach_model

    with progress("teaching", None) as bar:
        result = teach_model(
            model,
            data,
            output,
            set_name=set_,
            split=split,
            classes=classes,
            stuff=stuff,
            unlabelled=unlabelled,
            ignore_label=ignore_label,
            label_map=label_map,
            limit=limit,
            licence=licence,
            device=device,
            resume=resume,
            on_step=bar.update,
            lora=lora,
            hidden=hidden,
            folds=folds,
            seed=seed,
        )
    if as_json:
        say_json({**asdict(result), "output": str(result.output)}, indent=2)
    else:
        _print(result)


def _print(result: "TeachingResult") -> None:
    from rich.table import Table

    if result.held_out:
        table = Table("on photos that were held out", "mIoU", box=None, pad_edge=False)
        for name, score in result.held_out.items():
            table.add_row(name, f"{score:.1%}")
        stdout().print(table)
    else:
        say("one photo: none could be held out to score what was taught")
    if result.unlabelled:
        say(_worth(result.unlabelled))
    if result.lora:
        say(_updated(result.lora))
    if result.unseen:
        say(f"no photo shows {', '.join(result.unseen)}: found by words as before")
    say(f"{result.output}: {len(result.classes)} classes, {result.photos} photos")


def _updated(told: dict[str, Any]) -> str:
    """Whether the tower was updated."""
    return (
        f"updates of the tower of rank {told['rank']}: {_used(told)} on {told['photos']} photos "
        "that were held out"
        + ("; words that were not taught score otherwise than before" if told["used"] else "")
    )


def _used(told: dict[str, Any]) -> str:
    gain = 100 * (told["miou_with"] - told["miou_without"])
    return f"used, {gain:+.1f} points" if told["used"] else f"not used: {gain:+.1f} points"


def _worth(told: dict[str, Any]) -> str:
    """Whether photos without masks were used."""
    left_out = ", ".join(f"{count} {why}" for why, count in told["left_out"].items() if count)
    return (
        f"{told['photos']} photos without masks: {_used(told)}"
        f" on photos that were held out; {told['taken']:.0%} of their positions have a "
        f"pseudo-label, right in {told['precision']:.0%} or more there"
        + (f"; left out: {left_out}" if left_out else "")
    )
