"""`ovseg eval classify` and `ovseg eval retrieve`: the papers' side tables."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from ovseg_cli.console import progress, stdout

if TYPE_CHECKING:
    from ovseg.evaluation.ranking import (
        CaptionedImages,
        Classification,
        HitShare,
        LabelledImages,
        Retrieval,
    )
    from ovseg.models.interface import SegmentationModel

Model = Annotated[str, typer.Option(help="A model's name or file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
R = TypeVar("R", "Classification", "Retrieval")


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
    from ovseg.evaluation import ranking

    data = ranking.read_image_folder(folder)
    _rank(ranking.classify, data, (model, device), _classification_rows, as_json)


def retrieve(
    folder: Annotated[Path, typer.Argument(help="COCO's folder, or one with captions.tsv.")],
    model: Model = "starter",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Retrieve captions by image and images by caption: recall at 1, 5 and 10.

    Example: ovseg eval retrieve coco --model FILE
    """
    from ovseg.evaluation import ranking

    data = ranking.read_captions(folder)
    _rank(ranking.retrieve, data, (model, device), _retrieval_rows, as_json)


def load(model: str, device: str) -> "SegmentationModel":
    """The model on the device asked for, or on the one meant for this process."""
    from ovseg.distributed import processes
    from ovseg.models.registry import load_model

    return load_model(model, (processes().device or device) if device == "auto" else device)


def _rank(
    measure: Callable[..., R],
    data: "LabelledImages | CaptionedImages",
    chosen: tuple[str, str],
    rows: Callable[[R], Iterator[str]],
    as_json: bool,
) -> None:
    """Load the chosen model and device, measure, and print what came out."""
    loaded = load(*chosen)
    with progress("images", len(data.paths)) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.update(bar.task_ids[0], completed=done, total=total)

        result = measure(loaded, data, on_progress=on_progress)
    if as_json:
        values: dict[str, Any] = asdict(result)
        print(json.dumps(values))
        return
    title, *lines = rows(result)
    stdout().print(f"{loaded.card.name}: {title}")
    for line in lines:
        stdout().print(f"  {line}")


def _classification_rows(result: "Classification") -> Iterator[str]:
    yield f"{result.images} images of {result.classes} classes"
    for name, share in (("top-1", result.top1), ("top-5", result.top5)):
        yield f"{name}  {_share(share)}"


def _retrieval_rows(result: "Retrieval") -> Iterator[str]:
    yield f"{result.images} images, {result.texts} captions"
    ways = (("image to text", result.image_to_text), ("text to image", result.text_to_image))
    for name, recall in ways:
        for k, share in recall.items():
            yield f"{name}, recall at {k}: {_share(share)}"


def _share(share: "HitShare") -> str:
    """A share in percent with its interval."""
    low, high = share.interval.low, share.interval.high
    return f"{100 * share.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
