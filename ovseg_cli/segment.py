"""`ovseg segment`: label maps of images, for any classes one can name."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovseg.errors import UsageError
from ovseg_cli import video
from ovseg_cli.asked import Device, Examples, class_list
from ovseg_cli.console import print_error, print_warning, say, say_json, stderr, stdout
from ovseg_cli.progress import progress

if TYPE_CHECKING:
    from ovseg.inference.result_folder import SegmentedFile, SegmentedFiles

FEW = 3

EXAMPLES = """
Label every pixel of images with the classes you name.

\b
Examples:
  ovseg segment photo.jpg --classes cat,dog --output out
  ovseg segment photos/ 'more/*.png' --classes @words.txt --output out --save json
  ovseg segment photo.jpg --vocab coco --json
  ovseg segment photos/ --classes cat,dog -o out --format coco,yolo --instances --min-area 100
  find . -name '*.jpg' | ovseg segment - --classes cat -o out
  ovseg segment --list-classes terrier
  ovseg segment clip.mp4 --classes dog,grass --output out
  ovseg segment new.jpg --example mug=photo.jpg:mask.png --classes cat --output out
  ovseg segment frames/ --video --first-mask first.png --output out

Without --output a table of what was found is printed. With it, each image gets an overlay with a
legend (NAME.overlay.png) and a label map (NAME.labels.png: 0 background, 1 the first class).
A video gets NAME.overlay.mp4, NAME.labels/ and NAME.video.json with the tracks of its regions.
"""


def segment(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Image files, folders or globs; - reads names from standard input, one a line.",
            show_default=False,
        ),
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
    example: Examples = None,
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
            "'=': affinity, lposs, lposs+ (by colours, too; lposs+half is quicker); by the image "
            "alone: pamr, guided. "
            "Several as lposs=vit_base_patch16_224.dino,pamr; none by default."
        ),
    ] = "",
    as_video: video.AsVideo = False,
    first_mask: video.FirstMask = None,
    every: video.Every = 1,
    start: video.Start = 0.0,
    end: video.End = None,
    steadiness: video.Steadiness = None,
    look_ahead: video.LookAhead = 0,
    features: video.Features = "",
    tracks: video.Tracks = False,
    device: Device = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the results.")
    ] = None,
    save: Annotated[
        str,
        typer.Option(
            help="Also write of each image, separated by commas: json (COCO dataset), rle (COCO "
            "results), logits (scores per group, .npz), groups (group map, .png)."
        ),
    ] = "",
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="Also write annotations of all images into one file each, separated by commas: "
            "coco, yolo, labelstudio, cvat, geojson, sam-rle.",
        ),
    ] = "",
    instances: Annotated[
        bool,
        typer.Option(
            "--instances",
            help="One region for each part of a class that hangs together, split at narrow necks, "
            "instead of one per class. Regions, not instances that a model learned to tell apart.",
        ),
    ] = False,
    polygons: Annotated[
        float | None,
        typer.Option(
            metavar="PIXELS",
            help="Outlines in annotations instead of run lengths, off by at most so many pixels; "
            "0 follows the edge of every pixel.",
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(help="Parts of a class with a lower mean score become background."),
    ] = None,
    min_area: Annotated[
        int, typer.Option(help="Parts of a class with fewer pixels become background.", min=0)
    ] = 0,
    allow_urls: Annotated[
        bool,
        typer.Option("--allow-urls", help="Also fetch images at http and https addresses."),
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Images a batch.", min=1)] = 8,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object per image, or --list-classes as a list."
        ),
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Draw the overlay in the terminal.")] = False,
    list_classes: Annotated[
        bool,
        typer.Option(
            "--list-classes",
            help="Print the words the model knows, and stop; where words are given instead of "
            "images, those that contain one of them.",
        ),
    ] = False,
) -> None:
    from ovseg.api import segment_files

    if list_classes:
        _print_words(model, images or [], as_json)
        return
    how: dict[str, Any] = {
        "background": background, "threshold": threshold, "background_rule": background_rule,
        "background_words": background_words, "templates": prompt, "short_side": short_side,
        "window": window, "refine": refine,
    }  # fmt: skip
    of_videos = {
        "--every": every > 1, "--start": start, "--end": end, "--steadiness": steadiness,
        "--look-ahead": look_ahead, "--features": features, "--tracks": tracks,
    }  # fmt: skip
    of_pictures = {
        "--save": save, "--format": format_, "--instances": instances, "--polygons": polygons,
        "--min-score": min_score, "--min-area": min_area, "--show": show,
        "--allow-urls": allow_urls,
    }  # fmt: skip
    if video.is_asked_for(images or [], as_video, first_mask):
        video.refuse(of_pictures, "pictures, not for videos")
        video.segment_videos(
            images or [],
            None if first_mask else class_list(classes, vocab, example),
            model,
            device,
            first_mask=first_mask,
            output=output,
            clip=(every, start, end),
            settings=video.video_settings(steadiness, look_ahead, features),
            numbers=tracks,
            examples=example or (),
            as_json=as_json,
            **how,
        )
        return
    video.refuse(of_videos, "videos: add --video for a folder of frames")
    vocabulary = class_list(classes, vocab, example)
    if not images:
        raise UsageError("no image given: ovseg segment photo.jpg --classes cat,dog")
    for option, value in (("--save", save), ("--format", format_)):
        if value and output is None:
            raise UsageError(f"{option} needs a folder to write to: add --output FOLDER")
    segmented = segment_files(
        list(_named(images)),
        vocabulary,
        model,
        device,
        output=output,
        save=save.split(","),
        formats=format_.split(","),
        instances=instances,
        polygons=polygons,
        min_score=min_score,
        min_area=min_area,
        allow_urls=allow_urls,
        batch_size=batch_size,
        examples=example or (),
        **how,
    )
    # A bar and lines of results would write over each other on one terminal.
    with_bar = (output is not None and not (as_json or show)) or not sys.stdout.isatty()
    tally = _Tally()
    for found in tally.counted(_found(segmented, with_bar)):
        if as_json:
            say_json(_summary(found, instances))
        elif output is None:
            _print_table(found, instances)
        if show:
            _draw(found)
    total = len(segmented.paths)
    _warn_of_doubt(tally.doubtful, total)
    if output is not None and not as_json:
        _print_written(tally.written, segmented.run_files, total - tally.failures, output)
    if tally.failures:
        _stop_after_failures(tally.failures, total)


@dataclass
class _Tally:
    """What a run comes to."""

    failures: int = 0
    written: list[Path] = field(default_factory=list)
    doubtful: list[Path] = field(default_factory=list)

    def counted(self, results: Iterable["SegmentedFile | None"]) -> Iterator["SegmentedFile"]:
        """The results, without failures, which are None."""
        for found in results:
            if found is None:
                self.failures += 1
                continue
            self.written += found.files
            if found.result.is_doubtful:
                self.doubtful.append(found.path)
            yield found


def _named(images: Sequence[str]) -> Iterator[str]:
    """What is asked for, with the names that standard input holds in the place of `-`."""
    for name in images:
        if name != "-":
            yield name
            continue
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("- reads names from standard input: pipe them in, as from find")
        content = sys.stdin.buffer.read()
        lines = content.split(b"\0" if b"\0" in content else b"\n")
        names = [os.fsdecode(line.rstrip(b"\r")) for line in lines if line.strip()]
        if not names:
            raise UsageError("standard input names no image")
        yield from names


def _warn_of_doubt(doubtful: Sequence[Path], images: int) -> None:
    if not doubtful:
        return
    shown = ", ".join(map(str, doubtful[:FEW]))
    more = f" and {len(doubtful) - FEW} more" if len(doubtful) > FEW else ""
    where = "" if images == 1 else f" in {len(doubtful)} of {images} images"
    print_warning(
        f"every score is near the threshold{where}, so what was found may not be there: "
        f"{shown}{more}"
    )


def _found(segmented: "SegmentedFiles", with_bar: bool) -> Iterator["SegmentedFile | None"]:
    """Results in order; a failure is printed and comes as None."""
    from ovseg.inference.inputs import Failure

    with progress("segmenting", len(segmented.paths), with_bar) as bar:
        for item in segmented:
            if isinstance(item, Failure):
                print_error(str(item.error))
                yield None
            else:
                yield item
            bar.advance()


def _stop_after_failures(failures: int, total: int) -> None:
    if total > 1:
        print_error(f"{failures} of {total} images failed")
    raise typer.Exit(1)


def _summary(found: "SegmentedFile", instances: bool) -> dict[str, Any]:
    return {
        "image": str(found.path),
        **found.result.summary(found.regions if instances else None),
        "files": [str(file) for file in found.files],
    }


def _print_written(
    files: list[Path], of_run: Sequence[Path], images: int, folder: Path | None
) -> None:
    """Name the files of a few images, or only count those of many."""
    if images > FEW:
        say(f"{folder}: {len(files)} files for {images} images")
    for file in [*(files if images <= FEW else ()), *of_run]:
        say(str(file))


def _print_table(found: "SegmentedFile", instances: bool) -> None:
    from collections import Counter

    from rich.table import Table

    heads = ["class", "share of pixels", "score", *(["regions"] if instances else [])]
    table = Table(*heads, title=str(found.path), title_justify="left")
    regions = Counter(region.label for region in found.regions)
    for each in found.result.shares:
        score = f"{each.score:.3f}" if each.label else ""
        counted = [str(regions[each.label]) if each.label else ""] if instances else []
        table.add_row(each.name, f"{each.share:.1%}", score, *counted)
    stdout().print(table)


def _draw(found: "SegmentedFile") -> None:
    """Draw an overlay with half blocks: each character cell shows two pixels."""
    import numpy as np
    from rich.color import Color
    from rich.segment import Segment, Segments
    from rich.style import Style

    console = stdout()
    if not console.encoding.startswith("utf"):
        raise UsageError(f"--show draws with characters that {console.encoding} lacks: use UTF-8")
    picture = found.result.overlay(regions=found.regions).convert("RGB")
    columns = min(console.width, picture.width)
    rows = max(round(columns * picture.height / picture.width) // 2, 1)
    pixels = np.asarray(picture.resize((columns, rows * 2))).tolist()
    for row in range(rows):
        cells = [
            Segment("▀", Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower)))
            for upper, lower in zip(pixels[2 * row], pixels[2 * row + 1], strict=True)
        ]
        console.print(Segments(cells))


def _print_words(model: str, wanted: Sequence[str], as_json: bool) -> None:
    """The words a model knows; as JSON a list, or null for an open vocabulary."""
    from ovseg.models.registry import load_model

    words = load_model(model, "cpu").known_words()
    if words is not None and wanted:
        parts = [part.casefold() for part in wanted]
        words = [word for word in words if any(part in word.casefold() for part in parts)]
        if not words:
            raise UsageError(f"{model} knows no word with {' or '.join(wanted)} in it")
    if as_json:
        say_json(words)
    elif words is None:
        stderr().print(f"{model} has an open vocabulary: any phrase may be asked for")
    else:
        for word in words:
            say(word)
