"""`ovseg segment`: label maps of images, for any classes one can name."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovseg.errors import UsageError
from ovseg_cli.console import print_error, progress, say, say_json, stderr, stdout

if TYPE_CHECKING:
    from ovseg.data.class_list import ClassList
    from ovseg.inference.result import Segmentation
    from ovseg.inference.result_folder import SegmentedFile, SegmentedFiles

FEW = 3

EXAMPLES = """
Label every pixel of images with the classes you name.

\b
Examples:
  ovseg segment photo.jpg --classes cat,dog --output out
  ovseg segment photos/ 'more/*.png' --classes @words.txt --output out --save json
  ovseg segment photo.jpg --vocab coco --json

Without --output a table of what was found is printed. With it, each image gets an overlay with a
legend (NAME.overlay.png) and a label map (NAME.labels.png: 0 background, 1 the first class).
"""


def segment(
    images: Annotated[
        list[str] | None, typer.Argument(help="Image files, folders or globs.", show_default=False)
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Classes, as cat,dog or @FILE (one a line); synonyms after ';', as 'sofa;couch'."
        ),
    ] = None,
    vocab: Annotated[
        str | None, typer.Option(help="A benchmark's classes: voc, context, coco or ade20k.")
    ] = None,
    background: Annotated[
        bool, typer.Option(help="Whether pixels may belong to none of the classes.")
    ] = True,
    threshold: Annotated[
        float | None,
        typer.Option(help="Background threshold, 0 to 1; the model's own by default."),
    ] = None,
    background_rule: Annotated[
        str | None,
        typer.Option(
            help="What makes a pixel background: probability (no class is likely enough), constant "
            "(none scores enough) or words (sky, road and others are asked for); the model's own "
            "by default."
        ),
    ] = None,
    background_words: Annotated[
        str | None,
        typer.Option(help="Phrases that stand for the background, as sky,road or @FILE."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A model's name or file; clip-b16 or clip:ARCHITECTURE/WEIGHTS for a dense CLIP."
        ),
    ] = "starter",
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="Template such as 'a photo of a {}.'; repeat it to average over several. "
            "The model's own by default."
        ),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            help="Sliding windows of SIDE/STRIDE pixels, as 448/224; none is one pass over the "
            "whole image; auto is what the model was measured with."
        ),
    ] = "auto",
    short_side: Annotated[
        int | None,
        typer.Option(
            help="Pixels of the shorter side at which the model looks; its own by default.",
            min=16,
            max=8192,
        ),
    ] = None,
    refine: Annotated[
        str,
        typer.Option(
            help="Clean the masks. By what looks alike to the model, or to a DINO named behind "
            "'=': affinity, lposs, lposs+ (by colours, too); by the image alone: pamr, guided. "
            "Several as lposs=vit_base_patch16_224.dino,pamr; none by default."
        ),
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results.")
    ] = None,
    save: Annotated[
        str,
        typer.Option(
            help="Also write, separated by commas: json (COCO dataset), rle (COCO results), "
            "logits (scores per group, .npz), groups (group map, .png)."
        ),
    ] = "",
    batch_size: Annotated[int, typer.Option(help="Images a batch.", min=1)] = 8,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object per image, or --list-classes as a list."
        ),
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Draw the overlay in the terminal.")] = False,
    list_classes: Annotated[
        bool, typer.Option("--list-classes", help="Print the words the model knows, and stop.")
    ] = False,
) -> None:
    from ovseg.api import segment_files

    if list_classes:
        _print_words(model, as_json)
        return
    vocabulary = _class_list(classes, vocab)
    if not images:
        raise UsageError("no image given: ovseg segment photo.jpg --classes cat,dog")
    if save and output is None:
        raise UsageError("--save needs a folder to write to: add --output FOLDER")
    segmented = segment_files(
        images,
        vocabulary,
        model,
        device,
        output=output,
        save=save.split(","),
        batch_size=batch_size,
        background=background,
        threshold=threshold,
        background_rule=background_rule,
        background_words=background_words,
        templates=prompt,
        short_side=short_side,
        window=window,
        refine=refine,
    )
    failures = 0
    written: list[Path] = []
    # A bar and lines of results would write over each other on one terminal.
    with_bar = (output is not None and not (as_json or show)) or not sys.stdout.isatty()
    for found in _found(segmented, with_bar):
        if found is None:
            failures += 1
            continue
        written += found.files
        if as_json:
            say_json(_summary(found))
        elif output is None:
            _print_table(found.path, found.result)
        if show:
            _draw(found.result)
    if output is not None and not as_json:
        _print_written(written, len(segmented.paths) - failures, output)
    if failures:
        _stop_after_failures(failures, len(segmented.paths))


def _class_list(classes: str | None, vocab: str | None) -> "ClassList":
    from ovseg.data.class_list import ClassList

    if classes is not None and vocab is not None:
        raise UsageError("give --classes or --vocab, not both")
    if vocab is not None:
        return ClassList.vocabulary(vocab)
    if classes is None:
        raise UsageError("no classes given: add --classes cat,dog or --vocab coco")
    return ClassList.parse(classes)


def _found(segmented: "SegmentedFiles", with_bar: bool) -> Iterator["SegmentedFile | None"]:
    """Results in order; a failure is printed and comes as None."""
    from ovseg.inference.inputs import Failure

    # Without a terminal there is no bar to see, and rich takes its time to be imported.
    shown = with_bar and sys.stderr.isatty()
    with progress("segmenting", len(segmented.paths)) if shown else nullcontext() as bar:
        for item in segmented:
            if isinstance(item, Failure):
                print_error(str(item.error))
                yield None
            else:
                yield item
            if bar is not None:
                bar.advance(bar.task_ids[0])


def _stop_after_failures(failures: int, total: int) -> None:
    if total > 1:
        print_error(f"{failures} of {total} images failed")
    raise typer.Exit(1)


def _summary(found: "SegmentedFile") -> dict[str, Any]:
    height, width = found.result.labels.shape
    return {
        "image": str(found.path),
        "width": width,
        "height": height,
        "classes": [
            {
                "label": each.label,
                "name": each.name,
                "share": round(each.share, 6),
                "score": round(each.score, 6),
            }
            for each in found.result.shares
        ],
        "files": [str(file) for file in found.files],
    }


def _print_written(files: list[Path], images: int, folder: Path | None) -> None:
    """Name the files of a few images, or only count those of many."""
    if images > FEW:
        say(f"{folder}: {len(files)} files for {images} images")
        return
    for file in files:
        say(str(file))


def _print_table(path: Path, result: "Segmentation") -> None:
    from rich.table import Table

    table = Table("class", "share of pixels", "score", title=str(path), title_justify="left")
    for found in result.shares:
        score = f"{found.score:.3f}" if found.label else ""
        table.add_row(found.name, f"{found.share:.1%}", score)
    stdout().print(table)


def _draw(result: "Segmentation") -> None:
    """Draw an overlay with half blocks: each character cell shows two pixels."""
    import numpy as np
    from rich.color import Color
    from rich.segment import Segment, Segments
    from rich.style import Style

    console = stdout()
    if not console.encoding.startswith("utf"):
        raise UsageError(f"--show draws with characters that {console.encoding} lacks: use UTF-8")
    picture = result.overlay().convert("RGB")
    columns = min(console.width, picture.width)
    rows = max(round(columns * picture.height / picture.width) // 2, 1)
    pixels = np.asarray(picture.resize((columns, rows * 2))).tolist()
    for row in range(rows):
        cells = [
            Segment("▀", Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower)))
            for upper, lower in zip(pixels[2 * row], pixels[2 * row + 1], strict=True)
        ]
        console.print(Segments(cells))


def _print_words(model: str, as_json: bool) -> None:
    """The words a model knows; as JSON a list, or null for an open vocabulary."""
    from ovseg.models.registry import load_model

    words = load_model(model, "cpu").known_words()
    if as_json:
        say_json(words)
    elif words is None:
        stderr().print(f"{model} has an open vocabulary: any phrase may be asked for")
    else:
        for word in words:
            say(word)
